"""The tables tell what became of every row, every cent and every failure."""

from __future__ import annotations

import json
import random
from collections import Counter
from decimal import Decimal

import pytest
from report_doubles import LIVES, NOON_US, event, life, line, run_event, state_of

from pipeline.kernel.clock import iso
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger import columns
from pipeline.ledger.columns import fold_tables
from pipeline.ledger.encoding import table_of
from pipeline.ledger.events import Event
from pipeline.ledger.fold import State, fold
from pipeline.report.classes import errors_by_class
from pipeline.report.gallery import gallery_page
from pipeline.report.summary import summarise
from pipeline.report.tables import errors, results

CAP = 100_000_000


def test_a_line_for_every_row_whatever_became_of_it() -> None:
    """Each status appears under its own word, in the order of the manifest."""
    statuses = ["stored", "failed", "in_doubt", "running", "pending", "unfetched"]
    state = state_of(*(each for status in statuses for each in life(status, status)))
    lines = [line(row, status) for row, status in enumerate(statuses, start=1)]
    rows = results(lines, state)
    assert [row["status"] for row in rows] == statuses
    assert [row["row"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["cost_usd"] for row in rows] == ["1.75", "0.00", "0.00", "0.00", "0.00", "1.75"]
    assert [row["attempts"] for row in rows] == [1, 1, 1, 1, 0, 1]
    assert [row["video"] for row in rows if row.get("video")] == ["videos/v.mp4"]
    summary = summarise(lines, state, cap_microusd=CAP, live=False)
    assert {status: summary[status] for status in statuses} == dict.fromkeys(statuses, 1)


def test_a_reservation_at_rest_is_in_doubt() -> None:
    """Once nobody waits for the answer, table and summary say the same: in doubt, and nothing reserved."""
    lines, state = [line(1, "a"), line(2, "b")], state_of(*life("reserved", "a"), *life("running", "b"))
    assert [row["status"] for row in results(lines, state)] == ["in_doubt", "running"]
    assert [row["status"] for row in results(lines, state, live=True)] == ["running", "running"]
    rest = summarise(lines, state, cap_microusd=CAP, live=False)
    assert (rest["reserved_usd"], rest["in_doubt_usd"], rest["in_doubt"], rest["running"]) == ("0.00", "3.50", 1, 1)
    live = summarise(lines, state, cap_microusd=CAP, live=True, now_us=0)
    assert (live["reserved_usd"], live["in_doubt_usd"], live["in_doubt"], live["running"]) == ("3.50", "0.00", 0, 2)


def test_rows_that_share_a_job_add_up_to_the_bill() -> None:
    """The cost stands on the first of them only; counts are jobs, `rows` are rows."""
    lines = [line(1, "a"), line(2, "a"), line(2, "b", replicate=2)]
    state = state_of(*life("stored", "a"), *life("unfetched", "b"))
    assert [row["cost_usd"] for row in results(lines, state)] == ["1.75", "0.00", "1.75"]
    summary = summarise(lines, state, cap_microusd=CAP, live=False)
    assert sum(Decimal(row["cost_usd"]) for row in results(lines, state)) == Decimal(summary["posted_usd"])
    assert (summary["rows"], summary["jobs"]) == (2, 2)


def test_variables_never_hide_a_fixed_column() -> None:
    """A variable with the name of a column, or of another variable's column, gets one of its own."""
    (row,) = results([line(1, "a", variables={"status": "s", "variable_status": "v", "row": 7, "mood": "m"})], State())
    assert (row["status"], row["row"], row["mood"]) == ("pending", 1, "m")
    assert (row["variable_variable_status"], row["variable_status"], row["variable_row"]) == ("s", "v", 7)


def test_the_summary_has_its_keys_and_exact_money() -> None:
    """The published keys, money as text with exact cents, and all runs counted together."""
    started, ended = run_event("run_started"), run_event("run_ended", '{"requests_sent":2,"polls":3,"exit_code":3}')
    state = state_of(started, *life("stored", "a"), ended, started, run_event("run_ended", '{"polls":1,"exit_code":0}'))
    summary = summarise([line(1, "a")], state, cap_microusd=10_500_000, live=False)
    assert set(summary) >= {
        *("jobs", "stored", "failed", "in_doubt", "pending", "running", "unfetched", "posted_usd", "reserved_usd"),
        *("in_doubt_usd", "cap_usd", "attempts", "requests_sent", "polls", "started_at", "finished_at", "wall_s"),
        *("exit_code", "stopped_by"),
    }
    assert (summary["cap_usd"], summary["posted_usd"], summary["free_usd"]) == ("10.50", "1.75", "8.75")
    assert (summary["requests_sent"], summary["polls"], summary["exit_code"]) == (2, 4, 0)
    assert summary["wall_s"] == 0.006, "both runs, not the pause between them"


def test_charges_above_their_quotes_are_named() -> None:
    """By attempt, with what was charged and what was quoted: at most twenty, and none of those at their quote."""
    dear = [*life("stored", "a")[:2], event("posted", "a", cost_microusd=3_500_000), event("stored", "a")]
    others = [
        each._replace(cost_microusd=2_000_000) if each.event == "posted" else each
        for number in range(30)
        for each in life("stored", f"b{number}")
    ]
    summary = summarise([line(1, "a")], state_of(*dear, *life("stored", "c")), cap_microusd=CAP, live=False)
    assert summary["above_quotes"] == {"a/1": {"charged_usd": "3.50", "quoted_usd": "1.75"}}
    assert len(summarise([], state_of(*others), cap_microusd=CAP, live=False)["above_quotes"]) == 20


FAILURE = {"error_class": "generation_failed", "http_status": 422, "detail": "no"}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [event("reserved"), event("voided", **FAILURE), event("reserved", attempt=2)],
            [("generation_failed", "no", "Tried again at once: attempt 2 followed.")],
        ),
        ([*life("failed", "a")], [("bad_request", "no", f"Given up. {ErrorClass.BAD_REQUEST.advice}")]),
        (
            [event("reserved"), event("voided", **FAILURE), event("failed", error_class="generation_failed")],
            [("generation_failed", "no", "Given up. Run again with --retry-failed")],
        ),
        ([event("reserved"), event("voided", **FAILURE)], [("generation_failed", "no", "Not tried again yet")]),
        (
            [event("reserved"), event("voided", error_class="out_of_credits", http_status=406)],
            [("out_of_credits", "no", ErrorClass.OUT_OF_CREDITS.advice)],
        ),
        ([*life("in_doubt", "a")], [("no_reply", "unknown", ErrorClass.NO_REPLY.advice)]),
        (
            [*life("in_doubt", "a"), event("voided", error_class="never_accepted"), event("reserved", attempt=2)],
            [("never_accepted", "no", "Tried again at once: attempt 2 followed.")],
        ),
        ([*life("in_doubt", "a"), event("submitted")], []),
        ([*life("in_doubt", "a"), event("submitted"), event("posted")], []),
        ([*life("unfetched", "a")], [("fetch_failed", "yes", ErrorClass.FETCH_FAILED.advice)]),
        ([*life("unfetched", "a"), event("stored")], []),
        (
            [*life("unfetched", "a"), event("stored", error_class="not_as_asked", detail="4 s long")],
            [("not_as_asked", "yes", ErrorClass.NOT_AS_ASKED.advice)],
        ),
        ([*life("stored", "a")], []),
        ([event("reserved"), event("voided", error_class="of_tomorrow")], [("of_tomorrow", "no", "Not tried again")]),
    ],
)
def test_errors_tell_the_truth(events: list, expected: list[tuple[str, str, str]]) -> None:
    """One line per attempt that did not end well: who was billed, what happened next, what to do."""
    rows = errors([line(1, "a")], state_of(*events))
    assert [(row["error_class"], row["billed"]) for row in rows] == [each[:2] for each in expected]
    for row, (_, _, begins) in zip(rows, expected, strict=True):
        assert row["next"].startswith(begins)
        assert (row["row"], row["id"], row["job_id"]) == (1, "row-1", "a")


@pytest.mark.parametrize(
    ("stopped_by", "told"),
    [
        ("cap", "Another attempt is left: raise the cap, then run again."),
        ("deadline", "Another attempt is left: run again, with a later deadline."),
        ("limit", "Another attempt is left: run again."),
        (None, "Another attempt is left: run again."),
    ],
)
def test_at_rest_it_is_said_what_brings_another_attempt(stopped_by: str | None, told: str) -> None:
    """Under the same cap a run would do nothing; and what ended a run says it of the class as well."""
    ended = run_event("run_ended", json.dumps({"exit_code": 3, "stopped_by": stopped_by}))
    state = state_of(run_event("run_started"), event("reserved"), event("voided", **FAILURE), ended)
    assert [row["next"] for row in errors([line(1, "a")], state)] == [told]
    assert [row["next"] for row in errors_by_class([line(1, "a")], state)] == [
        f"The generation failed at the provider. {told}"
    ]


def test_each_attempt_has_its_own_line() -> None:
    """Three attempts that failed are three lines, oldest first; the one that went well is none."""
    events = []
    for attempt in (1, 2, 3):
        events += [event("reserved", attempt=attempt), event("voided", attempt=attempt, **FAILURE)]
    events += [event(kind, attempt=4) for kind in ("reserved", "submitted", "posted", "stored")]
    assert [row["attempt"] for row in errors([line(1, "a")], state_of(*events))] == [1, 2, 3]


def test_each_attempt_keeps_the_name_that_the_provider_gave_it() -> None:
    """Also when another followed: whoever asks the provider about a failure needs it. What had no name has none."""
    events = [event("reserved"), event("submitted"), event("voided", **FAILURE)]
    events += [event("reserved", attempt=2), event("voided", attempt=2, error_class="server_error")]
    events += [event(kind, attempt=3) for kind in ("reserved", "in_doubt", "submitted")]
    events += [event("voided", attempt=3, **FAILURE)]
    rows = errors([line(1, "a")], state_of(*events, event("reserved", attempt=4)))
    assert [row["request_id"] for row in rows] == ["req-a-1", None, "req-a-3"]


@pytest.mark.parametrize(
    ("waits_s", "told"),
    [
        ((4.2, 0.3), ("after 4 s", "at once")),
        ((1_200, 7_260), ("after 20 min", "after 2 h 01 min")),
        ((-5, 90_000), ("at once", "after 25 h 00 min")),
    ],
)
def test_the_wait_before_each_further_attempt_is_told(waits_s: tuple[float, float], told: tuple[str, str]) -> None:
    """From the end of an attempt to the beginning of the next, also when the wall clock was set back."""
    events: list[Event] = []
    at_us = NOON_US
    for attempt, wait_s in enumerate((0, *waits_s), start=1):
        at_us += round(wait_s * 1e6)
        events += [event("reserved", attempt=attempt, at_us=at_us), event("voided", attempt=attempt, **FAILURE)]
        events[-1] = events[-1]._replace(at_us=at_us)
    state = fold(each._replace(seq=seq) for seq, each in enumerate(events, start=1))
    *again, last = errors([line(1, "a")], state)
    for number, (row, wait) in enumerate(zip(again, told, strict=True), start=2):
        assert row["next"].startswith(f"Tried again {wait}:")
        assert row["next"].endswith(f": attempt {number} followed.")
    assert last["next"].startswith("Not tried again yet")


def test_an_error_of_a_row_that_has_left_the_manifest_stays() -> None:
    """Its job is named; its row is empty."""
    (row,) = errors([], state_of(*life("failed", "a")))
    assert (row["row"], row["id"], row["job_id"]) == (None, None, "a")


def test_every_life_can_be_told() -> None:
    """No status breaks a table, with or without its row in the manifest."""
    for status in LIVES:
        state = state_of(*life(status, "a"))
        errors([], state)
        errors([line(1, "a")], state)
        results([line(1, "a")], state)


@pytest.mark.parametrize("seed", range(20))
def test_a_ledger_that_was_read_by_columns_is_reported_as_one_that_was_read_by_events(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tables, summary and page, also where rows share jobs, jobs are unknown, and moments lie anywhere."""
    monkeypatch.setattr(columns, "FEW", 1)
    rng = random.Random(seed)
    fates = {f"job-{number}": rng.choice([*LIVES, "stored", "stored"]) for number in range(rng.randint(0, 12))}
    events = [run_event("run_started"), *(each for job, fate in fates.items() for each in life(fate, job))]
    moment_us, stamped = NOON_US, []
    for seq, each in enumerate(events, start=1):
        moment_us += rng.choice([0, 1, 999, 1_001, 61_000_000, rng.randint(0, 10**10)])
        stamped.append(each._replace(seq=seq, at_us=moment_us))
    one_by_one, together = fold(stamped), State()
    fold_tables(together, [table_of(stamped)])
    jobs = [*fates, "job-99"]
    assert together.count(jobs) == one_by_one.count(jobs) == Counter(map(one_by_one.state_of, jobs))
    lines = [line(n, rng.choice(jobs), variables=rng.choice([{}, {"mood": n}])) for n in range(rng.randint(0, 15))]
    seen = []
    for state in (one_by_one, together):
        summary = summarise(lines, state, cap_microusd=CAP, live=False)
        page = gallery_page("night", lines, state, summary, errors(lines, state))
        seen.append((results(lines, state), errors(lines, state), summary, page))
    assert seen[0] == seen[1]
    for row, each in zip(seen[0][0], lines, strict=True):
        record = one_by_one.jobs.get(each.job_id)
        assert row["submitted_at"] == (iso(record.submitted_us) if record else None)
