"""Queue times and the ceiling that follows from them, against a provider that works on so many at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from pipeline.engine.crowding import Crowding

MADE_S = 300.0


def ceilings(most: int, jobs: int, wait_s: Callable[[int, float], float]) -> list[tuple[float, int, float]]:
    """Keep as many in flight as `Crowding` lets; returns when each ended, the ceiling then, and its age.

    `wait_s` tells how long a generation waits, given how many are in flight with it and the time.
    """
    now_s, left, seen = 0.0, jobs, []
    running: list[tuple[float, float, int, float]] = []
    crowding = Crowding(most, lambda: now_s)
    while left or running:
        while left and len(running) < crowding.ceiling:
            queue_s = wait_s(len(running) + 1, now_s)
            heapq.heappush(running, (now_s + queue_s + MADE_S, now_s, len(running) + 1, queue_s))
            left -= 1
            now_s += 0.5
        ends_s, began_s, then, queue_s = heapq.heappop(running)
        now_s = max(now_s, ends_s)
        crowding.note(now_s - began_s, then, queue_s, MADE_S)
        seen.append((now_s, crowding.ceiling, now_s - began_s))
    return seen


def working_on(capacity: int) -> Callable[[int, float], float]:
    """A provider that works on so many at once, and lets the rest wait in their order."""
    busy: list[float] = []

    def wait_s(_in_flight: int, now_s: float) -> float:
        while busy and busy[0] <= now_s:
            heapq.heappop(busy)
        starts_s = now_s if len(busy) < capacity else heapq.nsmallest(len(busy) - capacity + 1, busy)[-1]
        heapq.heappush(busy, starts_s + MADE_S)
        return starts_s - now_s

    return wait_s


@pytest.mark.parametrize("capacity", [5, 20])
def test_a_queue_that_is_ours_is_shortened_without_a_minute_lost(capacity: int) -> None:
    """Two hundred in flight where few are worked on: the ceiling falls to a few times these, and nothing is idle."""
    seen = ceilings(200, 1000, working_on(capacity))
    later = seen[400:-200]
    assert all(capacity < ceiling <= 40 for _, ceiling, _ in later)
    assert max(age_s for *_, age_s in later) < 8 * MADE_S
    assert seen[-1][0] < 1.001 * 1000 * MADE_S / capacity


def test_the_ceiling_rises_again_when_the_provider_works_on_more() -> None:
    """Ten at once for some hours, then as many as are sent: in the end all two hundred are in flight again."""
    few = working_on(10)
    seen = ceilings(200, 3000, lambda in_flight, now_s: few(in_flight, now_s) if now_s < 12_000 else 9.0)
    assert min(ceiling for _, ceiling, _ in seen) <= 40
    assert seen[-1][1] == 200


def test_a_provider_that_works_on_all_of_them_keeps_the_ceiling_where_it_is() -> None:
    """Without a queue nothing changes."""
    assert {ceiling for _, ceiling, _ in ceilings(40, 400, lambda _n, _s: 9.0)} == {40}


def test_a_queue_of_others_costs_no_place_in_it() -> None:
    """Everybody waits ten minutes, however few are in flight: to send fewer would make fewer."""
    assert {ceiling for _, ceiling, _ in ceilings(40, 400, lambda _n, _s: 600.0)} == {40}


def test_when_others_come_in_the_middle_of_a_night_one_try_is_made_and_taken_back() -> None:
    """The ceiling falls, the queue does not, and the ceiling is as before for the rest of the night."""
    seen = ceilings(40, 1200, lambda _n, now_s: 600.0 if now_s > 3_000 else 9.0)
    assert {ceiling for _, ceiling, _ in seen[-700:]} == {40}
    assert min(ceiling for _, ceiling, _ in seen) < 40


def test_what_a_provider_may_say_changes_nothing_by_itself() -> None:
    """Times that cannot be are no times."""
    crowding = Crowding(40, lambda: 0.0)
    for _ in range(100):
        crowding.note(10.0, 40, -1.0, 300.0)
        crowding.note(10.0, 40, 900.0, 0.0)
    assert crowding.ceiling == 40
