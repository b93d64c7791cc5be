"""Which row of the history belongs to which attempt: decided without any network."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engine import worker
from pipeline.engine.doubt import (
    SWEEPS_FOR_ABSENCE,
    Begun,
    Witness,
    _accept_all,
    _note_absences,
    look_at_account,
    why_too_soon,
)
from pipeline.engine.limits import Breaker
from pipeline.engine.matching import (
    CLOCK_SKEW_US,
    LONGEST_SUBMIT_US,
    MAX_ASKED_BY_NAME,
    ending_of,
    match_rows,
    rows_to_set_aside,
    rows_unexplained,
    speaks_against_absence,
    surely_missing,
    to_ask_by_name,
)
from pipeline.engine.settings import Doubt, Retry
from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, Unnamed
from pipeline.ledger.job import Account, JobRecord, JobState
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Finished, Refused, Uncertain
from pipeline.provider.values import fingerprint

NOW_US = 1_800_000_000_000_000
MINUTE_US = 60_000_000


def attempt(name: str, at_us: int = NOW_US, prompt: str = "a lamp", request_id: str | None = None) -> JobRecord:
    return JobRecord(
        name,
        JobState.IN_DOUBT,
        attempt=1,
        quote_microusd=1_750_000,
        model="kling-2",
        request=json.dumps({"prompt": prompt, "duration": 5, "cfg_scale": 0.5}),
        reserved_us=at_us,
        request_id=request_id,
    )


def row(request_id: str, at_us: int = NOW_US, prompt: str = "a lamp", status: str = "PENDING") -> HistoryRow:
    body = {"duration": 5.0, "prompt": prompt, "cfg_scale": 0.50, "start_image": None}
    return HistoryRow(request_id, status, None, None, "", fingerprint(body), (at_us,))


def matched(
    doubted: list[JobRecord], rows: list[HistoryRow], owned: set[str] | None = None, **seen: int
) -> dict[str, str]:
    pairs = match_rows(doubted, rows, owned or set(), seen)
    assert len({row.request_id for _, row in pairs}) == len(pairs), "one row for at most one attempt"
    return {record.job_id: row.request_id for record, row in pairs}


def test_a_row_of_the_same_request_near_in_time_settles_its_attempt() -> None:
    """Numbers written otherwise, another key order and added nulls do not hide it."""
    assert matched([attempt("a")], [row("request-1"), row("request-2", prompt="a mug")]) == {"a": "request-1"}


def test_replicates_are_settled_as_many_as_there_are_rows() -> None:
    """Five equal attempts and three rows: the three earliest are settled, two stay in doubt."""
    doubted = [attempt(f"r{n}", NOW_US + n) for n in range(5)]
    rows = [row(f"request-{n}", NOW_US + 10 + n) for n in range(3)]
    assert matched(doubted, rows) == {"r0": "request-0", "r1": "request-1", "r2": "request-2"}


def test_a_row_that_belongs_to_another_attempt_is_never_given_away() -> None:
    """Neither one that the ledger knows already, nor the same one twice, listed once for each output."""
    assert matched([attempt("a")], [row("request-1")], {"request-1"}) == {}
    assert matched([attempt("a"), attempt("b")], [row("request-1"), row("request-1")]) == {"a": "request-1"}


def test_other_work_on_the_same_account_is_not_adopted() -> None:
    """A row long before or long after the attempt is somebody else's, and so is one that was listed before it began."""
    assert matched([attempt("a")], [row("request-1", NOW_US - CLOCK_SKEW_US - 1)]) == {}
    assert matched([attempt("a")], [row("request-1", NOW_US + LONGEST_SUBMIT_US + CLOCK_SKEW_US + 1)]) == {}
    later = replace(attempt("a"), reserved_seq=8)
    assert match_rows([later], [row("request-1")], set(), {"request-1": 7}) == []
    assert match_rows([later], [row("request-1")], set(), {"request-1": 8}) != []


def test_clocks_that_disagree_by_a_minute_do_not_hide_a_row() -> None:
    """The provider's clock may be two minutes off."""
    assert matched([attempt("a")], [row("request-1", NOW_US - MINUTE_US)]) == {"a": "request-1"}


def test_a_clock_that_is_years_off_does_not_hide_a_row_once_the_difference_is_known() -> None:
    """The time that an attempt began is the provider's: a machine ten years ahead still finds its own row."""
    years_us = 10 * 365 * 86_400 * 1_000_000
    ahead = replace(attempt("a", NOW_US + years_us), skew_us=-years_us)
    assert matched([ahead], [row("request-1", NOW_US + MINUTE_US)]) == {"a": "request-1"}
    assert speaks_against_absence(ahead, row("request-2", NOW_US + MINUTE_US))
    assert matched([replace(ahead, skew_us=0)], [row("request-1")]) == {}


def test_an_attempt_whose_id_is_known_takes_no_other_row() -> None:
    """Its record had expired: it waits for its own row, and its own row may be one the ledger owns."""
    known = attempt("a", request_id="request-9")
    assert matched([known], [row("request-1")]) == {}
    assert matched([known], [row("request-9", NOW_US + 9 * MINUTE_US)], {"request-9"}) == {"a": "request-9"}


def test_a_list_must_show_what_was_surely_accepted_in_its_time() -> None:
    """By the provider's clock, however the attempt stands now; not what came after, nor a person's word, nor denied."""
    long_ago_us = NOW_US - 10 * 24 * HOUR_US

    def missing(**facts: Any) -> bool:
        known = attempt("a", request_id="request-9")
        record = replace(known, **{"state": JobState.STORED, "submitted_us": NOW_US} | facts)
        state = State()
        state.jobs["a"] = record
        assert list(surely_missing(state, [row("request-9")], long_ago_us, NOW_US)) == []
        return list(surely_missing(state, [row("request-1")], long_ago_us, NOW_US)) == ["request-9"]

    for state in (JobState.SUBMITTED, JobState.IN_DOUBT, JobState.POSTED, JobState.STORED, JobState.FAILED):
        assert missing(state=state)
    assert not missing(reserved_us=NOW_US + 1), "its row may be on its way"
    assert missing(reserved_us=NOW_US + HOUR_US, skew_us=-HOUR_US)
    assert not missing(skew_us=HOUR_US)
    assert missing(reserved_us=long_ago_us + 12 * HOUR_US, submitted_us=long_ago_us + 12 * HOUR_US)
    assert not missing(reserved_us=long_ago_us + 11 * HOUR_US), "the provider's days may be of another zone"
    assert not missing(is_named_by_hand=True)
    assert not missing(state=JobState.VOIDED, error_class="not_billed")
    assert missing(state=JobState.VOIDED, error_class="generation_failed")


def test_a_name_that_only_a_person_gave_does_not_hide_its_row() -> None:
    """It may be mistyped: its own row is taken if it is listed, else one of the same request."""
    typed = replace(attempt("a", request_id="request-9"), is_named_by_hand=True)
    assert matched([typed], [row("request-1")], {"request-9"}) == {"a": "request-1"}
    assert matched([typed], [row("request-1"), row("request-9")], {"request-9"}) == {"a": "request-9"}
    assert matched([typed], [row("request-1", prompt="a mug")], {"request-9"}) == {}


def test_what_a_list_does_not_show_is_asked_for_by_name_a_few_at_a_time() -> None:
    """Not what it shows nor what has no name, and no doubt waits for ever behind others."""
    named = [attempt(f"a{n}", request_id=f"request-{n}") for n in range(MAX_ASKED_BY_NAME + 20)]
    doubted, rows = [attempt("nameless"), *named], [row(f"request-{n}") for n in range(10)]
    rng = random.Random(1)
    asked = [to_ask_by_name(doubted, rows, rng) for _ in range(20)]
    assert {len(each) for each in asked} == {MAX_ASKED_BY_NAME}
    assert set().union(*asked) == {f"request-{n}" for n in range(10, MAX_ASKED_BY_NAME + 20)}


def test_absence_proves_nothing_while_an_unexplained_row_of_the_same_request_is_about() -> None:
    """A row that fits but for its time keeps the attempt in doubt: voiding it might pay twice."""
    record = attempt("a")
    assert speaks_against_absence(record, row("request-1", NOW_US + 60 * MINUTE_US))
    assert speaks_against_absence(record, row("request-1", NOW_US - 8 * 60 * MINUTE_US)), "a time without its zone"
    assert not speaks_against_absence(record, row("request-1", NOW_US - 25 * 60 * MINUTE_US))
    added = HistoryRow("request-1", "PENDING", None, None, "", fingerprint({"prompt": "a lamp", "seed": 42}), (NOW_US,))
    assert speaks_against_absence(record, added), "defaults that the provider adds"
    assert not speaks_against_absence(record, row("request-1", prompt="a mug"))
    unreadable = HistoryRow("request-2", "PENDING", None, None, "", None, (NOW_US,))
    assert speaks_against_absence(record, unreadable)


def test_a_failure_that_was_charged_for_is_not_free() -> None:
    """A FAILED row with a charge is booked; only one without frees its money."""
    charged = HistoryRow("request-1", "FAILED", MicroUsd(1_750_000), None, "broken", None, ())
    assert ending_of(charged) == Finished(cost=MicroUsd(1_750_000), url=None)
    free = HistoryRow("request-1", "FAILED", MicroUsd(0), None, "broken", None, ())
    assert isinstance(ending_of(free), Refused)


def test_a_refused_input_is_one_wherever_it_is_learnt_of() -> None:
    """The history's words are judged as those of a poll: a prompt that must be changed is not tried again."""
    for words, error_class in (
        ("The prompt violates the content policy of the model; change the input.", ErrorClass.INPUT_REFUSED),
        ("internal error of the model", ErrorClass.GENERATION_FAILED),
        ("", ErrorClass.GENERATION_FAILED),
    ):
        ended = ending_of(HistoryRow("request-1", "FAILED", MicroUsd(0), None, words, None, ()))
        assert isinstance(ended, Refused)
        assert ended.error_class is error_class


async def test_the_breaker_counts_an_attempt_once() -> None:
    """In doubt, in doubt again, and void at last: one generation has failed, as errors.csv says."""
    breaker = Breaker(0.1, 3)
    record = replace(attempt("a"), state=JobState.SUBMITTED)

    async def take_in(_event: Event) -> None:
        pass

    run = SimpleNamespace(
        record=take_in,
        clock=SystemClock(),
        slots=SimpleNamespace(release=lambda _: None),
        breaker=breaker,
        outages=SimpleNamespace(note_lost=lambda: None, heed=lambda *_, **__: None),
        settings=SimpleNamespace(retry=Retry()),
        rng=random.Random(1),
    )
    silence, refusal = Uncertain(ErrorClass.NO_REPLY, "silence"), Refused(ErrorClass.GENERATION_FAILED, "no", 422)
    for _ in range(2):
        await worker.doubt(run, record, silence)  # type: ignore[arg-type]
    await worker.void(run, record, refusal)  # type: ignore[arg-type]
    inherited = replace(record, job_id="b", doubted_us=NOW_US)
    await worker.void(run, inherited, refusal)  # type: ignore[arg-type]
    assert breaker.trouble is None
    await worker.void(run, replace(record, attempt=2), refusal)  # type: ignore[arg-type]
    assert breaker.trouble == "3 of the last 3 generations failed", "what an earlier run has doubted is news"


SETTLE_AFTER_S = 7200.0
HOUR_US = 3_600_000_000


def late_enough(*, wall_h: float, grown_h: float | None = None, skew_h: float = 0.0, skew_then_h: float = 0.0) -> bool:
    """Whether a sweep so many hours after the attempt counts; `grown_h` by the monotonic clock, None if inherited."""
    record = replace(attempt("a"), skew_us=int(skew_then_h * HOUR_US))
    run = SimpleNamespace(
        settings=SimpleNamespace(doubt=Doubt(settle_after_s=SETTLE_AFTER_S)),
        skew_us=int(skew_h * HOUR_US),
    )
    witness = Witness()
    if grown_h is None:
        witness.inherit([record])
    witness.noticed_s.setdefault(record.attempt_name, 0.0)
    begun = Begun(NOW_US + int(wall_h * HOUR_US), (grown_h or 0.0) * 3600)
    return why_too_soon(run, witness, record, begun) is None  # type: ignore[arg-type]


def test_an_attempt_is_as_old_as_the_youngest_clock_says() -> None:
    """The wall clock, the clock that only grows, and the provider's: each alone can say that it is too soon."""
    assert late_enough(wall_h=2.1)
    assert late_enough(wall_h=2.1, grown_h=2.1)
    assert not late_enough(wall_h=1.9)
    assert not late_enough(wall_h=9, grown_h=1.9), "set forward, and the provider tells no time"
    assert not late_enough(wall_h=9, skew_h=-7.5), "set forward between two runs"
    assert late_enough(wall_h=9, skew_h=-6.5)
    assert not late_enough(wall_h=1.9, skew_h=3), "set back: by ours it is too soon"


def test_clocks_that_are_days_apart_prove_no_absence() -> None:
    """One of them is wrong, and nobody knows whether the right days were asked for."""
    assert late_enough(wall_h=3, skew_h=23, skew_then_h=23)
    assert not late_enough(wall_h=3, skew_h=25, skew_then_h=25)
    assert not late_enough(wall_h=3, skew_h=-25, skew_then_h=-25)
    assert not late_enough(wall_h=30 * 24)


def test_a_failed_row_goes_first_to_an_attempt_that_was_answered_without_a_name() -> None:
    """One row for each such attempt, of its request and its time; what is done, or charged, is never set aside."""
    unnamed = [Unnamed(str(attempt("a").request), NOW_US)]
    failed, charged = row("request-2", status="FAILED"), replace(row("request-4", status="FAILED"), cost=MicroUsd(1))
    rows = [row("request-1"), failed, row("request-3", status="COMPLETED"), charged]
    assert rows_to_set_aside(unnamed, [], rows, set()) == {"request-2"}
    assert rows_to_set_aside(unnamed, [], rows, {"request-2"}) == {"request-1"}, "what runs may yet fail"
    assert rows_to_set_aside(unnamed * 3, [], rows, set()) == {"request-1", "request-2"}
    far = [
        row("request-1", NOW_US + 60 * MINUTE_US, status="FAILED"),
        row("request-2", prompt="a mug", status="FAILED"),
    ]
    assert rows_to_set_aside(unnamed, [], far, set()) == set()


def test_a_row_that_is_set_aside_explains_itself_only_once_it_has_failed() -> None:
    """What runs may be anybody's, and be charged in the end; what belongs to nobody is never explained."""
    rows = [row("request-1"), row("request-2", status="FAILED"), row("request-3", status="FAILED"), row("request-4")]
    aside, owned = {"request-1", "request-2"}, {"request-4"}
    assert [each.request_id for each in rows_unexplained(rows, owned, aside)] == ["request-1", "request-3"]


@pytest.mark.parametrize(("running", "voided"), [(0, True), (1, False)], ids=["nothing runs", "one that runs hides it"])
async def test_while_what_runs_may_hide_a_charge_absence_is_not_believed(running: int, voided: bool) -> None:
    """The balance lacks a quote that is the running one's, or that of the attempt in doubt: nobody can tell yet."""
    recorded: list[Event] = []
    quote = 1_750_000
    held = running * quote
    balance = MicroUsd(10 * quote - held)

    async def ask(_question: object) -> MicroUsd:
        return balance

    async def take_in(*events: Event) -> None:
        recorded.extend(events)

    books = SimpleNamespace(posted=0, reserved=held)
    run = SimpleNamespace(
        ask=ask,
        record=take_in,
        provider=SimpleNamespace(credits=None),
        ledger=SimpleNamespace(state=SimpleNamespace(books=books)),
        why_in_doubt={},
    )
    record, witness = replace(attempt("a"), account=Account(10 * quote, 0, 0)), Witness()
    for _ in range(SWEEPS_FOR_ABSENCE):
        await _note_absences(run, witness, [record], Begun(NOW_US, 0.0))  # type: ignore[arg-type]
    assert [event.event for event in recorded] == [EventKind.VOIDED] * voided
    held = "the history does not list it, but of the account's balance: what runs hides it: ask again when nothing runs"
    assert voided or run.why_in_doubt == {"a/1": held}


def test_while_a_twin_waits_for_its_answer_only_what_is_done_can_be_matched() -> None:
    """Whichever of two rows is the twin's: one that may yet fail, or has, is left until the twin knows its own."""
    rows = [row("request-1"), row("request-2", status="FAILED"), row("request-3", status="COMPLETED")]
    assert rows_to_set_aside([], [attempt("a")], rows, set()) == {"request-1", "request-2"}
    assert rows_to_set_aside([], [attempt("a", prompt="a mug")], rows, set()) == set()


async def test_a_row_that_got_an_owner_while_another_was_recorded_is_given_to_nobody_else() -> None:
    """An answer came in that very moment: the ledger would refuse the row, and end the run as a defect."""
    recorded: list[Event] = []
    request_ids: dict[str, str] = {}

    async def take_in(*events: Event) -> None:
        recorded.extend(events)
        request_ids.update({"request-2": "twin", "request-3": "c"})

    ledger = SimpleNamespace(state=SimpleNamespace(request_ids=request_ids))
    run = SimpleNamespace(record=take_in, ledger=ledger, breaker=Breaker(0.5, 20))
    pairs = [(attempt(name), row(f"request-{n}")) for n, name in enumerate("abc", start=1)]
    await _accept_all(run, pairs)  # type: ignore[arg-type]
    assert [(event.job_id, event.request_id) for event in recorded] == [("a", "request-1"), ("c", "request-3")]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)], ids=["one ended meanwhile", "one began meanwhile"])
async def test_what_ran_at_either_end_of_a_look_at_the_account_may_be_charged_in_it(before: int, after: int) -> None:
    """The answer is of some moment in between: the larger sum is what may hide a charge."""
    quote = 1_750_000
    books = SimpleNamespace(posted=0, reserved=before * quote)

    async def ask(_question: object) -> MicroUsd:
        books.reserved = after * quote
        return MicroUsd(10 * quote)

    run = SimpleNamespace(
        ask=ask, provider=SimpleNamespace(credits=None), ledger=SimpleNamespace(state=SimpleNamespace(books=books))
    )
    assert await look_at_account(run) == Account(10 * quote, 0, 2 * quote)  # type: ignore[arg-type]
