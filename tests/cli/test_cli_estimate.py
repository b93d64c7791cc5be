"""The time left: held against nights that are played, and the tally of a run against its ledger."""

from __future__ import annotations

import dataclasses
import heapq
import random
import statistics
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from looking_doubles import NOW_US, Story

from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.looking.estimate import Work, ends_per_s, last_end_s, left_s
from pipeline.looking.tally import Tally
from pipeline.looking.view import IN_FLIGHT, affordable, look

sys.path.append(str(Path(__file__).parents[1] / "ledger"))

from ledger_doubles import STEPS, legal, numbered

MEDIAN_S, SIGMA = 300.0, 0.3


def work(to_start: int, ages_s: list[float], slots: int = 40, starts_per_s: float = 1.0, **known: float) -> Work:
    return Work(to_start, ages_s, slots, starts_per_s, MEDIAN_S, SIGMA, **known)


def played_s(left: Work, seed: int) -> float:
    """How long one night takes, generation by generation."""
    chance = random.Random(seed)
    ends: list[float] = []
    for age_s in left.ages_s:
        while (takes_s := chance.lognormvariate(0, SIGMA) * MEDIAN_S) <= age_s:
            pass
        heapq.heappush(ends, takes_s - age_s)
    last_s, may_start_s = max(ends, default=0.0), 0.0
    for _ in range(left.to_start):
        if len(ends) >= left.slots:
            may_start_s = max(may_start_s, heapq.heappop(ends))
        end_s = may_start_s + chance.lognormvariate(0, SIGMA) * MEDIAN_S
        heapq.heappush(ends, end_s)
        last_s = max(last_s, end_s)
        may_start_s += 1 / left.starts_per_s
    return last_s


@pytest.mark.parametrize(
    "left",
    [
        work(1, []),
        work(30, []),
        work(400, []),
        work(100, [], starts_per_s=0.1),
        work(0, [10.0] * 30),
        work(0, [400.0, 350.0, 20.0]),
        work(1, [float(age) for age in range(0, 390, 10)]),
        work(100, [float(age) for age in range(0, 400, 10)]),
        work(0, [500.0]),
    ],
    ids=["one", "at-once", "waves", "scarce-calls", "all-begun", "the-last", "one-more", "in-the-middle", "overdue"],
)
def test_the_estimate_is_what_nights_take(left: Work) -> None:
    """Within a seventh of the middle one of many nights, from the first moment to the last."""
    nights = [played_s(left, seed) for seed in range(60)]
    assert left_s(left) == pytest.approx(statistics.median(nights), rel=0.15)


def test_what_bounds_the_estimate() -> None:
    """Nothing left takes no time; a deadline ends the starts; the rate that was seen counts more than the limits."""
    assert left_s(work(0, [])) == 0
    until_deadline = left_s(work(4_000, [], starts_end_s=600))
    assert 600 + MEDIAN_S < until_deadline < 600 + 3 * MEDIAN_S
    assert left_s(work(4_000, [], starts_end_s=-5)) < 3 * MEDIAN_S
    assert left_s(work(360, [], ends_per_s=0.1)) == pytest.approx(
        3_600 + last_end_s(range(0, 400, 10), MEDIAN_S, SIGMA)
    )
    assert 100 < last_end_s([100_000.0, 1.0], MEDIAN_S, SIGMA) < 100_000, "who is lost holds up nobody for ever"


def test_a_rate_is_told_only_where_there_is_one() -> None:
    """Not from a few ends, not from the first wave alone, and only from the last hour."""
    ended = [float(second) for second in range(0, 8_000, 100)]
    assert ends_per_s(ended[:9], 0, 900, 300) is None
    assert ends_per_s(ended, 0, 400, 300) is None
    assert ends_per_s(ended, 0, 8_000, 300) == pytest.approx(0.01, rel=0.05)
    assert ends_per_s([*ended, *[7_999.0] * 36], 0, 8_000, 300) == pytest.approx(0.02, rel=0.05)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_the_tally_is_what_the_ledger_says(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in a run, its count of what is stored, has failed and is in flight equals the fold."""
    events = numbered(legal(steps))
    half = len(events) // 2
    state = State()
    for event in events[:half]:
        state.apply(event)
    tally = Tally(state, frozenset("abc"), 3, 0)
    for event in events[half:]:
        state.apply(event)
        tally.take(event)
    for count, where in ((tally.stored, JobState.STORED), (tally.failed, JobState.FAILED)):
        assert count == sum(record.job_id in "abc" for record in state.in_state(where))
    in_flight = {record.job_id: record.accepted_us for record in state.in_state(*IN_FLIGHT)}
    assert tally.accepted_us == in_flight
    assert 0 <= tally.to_start <= 3 + state.counts[JobState.VOIDED]


def test_a_look_and_the_run_itself_count_the_same(tmp_path: Path) -> None:
    """What is left to start, by a look from outside and by the run's own tally."""
    story = Story(tmp_path / "night", 6)
    story.run(900)
    story.live(0, 890, 889, 600, 590)
    story.live(1, 880, 879)
    story.tell(870, "reserved", 2)
    story.tell(869, "voided", 2, error_class="rate_limited", http_status=429, detail="too many requests")
    seen = look(story.write(), NOW_US)
    state = State()
    tally = Tally(state, frozenset(each.job.job_id for each in story.entries), 6, 0)
    for event in read_events(story.folder / "ledger"):
        state.apply(event)
        tally.take(event)
    (run,) = seen.state.runs
    assert tally.to_start == seen._to_start(run) == 4
    assert tally.done == 1
    poor = dataclasses.replace(seen, state=seen.state)
    poor.state.runs[0].facts["cap_microusd"] = 5_300_000
    assert poor._to_start(run) == 1, "what does not fit under the cap is not waited for"


def test_what_the_cap_lets_through_is_known_from_the_first_job_on() -> None:
    """Before that nothing is held back; a cap that is passed lets nothing through."""
    state = State()
    assert affordable(state, 10, 7) == 7
    for event in numbered(legal([("a", 0, 1_750_000)])):
        state.apply(event)
    assert affordable(state, 7_000_000, 9) == 3
    assert affordable(state, 1_750_000, 9) == 0
