"""The plan: what a run would do, decided from jobs, ledger, prices, cap and clock alone."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.cli.plan_screen import plan_screen
from pipeline.jobs import Job, make_job
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.plan import Plan, make_plan

FIVE, TEN = MicroUsd(1_750_000), MicroUsd(3_500_000)


def job(name: str, duration: int = 5) -> Job:
    return make_job("kling-2", {"prompt": name, "duration": duration, "aspect_ratio": "16:9"}, 1, name)


def price(wanted: Job) -> MicroUsd:
    return TEN if wanted.params["duration"] == 10 else FIVE


def plan(jobs: list[Job], state: State | None = None, cap: int = 1_000_000_000, **more: Any) -> Plan:
    usual: dict[str, Any] = {"requests_per_minute": 50, "max_in_flight": 40, "expected_s": 317}
    return make_plan(
        rows=len(jobs),
        entries=len(jobs),
        jobs=jobs,
        state=state or State(),
        price=price,
        cap=MicroUsd(cap),
        **(usual | more),
    )


def lived(*lives: tuple[Job, list[EventKind]]) -> State:
    """The state after each job has gone through these events."""
    facts: dict[EventKind, dict[str, Any]] = {
        EventKind.RESERVED: {"quote_microusd": FIVE, "model": "kling-2", "request": "{}"},
        EventKind.POSTED: {"cost_microusd": FIVE},
        EventKind.VOIDED: {"error_class": "generation_failed"},
        EventKind.FAILED: {"error_class": "generation_failed"},
    }
    events: list[Event] = []
    for number, (lived_job, kinds) in enumerate(lives):
        for kind in kinds:
            more = {"request_id": f"request-{number}"} if kind is EventKind.SUBMITTED else facts.get(kind, {})
            events.append(Event(event=kind, seq=len(events) + 1, at_us=1, job_id=lived_job.job_id, attempt=1, **more))
    return fold(events)


BOUGHT = [EventKind.RESERVED, EventKind.SUBMITTED, EventKind.POSTED, EventKind.STORED]
GIVEN_UP = [EventKind.RESERVED, EventKind.SUBMITTED, EventKind.VOIDED, EventKind.FAILED]


def test_what_is_stored_costs_nothing_again() -> None:
    """A stored job is neither to do nor in the cost, and its money is committed."""
    made = plan([job("a"), job("b", 10)], lived((job("a"), BOUGHT)))
    assert (made.stored, [left.label for left in made.to_do], made.cost) == (1, ["b"], TEN)
    assert (made.committed, made.free) == (FIVE, 998_250_000)


def test_the_cap_lets_through_what_fits_in_order() -> None:
    """A job that does not fit is passed over, a cheaper one behind it is not."""
    made = plan([job("a", 10), job("b", 10), job("c")], cap=5_250_000)
    assert (made.allowed, made.allowed_cost) == (2, TEN + FIVE)


def test_a_limit_bounds_what_is_allowed() -> None:
    """`--limit 1` plans one job and its cost."""
    made = plan([job("a"), job("b")], limit=1)
    assert (made.allowed, made.allowed_cost, len(made.to_do)) == (1, FIVE, 2)
    assert (made.held_by_limit, made.held_by_cap) == (1, 0)


def test_what_the_limit_holds_is_not_blamed_on_the_cap() -> None:
    """The screen says which of the two holds a job back."""
    jobs = [job(f"job {n}") for n in range(10)]
    screen = plan_screen("night", plan(jobs, limit=4), "outputs/night", live=True)
    assert "The limit starts 4 of 10 jobs; the rest is for later runs." in screen
    assert "The cap lets all 4 jobs through, for at most $7.00." in screen
    both = plan(jobs, cap=5_250_000, limit=4)
    assert (both.held_by_limit, both.held_by_cap) == (6, 1)
    assert "The cap lets 3 of 4 jobs through, for $5.25." in plan_screen("night", both, "outputs/night", live=True)


def test_the_deadline_lets_through_what_is_done_by_then() -> None:
    """No time for one generation means none; time enough means all; in between, the number grows with the time."""
    jobs = [job(f"job {n}") for n in range(100)]
    assert plan(jobs).in_time is None
    assert plan(jobs, time_left_s=316).in_time == 0
    assert plan(jobs, time_left_s=318).in_time == 1
    assert plan(jobs, time_left_s=100_000).in_time == 100
    some = [plan(jobs, time_left_s=minutes * 60).in_time or 0 for minutes in range(0, 60, 5)]
    assert some == sorted(some)


def test_jobs_that_failed_are_to_do_only_when_a_retry_is_granted() -> None:
    """Then they are in the cost, so that a person is asked before they are paid for."""
    state = lived((job("a"), GIVEN_UP))
    made = plan([job("a")], state)
    assert (made.failed, made.cost, made.may_spend) == (1, 0, False)
    made = plan([job("a")], state, retried=lambda record: record.error_class == "generation_failed")
    assert (made.failed, made.cost, made.may_spend) == (0, FIVE, True)


@pytest.mark.parametrize("last", [EventKind.RESERVED, EventKind.IN_DOUBT, EventKind.SUBMITTED])
def test_what_is_undecided_may_still_spend(last: EventKind) -> None:
    """An attempt whose end is not known may turn out to need another: nothing new to make, and yet a yes is needed."""
    kinds = [EventKind.RESERVED] if last is EventKind.RESERVED else [EventKind.RESERVED, last]
    made = plan([job("a")], lived((job("a"), kinds)))
    assert (made.to_do, made.cost, made.may_spend) == ((), 0, True)


def test_a_finished_directory_may_not_spend() -> None:
    """Stored, or paid and not yet on disk: a run only makes free calls."""
    assert not plan([job("a")], lived((job("a"), BOUGHT))).may_spend
    assert not plan([job("a")], lived((job("a"), BOUGHT[:3]))).may_spend
