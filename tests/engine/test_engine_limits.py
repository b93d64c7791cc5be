"""The pace, the slots and the breaker, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import VirtualClock, run_virtually

from pipeline.engine.limits import Breaker, Slots
from pipeline.engine.pace import JITTER_S, LAST_STARTS_S, Pace, Turn
from pipeline.engine.polls import Polls
from pipeline.engine.settings import Limits, Polling
from pipeline.engine.stopping import Stopping
from pipeline.kernel.clock import SystemClock


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
    slots = Slots(Limits(50, 2), SystemClock())
    slots.take("a")
    slots.take("a")
    assert slots.in_flight == 1
    assert slots.has_room
    slots.take("b")
    assert not slots.has_room
    slots.release("a")
    slots.release("a")
    assert slots.in_flight == 1


def test_those_who_wait_take_turns_by_what_they_wait_for() -> None:
    """Starting gets two of three turns, collecting and asking share the third; who is alone gets every turn."""
    got: list[Turn] = []

    async def caller(pace: Pace, kind: Turn, rounds: int) -> None:
        for _ in range(rounds):
            await pace.turn(kind)
            got.append(kind)

    async def main() -> None:
        pace = Pace(Limits(60, 10), VirtualClock())
        callers = [caller(pace, Turn.POLL, 10) for _ in range(20)]
        starters = [caller(pace, Turn.START, 10) for _ in range(4)]
        await asyncio.gather(*callers, *starters, caller(pace, Turn.COLLECT, 10))

    run_virtually(main())
    assert Counter(got[:60]) == {Turn.START: 40, Turn.COLLECT: 10, Turn.POLL: 10}
    assert set(got[60:]) == {Turn.POLL}


def night_of_calls(configured: float, allowed: int, hours: float, *, adaptive: bool = True) -> tuple[int, int]:
    """How many calls a strict provider took, and how many it refused, where callers always wait."""

    async def main() -> tuple[int, int]:
        clock = VirtualClock()
        pace, window = Pace(Limits(configured, 10, adaptive), clock), deque[float]()
        taken = refused = in_a_row = 0
        while clock.monotonic_s() < hours * 3600:
            await pace.turn()
            now_s = clock.monotonic_s()
            while window and window[0] <= now_s - 60:
                window.popleft()
            if len(window) >= allowed:
                refused, in_a_row = refused + 1, in_a_row + 1
                pace.slow()
                pace.pause(max(2.0 * 2**in_a_row, window[0] + 61 - now_s))
            else:
                taken, in_a_row = taken + 1, 0
                window.append(now_s)
        return taken, refused

    return run_virtually(main())


@pytest.mark.parametrize(("configured", "allowed"), [(120, 50), (1_000, 50), (60, 50), (50, 49), (120, 5)])
def test_against_a_limit_that_nobody_knows_a_run_loses_at_most_a_minute_an_hour(configured: int, allowed: int) -> None:
    """Two hours of calls at more than the provider takes: what it would have taken, less two minutes' worth."""
    taken, refused = night_of_calls(configured, allowed, 2)
    assert taken >= (120 - (2.5 if allowed == 5 else 2)) * allowed
    assert refused <= 12


def test_a_known_limit_is_never_refused_and_one_that_is_not_heeded_often() -> None:
    """At the configured pace there is no 429; without `adaptive` every minute ends in one."""
    assert night_of_calls(50, 50, 1)[1] == 0
    assert night_of_calls(120, 50, 1, adaptive=False)[1] >= 50


def test_a_429_for_no_reason_does_not_slow_a_run_for_long() -> None:
    """One in the first seconds, before anything is known: after two minutes the pace is the configured one again."""

    async def main() -> tuple[float, float]:
        clock = VirtualClock()
        pace = Pace(Limits(50, 10), clock)
        for _ in range(5):
            await pace.turn()
        pace.slow()
        lowered = pace.per_minute
        await clock.sleep(61)
        return lowered, pace.per_minute

    assert run_virtually(main()) == (25.0, 50.0)


def test_429s_below_what_was_taken_lately_are_not_about_the_pace() -> None:
    """A pace that is well below what the provider took is not lowered again by two more of them."""

    async def main() -> tuple[float, float]:
        clock = VirtualClock()
        pace = Pace(Limits(50, 10), clock)
        for _ in range(60):
            await pace.turn()
        pace.slow()
        lowered = pace.per_minute
        for _ in range(2):
            await clock.sleep(30)
            await pace.turn()
            pace.slow()
        return lowered, pace.per_minute

    lowered, after = run_virtually(main())
    assert 47 <= lowered <= after <= 50


def test_a_ceiling_that_is_refused_is_lowered_and_tried_again_ever_more_rarely() -> None:
    """20 of 100 are taken: one more is tried after two minutes, then after eight more; once taken, the steps double."""

    async def main() -> list[tuple[int, int]]:
        clock = VirtualClock()
        slots, tried = Slots(Limits(50, 100), clock), []
        for job in range(20):
            slots.take(f"job {job}")
        slots.refuse()
        allowed = 20
        for second in range(7_200):
            if second == 3_000:
                allowed = 60
            if slots.has_room:
                slots.take(f"more {second}")
                tried.append((second, slots.in_flight))
                if slots.in_flight > allowed:
                    slots.release(f"more {second}")
                    slots.refuse()
            await clock.sleep(1)
        return tried

    tried = run_virtually(main())
    assert [second for second, _ in tried if second < 3_000] == [120, 600, 1_800]
    assert max(in_flight for _, in_flight in tried) == 61
    assert sum(in_flight == 61 for _, in_flight in tried) <= 6


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(["submissions", "generations"]), st.booleans()), max_size=60),
    st.integers(1, 20),
    st.floats(0.05, 1.0),
)
def test_the_breaker_trips_exactly_when_a_full_window_fails_too_often(
    outcomes: list[tuple[str, bool]], window: int, rate: float
) -> None:
    """Of submissions or of generations. It never trips on a few first failures, and always on one that reaches it."""
    breaker = Breaker(rate, window)
    for number, (what, failed) in enumerate(outcomes):
        note = breaker.note_start if what == "submissions" else breaker.note_end
        note(f"attempt {number}", failed=failed)
    troubles = []
    for what in ("submissions", "generations"):
        latest = [failed for each, failed in outcomes if each == what][-window:]
        if len(latest) == window and sum(latest) >= rate * window:
            troubles.append(f"{sum(latest)} of the last {window} {what} failed")
    assert breaker.trouble == (troubles[0] if troubles else None)


def test_answers_that_are_lost_at_one_moment_are_one_failure() -> None:
    """Forty calls that a network breaks in one second say no more than one; forty lost one by one trip at twenty."""
    breaker = Breaker(0.5, 20, moment_s=0.6)
    for number in range(20):
        breaker.note_start(f"made {number}", failed=False)
    for number in range(40):
        breaker.note_lost(f"broken {number}", 100.0 + 0.02 * number)
    for number in range(8):
        breaker.note_lost(f"lost {number}", 200.0 + 1.2 * number)
    assert breaker.trouble is None
    breaker.note_lost("lost 9", 300.0)
    assert breaker.trouble == "10 of the last 20 submissions failed"


def test_an_answer_that_was_lost_is_no_failure_once_its_attempt_is_found() -> None:
    """Found accepted it counts as a submission that went well, and then by its end, once."""
    breaker = Breaker(0.5, 2)
    for number in range(2):
        breaker.note_lost(f"lost {number}", 10.0 * number)
    assert breaker.trouble == "2 of the last 2 submissions failed"
    breaker.note_accepted("lost 0")
    breaker.note_end("lost 1", failed=True)
    assert breaker.trouble is None
    breaker.note_end("lost 0", failed=False)
    assert breaker.trouble == "1 of the last 2 generations failed"


def test_an_attempt_that_is_no_longer_among_the_latest_does_not_come_back() -> None:
    breaker = Breaker(1.0, 2)
    for number in range(3):
        breaker.note_lost(f"lost {number}", 10.0 * number)
    breaker.note_accepted("lost 0")
    assert breaker.trouble == "2 of the last 2 submissions failed"


def test_a_defect_in_the_gate_or_the_conductor_reaches_everybody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits for a task that has died would wait for ever."""

    async def main() -> list[BaseException | None]:
        clock = VirtualClock()
        pace = Pace(Limits(60, 10), clock)
        polls = Polls(Polling(), pace, clock, Stopping())
        monkeypatch.setattr(Polls, "_best", lambda _self: 1 // 0)
        asked = await asyncio.gather(*(polls.turn(f"job {n}", -400.0, 0.0) for n in range(3)), return_exceptions=True)
        monkeypatch.setattr(Pace, "_take_next", lambda _self: 1 // 0)
        turns = await asyncio.gather(*(pace.turn() for _ in range(3)), return_exceptions=True)
        return [*asked, *turns]

    assert [type(each) for each in run_virtually(main())] == [ZeroDivisionError] * 6


def test_scarce_calls_go_to_whom_they_save_most() -> None:
    """Of forty generations of different ages, at one call a minute: those most likely to be finished come first."""

    async def main() -> list[float]:
        clock = VirtualClock()
        polls = Polls(Polling(), Pace(Limits(1, 40), clock), clock, Stopping())
        asked: list[float] = []

        async def watch(age_s: float) -> None:
            began_s = clock.monotonic_s() - age_s
            await polls.turn(f"job {age_s}", began_s, 0.0)
            asked.append(clock.monotonic_s() - began_s)

        await asyncio.gather(*(watch(10.0 * n) for n in range(40)))
        return asked

    ages = run_virtually(main())
    assert all(age > 150 for age in ages)
    # Everybody ages alike: who was oldest at the beginning is asked about first, and the youngest last.
    assert [round(age - 60.5 * place) for place, age in enumerate(ages)] == sorted(
        (round(age - 60.5 * place) for place, age in enumerate(ages)), reverse=True
    )


def test_who_waits_at_a_gate_whose_keeper_is_cancelled_is_cancelled_too() -> None:
    """And the next who comes finds a new keeper."""

    async def main() -> list[BaseException | None]:
        pace = Pace(Limits(60, 10), VirtualClock())
        await pace.turn()
        waiting = asyncio.gather(*(pace.turn() for _ in range(3)), return_exceptions=True)
        await asyncio.sleep(0)
        assert pace._keeper is not None
        pace._keeper.cancel()
        ended = await waiting
        await pace.turn()
        return ended

    assert [type(each) for each in run_virtually(main())] == [asyncio.CancelledError] * 3


def test_an_old_generation_hurries_no_question_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked about a moment ago: until it is due again, questions about others wait for their turn as ever."""
    kinds: list[Turn] = []

    async def main() -> None:
        clock = VirtualClock()
        pace = Pace(Limits(60, 10), clock)
        turn = pace.turn

        async def noted(kind: Turn = Turn.COLLECT) -> None:
            kinds.append(kind)
            await turn(kind)

        monkeypatch.setattr(pace, "turn", noted)
        polls = Polls(Polling(), pace, clock, Stopping())
        old = polls.turn("old", clock.monotonic_s() - 3_000, 2_999.0)
        await polls.turn("young", clock.monotonic_s() - 400, 0.0)
        await old

    run_virtually(main())
    assert kinds == [Turn.POLL, Turn.URGENT]


async def order_of_calls(starts_left: int, starts: int, results: int, questions: int) -> list[Turn]:
    """In which order so many of each are let through, at fifty calls a minute, if all wait from the beginning."""
    pace = Pace(Limits(50, 40), VirtualClock())
    pace.starts_left = starts_left
    await pace.turn(Turn.URGENT)  # the place that is free now is taken
    order: list[Turn] = []

    async def call(kind: Turn) -> None:
        await pace.turn(kind)
        order.append(kind)

    kinds = [Turn.COLLECT] * results + [Turn.POLL] * questions + [Turn.START] * starts
    await asyncio.gather(*(call(kind) for kind in kinds))
    return order


def test_results_let_the_last_starts_go_first_and_the_questions_that_make_room_for_them() -> None:
    """What is started last ends last; at that end calls are left over for results."""
    order = run_virtually(order_of_calls(250, starts=20, results=10, questions=10))
    assert order[-10:] == [Turn.COLLECT] * 10
    assert Turn.COLLECT in run_virtually(order_of_calls(251, starts=20, results=10, questions=10))[:5]
    assert Turn.COLLECT in run_virtually(order_of_calls(0, starts=0, results=10, questions=10))[:5]


def test_a_result_waits_ten_minutes_for_the_last_starts_and_no_longer() -> None:
    """Paid work is never starved, whatever waits beside it."""
    order = run_virtually(order_of_calls(250, starts=600, results=3, questions=600))
    within = int(LAST_STARTS_S / 60 * 50)
    assert Turn.COLLECT not in order[: within - 10]
    assert order[: within + 20].count(Turn.COLLECT) == 3


def test_no_more_are_in_flight_than_calls_can_bring_home_in_time() -> None:
    """Three calls a job: five a minute bring fifty home in half an hour. Where questions are free, any number."""

    async def main() -> list[int]:
        clock = VirtualClock()
        slow, slowest, free = Limits(5, 500), Limits(0.5, 500), Limits(5, 500, count_polls=False)
        return [
            Pace(slow, clock).brings_home(1800),
            Pace(slowest, clock).brings_home(60),
            Pace(free, clock).brings_home(9),
        ]

    slow, slowest, free = run_virtually(main())
    assert slow in (49, 50)
    assert slowest == 1
    assert free > 10**9


def test_whom_scarce_calls_go_to_is_chosen_for_several_at_once_and_nobody_who_left_gets_one() -> None:
    """Of two hundred who are due the oldest come first, though many leave meanwhile; and everybody comes once."""

    async def main() -> tuple[list[str], set[str]]:
        clock = VirtualClock()
        polls = Polls(Polling(give_up_s=100_000), Pace(Limits(600, 400), clock), clock, Stopping())
        asked: list[str] = []

        async def watch(number: int) -> None:
            await polls.turn(f"job {number}", -2_000.0 - number, 1_900.0)
            asked.append(f"job {number}")

        tasks = [asyncio.create_task(watch(number)) for number in range(200)]
        await clock.sleep(1)
        left = set(range(0, 200, 3)) - {int(name.split()[1]) for name in asked}
        for number in left:
            tasks[number].cancel()
        await asyncio.wait(tasks)
        return asked, {f"job {number}" for number in left}

    asked, left = run_virtually(main())
    assert sorted(asked) == sorted({f"job {number}" for number in range(200)} - left)
    ages = [int(name.split()[1]) for name in asked]
    assert all(later < earlier + 30 for earlier, later in itertools.pairwise(ages))
    assert min(ages[:20]) >= 150


async def in_flight_by_phase(limits: Limits) -> list[int]:
    """How many are in flight at the end of each of three phases: no queue, one behind eight, and again none."""
    clock = VirtualClock()
    slots = Slots(limits, clock)
    seen = []
    for is_crowded in (False, True, False):
        for _ in range(60):
            await clock.sleep(300)
            jobs: list[str] = []
            while slots.has_room:
                jobs.append(f"job {len(jobs)}")
                slots.take(jobs[-1])
            for number, job in enumerate(jobs, 1):
                slots.note(job, 1.0, max(0.0, 300.0 * (number / 8 - 1)) if is_crowded else 0.0, 300.0)
            for job in jobs:
                slots.forget(job)
        seen.append(len(jobs))
    return seen


def test_a_queue_lowers_the_ceiling_and_one_that_is_gone_lets_it_rise_again() -> None:
    """A provider that says that nothing waited, not even a moment, says something. Not adaptive: nothing changes."""
    before, crowded, after = run_virtually(in_flight_by_phase(Limits(600, 40)))
    assert (before, after) == (40, 40)
    assert crowded < 30
    assert run_virtually(in_flight_by_phase(Limits(600, 40, adaptive=False))) == [40, 40, 40]
