"""The pace of all calls with the key: whose turn is next, and how many a minute the provider was found to take."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import deque
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from aiolimiter import AsyncLimiter

from pipeline.engine.settings import Limits
from pipeline.kernel.clock import Clock

WINDOW_S = 60.0
"""The provider counts calls in windows of this length."""

JITTER_S = 0.5
"""How much closer two calls may arrive at the provider than they left here, over a whole window."""

BELOW_SEEN = 0.985
"""After a 429 the pace goes on at this share of what the provider took in the minute before it."""

WITHIN_PROVEN = 0.97
"""A 429 at fewer calls than this share of what the provider was lately seen to take is not about the pace."""

PROVEN_FOR_S = 900.0
"""For how long it counts how many calls the provider was seen to take, or to refuse."""

MOST_IGNORED = 3
"""After this many 429s in a row that were ignored as unrelated to the pace, the next one counts all the same."""

CLIMB_PER_S = 0.0015 / 60
"""How fast the pace climbs back after a finding: by this share of itself each second."""

DOUBLES_IN_S = 60.0
"""How fast the pace climbs back after a mere suspicion."""


class Turn(IntEnum):
    """What a call is for. Waiting calls take turns by this, so that no kind starves another; urgent ones go first."""

    URGENT = 0
    START = 1
    COLLECT = 2
    POLL = 3


TURNS = (Turn.START, Turn.START, Turn.COLLECT, Turn.START, Turn.START, Turn.POLL)
"""The order in which the kinds take turns. Where calls are scarce, early starts leave fewer unused at a run's end."""


LAST_STARTS_S = 600.0
"""When the remaining starts take at most this long, they go before results; no result waits longer than this."""

CALLS_OF_A_START = 2
"""The calls that one start costs: the question that frees a place in flight, and the submission that takes it."""

CALLS_OF_A_JOB = 3
"""The fewest calls that a job takes: its start, one question, its result."""


class _Place(NamedTuple):
    """Somebody who waits for a turn, and since when."""

    since_s: float
    future: asyncio.Future[None]


def pass_on(ended: asyncio.Task[None], places: Iterable[asyncio.Future[None]]) -> None:
    """Pass a defect or a cancel of a task on to all who wait for it, so that nobody waits for ever."""
    error = None if ended.cancelled() else ended.exception()
    for place in list(places):
        if ended.cancelled():
            place.cancel()
        elif error is not None and not place.done():
            place.set_exception(error)


class Pace:
    """The one gate for every call with the key: smooth, without a burst, and closed for all after a 429.

    Starting a job, collecting what is finished, and asking how things stand take turns; a kind that nobody waits for is
    passed over. So a submission hardly waits for polls, which can wait, and paid work is collected however many jobs
    are left.

    What is started last ends last, and by then calls are plentiful. So when few jobs are left to start, results wait
    (at most `LAST_STARTS_S`) and the starts go first.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.interval_s = (WINDOW_S + JITTER_S) / limits.requests_per_minute
        self._is_adaptive = limits.adaptive
        self._counts_polls = limits.count_polls
        # A burst of one: `AsyncLimiter(n, 60)` would let almost 2n calls through in one window.
        self._limiter = AsyncLimiter(1, self.interval_s)
        self._clock = clock
        self._opens_s = 0.0
        self.starts_left = 0
        """How many jobs wait to be started, if calls are what they wait for; else 0."""
        self._waiting: dict[Turn, deque[_Place]] = {turn: deque() for turn in Turn}
        self._next = 0
        self._keeper: asyncio.Task[None] | None = None
        self._passed: deque[float] = deque()
        """When the calls of the last window were let through."""
        self._found = FoundPace(limits.requests_per_minute)

    async def turn(self, kind: Turn = Turn.COLLECT) -> bool:
        """Take the next free place in the pace; returns whether it had to be waited for."""
        if kind is not Turn.START and not self._counts_polls:
            is_open = self.is_open
            await self._until_open()
            return not is_open
        if self._keeper is None or self._keeper.done():
            if self._is_free():
                await self._limiter.acquire()
                self._note_passed()
                return False
            self._keeper = asyncio.create_task(self._let_through())
            self._keeper.add_done_callback(self._ended)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(_Place(self._clock.monotonic_s(), place))
        await place
        return True

    def _is_free(self) -> bool:
        """Whether a call could leave at once."""
        return self.is_open and self._limiter.has_capacity() and self._lowered_wait_s() <= 0

    def _ended(self, keeper: asyncio.Task[None]) -> None:
        pass_on(keeper, (each.future for each in itertools.chain.from_iterable(self._waiting.values())))

    async def _let_through(self) -> None:
        """Let one through after another, as long as somebody waits."""
        while self._is_wanted():
            await self._until_open()
            await self._limiter.acquire()
            await self._clock.sleep(self._lowered_wait_s())
            if self.is_open and (place := self._take_next()) is not None:
                self._note_passed()
                place.set_result(None)

    async def _until_open(self) -> None:
        while (closed_s := self._opens_s - self._clock.monotonic_s()) > 0:
            await self._clock.sleep(closed_s)

    def _is_wanted(self) -> bool:
        for queue in self._waiting.values():
            while queue and queue[0].future.done():
                queue.popleft()  # it was cancelled while it waited
        return any(self._waiting.values())

    def _take_next(self) -> asyncio.Future[None] | None:
        """Whose turn it is; None if nobody waits any more."""
        if not self._is_wanted():
            return None
        if self._waiting[Turn.URGENT]:
            return self._waiting[Turn.URGENT].popleft().future
        while not self._waiting[TURNS[self._next]] or self._can_wait(TURNS[self._next]):
            self._next = (self._next + 1) % len(TURNS)
        kind, self._next = TURNS[self._next], (self._next + 1) % len(TURNS)
        return self._waiting[kind].popleft().future

    def _can_wait(self, kind: Turn) -> bool:
        """Whether these are results, which let the last starts go first, and the questions that make room for those."""
        if kind is not Turn.COLLECT or not (self._waiting[Turn.START] or self._waiting[Turn.POLL]):
            return False
        are_last = 0 < self.starts_left * CALLS_OF_A_START <= self.per_minute * LAST_STARTS_S / 60
        return are_last and self._clock.monotonic_s() - self._waiting[kind][0].since_s < LAST_STARTS_S

    @property
    def is_open(self) -> bool:
        """Whether no pause is in force."""
        return self._clock.monotonic_s() >= self._opens_s

    def pause(self, seconds: float) -> None:
        """Let no call through for `seconds`."""
        self._opens_s = max(self._opens_s, self._clock.monotonic_s() + seconds)

    @property
    def per_minute(self) -> float:
        """Calls a minute that are let through now: as configured or, after a 429, fewer."""
        return self._found.per_minute(self._clock.monotonic_s())

    def brings_home(self, within_s: float) -> int:
        """How many generations may be in flight so that none of them is older than `within_s` when it is collected.

        More would not be made any sooner: where calls are scarce, they would only grow old.
        """
        if not self._counts_polls:
            return sys.maxsize
        return max(1, int(self.per_minute / 60 * within_s / CALLS_OF_A_JOB))

    def slow(self) -> None:
        """Go on more slowly: the provider took fewer calls than it was sent."""
        if self._is_adaptive:
            now_s = self._clock.monotonic_s()
            is_full = bool(self._passed) and self._passed[0] <= now_s - WINDOW_S + 5 * JITTER_S
            self._found.refused(now_s, self._passed_lately() - 1, is_full_minute=is_full)

    def restore(self) -> None:
        """Go back to the configured pace: the last refusal had another reason."""
        self._found.forget()

    def _lowered_wait_s(self) -> float:
        """How long the next call still waits at the lowered pace; 0 at the configured one."""
        if not self._found.is_lowered or not self._passed:
            return 0.0
        return max(0.0, self._passed[-1] + (WINDOW_S + JITTER_S) / self.per_minute - self._clock.monotonic_s())

    def _note_passed(self) -> None:
        now_s = self._clock.monotonic_s()
        self._passed.append(now_s)
        self._found.taken(now_s, self._passed_lately())

    def _passed_lately(self) -> int:
        since = self._clock.monotonic_s() - WINDOW_S
        while self._passed and self._passed[0] <= since:
            self._passed.popleft()
        return len(self._passed)


class FoundPace:
    """What 429s have taught of a limit that is unknown, or is not the configured one. Times in seconds.

    The first refusal is only a suspicion: the pace is halved, and doubles again. A refusal after a full minute of
    calls, or at about as many as the one before it, is a finding: the pace goes on just below what was taken, and
    climbs slowly. A refusal at fewer calls than were lately taken is not about the pace.
    """

    def __init__(self, configured: float) -> None:
        self._configured = configured
        self._lowered: float | None = None
        self._since_s = 0.0
        self._is_certain = False
        self._refused_at: int | None = None
        self._proven, self._proven_s = 0, -PROVEN_FOR_S
        self._ignored = 0

    @property
    def is_lowered(self) -> bool:
        """Whether a refusal has lowered the pace, and it has not climbed back."""
        return self._lowered is not None

    def per_minute(self, now_s: float) -> float:
        """The pace now; one that has climbed back is forgotten."""
        if self._lowered is None:
            return self._configured
        passed_s = now_s - self._since_s
        if self._is_certain:
            pace = self._lowered * (1 + CLIMB_PER_S * passed_s)
        else:
            pace = self._lowered * 2.0 ** min(passed_s / DOUBLES_IN_S, 60.0)
        if pace >= self._configured:
            self._lowered = None
        return min(pace, self._configured)

    def taken(self, now_s: float, in_a_minute: int) -> None:
        """Take in how many calls were let through in the last minute; none of them was refused so far."""
        if now_s - self._since_s > WINDOW_S:
            self._ignored = 0
        if in_a_minute >= self._proven or now_s - self._proven_s > PROVEN_FOR_S:
            self._proven, self._proven_s = in_a_minute, now_s

    def refused(self, now_s: float, taken: int, *, is_full_minute: bool) -> None:
        """Take in a 429 that came after `taken` calls in the last minute."""
        if self._lowered is not None and taken < WITHIN_PROVEN * (self._proven - 1) and self._ignored < MOST_IGNORED:
            self._ignored += 1
            return
        again = (
            self._refused_at is not None
            and WINDOW_S / 2 < now_s - self._since_s < PROVEN_FOR_S
            and abs(taken - self._refused_at) <= self._refused_at / 4
        )
        self._is_certain = is_full_minute or again
        pace = self.per_minute(now_s)
        lowered = BELOW_SEEN * max(taken, 1)
        self._lowered = max(1.0, min(pace, lowered if self._is_certain else max(lowered, pace / 2)))
        self._refused_at, self._since_s, self._ignored = taken, now_s, 0
        self._proven, self._proven_s = taken, now_s

    def forget(self) -> None:
        """Forget what was found: the last refusal had another reason."""
        self._lowered = self._refused_at = None
