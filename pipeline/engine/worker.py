"""The worker: carries one job from its quote to a verified file. One attempt, each step durable before the next.

The process may die on any line. What the next run then finds is the latest event, so each function below says what
that means; no exception, time-out or signal ever ends a reservation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pipeline.engine import retry
from pipeline.engine.asking import ask_once, learn
from pipeline.engine.charges import charge_to_book, needs_confirmation
from pipeline.engine.collecting import collect, keep
from pipeline.engine.context import RunContext
from pipeline.engine.images import bring_up
from pipeline.engine.retry import NOTHING_LEFT, GiveUp, Outcome, PutBack
from pipeline.engine.stopping import LeavingError
from pipeline.engine.troubles import facts_of
from pipeline.jobs import Job
from pipeline.kernel.errors import ERROR_CLASSES, ErrorClass, Reaction
from pipeline.kernel.usd import MicroUsd, dollars
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.job import JobRecord
from pipeline.provider.client import Delivered
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Accepted, Expired, Finished, Refused, Uncertain, Working

LEAVING_GRACE_S = 2.0
"""How long a submission that is under way may still take when the run is being left."""

TAKEN_S = 15.0
"""A blocking call that was open for so long has been accepted, as far as can be known before its video is there."""

CHARGE_TRIES = 3
"""How often a history that does not answer is asked what a generation was charged."""


FORGOTTEN = Uncertain(
    ErrorClass.RECORD_EXPIRED, "the request's record has expired and the history does not show it yet", 404
)


class CapPassedError(Exception):
    """The dispatcher let a job through that does not fit under the cap: a defect, caught before any money moved."""


async def make(run: RunContext, job: Job | JobRecord) -> Outcome:
    """Make one attempt at a job: reserve, submit, poll, collect. From its record: go on with one that was accepted."""
    record = await send(run, job) if isinstance(job, Job) else job
    if not isinstance(record, JobRecord):
        return record
    # One function rather than several, because thousands of jobs are suspended in it at once and each frame costs
    # memory. The ages below come from the monotonic clock.
    latest_s = run.clock.monotonic_s()
    accepted_s, asked_s, at_once = latest_s - run.age_s(record), 0.0, record is job
    waited_s = 0.0
    while True:
        # If the process dies here, the next run goes on asking, by the recorded id.
        if not at_once:
            await run.polls.turn(record.job_id, accepted_s, asked_s)
        now_s = run.clock.monotonic_s()
        # No gap counts more than a usual generation: the rest of a longer one is a suspend, in which nothing was asked.
        waited_s, latest_s = waited_s + min(now_s - latest_s, run.settings.polling.expected_s), now_s
        match await ask_once(run, record, now_s - accepted_s, waited_s, at_once=at_once):
            case Working():
                asked_s, at_once = run.clock.monotonic_s() - accepted_s, False
            case Refused() as failure:
                return await void(run, record, failure)
            case Expired():
                return await doubt(run, record, FORGOTTEN)
            case Finished() as finished:
                learn(run, record, finished, asked_s, run.clock.monotonic_s() - accepted_s)
                await post(run, record, finished)
                return await collect(run, record)


async def send(run: RunContext, job: Job) -> JobRecord | Outcome:
    """Reserve and submit; returns the record of what was accepted. A start image that is not uploaded comes first."""
    sent = run.as_sent(job)
    if sent is None:
        return await upload_image(run, job)
    if run.quote(sent) > run.free:
        return PutBack()  # since the dispatcher let it through, a charge above its quote was booked
    run.outages.note_sent()  # in the first step of the worker: the dispatcher's next decision must know
    record = await reserve(run, sent)
    if run.stopping.is_leaving or run.ledger.is_short:
        return await void(run, record, Refused(ErrorClass.NOT_SENT, "the run was stopped before it was sent"))
    began_s = run.clock.monotonic_s()
    reply = await submit(run, sent)
    was_taken = run.settings.api == "v1" and run.clock.monotonic_s() - began_s >= TAKEN_S
    if isinstance(reply, Accepted | Delivered):
        run.outages.note_start()
        if not was_taken:
            run.breaker.note_start(record.attempt_name, failed=False)
    match reply:
        case Refused() as refusal:
            # What was taken is no submission any more: its refusal is of a generation that has failed.
            return await void(run, record, refusal, starting=not was_taken)
        case Uncertain() as silence:
            return await doubt(run, record, silence)
        case Delivered() as delivered:
            return await take_delivery(run, record, delivered)
        case Accepted(request_id):
            await run.record(record.event(EventKind.SUBMITTED, request_id=request_id))
            return record


async def upload_image(run: RunContext, job: Job) -> Outcome:
    """Have a job's start image uploaded, and put the job back. If the process dies here, the upload is made again."""
    assert job.image is not None
    run.promised[job.job_id] = run.quote(job)
    try:
        refusal = await bring_up(run, job.image)
    finally:
        del run.promised[job.job_id]
    if refusal is None:
        return PutBack()
    if refusal.error_class.reaction not in (Reaction.RETRY_COUNTED, Reaction.FAIL_ROW):
        run.outages.heed(refusal)
        return PutBack()
    if run.quote(job) > run.free:
        return PutBack()  # an attempt that would not have fitted under the cap is not recorded
    # In one commit: a reservation found alone would be looked for in the history, and no request was ever sent.
    intent = _intent(run, job)
    await run.record(*intent, intent[-1]._replace(event=EventKind.VOIDED, **facts_of(refusal)))
    return await _go_on_after_void(run, run.ledger.state.jobs[job.job_id], refusal, starting=True)


async def reserve(run: RunContext, job: Job) -> JobRecord:
    """Write down the intent and set its money aside. If the process dies after this, the history settles the doubt."""
    await run.record(*_intent(run, job))
    return run.ledger.state.jobs[job.job_id]


def _intent(run: RunContext, job: Job) -> list[Event]:
    """The events that set a job's quote aside, with its body as it will be sent; the last is the reservation itself."""
    state = run.ledger.state
    quote = run.quote(job)
    if state.books.committed + quote > run.settings.bounds.cap:
        raise CapPassedError(f"{dollars(quote)} for {job.job_id} does not fit under the cap")
    known = state.jobs.get(job.job_id)
    # A lost attempt is looked for by the time at which it began, so how the clocks differ now is part of the intent.
    clocks = [run.account_event()] if run.clocks_drifted else []
    reserved = Event(
        event=EventKind.RESERVED,
        job_id=job.job_id,
        attempt=known.attempt + 1 if known else 1,
        quote_microusd=quote,
        model=job.model,
        request=job.body.decode(),
        path=f"videos/{job.stem}.mp4",
    )
    return [*clocks, reserved]


async def submit(run: RunContext, job: Job) -> Accepted | Delivered | Refused | Uncertain:
    """Send it, once. If the run is left before the answer, that is silence like any other."""
    if run.settings.api == "v1":
        return await _submit_blocking(run, job)
    return await _answer(run, run.provider.submit(job))


async def _submit_blocking(run: RunContext, job: Job) -> Accepted | Delivered | Refused | Uncertain:
    attempt = run.ledger.state.jobs[job.job_id].attempt_name
    taken = asyncio.get_running_loop().call_later(TAKEN_S, lambda: run.breaker.note_start(attempt, failed=False))
    try:
        return await _answer(run, run.provider.submit_blocking(job))
    finally:
        taken.cancel()


async def _answer(
    run: RunContext, call: Coroutine[Any, Any, Accepted | Delivered | Refused | Uncertain]
) -> Accepted | Delivered | Refused | Uncertain:
    try:
        reply = await run.stopping.unless_leaving(call, LEAVING_GRACE_S)
    except LeavingError:
        return Uncertain(ErrorClass.INTERRUPTED, "the run was left before an answer came")
    if isinstance(reply, Accepted | Delivered) and reply.request_id in run.ledger.state.request_ids:
        if isinstance(reply, Delivered):
            reply.close()
        return Uncertain(ErrorClass.UNREADABLE, f"the answer names request {reply.request_id}, which is another job's")
    return reply


async def void(run: RunContext, record: JobRecord, refusal: Refused, *, starting: bool = False) -> Outcome:
    """Certainly not charged: free the money, then try again or give up. If it dies in between, the next run decides."""
    await run.record(record.event(EventKind.VOIDED, **facts_of(refusal)))
    return await _go_on_after_void(run, record, refusal, starting=starting)


async def _go_on_after_void(run: RunContext, record: JobRecord, refusal: Refused, *, starting: bool = False) -> Outcome:
    run.slots.release(record.job_id)
    run.outages.heed(refusal, starting=starting)
    if refusal.error_class.reaction in (Reaction.RETRY_COUNTED, Reaction.FAIL_ROW):
        note = run.breaker.note_start if starting else run.breaker.note_end
        note(record.attempt_name, failed=True)
    return await try_again_or_give_up(run, record)


async def try_again_or_give_up(run: RunContext, record: JobRecord) -> Outcome:
    """Decide about a job whose latest attempt was voided."""
    error_class = error_class_of(record)
    decision = retry.decide(run.settings.retry, error_class, record.counted_failures, record.attempt, run.rng)
    if isinstance(decision, GiveUp):
        await run.record(
            record.event(
                EventKind.FAILED,
                error_class=error_class.label,
                http_status=record.http_status,
                detail=record.error,
            )
        )
        return NOTHING_LEFT
    return decision


def error_class_of(record: JobRecord) -> ErrorClass:
    """The class of the latest trouble. If there is none, as after a granted retry, one that is simply tried again."""
    return ERROR_CLASSES.get(record.error_class or "", ErrorClass.NEVER_ACCEPTED)


async def doubt(run: RunContext, record: JobRecord, silence: Uncertain) -> Outcome:
    """Perhaps charged: the money stays reserved until the history or a person settles it."""
    was_accepted = silence is FORGOTTEN  # it says nothing of other submissions, then
    if was_accepted:
        run.breaker.note_end(record.attempt_name, failed=True)
    else:
        run.breaker.note_lost(record.attempt_name, run.clock.monotonic_s())
    await run.record(record.event(EventKind.IN_DOUBT, **facts_of(silence)))
    run.slots.release(record.job_id)
    if was_accepted:
        run.outages.slow_down()
    else:
        run.outages.note_lost()
    return NOTHING_LEFT


async def take_delivery(run: RunContext, record: JobRecord, delivered: Delivered) -> Outcome:
    """A blocking call's answer: charged, with the video in its body or behind a URL."""
    run.breaker.note_end(record.attempt_name, failed=False)
    try:
        await run.record(record.event(EventKind.SUBMITTED, request_id=delivered.request_id))
        await post(run, record, delivered.finished)
        if delivered.has_body and await keep(run, record, delivered):
            return NOTHING_LEFT
    finally:
        delivered.close()
    return await collect(run, record)


async def post(run: RunContext, record: JobRecord, finished: Finished) -> None:
    """Book what it cost. If the process dies after this, it is paid and not on disk: the next run fetches it first."""
    cost, note = await _believed_cost(run, record, finished)
    await run.record(
        record.event(
            EventKind.POSTED,
            cost_microusd=cost,
            url=finished.url,
            queue_s=finished.queue_s,
            inference_s=finished.inference_s,
            detail=note,
        )
    )
    run.slots.release(record.job_id)
    run.stopping.changed.set()


async def _believed_cost(run: RunContext, record: JobRecord, finished: Finished) -> tuple[MicroUsd, str | None]:
    """What to book, and a note if the result states otherwise; the history is asked where that is not the quote."""
    row = None
    if needs_confirmation(finished.cost, record.quote_microusd):
        for tries in range(CHARGE_TRIES):
            await run.pause(run.settings.retry.base_delay_s * tries)
            row = await run.ask_history(record.request_id)
            if isinstance(row, HistoryRow | Expired):
                break
    known = row if isinstance(row, HistoryRow) else None
    return charge_to_book(finished.cost, record.quote_microusd, known)
