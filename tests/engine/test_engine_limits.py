"""The pace, the slots, the connection and the breaker, in virtual time."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import VirtualClock, run_virtually

from pipeline.engine.limits import JITTER_S, Breaker, Outage, Pace, Slots
from pipeline.engine.settings import Limits, Retry


def most_in_any_window(times: list[float], window_s: float = 60.0) -> int:
    """The most calls in any half-open window, by walking two fingers over the sorted times."""
    times = sorted(times)
    most = first = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


async def turns(pace: Pace, callers: int, rounds: int) -> list[float]:
    """When each of `callers` tasks got each of its `rounds` turns."""
    times: list[float] = []

    async def caller() -> None:
        for _ in range(rounds):
            await pace.turn()
            times.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times


@pytest.mark.parametrize("per_minute", [1, 5, 50, 120])
def test_no_window_of_a_minute_holds_more_than_the_limit_even_when_calls_arrive_unevenly(per_minute: int) -> None:
    """With every call delayed by anything up to the jitter, any 60 s at the provider hold at most the limit."""

    async def main() -> list[float]:
        return await turns(Pace(Limits(per_minute, 10), VirtualClock()), 7, max(2, per_minute // 2))

    left = run_virtually(main())
    # The worst case: the first of each window arrives late by the whole jitter, the others at once.
    arrived = [moment + (JITTER_S * 0.999 if number % per_minute == 0 else 0) for number, moment in enumerate(left)]
    assert most_in_any_window(left) <= per_minute
    assert most_in_any_window(arrived) <= per_minute


def test_the_pace_is_smooth_from_the_first_call_on() -> None:
    """There is no burst: a minute's calls are spread over the minute."""

    async def main() -> list[float]:
        return await turns(Pace(Limits(60, 10), VirtualClock()), 30, 1)

    times = sorted(run_virtually(main()))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= 1.02


def test_after_a_429_nobody_passes_before_the_reset() -> None:
    """A pause closes the gate for those who wait already, too."""

    async def main() -> list[float]:
        clock = VirtualClock()
        pace = Pace(Limits(60, 10), clock)
        waiting = asyncio.create_task(turns(pace, 5, 2))
        await clock.sleep(2.5)
        pace.pause(30)
        return await waiting

    times = run_virtually(main())
    assert not [moment for moment in times if 2.6 < moment < 32.5]
    assert len(times) == 10


def test_a_waiter_that_leaves_takes_no_turn_with_it() -> None:
    """Ten thousand cancelled waiters leave the pace as it was."""

    async def main() -> float:
        pace = Pace(Limits(60, 10), VirtualClock())
        await pace.turn()
        leavers = [asyncio.create_task(pace.turn()) for _ in range(10_000)]
        await asyncio.sleep(0)
        for leaver in leavers:
            leaver.cancel()
        await asyncio.wait(leavers)
        before = asyncio.get_running_loop().time()
        await pace.turn()
        return asyncio.get_running_loop().time() - before

    assert run_virtually(main()) <= 2.1


def test_slots_count_jobs_and_not_calls() -> None:
    """Taking the same job twice, or releasing it twice, changes nothing."""
    slots = Slots(Limits(50, 2))
    slots.take("a")
    slots.take("a")
    assert slots.in_flight == 1
    assert slots.has_room
    slots.take("b")
    assert not slots.has_room
    slots.release("a")
    slots.release("a")
    assert slots.in_flight == 1


def test_a_lost_connection_waits_ever_longer_and_is_given_up_only_after_minutes() -> None:
    """A short outage of the network stops nothing; ten minutes of it do."""
    connection = Outage(Retry(base_delay_s=2, max_delay_s=120))
    waits = [connection.lost(now_s) for now_s in (0, 5, 20, 60, 120, 300)]
    assert waits == [4, 8, 16, 32, 64, 120]
    assert not connection.is_gone(599)
    assert connection.is_gone(601)
    connection.found()
    assert not connection.is_gone(10_000)


@settings(max_examples=200)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20), st.floats(0.05, 1.0))
def test_the_breaker_trips_exactly_when_a_full_window_fails_too_often(
    outcomes: list[bool], window: int, rate: float
) -> None:
    """It never trips on a few first failures, and always on a window that reaches the rate."""
    breaker = Breaker(rate, window)
    for failed in outcomes:
        breaker.note(failed=failed)
    latest = outcomes[-window:]
    assert breaker.has_tripped == (len(latest) == window and sum(latest) >= rate * window)
