"""How a request stands: one question about it, and what the answer means for its job.

A status call answers first, then the result; where the request's own record is gone, or contradicts itself, the
account's history answers. Nothing here is recorded: whoever asks decides what follows.
"""

from __future__ import annotations

from pipeline.engine.context import RunContext
from pipeline.engine.matching import ending_of
from pipeline.engine.pace import Turn
from pipeline.engine.polling import is_urgent
from pipeline.engine.stopping import LeavingError
from pipeline.kernel.errors import Reaction
from pipeline.ledger.job import JobRecord
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired, Finished, Refused, Working

SPURIOUS_404_S = 3300.0
"""The provider keeps a record for an hour: a 404 before this age is more likely a slip than an expiry."""

USUAL_TIMES = 2
"""A run that takes up an old request asks for at least this multiple of a usual generation before it leaves it."""

LONGEST_IN_HISTORY = 2
"""After this multiple of `give_up_s`, a run stops asking the history how a request ended: the next run asks again."""


async def ask_once(
    run: RunContext, record: JobRecord, age_s: float, waited_s: float, *, at_once: bool
) -> Finished | Refused | Expired | Working:
    """Ask once how a request stands, and go on to its result or to the history where the answer points there.

    Args:
        age_s: how long ago the provider accepted it.
        waited_s: for how long this run has asked about it.
        at_once: whether this is the first question about a request that was taken up from the ledger: it takes an
            urgent turn here. Otherwise the caller has waited for the turn already.

    Raises:
        LeavingError: the key is refused, or no end is known of a request that is too old: the next run asks again.
    """
    request_id = record.request_id
    assert request_id is not None
    reply = await run.ask(lambda: run.provider.poll(request_id), Turn.URGENT, has_turn=not at_once, is_sign=True)
    if isinstance(reply, Finished):
        # The generation is over: another may start while this one is collected.
        run.slots.release(record.job_id)
        run.breaker.note_end(record.attempt_name, failed=False)
        run.stopping.changed.set()
        turn = Turn.URGENT if at_once or is_urgent(run.settings.polling, age_s) else Turn.COLLECT
        reply = await run.ask(lambda: run.provider.result(request_id), turn)
        if isinstance(reply, Refused) and _is_about_the_job(reply):
            # The status call says COMPLETED and the result call says that it failed. They contradict each other, so the
            # history decides whether its money is freed.
            return await look_in_history(run, record, age_s, waited_s, expired=age_s > SPURIOUS_404_S)
    match reply:
        case Finished():
            return reply
        case Refused() if _is_about_the_job(reply):
            return reply
        case Refused(error_class) if error_class.reaction is Reaction.STOP_ACCOUNT:
            # The key is refused: what runs is left to the next run, once a person has put that right.
            raise LeavingError
        case Expired():
            return await look_in_history(run, record, age_s, waited_s, expired=age_s > SPURIOUS_404_S)
        case _ if age_s > run.settings.polling.give_up_s:
            return await look_in_history(run, record, age_s, waited_s, expired=False)
        case _:
            return Working()


def _is_about_the_job(refusal: Refused) -> bool:
    """Whether a refusal is about the generation, and not about the key or the rate."""
    return refusal.error_class.reaction not in (Reaction.PAUSE, Reaction.STOP_ACCOUNT)


async def look_in_history(
    run: RunContext, record: JobRecord, age_s: float, waited_s: float, *, expired: bool
) -> Finished | Refused | Expired | Working:
    """Learn a request's end from the account's history, which knows it at any age.

    Args:
        age_s: how long ago the provider accepted it.
        waited_s: for how long this run has asked about it: a history that fails for a moment is asked again.
        expired: whether the request's own record is surely gone: then the request counts as forgotten if the history
            does not show it either.

    Raises:
        LeavingError: the history refuses the key, or no end is known of a request that is far too old: the next run
            asks again, by the same id.
    """
    give_up_s = run.settings.polling.give_up_s
    match await run.ask_history(record.request_id):
        case HistoryRow() as row:
            # An age is the wall clock's, which may have been set: a run waits for as long as a generation may take.
            ending, has_waited = ending_of(row), waited_s > USUAL_TIMES * run.settings.polling.expected_s
        case Refused(error_class) if error_class.reaction is Reaction.STOP_ACCOUNT:
            raise LeavingError
        case Expired() if expired:
            return Expired()
        case _:
            ending, has_waited = Working(), waited_s > give_up_s
    if isinstance(ending, Finished):
        run.breaker.note_end(record.attempt_name, failed=False)
    if isinstance(ending, Working) and has_waited and age_s > LONGEST_IN_HISTORY * give_up_s:
        raise LeavingError
    return ending


def learn(run: RunContext, record: JobRecord, finished: Finished, before_s: float, asked_s: float) -> None:
    """Learn generation and queue times from one that still ran at age `before_s` and was done at age `asked_s`."""
    run.polls.durations.note(_duration_s(finished, before_s, asked_s))
    run.slots.note(record.job_id, asked_s, finished.queue_s, finished.inference_s)


def _duration_s(finished: Finished, before_s: float, asked_s: float) -> float:
    """How long a generation took: as the provider says, if that lies between the last two questions; else their middle.

    0, which teaches nothing, if the first question found it finished and the provider states no believable time.
    """
    said_s = (finished.queue_s or 0.0) + (finished.inference_s or 0.0)
    if before_s < said_s <= asked_s:
        return said_s
    return (before_s + asked_s) / 2 if before_s else 0.0
