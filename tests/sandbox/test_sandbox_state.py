"""The provider's books, with time given by hand."""

import statistics
from typing import Any

import pytest
from sandbox_client import NOON

from pipeline.sandbox.faults import FaultPlan
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.state import Generation, ProviderState, usd_text


def make(**more: Any) -> ProviderState:
    settings = SandboxSettings(**more)
    return ProviderState(settings, FaultPlan(settings.seed, settings.faults, settings.fault_limit))


def take(state: ProviderState, now: float = NOON, **body: Any) -> Generation:
    item = state.accept(state.next_ordinal(), "kling-2", "v2", {"prompt": "x", **body}, now)
    if item.error is None:
        state.file_ready(item, now, 1000, "hash")
    return item


def test_a_generation_goes_through_its_states_in_its_time() -> None:
    """QUEUED, PROCESSING and COMPLETED follow from queue and inference time divided by the time scale."""
    state = make(time_scale=10)
    item = take(state)
    queue_ends, ends = NOON + item.queue_s / 10, state.due_at(item)
    for now, expected in (
        (NOON, "QUEUED"),
        (queue_ends - 0.01, "QUEUED"),
        (queue_ends + 0.01, "PROCESSING"),
        (ends - 0.01, "PROCESSING"),
        (ends, "COMPLETED"),
    ):
        state.advance(now)
        assert state.status(item, now) == expected
    assert item.ended_at == ends
    assert 0 < item.queue_s < item.inference_s


def test_generation_times_are_lognormal_around_their_mean() -> None:
    """Over many requests the mean time is the one asked for, and no two are the same."""
    state = make()
    times = [take(state).total_s for _ in range(2000)]
    assert statistics.mean(times) == pytest.approx(317, rel=0.03)
    assert min(times) > 60
    assert len(set(times)) == 2000


def test_what_is_accepted_beyond_the_capacity_waits_for_its_turn() -> None:
    """Of six at once two are worked on: each of the others begins when one before it ends, and never a third."""
    state = make(capacity=2, time_scale=10)
    items = [take(state) for _ in range(6)]
    begin = [NOON + item.queue_s / 10 for item in items]
    end = [state.due_at(item) for item in items]
    assert begin[2] >= min(end[:2]) - 5
    for moment in begin:
        assert sum(began < moment < ended - 2 for began, ended in zip(begin, end, strict=True)) <= 2
    assert max(end) > NOON + 2.5 * min(item.inference_s for item in items) / 10
    later = take(state, now=max(end) + 1)
    assert later.queue_s < later.inference_s


def test_the_seed_and_the_ordinal_decide() -> None:
    """Two providers with one seed give the same times, another seed gives others."""
    same = [[take(state).total_s for _ in range(5)] for state in (make(seed=3), make(seed=3), make(seed=4))]
    assert same[0] == same[1] != same[2]


def test_two_providers_never_hand_out_the_same_id() -> None:
    """An id depends on the instant as well, so a second sandbox with the same seed does not repeat the first's."""
    assert take(make(), NOON).id != take(make(), NOON + 1).id
    assert take(make(), NOON).id == take(make(), NOON).id


@pytest.mark.parametrize(("charge_at", "running"), [("accept", 1_750_000), ("complete", 0)])
def test_the_balance_falls_when_it_is_said_to_fall(charge_at: str, running: int) -> None:
    """Charged at acceptance or at completion, the balance ends at opening minus price."""
    state = make(charge_at=charge_at, credits_microusd=10_000_000)
    item = take(state)
    assert state.credits_microusd == 10_000_000 - running
    state.advance(state.due_at(item))
    assert state.credits_microusd == 8_250_000


def test_a_failure_is_given_back_and_never_billed() -> None:
    """A failed generation holds its money until it fails, then it costs nothing."""
    state = make(faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 1})
    failed, good = take(state), take(state, duration=10)
    state.advance(NOON)
    bill = state.invoice()
    assert (bill["total_microusd"], bill["exposure_microusd"], bill["pending"]) == (0, 5_250_000, 2)
    state.advance(max(state.due_at(failed), state.due_at(good)))
    bill = state.invoice()
    assert state.status(failed, NOON + 9999) == "FAILED"
    assert (bill["total_microusd"], bill["exposure_microusd"], bill["pending"], bill["failed"]) == (
        3_500_000,
        3_500_000,
        0,
        1,
    )
    assert [charge["request_id"] for charge in bill["charges"]] == [good.id]


def test_the_invoice_adds_up() -> None:
    """The total is the sum of the charges to the micro-dollar, whatever the mix."""
    state = make(faults={"gen_failed": 0.3, "cost_above_quote": 0.3}, prices_microusd={5: 1_750_001, 10: 3_499_999})
    for index in range(200):
        take(state, duration=(5, 10)[index % 2])
    state.advance(NOON + 1e6)
    bill = state.invoice()
    assert bill["total_microusd"] == sum(charge["cost_microusd"] for charge in bill["charges"])
    assert bill["total_usd"] == usd_text(bill["total_microusd"])
    assert bill["accepted"] == len(bill["charges"]) + bill["failed"] == 200
    assert 20 < bill["failed"] < 100
    assert bill["exposure_microusd"] == bill["total_microusd"]


def test_completed_waits_for_the_file() -> None:
    """A generation whose clip is late stays PROCESSING, unbilled, and its record does not expire meanwhile."""
    state = make(record_ttl_s=400, mean_s=100)
    item = state.accept(0, "kling-2", "v2", {"prompt": "x"}, NOON)
    late = NOON + 5000
    state.advance(late)
    assert state.status(item, late) == "PROCESSING"
    assert state.record(item.id, late) is item
    state.file_ready(item, late, 10, "hash")
    assert state.status(item, late) == "COMPLETED"
    assert state.invoice()["total_microusd"] == 1_750_000
    assert state.record(item.id, late + 200) is item
    assert state.record(item.id, late + 401) is None


def test_a_clip_that_cannot_be_drawn_fails_its_generation() -> None:
    """Nothing is billed for a video that will never be there."""
    state = make()
    item = state.accept(0, "kling-2", "v2", {"prompt": "x"}, NOON)
    state.advance(NOON + 1e5)
    state.render_failed(item, NOON + 1e5)
    assert state.status(item, NOON + 1e5) == "FAILED"
    assert state.invoice()["exposure_microusd"] == 0


def test_records_and_files_expire_in_provider_time() -> None:
    """The record goes an hour after submission, the file seven days after completion, both divided by the scale."""
    state = make(time_scale=100, mean_s=0)
    item = take(state)
    state.advance(NOON)
    assert state.record(item.id, NOON + 35.9) is item
    assert state.record(item.id, NOON + 36.0) is None
    assert state.video(item.id, NOON + 6047) is item
    assert state.video(item.id, NOON + 6048) is None


def test_doubled_costs_and_slow_runs_are_what_they_say() -> None:
    """cost_above_quote doubles the bill, gen_slow triples the time, each of the same request."""
    plain = take(make())
    odd = take(make(faults={"cost_above_quote": 1, "gen_slow": 1}))
    assert odd.cost_microusd == 2 * plain.cost_microusd
    assert odd.total_s == pytest.approx(3 * plain.total_s)


def test_identical_bodies_are_counted_once_accepted_twice() -> None:
    """The duplicate count goes by the content of a body, not by the order of its keys."""
    state = make()
    state.accept(0, "kling-2", "v2", {"prompt": "x", "duration": 5}, NOON)
    state.accept(1, "kling-2", "v2", {"duration": 5, "prompt": "x"}, NOON)
    state.accept(2, "kling-2", "v2", {"prompt": "alone"}, NOON)
    assert state.duplicates() == {'{"duration":5,"prompt":"x"}': 2}


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0.00"), (12_250_000, "12.25"), (1, "0.000001"), (-1_750_000, "-1.75"), (3_500_000, "3.50")]
)
def test_dollars_are_exact(micro: int, text: str) -> None:
    """Micro-dollars print as exact dollars with at least two places."""
    assert usd_text(micro) == text
