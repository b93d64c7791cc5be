"""The pure decisions: when to poll, whether to try again, which exit code is the gravest."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.polling import wait_before_poll_s
from pipeline.engine.retry import Again, GiveUp, backoff_s, decide
from pipeline.engine.settings import Polling, Retry
from pipeline.engine.stopping import gravest
from pipeline.kernel.errors import Charge, ErrorClass, Reaction


def test_the_first_question_comes_when_an_answer_is_likely() -> None:
    """Nobody asks in the first half of the expected time."""
    assert wait_before_poll_s(Polling(), 0.0, 1, 1.2) == pytest.approx(0.55 * 317)
    assert wait_before_poll_s(Polling(), 100.0, 1, 1.2) == pytest.approx(0.55 * 317 - 100)


@given(st.floats(0, 10_000), st.integers(0, 5_000), st.floats(0.001, 60))
def test_a_wait_is_never_shorter_than_the_minimum_nor_starves_a_lone_job(
    age_s: float, in_flight: int, interval_s: float
) -> None:
    """Every wait is at least the minimum, and bounded by the maximum or the fair share of the pace."""
    polling = Polling()
    wait_s = wait_before_poll_s(polling, age_s, in_flight, interval_s)
    assert wait_s >= polling.min_interval_s
    if age_s >= 0.55 * polling.expected_s:
        assert wait_s <= max(polling.max_interval_s, in_flight * interval_s / 0.7)


def test_polls_never_take_the_whole_pace() -> None:
    """However many generations run, their polls leave a part of the calls for new submissions."""
    interval_s = 60 / 50
    for in_flight in (40, 500, 5_000):
        wait_s = wait_before_poll_s(Polling(), 400, in_flight, interval_s)
        assert in_flight / wait_s * interval_s <= 0.71


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
