"""The plan: what a run would do, decided from jobs, ledger, prices, cap and clock alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from job_doubles import make_job

from pipeline.cli.plan_json import plan_json
from pipeline.cli.plan_screen import credits_line, plan_screen
from pipeline.forecast import Plan, make_plan
from pipeline.jobs import Job
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.manifest import Entry

FIVE, TEN = MicroUsd(1_750_000), MicroUsd(3_500_000)


def job(name: str, duration: int = 5) -> Job:
    return make_job("kling-2", {"prompt": name, "duration": duration, "aspect_ratio": "16:9"}, 1, name)


def price(wanted: Job) -> MicroUsd:
    return TEN if wanted.params["duration"] == 10 else FIVE


def plan(jobs: list[Job], state: State | None = None, cap: int = 1_000_000_000, **more: Any) -> Plan:
    usual: dict[str, Any] = {"requests_per_minute": 50, "max_in_flight": 40, "expected_s": 317}
    entries = [Entry(number, each.label, each, {}, 0) for number, each in enumerate(jobs, start=1)]
    return make_plan(
        entries=more.pop("entries", entries),
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


def test_a_price_that_the_provider_has_exceeded_is_explained() -> None:
    """Else nobody knows why a plan costs twice as much as the day before."""
    state = lived((job("a"), BOUGHT))
    state.books.charged_above = {"5": TEN}
    dear = plan([job("b"), job("c", 10)], state)
    assert [(line.price, line.listed) for line in dear.lines] == [(TEN, FIVE), (TEN, TEN)]
    said = "Charges above the price were seen here: $3.50 is set aside for a job of 5 s, whose price is $1.75."
    assert said in plan_screen("night", dear, "outputs/night", live=True, now_us=0)
    told = plan_json("night", dear, "outputs/night", live=True, order="file", warnings=())
    assert [(each["price_usd"], each["listed_usd"]) for each in told["by_duration"]] == [
        ("3.50", "1.75"),
        ("3.50",) * 2,
    ]
    assert "Charges" not in plan_screen("night", plan([job("b")]), "outputs/night", live=True, now_us=0)


def test_a_limit_may_be_larger_than_any_machine_counts() -> None:
    """It is no limit then."""
    assert plan([job("a"), job("b")], limit=2**63).allowed == 2


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
    screen = plan_screen("night", plan(jobs, limit=4), "outputs/night", live=True, now_us=0)
    assert "The limit starts 4 of 10 jobs; the rest is for later runs." in screen
    assert "The cap lets all 4 jobs through, for at most $7.00." in screen
    both = plan(jobs, cap=5_250_000, limit=4)
    assert (both.held_by_limit, both.held_by_cap) == (6, 1)
    assert "The cap lets 3 of 4 jobs through, for $5.25." in plan_screen(
        "night", both, "outputs/night", live=True, now_us=0
    )


def test_the_deadline_lets_through_what_is_done_by_then() -> None:
    """No time for one generation means none, time enough all; in between it grows. A canary takes its time first."""
    jobs = [job(f"job {n}") for n in range(100)]
    assert plan(jobs).in_time is None
    assert plan(jobs, time_left_s=316).in_time == 0
    assert plan(jobs, time_left_s=318).in_time == 1
    assert plan(jobs, time_left_s=100_000).in_time == 100
    canary = plan(jobs, time_left_s=320, canaries=3)
    assert (canary.in_time, canary.expected_s) == (1, plan(jobs[:3]).expected_s + plan(jobs[3:]).expected_s)
    some = [plan(jobs, time_left_s=minutes * 60).in_time or 0 for minutes in range(0, 60, 5)]
    assert some == sorted(some)


def test_each_value_of_an_axis_says_what_it_comes_to() -> None:
    """In order of first mention, by type too; a job that two rows share counts once, where it comes first."""
    jobs = [job("a"), job("b", 10), job("c")]
    asked = [(1, jobs[0], {"mood": "cozy", "n": 1}), (2, jobs[1], {"mood": "bold", "n": True}),
             (3, jobs[2], {"mood": "cozy"}), (4, jobs[1], {"mood": "calm"})]  # fmt: skip
    entries = [Entry(row, each.label, each, {}, 0, axes) for row, each, axes in asked]
    made = plan(jobs, lived((job("a"), BOUGHT)), entries=entries)
    mood, number = made.axes
    assert [(each.value, each.jobs, each.to_do, each.cost) for each in mood.values] == [
        ("cozy", 2, 1, FIVE),
        ("bold", 1, 1, TEN),
        ("calm", 0, 0, 0),
    ]
    assert [(repr(each.value), each.jobs) for each in number.values] == [("1", 1), ("True", 1)]
    assert made.duplicates == 1


def test_a_job_is_named_by_the_row_that_asks_for_it_first() -> None:
    """However many entries a row has, and whoever asks for the same job later."""
    jobs = [job("a"), job("b")]
    entries = [
        Entry(row, name, each, {}, 0) for row, name, each in zip((1, 1, 2, 3), "xxyz", [*jobs, *jobs], strict=True)
    ]
    made = plan(jobs, cap=FIVE, entries=entries)
    assert (made.rows, made.jobs, made.duplicates) == (3, 2, 2)
    assert made.last is not None
    assert (made.last.row_id, [each.row_id for each in made.held]) == ("x", ["x"])


def test_the_screen_shows_some_values_and_counts_the_rest() -> None:
    """At most six axes with twelve values each on the screen; a thousand values for scripts, and how many more."""
    jobs = [job(f"job {n}") for n in range(1_030)]
    entries = [
        Entry(1, "sweep", each, {}, 0, {"n": n} | {f"axis {m}": 0 for m in range(7)}) for n, each in enumerate(jobs)
    ]
    made = plan(jobs, entries=entries)
    shown = plan_screen("night", made, "outputs/night", live=True, now_us=0, whole=True)
    assert re.search(r"\n  11 +1 +1 +\$1\.75\n  … and 1,018 more\n", shown)
    assert "axis 4" in shown
    assert "axis 5" not in shown
    assert "… and 2 axes more" in shown
    assert re.search(r"\n  5 s +\$1\.75   1,030   1,030   \$1,802\.50\n", shown)
    assert max(map(len, shown.split("\n"))) <= 80
    told = plan_json("night", made, "outputs/night", live=True, order="file", warnings=())
    assert [(axis["axis"], len(axis["values"]), axis["more"]) for axis in told["by_axis"]][:2] == [
        ("n", 1_000, 30),
        ("axis 0", 1, 0),
    ]


def test_the_cap_says_where_it_stops() -> None:
    """Which job is the last that fits, and which are not made, in their order, those that are passed over too."""
    jobs = [job("a"), job("b", 10), job("c"), job("d"), job("e"), job("f", 10)]
    entries = [Entry(row, each.label, each, {}, 0, {"mood": each.label * 60}) for row, each in enumerate(jobs)]
    made = plan(jobs, cap=2 * FIVE, entries=entries)
    assert (made.fits, made.last, made.passes_over) == ((True, False, True, False, False, False), entries[2], True)
    assert [entry.row_id for entry in made.held] == ["b", "d", "e", "f"]
    shown = plan_screen("night", made, "outputs/night", live=True, now_us=0, whole=True)
    assert f"The last that fits is c-1 (mood: {'c' * 41}…).\nNot made, or passed over for what is cheaper" in shown
    assert f"  b-1   (mood: {'b' * 41}…)\n  d-1" in shown
    assert "\n  … and 1 more\n" in shown
    straight = plan(jobs[2:], cap=2 * FIVE, limit=3)
    shown = plan_screen("night", straight, "outputs/night", live=True, now_us=0, whole=True)
    assert "The cap stops after d-1.\nNot made, in this order:\n  e-1\n  f-1\n" in shown
    told = plan_json("night", straight, "outputs/night", live=True, order="file", warnings=())
    assert [(each["id"], each["price_usd"], each["held_by"]) for each in told["not_allowed"]] == [
        ("e", "1.75", "cap"),
        ("f", "3.50", "limit"),
    ]


EVENING_US = 1_780_354_800_000_000
"""2026-06-01, 23:00 in UTC."""


@pytest.fixture
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's clock shows UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_utc")
@pytest.mark.parametrize(
    ("some", "left_s", "told"),
    [
        (1, None, "about 5 min: done about 23:05 if started now.\n"),
        (500, None, "about 69 min: done about 00:08 tomorrow if started now.\n"),
        (50_000, None, "about 4.6 days: done about 13:04 on Sat 06 Jun if started now.\n"),
        (100, 7.5 * 3600, "The deadline, 06:30 tomorrow, leaves time for all 100 jobs.\n"),
        (100, 600, "The deadline, 23:10, leaves time for about 39 of 100 jobs.\n"),
        (100, 60, "The deadline, 23:01, leaves time for not even one job.\n"),
    ],
)
def test_the_hour_is_said(some: int, left_s: float | None, told: str) -> None:
    """When it would be done, in local time, and how much the deadline leaves time for."""
    made = plan([job(f"job {n}") for n in range(some)], cap=10**12, time_left_s=left_s)
    assert told in plan_screen("n", made, "o", live=True, now_us=EVENING_US) + "\n"


def test_what_there_is_already_comes_with_what_becomes_of_it() -> None:
    """Collected, settled or left; what is reserved while nobody waits for an answer is in doubt."""
    reserved = [EventKind.RESERVED]
    state = lived((job("a"), BOUGHT), (job("b"), BOUGHT[:3]), (job("c"), GIVEN_UP), (job("d"), reserved))
    jobs = [job(name) for name in "abcd"]
    shown = plan_screen("n", plan(jobs, state), "o", live=True, now_us=0)
    assert "Already: 1 stored, 1 paid and not yet on disk, 1 in doubt, 1 failed.\nA run first collects" in shown
    assert "looked for in the history before it is paid again" in shown
    assert "--retry-failed" in shown
    assert "Already: 1 stored, 1 running" in plan_screen("n", plan(jobs, state, live=True), "o", live=True, now_us=0)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (FIVE + TEN, "Credits: $5.25, enough for the 2 jobs that may start."),
        (FIVE, "Credits: $1.75, $3.50 short of $5.25 for the 2 jobs that may start."),
    ],
)
def test_credits_are_held_against_the_plan(held: int, told: str) -> None:
    """Enough, or how much is missing."""
    assert credits_line(plan([job("a"), job("b", 10)]), held) == told
    assert "nothing would be spent" in credits_line(plan([job("a")], lived((job("a"), BOUGHT))), held)


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
