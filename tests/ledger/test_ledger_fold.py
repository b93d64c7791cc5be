"""What the events say is true: only what the design allows, and always to the micro-dollar."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ledger_doubles import AFTER, JOB_EVENTS, QUOTE, STATES, STEPS, NaiveJob, event, legal, life, numbered, state_of

import pipeline.kernel.clock
import pipeline.ledger
from pipeline.kernel.errors import ERROR_CLASSES, Reaction
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.events import RUN_EVENTS, SAID_BILLED, Event, EventKind
from pipeline.ledger.fold import MOVES, State, fold
from pipeline.ledger.job import JobState


def named(state: JobState | None) -> str:
    return state.name.lower() if state else "planned"


def refuse(state: State, *events: Event) -> None:
    """`state` must refuse the last of `events`, numbered on from it, and stay as it was before that."""
    *good, bad = numbered(events, state.last_seq + 1)
    for each in good:
        state.apply(each)
    before = copy.deepcopy(state)
    with pytest.raises(ImpossibleMoveError):
        state.apply(bad)
    assert state == before
    assert list(state.jobs) == list(before.jobs)


def test_the_table_of_moves_is_that_of_the_design() -> None:
    """Not one arrow more, not one less; every kind of event is a job's or a run's."""
    assert {(named(before), kind.value): named(after) for (before, kind), after in MOVES.items()} == AFTER
    assert {kind.value for kind in EventKind} == {*JOB_EVENTS, *RUN_EVENTS}
    assert {state.name.lower() for state in JobState} == {*STATES} - {"planned"}


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("kind", JOB_EVENTS)
def test_each_event_in_each_state_moves_as_drawn_or_changes_nothing(before: str, kind: str) -> None:
    """All pairs of state and event: the drawn arrows are taken, the others raise and leave everything as it was."""
    state = state_of([*life("submitted", "b"), *life(before)])
    happened = event(kind, attempt=2 if (before, kind) == ("voided", "reserved") else 1)
    if (before, kind) in AFTER:
        state.apply(numbered([happened], state.last_seq + 1)[0])
        assert named(state.jobs["a"].state) == AFTER[before, kind]
    else:
        refuse(state, happened)
        refuse(state, event(kind, attempt=2))


@pytest.mark.parametrize("before", STATES)
def test_an_event_of_another_attempt_changes_nothing(before: str) -> None:
    """A late word about an earlier attempt, or one about an attempt that was never made, is refused."""
    for kind in [kind for state, kind in AFTER if state == before]:
        right = 2 if (before, kind) == ("voided", "reserved") else 1
        for attempt in {-1, 0, 1, 2, 3} - {right}:
            refuse(state_of(life(before)), event(kind, attempt=attempt))


@pytest.mark.parametrize("last", [0, 1, 5])
def test_a_gap_a_repeat_or_a_step_back_in_the_numbers_is_refused(last: int) -> None:
    """An event missing, twice or out of order is seen at once, before money is counted."""
    state = state_of([event("reserved", job=f"job-{index}") for index in range(last)])
    for seq in {-1, 0, last - 1, last, last + 2, last + 100}:
        before = copy.deepcopy(state)
        [misplaced] = numbered([event("reserved", job="new")], seq)
        with pytest.raises(ImpossibleMoveError, match=f"event {seq} follows event {last}"):
            state.apply(misplaced)
        assert state == before


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ("planned", event("reserved", quote_microusd=0)),
        ("planned", event("reserved", quote_microusd=-1)),
        ("voided", event("reserved", attempt=2, quote_microusd=0)),
        ("submitted", event("posted", cost_microusd=-1)),
        ("planned", Event(event=EventKind.RESERVED, attempt=1, quote_microusd=1)),
        ("planned", Event(event=EventKind.RESERVED, job_id="", attempt=1, quote_microusd=1)),
        ("reserved", event("submitted", request_id=None)),
        ("reserved", event("submitted", request_id="")),
        ("in_doubt", event("submitted", request_id=None)),
    ],
)
def test_money_and_names_that_cannot_be_change_nothing(before: str, wrong: Event) -> None:
    """No quote of nothing, no cost below zero, no event of no job, no acceptance without an id."""
    paid = [event(kind, "b") for kind in ("reserved", "submitted", "posted")]
    refuse(state_of([*paid, *life(before)]), wrong)


def test_a_request_id_belongs_to_one_attempt_for_life() -> None:
    """Neither another job nor a later attempt of the same job gets it, whatever became of its owner."""
    for owner in ("submitted", "posted", "stored"):
        state = state_of([*life(owner, "b"), *life("reserved")])
        refuse(state, event("submitted", request_id="req-b-1"))
        refuse(state, event("in_doubt"), event("submitted", request_id="req-b-1"))
    state = state_of([*life("submitted"), event("voided")])
    refuse(state, event("reserved", attempt=2), event("submitted", attempt=2, request_id="req-a-1"))
    state.apply(numbered([event("submitted", attempt=2)], state.last_seq + 1)[0])
    assert state.request_ids == {"req-a-1": "a", "req-a-2": "a"}


def uploaded(digit: str, url: str | None) -> Event:
    return Event(event=EventKind.UPLOADED, sha256=digit * 64, url=url, path="mug.png", bytes=5)


def test_an_upload_is_remembered_by_its_bytes_and_moves_nothing_else() -> None:
    """The latest URL of each content; no job, no money."""
    state = state_of([*life("reserved"), uploaded("a", "https://x/1"), uploaded("b", "https://x/2")])
    state.apply(numbered([uploaded("a", "https://x/3")], state.last_seq + 1)[0])
    assert state.uploads == {"sha256:" + "a" * 64: "https://x/3", "sha256:" + "b" * 64: "https://x/2"}
    state.uploads.clear()
    state.last_seq = 1
    assert state == state_of(life("reserved"))


def test_an_upload_without_a_hash_or_a_url_changes_nothing() -> None:
    """It could never be found again, or would be sent as nothing."""
    for wrong in (uploaded("a", None), uploaded("a", ""), uploaded("g", "https://x/1"), uploaded("", "https://x/1")):
        refuse(state_of(life("reserved")), wrong)


def test_an_attempt_keeps_its_request_id_through_doubt() -> None:
    """What is in doubt because its record expired comes back under its own id and no other."""
    state = state_of([*life("submitted"), event("in_doubt")])
    refuse(state, event("submitted", request_id="another"))
    submitted_us = state.jobs["a"].submitted_us
    state.apply(numbered([event("submitted")], state.last_seq + 1)[0])
    assert state.jobs["a"].submitted_us == submitted_us
    assert state.request_ids == {"req-a-1": "a"}


def said(request_id: str, job: str = "a") -> Event:
    """A person's word on an attempt in doubt."""
    return event("submitted", job, request_id=request_id, detail=f"ann on desk {SAID_BILLED}: as the invoice has it")


def test_a_name_that_a_person_gave_can_be_replaced_until_the_provider_has_confirmed_it() -> None:
    """By another word or by the history; and whoever else it belongs to may have it then."""
    doubted = [*life("in_doubt"), said("mistyped"), event("in_doubt")]
    for other in (said("right"), event("submitted", request_id="right")):
        state = state_of([*doubted, other, *life("reserved", "b"), event("submitted", "b", request_id="mistyped")])
        assert state.request_ids == {"right": "a", "mistyped": "b"}
        assert state.jobs["a"].request_id == "right"
    refuse(state_of([*doubted, *life("posted", "b")]), said("req-b-1"))
    confirmed = [*doubted, event("submitted", request_id="mistyped"), event("in_doubt")]
    refuse(state_of(confirmed), said("right"))
    refuse(state_of([*life("submitted"), event("in_doubt"), said("req-a-1"), event("in_doubt")]), said("right"))
    assert not state_of([*doubted, said("right"), event("posted")]).jobs["a"].is_named_by_hand


def test_a_word_that_is_taken_back_names_nothing_any_more() -> None:
    """Not billed after all: what was said to be its request may be another's."""
    denied = event("voided", error_class="not_billed", detail="ann on desk said that it was not billed")
    story = [*life("in_doubt"), said("of-b"), event("in_doubt"), denied, *life("in_doubt", "b"), said("of-b", "b")]
    state = state_of(story)
    assert state.request_ids == {"of-b": "b"}
    assert state.jobs["a"].request_id is None


def test_the_age_of_what_doubt_delayed_counts_from_its_reservation() -> None:
    """It may have been accepted at once, so its record may expire an hour after that, at the first microsecond too."""
    reserved, doubted, found = numbered([event("reserved"), event("in_doubt"), event("submitted")])
    state = fold([reserved, doubted, found])
    assert state.jobs["a"].submitted_us == reserved.at_us
    life_again = numbered([*life("submitted"), event("in_doubt"), event("submitted")])
    at_zero = [
        Event(event=each.event, job_id="a", attempt=1, seq=each.seq, at_us=at_us, quote_microusd=1, request_id="id")
        for each, at_us in zip(life_again, (0, 0, 5, 9), strict=True)
    ]
    assert fold(at_zero).jobs["a"].submitted_us == 0


def test_when_a_job_first_began_is_kept_whatever_became_of_that_attempt() -> None:
    """By the provider's clock as it was known then: refused or accepted, and however often it was tried again."""
    skewed = Event(event=EventKind.ACCOUNT, detail='{"skew_us":7}')
    first, *later = life("reserved"), event("voided"), event("reserved", attempt=2), event("submitted", attempt=2)
    story = numbered([skewed, *first, skewed._replace(detail='{"skew_us":0}'), *later])
    record = fold(story).jobs["a"]
    assert (record.attempt, record.first_began_us) == (2, story[1].at_us + 7)
    assert record.reserved_us == story[4].at_us


def test_only_what_the_provider_tried_in_vain_counts_against_the_attempts() -> None:
    """Failures and server errors count, all else does not; a grant starts the count again but not the attempts."""
    history: list[Event] = []
    for attempt, error in enumerate(ERROR_CLASSES, start=1):
        history += [event("reserved", attempt=attempt), event("voided", attempt=attempt, error_class=error)]
    state = state_of(history)
    counted = sum(kind.reaction is Reaction.RETRY_COUNTED for kind in ERROR_CLASSES.values())
    assert state.jobs["a"].counted_failures == counted > 0
    last = len(ERROR_CLASSES)
    state = state_of([*history, event("failed", attempt=last), event("retry_granted", attempt=last)])
    assert (state.jobs["a"].counted_failures, state.jobs["a"].attempt, state.attempts) == (0, last, last)


def test_runs_are_noted_and_move_no_money() -> None:
    """Their facts are kept, they name no job, and no state or count moves with them."""
    started = Event(event=EventKind.RUN_STARTED, detail='{"cap_microusd":5}', error_class="none")
    state = state_of([started, *life("submitted"), Event(event=EventKind.RUN_ENDED, detail='{"exit_code":0}'), started])
    assert [run.facts for run in state.runs] == [{"cap_microusd": 5}] * 2
    assert [run.outcome for run in state.runs] == [{"exit_code": 0}, {}]
    assert state.runs[0].ended_us is not None
    assert state.troubles == []
    assert +state.counts == Counter({JobState.SUBMITTED: 1})
    for garbage in ("{", "[]", "5", "null"):
        refuse(state, Event(event=EventKind.RUN_STARTED, detail=garbage))


class Life(RuleBasedStateMachine):
    """Any word about any job in any order, against books kept by adding up the histories from the beginning."""

    cap = 12_000_000

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.history: list[Event] = []
        self.jobs: dict[str, NaiveJob] = {}
        self.excess = 0
        self.highest: dict[int, int] = {}

    @rule(
        job=st.sampled_from("abcde"),
        choice=st.integers(0, 10),
        quote=st.sampled_from([1, QUOTE, 2 * QUOTE, 5_000_000]),
        charge=st.one_of(st.just(None), st.integers(0, 8_000_000)),
    )
    def legal_move(self, job: str, choice: int, quote: int, charge: int | None) -> None:
        known = self.jobs.get(job, NaiveJob())
        options = [happened for state, happened in AFTER if state == known.state]
        if not options:
            return
        kind = options[choice % len(options)]
        attempt = known.attempt + (kind == "reserved")
        facts: dict[str, object] = {}
        if kind == "reserved":
            facts["quote_microusd"] = quote = self.state.books.quote(quote)
            if quote > self.state.books.free(self.cap):
                return
        if kind == "posted":
            facts["cost_microusd"] = cost = known.quote if charge is None else charge
            self.excess += max(0, cost - known.quote)
            self.highest[known.quote] = max(cost, self.highest.get(known.quote, 0), known.quote)
        if kind == "submitted" and known.request_id:
            facts["request_id"] = known.request_id
        [happened] = numbered([event(kind, job, attempt, **facts)], self.state.last_seq + 1)
        self.state.apply(happened)
        self.history.append(happened)
        self.jobs.setdefault(job, known).take(happened)

    @rule(
        job=st.sampled_from("abcde"),
        kind=st.sampled_from(JOB_EVENTS),
        attempt=st.integers(0, 3),
        money=st.integers(-1, 1),
    )
    def any_word(self, job: str, kind: str, attempt: int, money: int) -> None:
        known = self.jobs.get(job, NaiveJob())
        right = known.attempt + (kind == "reserved")
        if (known.state, kind) in AFTER and attempt == right and money >= (kind == "reserved"):
            return
        bad = event(kind, job, attempt, quote_microusd=money, cost_microusd=money)
        if (known.state, kind) in AFTER and attempt == right and kind not in ("reserved", "posted"):
            return
        refuse(self.state, bad)

    @invariant()
    def the_books_are_the_sum_of_the_histories(self) -> None:
        books, jobs = self.state.books, self.jobs.values()
        assert books.posted == sum(each.cost_microusd for each in self.history if each.event is EventKind.POSTED)
        assert books.reserved == sum(job.quote for job in jobs if job.state in ("reserved", "submitted"))
        assert books.in_doubt == sum(job.quote for job in jobs if job.state == "in_doubt")
        assert books.committed == sum(job.liability for job in jobs)
        assert books.committed == sum(record.liability_microusd for record in self.state.jobs.values())
        assert min(books.posted, books.reserved, books.in_doubt) >= 0

    @invariant()
    def the_cap_is_a_wall_but_for_charges_above_their_quotes(self) -> None:
        assert self.state.books.committed <= self.cap + self.excess
        assert self.state.books.free(self.cap) == max(0, self.cap - self.state.books.committed)

    @invariant()
    def the_quotes_cover_every_charge_seen(self) -> None:
        for quote, charge in self.highest.items():
            assert self.state.books.quote(quote) >= charge

    @invariant()
    def every_job_stands_where_it_is_counted(self) -> None:
        assert {name: named(record.state) for name, record in self.state.jobs.items()} == {
            name: job.state for name, job in self.jobs.items()
        }
        assert +self.state.counts == Counter(record.state for record in self.state.jobs.values())
        assert self.state.attempts == sum(job.attempt for job in self.jobs.values())
        troubles = [each._replace(request_id=None) for each in self.state.troubles]
        assert troubles == [each for each in self.history if each.error_class]
        assert self.state.last_seq == len(self.history)

    def teardown(self) -> None:
        assert fold(self.history) == self.state


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase


@given(STEPS, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_ledger_that_lost_an_event_does_not_fold(steps: list[tuple[str, int, int]], lost: int) -> None:
    """Whichever event before the last is taken out, the fold refuses instead of telling a smaller truth."""
    events = numbered(legal(steps))
    if lost < len(events) - 1:
        with pytest.raises(ImpossibleMoveError):
            fold(events[:lost] + events[lost + 1 :])


def test_nothing_that_keeps_the_books_rests_on_assertions() -> None:
    """`python -O` strips assertions: the refusals of ledger, money and files must be there all the same."""
    kernel, ledger = Path(pipeline.kernel.clock.__file__).parent, Path(pipeline.ledger.__file__).parent
    sources = [*ledger.glob("*.py"), kernel / "files.py", kernel / "usd.py", kernel / "clock.py"]
    for source in sources:
        assert not [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Assert)], source


def charged(job: str, seconds: int, quote: int, cost: int) -> list[Event]:
    """A job of a length that was quoted one amount and is charged another."""
    body = f'{{"duration":{seconds},"prompt":"a"}}'
    return [
        event("reserved", job, quote_microusd=quote, request=body),
        event("submitted", job),
        event("posted", job, cost_microusd=cost),
    ]


def test_a_charge_above_its_quote_says_nothing_of_another_length() -> None:
    """Twice the price of 5 s is the list price of 10 s: what those are charged above it is no price of 5 s."""
    five, ten = QUOTE, 2 * QUOTE
    books = state_of([*charged("a", 5, five, ten), *charged("b", 10, ten, 2 * ten)]).books
    assert (books.quote(five, "5"), books.quote(ten, "10")) == (ten, 2 * ten)
    books = state_of([*charged("a", 10, ten, 2 * ten), *charged("b", 5, five, ten), *charged("c", 5, ten, 9)]).books
    assert (books.quote(five, "5"), books.quote(ten, "10")) == (ten, 2 * ten), "in whichever order they come"


def test_a_length_that_is_charged_ever_more_is_quoted_ever_more() -> None:
    """Also where the raised quote is the list price of another length, and where a later charge was lower."""
    lives = [
        *charged("a", 5, QUOTE, 2 * QUOTE),
        *charged("b", 5, 2 * QUOTE, 3 * QUOTE),
        *charged("c", 5, QUOTE, QUOTE + 1),
    ]
    assert state_of(lives).books.quote(QUOTE) == 3 * QUOTE


@pytest.mark.parametrize("facts", [{"request": None}, {"request": "no JSON"}, {"request": "[]"}, {"model": "another"}])
def test_a_charge_for_what_no_body_explains_counts_all_the_same(facts: dict[str, str | None]) -> None:
    """An old ledger, or one of a model that is not known any more, is read, and its charges raise what follows."""
    reserved, *rest = charged("a", 5, QUOTE, 3 * QUOTE)
    assert state_of([reserved._replace(**facts), *rest]).books.quote(QUOTE) == 3 * QUOTE
