"""Who is asked about next: one conductor for all generations that are waited for, instead of a rhythm for each."""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import NamedTuple

from pipeline.engine.pace import Pace, Turn, pass_on
from pipeline.engine.polling import Durations, is_urgent, next_age_s
from pipeline.engine.settings import Polling
from pipeline.engine.stopping import Stopping
from pipeline.kernel.clock import Clock

RANKED_AT_ONCE = 8
"""To rank all due generations for every call is expensive, so one ranking picks the best eighth for the next calls."""


class _Waiting(NamedTuple):
    """A generation that is waited for: when it was accepted, and at which age it was asked about last.

    It is worth a question from `due_s` on, and sorts by that.
    """

    due_s: float
    job_id: str
    accepted_s: float
    asked_s: float
    place: asyncio.Future[None]


class Polls:
    """Hands out the calls that ask how things stand, each to where it is expected to save most.

    A generation becomes worth a question at an age that follows from what is known of generation times. Of those that
    are, the one whose question saves most gets the next call; where calls are plentiful that is each in its turn.
    """

    def __init__(self, polling: Polling, pace: Pace, clock: Clock, stopping: Stopping) -> None:
        self.durations = Durations(polling.expected_s)
        self._polling = polling
        self._pace = pace
        self._clock = clock
        self._stopping = stopping
        self._later: list[_Waiting] = []
        """Those that are not worth a question yet: a heap."""
        self._due: dict[str, _Waiting] = {}
        self._next: list[_Waiting] = []
        """Those of them that were chosen for the next calls; the first to be asked about stands last."""
        self._oldest_s = math.inf
        """None of those that are due was accepted before this."""
        self._changed = asyncio.Event()
        self._conductor: asyncio.Task[None] | None = None

    def turn(self, job_id: str, accepted_s: float, asked_s: float) -> asyncio.Future[None]:
        """A future that is done once a generation may be asked about; it was last asked about at age `asked_s`.

        Thousands wait for theirs at once, so this is no coroutine: nothing is kept but the place. Whoever awaits it
        gets a `LeavingError` once the run is being left.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due_s = accepted_s + next_age_s(self.durations, self._polling, asked_s)
        waiting = _Waiting(due_s, job_id, accepted_s, asked_s, place)
        heapq.heappush(self._later, waiting)
        if self._later[0] is waiting:
            self._changed.set()
        if self._conductor is None or self._conductor.done():
            self._conductor = asyncio.create_task(self._stopping.unless_leaving(self._conduct()))
            self._conductor.add_done_callback(self._ended)
        return place

    def _ended(self, conductor: asyncio.Task[None]) -> None:
        pass_on(conductor, (each.place for each in (*self._later, *self._due.values())))

    async def _conduct(self) -> None:
        while True:
            self._changed.clear()
            now_s = self._clock.monotonic_s()
            self._bring_due(now_s)
            if self._due:
                await self._pace.turn(Turn.URGENT if self._has_urgent(now_s) else Turn.POLL)
                if (best := self._best()) is not None:
                    del self._due[best.job_id]
                    best.place.set_result(None)
            elif self._later:
                await self._until(self._later[0].due_s)
            else:
                return

    def _bring_due(self, now_s: float) -> None:
        """Move those whose time has come to those that are due, and drop those that nobody waits for any more."""
        while self._later and (self._later[0].due_s <= now_s or self._later[0].place.done()):
            each = heapq.heappop(self._later)
            if not each.place.done():
                self._due[each.job_id] = each
                self._oldest_s = min(self._oldest_s, each.accepted_s)

    async def _until(self, at_s: float) -> None:
        """Wait until a moment, or until a generation is added that will be worth a question before all others."""
        try:
            async with asyncio.timeout(max(0.0, at_s - self._clock.monotonic_s())):
                await self._changed.wait()
        except TimeoutError:
            return

    def _best(self) -> _Waiting | None:
        """Of those that are due, the one whose question saves most now; None if none is left."""
        now_s = self._clock.monotonic_s()
        if not self._has_urgent(now_s):
            while self._next:
                if self._due.get((best := self._next.pop()).job_id) is best and not best.place.done():
                    return best
        self._bring_due(now_s)
        self._due = {job_id: each for job_id, each in self._due.items() if not each.place.done()}
        waiting = list(self._due.values())
        if len(waiting) == 1:
            return waiting[0]
        outlook = self.durations.outlook

        def rank(each: _Waiting) -> tuple[bool, float]:
            return self._is_urgent(each, now_s), outlook.saving_s(each.asked_s, now_s - each.accepted_s)

        self._next = heapq.nlargest(max(1, len(waiting) // RANKED_AT_ONCE), waiting, key=rank)[::-1]
        return self._next.pop() if waiting else None

    def _has_urgent(self, now_s: float) -> bool:
        if is_urgent(self._polling, now_s - self._oldest_s):
            self._oldest_s = min((each.accepted_s for each in self._due.values()), default=math.inf)
        return is_urgent(self._polling, now_s - self._oldest_s)

    def _is_urgent(self, each: _Waiting, now_s: float) -> bool:
        return is_urgent(self._polling, now_s - each.accepted_s)
