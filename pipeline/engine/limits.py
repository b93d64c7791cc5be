"""How many calls a minute, how many generations at once, and how much failure is too much: three separate objects."""

from __future__ import annotations

from collections import deque

from aiolimiter import AsyncLimiter

from pipeline.engine.settings import Limits, Retry
from pipeline.kernel.clock import Clock

WINDOW_S = 60.0
"""The provider counts calls in windows of this length."""

JITTER_S = 0.5
"""How much closer two calls may arrive at the provider than they left here, over a whole window."""


class Pace:
    """The one gate for every call with the key: smooth, without a burst, and closed for all after a 429."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.interval_s = (WINDOW_S + JITTER_S) / limits.requests_per_minute
        # A burst of one: `AsyncLimiter(n, 60)` would let almost 2n calls through in one window.
        self._limiter = AsyncLimiter(1, self.interval_s)
        self._clock = clock
        self._opens_s = 0.0

    async def turn(self) -> None:
        """Wait for the next free place in the pace, and take it."""
        while True:
            if (closed_s := self._opens_s - self._clock.monotonic_s()) > 0:
                await self._clock.sleep(closed_s)
            await self._limiter.acquire()
            if self.is_open:
                return

    @property
    def is_open(self) -> bool:
        """Whether no pause is in force."""
        return self._clock.monotonic_s() >= self._opens_s

    def pause(self, seconds: float) -> None:
        """Let nobody through for `seconds`: the provider has said that there were too many calls."""
        self._opens_s = max(self._opens_s, self._clock.monotonic_s() + seconds)


class Slots:
    """Generations at the provider, from their reservation until their end is known."""

    def __init__(self, limits: Limits) -> None:
        self._ceiling = limits.max_in_flight
        self._taken: set[str] = set()

    @property
    def in_flight(self) -> int:
        return len(self._taken)

    @property
    def has_room(self) -> bool:
        return len(self._taken) < self._ceiling

    def take(self, job_id: str) -> None:
        """Count a job as in flight. Jobs found running at the start may exceed the ceiling."""
        self._taken.add(job_id)

    def release(self, job_id: str) -> None:
        self._taken.discard(job_id)


class Outage:
    """A time without answers: how long it has lasted, and how long all calls should wait before the next try."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failures = 0
        self._lost_at_s = 0.0

    def found(self) -> None:
        """An answer came, whatever it said."""
        self._failures = 0

    def lost(self, now_s: float) -> float:
        """No answer could be had; returns how long all calls should wait, in seconds, longer each time."""
        if not self._failures:
            self._lost_at_s = now_s
        self._failures += 1
        return min(self._retry.max_delay_s, self._retry.base_delay_s * 2.0 ** min(self._failures, 30))

    def lasted_s(self, now_s: float) -> float:
        """How long it has lasted, in seconds; 0 while all is well."""
        return now_s - self._lost_at_s if self._failures else 0.0

    def is_gone(self, now_s: float) -> bool:
        """Whether it has lasted so long that a person should look."""
        return self.lasted_s(now_s) > 5 * self._retry.max_delay_s


class Breaker:
    """Trips when too many of the latest attempts failed: a broken night must not burn the whole manifest."""

    def __init__(self, failure_rate: float, window: int) -> None:
        self._failure_rate = failure_rate
        self._latest: deque[bool] = deque(maxlen=window)

    def note(self, *, failed: bool) -> None:
        self._latest.append(failed)

    @property
    def has_tripped(self) -> bool:
        """Whether the window is full and the share of failures in it has reached the limit."""
        full = len(self._latest) == self._latest.maxlen
        return full and sum(self._latest) >= self._failure_rate * len(self._latest)

    def __str__(self) -> str:
        return f"{sum(self._latest)} of the last {len(self._latest)} attempts failed"
