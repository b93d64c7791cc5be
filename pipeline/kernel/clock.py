"""The one door to time: what time it is, how much has passed, and waiting.

A run asks its `Clock`, never `time` or `asyncio.sleep`, so that a test or a rehearsal can hand it another one.
"""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DAY_US = 86_400_000_000
"""A day in microseconds."""

_GROWS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops its plain monotonic clock while the machine is suspended; the provider forgets a request all the same."""


class Clock(Protocol):
    """Time as a run sees it."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970 in UTC: for records that outlive the process."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only ever grow, also while the machine is suspended: for durations within this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` (not at all if negative)."""
        ...


class SystemClock:
    """The machine's own time."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.clock_gettime(_GROWS)

    async def sleep(self, seconds: float) -> None:
        import asyncio  # here, so that a program that only asks for the time need not load it

        await asyncio.sleep(max(0.0, seconds))


def to_datetime(at_us: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=at_us)


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(at_us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC with a `Z`, or None."""
    if at_us is None:
        return None
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{us // 1_000:03d}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """A whole second in ISO 8601; remembered, as most events of a second follow each other."""
    return to_datetime(seconds * 1_000_000).isoformat(timespec="seconds").removesuffix("+00:00")


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 12 min, 3 h 05 min, 7 days."""
    if 0 < seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 72 * 60 else f"{minutes / (24 * 60):.1f} days"
