"""Moments survive the way to datetimes and back, and the machine's clock waits for no negative time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernel.clock import SystemClock, iso, to_datetime, to_us

moments = st.integers(-(10**15), 10**17).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))


@given(moments, st.integers(-14, 14))
def test_moments_survive_the_way_to_integers(moment: datetime, hours: int) -> None:
    """To the microsecond, before 1970 too, from any zone."""
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))
    assert to_datetime(to_us(elsewhere)) == moment


def test_moments_are_shown_in_utc() -> None:
    """ISO 8601 with milliseconds and a Z; nothing for nothing."""
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"
    assert iso(1_700_000_000_123_999) == "2023-11-14T22:13:20.123Z"
    assert iso(None) is None


async def test_the_machine_clock_only_goes_forward() -> None:
    """Durations come from a clock that never goes back; a negative wait is none."""
    clock = SystemClock()
    before = clock.monotonic_s()
    await clock.sleep(-5)
    assert 0 <= clock.monotonic_s() - before < 1
    assert to_datetime(clock.now_us()).year >= 2024
