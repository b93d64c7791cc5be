"""The pure decisions: when to poll, whether to try again, which exit code is the gravest."""

from __future__ import annotations

import itertools
import math
import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frontier import least_delay_s
from pipeline.engine.polling import PRICE_OF_A_CALL, Durations, curve, next_age_s
from pipeline.engine.retry import Again, GiveUp, backoff_s, decide
from pipeline.engine.settings import Polling, Retry
from pipeline.engine.stopping import gravest
from pipeline.kernel.errors import Charge, ErrorClass, Reaction

FRONTIER = [(28.0, 2.4), (17.7, 4.0), (12.6, 5.8), (8.9, 8.4), (6.4, 11.9), (5.3, 14.7), (4.2, 18.9), (3.4, 23.9)]
"""Questions a job and mean seconds of delay that no schedule betters, for a lognormal of mean 317 s and sigma 0.3."""


def frontier_s(polls: float) -> float:
    """The least delay for so many questions a job, between the known points."""
    for (more, less_s), (fewer, more_s) in itertools.pairwise(FRONTIER):
        if fewer <= polls <= more:
            return less_s + (more - polls) / (more - fewer) * (more_s - less_s)
    raise ValueError(polls)


def of_schedule(durations: Durations, price: float) -> tuple[float, float]:
    """Questions a job and mean delay in seconds, where each question comes when it saves what a call costs."""
    share, part = NormalDist(math.log(durations.median_s), 0.3), NormalDist(math.log(durations.median_s) + 0.09, 0.3)
    asked_s = polls = delay_s = 0.0
    done = past = 0.0
    line = curve(durations.sigma)
    while done < 0.9999:
        grown = line.at(asked_s / durations.median_s) + math.sqrt(price / durations.median_s)
        at_s = durations.median_s * line.age_at(grown)
        done_then, past_then = share.cdf(math.log(at_s)), 317 * part.cdf(math.log(at_s))
        polls += 1 - done
        delay_s += at_s * (done_then - done) - (past_then - past)
        asked_s, done, past = at_s, done_then, past_then
    return polls, delay_s


@pytest.mark.parametrize("price", [0.15, 0.25, 0.5, 1.0, 2.0, 4.0, 7.0])
def test_questions_cost_and_bring_what_the_best_schedule_does(price: float) -> None:
    """Within 12 % of the frontier of questions against delay, for every price of a call."""
    polls, delay_s = of_schedule(Durations(317.0), price)
    assert delay_s <= 1.12 * frontier_s(polls)


def test_the_frontier_of_the_benchmark_is_the_measured_one() -> None:
    """Within 3 % of the published points, which count whole seconds and so are half a second lower."""
    for polls, delay_s in FRONTIER:
        assert least_delay_s(polls, 317.0, 0.3) - 0.5 == pytest.approx(delay_s, rel=0.03)
    assert least_delay_s(1.2, 317.0, 0.3) > 100


def test_where_calls_are_plentiful_a_job_takes_about_18_questions() -> None:
    """And is known to be finished about four seconds after it is, 1.4 % of its time."""
    polls, delay_s = of_schedule(Durations(317.0), PRICE_OF_A_CALL * 317)
    assert 17 <= polls <= 19.5
    assert delay_s / 317 <= 0.014


def test_the_expectation_moves_to_what_is_seen() -> None:
    """After fifty generations of 100 s nobody asks by the configured 317 s any more, and the first question comes later
    in a generation's life where times hardly vary."""
    durations = Durations(317.0)
    first_s = next_age_s(durations, Polling(), 0.0)
    assert 140 < first_s < 165
    for number in range(50):
        durations.note(100.0 + number % 3)
    assert durations.median_s == pytest.approx(101, rel=0.15)
    assert durations.sigma < 0.45
    for _ in range(2_000):
        durations.note(100.0)
    assert durations.sigma <= 0.1
    assert 70 < next_age_s(durations, Polling(), 0.0) < 100


def test_what_was_seen_long_ago_counts_less_and_less() -> None:
    """After two thousand generations of five minutes, five hundred of ten are what is expected."""
    durations = Durations(317.0)
    for _ in range(2_000):
        durations.note(300.0)
    for _ in range(500):
        durations.note(600.0)
    assert durations.median_s == pytest.approx(600, rel=0.1)


@given(st.floats(0, 10_000), st.lists(st.floats(0.001, 1e6), max_size=20), st.floats(0.01, 1e4))
def test_a_question_is_never_sooner_than_the_minimum_nor_later_than_the_maximum(
    asked_s: float, seen: list[float], expected_s: float
) -> None:
    """Whatever has been seen; only the first may be later."""
    durations, polling = Durations(expected_s), Polling()
    for seconds in seen:
        durations.note(seconds)
    due_s = next_age_s(durations, polling, asked_s)
    assert math.isfinite(due_s)
    assert due_s >= asked_s + polling.min_interval_s - 1e-9
    if asked_s > 0:
        assert due_s <= asked_s + polling.max_interval_s + 1e-9
    assert durations.outlook.saving_s(asked_s, due_s) >= 0


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_a_backoff_is_full_jitter_within_its_bound(tries: int, seed: int) -> None:
    """Anything from nothing to the doubled delay, never more than the maximum."""
    retry = Retry()
    wait_s = backoff_s(retry, tries, random.Random(seed))
    assert 0 <= wait_s <= min(retry.max_delay_s, retry.base_delay_s * 2**tries)


@pytest.mark.parametrize("error_class", [member for member in ErrorClass if member.charge is Charge.NO])
def test_every_refusal_has_a_decision(error_class: ErrorClass) -> None:
    """What is certainly not charged is tried again or given up, each by its reaction and within its bound."""
    retry = Retry(max_attempts=3)
    rng = random.Random(1)
    early, late = decide(retry, error_class, 1, 1, rng), decide(retry, error_class, 3, 3, rng)
    match error_class.reaction:
        case Reaction.FAIL_ROW:
            assert isinstance(early, GiveUp)
        case Reaction.RETRY_COUNTED:
            assert isinstance(early, Again)
            assert isinstance(late, GiveUp)
        case Reaction.STOP_ACCOUNT | Reaction.PAUSE:
            assert early == late == Again(0.0)
        case _:
            assert isinstance(early, Again)
            assert isinstance(late, Again)


def test_doubt_and_charges_are_never_decided_by_retry() -> None:
    """An attempt that may be charged settles, one that is charged fetches: neither is ever tried again."""
    for member in ErrorClass:
        if member.charge is Charge.UNKNOWN:
            assert member.reaction is Reaction.SETTLE
        if member.charge is Charge.YES:
            assert member.reaction is Reaction.FETCH_AGAIN


def test_the_gravest_exit_code_is_given() -> None:
    """4 before 130 before 6 before 5 before 3 before 1."""
    order = [4, 130, 6, 5, 3, 1, 0]
    for index, code in enumerate(order):
        assert gravest(order[index:]) == code
        assert gravest(list(reversed(order[index:]))) == code
    assert gravest([]) == 0
