"""Who is asked about next: one conductor for all generations that are waited for, instead of a rhythm for each."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from pipeline.engine.limits import Pace, Turn, pass_on
from pipeline.engine.polling import Durations, is_urgent, next_age_s
from pipeline.engine.settings import Polling
from pipeline.kernel.clock import Clock


@dataclass(slots=True)
class _Waiting:
    """A generation that is waited for: when it was accepted, and at which age it was asked about last."""

    accepted_s: float
    asked_s: float
    place: asyncio.Future[None] = field(repr=False)


class Polls:
    """Hands out the calls that ask how things stand, each to where it is expected to save most.

    A generation becomes worth a question at an age that follows from what is known of generation times. Of those that
    are, the one whose question saves most gets the next call; where calls are plentiful that is each in its turn.
    """

    def __init__(self, polling: Polling, pace: Pace, clock: Clock) -> None:
        self.durations = Durations(polling.expected_s)
        self._polling = polling
        self._pace = pace
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._later: list[tuple[float, int, _Waiting]] = []
        """Those that are not worth a question yet, by the moment from which on they are: a heap."""
        self._due: list[_Waiting] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._conductor: asyncio.Task[None] | None = None

    async def turn(self, job_id: str, age_s: float, asked_s: float) -> None:
        """Wait for the call that asks about a generation of this age, last asked about at the age of `asked_s`."""
        now_s = self._clock.monotonic_s()
        due_s = now_s - age_s + next_age_s(self.durations, self._polling, asked_s)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id] = waiting = _Waiting(now_s - age_s, asked_s, place)
        heapq.heappush(self._later, (due_s, next(self._order), waiting))
        self._changed.set()
        if self._conductor is None or self._conductor.done():
            self._conductor = asyncio.create_task(self._conduct())
            self._conductor.add_done_callback(self._ended)
        try:
            await place
        finally:
            del self._waiting[job_id]
            self._changed.set()

    def _ended(self, conductor: asyncio.Task[None]) -> None:
        pass_on(conductor, (each.place for each in self._waiting.values()))

    async def _conduct(self) -> None:
        while True:
            self._changed.clear()
            now_s = self._clock.monotonic_s()
            self._bring_due(now_s)
            if self._due:
                urgent = any(self._is_urgent(each, now_s) for each in self._due)
                await self._pace.turn(Turn.URGENT if urgent else Turn.POLL)
                if (best := self._best()) is not None:
                    best.place.set_result(None)
                    await asyncio.sleep(0)
            elif self._later:
                await self._until(self._later[0][0])
            else:
                return

    def _bring_due(self, now_s: float) -> None:
        """Move those whose time has come to those that are due, and forget who has left."""
        self._due = [each for each in self._due if not each.place.done()]
        while self._later and (self._later[0][0] <= now_s or self._later[0][2].place.done()):
            each = heapq.heappop(self._later)[2]
            if not each.place.done():
                self._due.append(each)

    async def _until(self, at_s: float) -> None:
        """Wait until a moment, or until somebody comes or leaves."""
        try:
            async with asyncio.timeout(max(0.0, at_s - self._clock.monotonic_s())):
                await self._changed.wait()
        except TimeoutError:
            return

    def _best(self) -> _Waiting | None:
        """Whose question saves most now, of those that are due; None if nobody is any more."""
        now_s = self._clock.monotonic_s()
        self._bring_due(now_s)
        outlook = self.durations.outlook

        def rank(each: _Waiting) -> tuple[bool, float]:
            return self._is_urgent(each, now_s), outlook.saving_s(each.asked_s, now_s - each.accepted_s)

        return max(self._due, key=rank, default=None)

    def _is_urgent(self, each: _Waiting, now_s: float) -> bool:
        return is_urgent(self._polling, now_s - each.accepted_s)
