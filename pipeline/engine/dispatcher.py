"""The dispatcher: decides what starts and when. Gate first, then spawn: no task exists for a job that may not start.

`Dispatcher.decide` looks at everything and returns what is to be done, without waiting; `run` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine import collecting, worker
from pipeline.engine.canary import Canary, lets, reason_to_stop
from pipeline.engine.context import RunContext
from pipeline.engine.doubt import Witness, settle
from pipeline.engine.expiry import file_expires_us
from pipeline.engine.pace import CALLS_OF_A_START, Turn
from pipeline.engine.queue import Queue
from pipeline.engine.retry import NOTHING_LEFT, Again, Outcome, PutBack
from pipeline.engine.stopping import LeavingError, StopReason
from pipeline.jobs import Job
from pipeline.kernel.errors import MachineError
from pipeline.kernel.logger import LOGGER
from pipeline.kernel.usd import dollars
from pipeline.ledger.job import JobRecord, JobState
from pipeline.provider.replies import Unavailable

log = logging.getLogger(LOGGER)

LONGEST_TURN_S = 30.0
"""After this long without a turn for the next start, everything is looked at again."""

FIRST_SWEEP_S = 5.0
LONGEST_SWEEP_S = 300.0
"""The history is first swept for what is in doubt after the first of these, then at intervals up to the second."""

FETCH_AGAIN_S = 600.0
"""What could not be downloaded is tried again after each of these, while a run goes on: the storage may be back."""

CANARY_ROUNDS = 4
"""After so many rounds of downloads a canary's video is given up, and the rest of the night with it."""

SAFE_SHARE, SAFE_MEANS = 0.5, 1.5
"""How many are in flight is limited, so that each generation can be collected in time.

That is within `SAFE_SHARE` of `give_up_s`, or within `SAFE_MEANS` times `expected_s` if that is longer.
"""

ON_THEIR_WAY = (JobState.RESERVED, JobState.SUBMITTED, JobState.IN_DOUBT, JobState.POSTED)
"""A job in one of these may yet bring a video."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this job now."""

    job: Job


@dataclass(frozen=True, slots=True)
class Ask:
    """A job could start, but the provider has fallen silent: ask it something that costs nothing first."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can start before something changes, or before `at_most_s` have passed."""

    at_most_s: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to start."""


@dataclass(slots=True)
class Dispatcher:
    """One run's dispatching: a queue, the workers that it has spawned, and the doubts that it has settled."""

    run: RunContext
    jobs: dict[str, Job]
    """By id, every job of the manifest that is to be made."""
    canary: Canary = field(default_factory=Canary)
    queue: Queue = field(init=False)
    _workers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The task that carries each job, and is named after it: at most one at any time."""
    witness: Witness = field(default_factory=Witness)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waits_until_s: float | None = None
    _fetched_again: set[str] = field(default_factory=set)
    """The jobs of the latest round of downloads that were tried again."""
    _has_fetched_last: bool = False

    def __post_init__(self) -> None:
        self.queue = Queue(self.run, self.canary.job_ids)

    async def dispatch(self) -> None:
        """Start what may start, as soon as it may, until nothing is left or something stops it; then see it out."""
        # Those with an attempt come to the queue by way of `take_up`, if at all.
        begun = self.run.ledger.state.jobs
        self.queue.add_all(job for job in self.jobs.values() if job.job_id not in begun)
        beside = [asyncio.create_task(self._settle_in_background()), asyncio.create_task(self._fetch_in_background())]
        try:
            while True:
                await self._start_all()
                await self.wait_for_workers()
                if self.run.stopping.is_urgent:
                    break
                if not await self._settle_at_the_end() and not await self._fetch_at_the_end():
                    break
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            await self.wait_for_workers()
        if len(self.queue) and not self.run.stopping.is_stopping:
            self._stop_for_what_is_left()

    async def _start_all(self) -> None:
        """Gate, then spawn. Returns when nothing more may start, though workers may still be busy."""
        run = self.run
        while True:
            run.stopping.changed.clear()
            run.pace.starts_left = len(self.queue) if self._lacks_calls() else 0
            match decision := self.decide():
                case End():
                    return
                case Wait(at_most_s):
                    await _wait_for(run.stopping.changed, at_most_s)
                case Start() | Ask():
                    try:
                        # All calls may be paused for long; a stop or a deadline must not wait for that.
                        async with asyncio.timeout(LONGEST_TURN_S):
                            if await run.stopping.unless_stopping(run.pace.turn(Turn.START)):
                                decision = self.decide()  # what may start may have changed meanwhile
                    except (LeavingError, TimeoutError):
                        continue
                    if isinstance(decision, Start):
                        self._start(decision.job)
                        # The worker reserves its money in its first step: let it, before deciding about the next.
                        await asyncio.sleep(0)
                    elif isinstance(decision, Ask):
                        await self._ask_for_a_sign()

    async def _ask_for_a_sign(self) -> None:
        """Ask the provider what costs nothing: about a request, as submissions go there too, or else about the account.

        Without an answer all calls wait, longer each time.
        """
        run = self.run
        known = next((each.request_id for each in run.ledger.state.in_state(JobState.SUBMITTED)), None)
        question = run.provider.credits if known is None else functools.partial(run.provider.poll, known)
        with contextlib.suppress(LeavingError):
            asking = run.ask(question, has_turn=True, is_sign=True)
            if isinstance(await run.stopping.unless_stopping(asking), Unavailable):
                run.outages.slow_down()

    def decide(self) -> Start | Ask | Wait | End:
        """What to do now. Looks at everything; changes nothing but, at a bound or without room, the reason to stop."""
        run = self.run
        if run.stopping.is_stopping:
            return End()
        if not len(self.queue):
            return Wait() if self._workers else End()
        if reason := self._bound_reached():
            run.stopping.stop(*reason)
            return End()
        if not run.slots.has_room:
            return Wait(run.slots.next_probe_s)
        if len(self._workers) >= 2 * run.settings.limits.max_in_flight or run.slots.in_flight >= self._brought_home():
            return Wait()
        job = self.queue.first(run.free)
        if job is not None and lets(self.canary, run.ledger.state.jobs, job):
            lack = run.room.lack(self._on_their_way() + 1)
            if lack is None:
                return Ask() if run.outages.is_silent else Start(job)
            if self._workers:
                # The videos on their way will take their room, and show how much one really needs.
                return Wait()
            run.stopping.stop(StopReason.MACHINE, lack)
            return End()
        # Nothing that is ready fits under the cap, or the canary is under way. A job that waits for its next try may
        # fit; one that runs may fail and free its money; so may one in doubt, when all else is done.
        due_s = self.queue.next_due_s()
        return Wait(due_s) if self._workers or due_s is not None or self._canaries_to_fetch() else End()

    def _bound_reached(self) -> tuple[StopReason, str] | None:
        """The user's bound that has been reached, if any."""
        run = self.run
        if trouble := run.breaker.trouble:
            return StopReason.FAILURE_RATE, f"{trouble}: see errors.csv before running again"
        in_hand = self._workers.keys() | self._canaries_to_fetch() | self._canaries_in_doubt()
        if trouble := reason_to_stop(self.canary, run.ledger.state.jobs, in_hand):
            return StopReason.CANARY, trouble
        time_s = run.time_to_start_s
        if time_s is not None and time_s < 0:
            return StopReason.DEADLINE, "a job started now would not be done by the deadline"
        return None

    def _canaries_to_fetch(self) -> set[str]:
        """The jobs of the canary whose download has failed and is tried again: a storage may be out for a while."""
        most = CANARY_ROUNDS * collecting.FETCH_TRIES
        known = self._canaries_under_way()
        return {each.job_id for each in known if self._is_unfetched(each) and each.fetch_failures < most}

    def _canaries_in_doubt(self) -> set[str]:
        """The jobs of the canary whose doubt may yet be settled: the run's end waits for the history."""
        return {each.job_id for each in self._canaries_under_way() if each.state is JobState.IN_DOUBT}

    def _canaries_under_way(self) -> Iterator[JobRecord]:
        return filter(None, map(self.run.ledger.state.jobs.unsettled_record, self.canary.job_ids))

    def _brought_home(self) -> int:
        """How many generations may be in flight so that all of them are collected in time."""
        polling = self.run.settings.polling
        if self.run.settings.api == "v1":
            return self.run.settings.limits.max_in_flight
        return self.run.pace.brings_home(max(SAFE_SHARE * polling.give_up_s, SAFE_MEANS * polling.expected_s))

    def _lacks_calls(self) -> bool:
        """Whether places in flight become free faster than there are calls to fill them."""
        freed_a_minute = self.run.settings.limits.max_in_flight / self.run.polls.durations.mean_s * 60
        return freed_a_minute * CALLS_OF_A_START > self.run.pace.per_minute

    def _on_their_way(self) -> int:
        """How many videos may still come from what was sent or is about to be sent."""
        counts = self.run.ledger.state.counts
        return sum(counts[state] for state in ON_THEIR_WAY)

    def _stop_for_what_is_left(self) -> None:
        """Say why jobs are left where nothing has stopped the run: a canary stays in doubt, or the cap is reached."""
        if trouble := reason_to_stop(self.canary, self.run.ledger.state.jobs, self._workers):
            self.run.stopping.stop(StopReason.CANARY, trouble)
        else:
            self._stop_at_the_cap()

    def _stop_at_the_cap(self) -> None:
        books, cap = self.run.ledger.state.books, self.run.settings.bounds.cap
        doubt = f", {dollars(books.in_doubt)} in doubt" if books.in_doubt else ""
        left = f"the cap of {dollars(cap)} leaves {dollars(books.free(cap))}{doubt}"
        quote, price, key = min((books.quote(*price), *price) for price in self.queue.prices())
        why = ", too little for the next job"
        if quote > price:
            what = f"{key} s was" if quote == books.charged_above.get(key) else "one was"
            why = f"; the next job needs {dollars(quote)} ({what} charged {dollars(quote)} here; its list price is "
            why += f"{dollars(price)})"
        self.run.stopping.stop(StopReason.CAP, left + why)

    def _start(self, job: Job) -> None:
        # Counted at once, not when the worker first runs: the next decision must see the slot taken.
        self.queue.take(job)
        self.run.slots.take(job.job_id)
        self._spawn(job.job_id, worker.make(self.run, job))

    def take_up(self, record: JobRecord) -> None:
        """Go on with a job that the ledger shows on its way."""
        match record.state:
            case JobState.SUBMITTED:
                self.run.slots.take(record.job_id)
                self._spawn(record.job_id, worker.make(self.run, record))
            case JobState.POSTED:
                self._spawn(record.job_id, collecting.collect(self.run, record))
            case JobState.VOIDED:
                self._spawn(record.job_id, worker.try_again_or_give_up(self.run, record))
            case _:
                pass

    def _spawn(self, job_id: str, work: Coroutine[Any, Any, Outcome]) -> None:
        assert job_id not in self._workers, "two workers must never carry one job"
        self._workers[job_id] = asyncio.create_task(self._carry(job_id, work), name=job_id)

    async def _carry(self, job_id: str, work: Coroutine[Any, Any, Outcome]) -> None:
        """Run one worker; whatever it raises becomes a reason to stop, and never touches another worker."""
        outcome: Outcome = NOTHING_LEFT
        try:
            outcome = await work
        except LeavingError:
            log.info("left to the next run", extra={"job_id": job_id})
        except MachineError as error:
            self.run.stopping.stop(StopReason.MACHINE, str(error))
        except Exception as error:
            self.stop_at_defect(error, f"job {job_id}")
        finally:
            # In the step in which it ends, not in a callback after it: the job may be taken up again in between.
            del self._workers[job_id]
            self.run.slots.forget(job_id)
            if isinstance(outcome, PutBack):
                self.queue.put_back(self.jobs[job_id])
            elif isinstance(outcome, Again) and job_id in self.jobs:
                self.queue.add(self.jobs[job_id], outcome.delay_s)
            self.run.stopping.changed.set()

    def stop_at_defect(self, error: Exception, where: str) -> None:
        """Start nothing more, for what nobody foresaw; the run ends in order, with its report and its last word."""
        log.exception("defect at %s", where)
        self.run.stopping.stop(
            StopReason.MACHINE,
            f"a defect in kling-batch ({type(error).__name__} at {where}): nothing is lost, see run.log",
        )

    async def wait_for_workers(self) -> None:
        """Wait until no job is being carried any more."""
        while self._workers:
            await asyncio.wait(list(self._workers.values()))

    async def _settle_in_background(self) -> None:
        """While there is other work, settle what is in doubt: it blocks its own job only."""
        wait_s = FIRST_SWEEP_S
        try:
            while True:
                await self.run.pause(wait_s)
                if self.run.ledger.state.counts[JobState.IN_DOUBT]:
                    await self.settle_once()
                    wait_s = min(wait_s * 2, LONGEST_SWEEP_S)
                else:
                    wait_s = FIRST_SWEEP_S
        except (LeavingError, MachineError):
            return
        except Exception as error:
            self.stop_at_defect(error, "settling what is in doubt")

    async def _fetch_in_background(self) -> None:
        """While there is other work, download again what could not be downloaded."""
        try:
            while True:
                await self.run.pause(FETCH_AGAIN_S)
                if not self.run.stopping.is_urgent:
                    # No more than that: all of them at once would keep new jobs from starting.
                    self._fetch_again(self.run.settings.limits.max_in_flight)
        except LeavingError:
            return
        except Exception as error:
            self.stop_at_defect(error, "downloading again")

    async def _fetch_at_the_end(self) -> bool:
        """When nothing else is left, try the downloads that failed once more, after a pause; True if there are any."""
        if self._has_fetched_last or not self._unfetched():
            return False
        self._has_fetched_last = True
        until_s = self.run.clock.monotonic_s() + self.run.settings.retry.max_delay_s
        while (left_s := until_s - self.run.clock.monotonic_s()) > 0:
            if self.run.stopping.is_urgent:
                return False
            self.run.stopping.changed.clear()
            await _wait_for(self.run.stopping.changed, left_s)
        self._fetch_again()
        return True

    def _fetch_again(self, at_most: int | None = None) -> None:
        """Begin a round, unless the last one is under way: overlapping ones would hold up the run's end for days."""
        if not self._fetched_again.isdisjoint(self._workers):
            return
        unfetched = sorted(self._unfetched(), key=lambda record: record.fetch_failures)[:at_most]
        self._fetched_again = {record.job_id for record in unfetched}
        for record in unfetched:
            self.take_up(record)

    def _unfetched(self) -> list[JobRecord]:
        """What is paid, not on disk and in nobody's hands, as long as the provider keeps its file."""
        return list(filter(self._is_unfetched, self.run.ledger.state.in_state(JobState.POSTED)))

    def _is_unfetched(self, record: JobRecord) -> bool:
        is_kept = file_expires_us(record) > self.run.provider_now_us()
        return record.state is JobState.POSTED and record.job_id not in self._workers and is_kept

    async def settle_once(self) -> bool:
        """Sweep the history once and go on with what it settled; True if it settled anything."""
        async with self._settling:
            settled = await settle(self.run, self.witness)
            for record in settled:
                # While the sweep went on, the video of one that it settled may have been taken up to be fetched.
                if record.job_id not in self._workers:
                    self.take_up(record)
        return bool(settled)

    async def _settle_at_the_end(self) -> bool:
        """When nothing but doubt is left, wait for the history, but not for ever; True if there is work again."""
        patience_s = self.run.settings.doubt.wait_s
        if self._waits_until_s is None:
            # One patience for the whole run: a doubt that is settled and comes back must not renew it.
            self._waits_until_s = self.run.clock.monotonic_s() + patience_s
        wait_s = min(1.0, patience_s / 10)
        try:
            while self.run.ledger.state.counts[JobState.IN_DOUBT] and not self.run.stopping.is_urgent:
                if await self.settle_once():
                    return True
                if self._workers or self.run.clock.monotonic_s() + wait_s > self._waits_until_s:
                    break
                self.run.stopping.changed.clear()
                await _wait_for(self.run.stopping.changed, wait_s)
                wait_s = min(wait_s * 1.5, 30.0)
        except LeavingError:
            return False
        # The background task may just have settled the last doubt: then its job runs on, or waits for its next try.
        async with self._settling:
            return bool(self._workers) or not isinstance(self.decide(), End)


async def _wait_for(event: asyncio.Event, at_most_s: float | None) -> None:
    try:
        async with asyncio.timeout(at_most_s):
            await event.wait()
    except TimeoutError:
        return
