"""The fold and the books against a naive account of them: every word about every job, in any order.

The account is written in other words than the code. What may happen to a job is one regular expression over the
letters of its events, and every sum is added up anew from the attempts whenever it is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hunting import PATIENCE, hunt, hunting
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from score import LONG, Score

from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import MOVES, State, fold
from pipeline.ledger.job import JobState

pytestmark = PATIENCE

LETTERS = {
    EventKind.RESERVED: "r",
    EventKind.IN_DOUBT: "d",
    EventKind.SUBMITTED: "s",
    EventKind.VOIDED: "v",
    EventKind.POSTED: "p",
    EventKind.FETCH_FAILED: "x",
    EventKind.STORED: "t",
    EventKind.FAILED: "f",
    EventKind.RETRY_GRANTED: "g",
}
OPEN = "rd?(sd)*s?"
VOIDED = f"{OPEN}v(fg)*"
LIFE = re.compile(f"({VOIDED})*({OPEN}|{VOIDED}f|rd?(sd)*spx*t?)?")
"""All that may ever be said of one job, a letter for each event."""

STANDS = {
    "r": JobState.RESERVED,
    "d": JobState.IN_DOUBT,
    "s": JobState.SUBMITTED,
    "v": JobState.VOIDED,
    "g": JobState.VOIDED,
    "p": JobState.POSTED,
    "x": JobState.POSTED,
    "t": JobState.STORED,
    "f": JobState.FAILED,
}
"""Where a job stands after its last letter."""

COUNTED = ("generation_failed", "server_error")
QUOTES = (1, 1_750_000, 3_500_000)
JOBS = "abcd"


@dataclass
class Attempt:
    """One submission of a job: what was said of it, letter by letter."""

    quote: int
    word: str = "r"
    request_id: str | None = None
    charge: int = 0
    failures: list[str | None] = field(default_factory=list)


@dataclass
class Account:
    """What was said so far, by job and attempt, and nothing that could be added up from it."""

    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    troubles: list[Event] = field(default_factory=list)
    runs: int = 0

    def word(self, job: str) -> str:
        return "".join(attempt.word for (name, _), attempt in self.attempts.items() if name == job)

    def latest(self, job: str) -> int:
        return max((number for name, number in self.attempts if name == job), default=0)

    def why_not(self, said: Event) -> str | None:
        """Why `said` cannot be; None if it can."""
        if said.event in (EventKind.RUN_STARTED, EventKind.RUN_ENDED):
            return None if (said.detail or "{}").startswith("{") else "facts that are no facts"
        if not said.job_id:
            return "no job"
        if not LIFE.fullmatch(self.word(said.job_id) + LETTERS[said.event]):
            return "no such move"
        if said.attempt != self.latest(said.job_id) + (said.event is EventKind.RESERVED):
            return "wrong attempt"
        if said.event is EventKind.RESERVED and said.quote_microusd <= 0:
            return "no quote"
        if said.event is EventKind.POSTED and said.cost_microusd < 0:
            return "a refund"
        return self._why_not_so_named(said) if said.event is EventKind.SUBMITTED else None

    def _why_not_so_named(self, said: Event) -> str | None:
        mine = self.attempts[said.job_id or "", said.attempt]
        if not said.request_id:
            return "no request id"
        if mine.request_id is not None:
            return None if mine.request_id == said.request_id else "another request id"
        owned = any(attempt.request_id == said.request_id for attempt in self.attempts.values())
        return "a foreign request id" if owned else None

    def take(self, said: Event) -> None:
        if said.event in (EventKind.RUN_STARTED, EventKind.RUN_ENDED):
            self.runs += said.event is EventKind.RUN_STARTED
            return
        key = (said.job_id or "", said.attempt)
        if said.event is EventKind.RESERVED:
            self.attempts[key] = Attempt(said.quote_microusd)
            return
        attempt = self.attempts[key]
        attempt.word += LETTERS[said.event]
        if said.event is EventKind.SUBMITTED:
            attempt.request_id = said.request_id
        elif said.event is EventKind.POSTED:
            attempt.charge = said.cost_microusd
        elif said.event is EventKind.VOIDED:
            attempt.failures.append(said.error_class)
        if said.error_class is not None:
            self.troubles.append(said._replace(request_id=attempt.request_id))

    def posted(self) -> int:
        return sum(attempt.charge for attempt in self.attempts.values() if "p" in attempt.word)

    def reserved(self) -> int:
        return sum(attempt.quote for attempt in self.attempts.values() if attempt.word[-1] in "rs")

    def in_doubt(self) -> int:
        return sum(attempt.quote for attempt in self.attempts.values() if attempt.word[-1] == "d")

    def counted_failures(self, job: str) -> int:
        """Those since a person last granted another try."""
        count = 0
        for (name, _), attempt in self.attempts.items():
            if name == job:
                count = (0 if "g" in attempt.word else count) + sum(
                    failure in COUNTED for failure in attempt.failures if "g" not in attempt.word
                )
        return count


def say(account: Account, kind: EventKind, job: str, **facts: Any) -> Event:
    """An event that could follow, as far as the kind can, save for what `facts` say."""
    number = account.latest(job) + (kind is EventKind.RESERVED)
    usual: dict[str, Any] = {"attempt": number}
    if kind is EventKind.RESERVED:
        usual |= {"quote_microusd": QUOTES[1], "request": '{"prompt":"a lamp"}'}
    elif kind is EventKind.SUBMITTED:
        known = account.attempts.get((job, number))
        usual["request_id"] = known.request_id if known and known.request_id else f"own-{job}-{number}"
    elif kind is EventKind.POSTED:
        usual["cost_microusd"] = QUOTES[1]
    elif kind in (EventKind.VOIDED, EventKind.IN_DOUBT, EventKind.FETCH_FAILED, EventKind.FAILED):
        usual["error_class"] = "server_error"
    return Event(event=kind, job_id=job, **usual | facts)


class Ledgers(RuleBasedStateMachine):
    """The state as the pipeline folds it, beside the naive account of the same words."""

    score: Score

    def __init__(self) -> None:
        super().__init__()
        self.score.trials += 1
        self.state = State()
        self.history: list[Event] = []
        self.account = Account()
        self.highest: dict[int, int] = {}

    def tell(self, said: Event, seq: int | None = None) -> None:
        """Both hear it: either both take it in, or the state refuses it and, by the invariants, is as it was."""
        following = len(self.history) + 1
        heard = said._replace(seq=seq or following)
        heard_right = heard.seq == following
        why_not = self.account.why_not(heard) if heard_right else "wrong number"
        if why_not is not None:
            with pytest.raises(ImpossibleMoveError):
                self.state.apply(heard)
            self.score.fired[f"refused: {why_not}"] += 1
            return
        self.note(heard)
        self.state.apply(heard)
        self.account.take(heard)
        self.history.append(heard)

    def note(self, said: Event) -> None:
        """Count what is about to be taken in: every arrow of the drawing, and every kind of charge."""
        record = self.state.jobs.get(said.job_id or "")
        self.score.fired[arrow(record.state if record else None, said.event)] += 1
        if said.event is EventKind.POSTED and record is not None:
            quote, cost = record.quote_microusd, said.cost_microusd
            kind = "above" if cost > quote else "nothing" if cost == 0 else "at most the quote"
            self.score.fired[f"charged: {kind}"] += 1
            self.highest[quote] = max(cost, quote, self.highest.get(quote, 0))

    def may_follow(self, job: str, pick: int) -> EventKind | None:
        """One of the kinds that may follow for `job`; None where its life is over."""
        kinds = [kind for kind in LETTERS if self.is_possible(job, kind)]
        return kinds[pick % len(kinds)] if kinds else None

    def is_possible(self, job: str, kind: EventKind) -> bool:
        return LIFE.fullmatch(self.account.word(job) + LETTERS[kind]) is not None

    @rule(
        job=st.sampled_from(JOBS),
        picks=st.lists(st.integers(0, 5), min_size=2, max_size=6),
        quote=st.sampled_from(QUOTES),
        more=st.sampled_from((0, -3_500_000, -1, 1, 35_000_000)),
        error=st.sampled_from(("server_error", "generation_failed", "never_accepted", "of another version", None)),
    )
    def what_may_follow(self, job: str, picks: list[int], quote: int, more: int, error: str | None) -> None:
        for pick in picks:
            kind = self.may_follow(job, pick)
            facts: dict[str, Any] = {}
            if kind is None:
                return
            if kind is EventKind.RESERVED:
                facts["quote_microusd"] = self.state.books.quote(quote)
            elif kind is EventKind.POSTED:
                facts["cost_microusd"] = max(0, self.state.jobs[job].quote_microusd + more)
            elif kind is EventKind.VOIDED:
                facts["error_class"] = error
            self.tell(say(self.account, kind, job, **facts))

    @rule(job=st.sampled_from(JOBS), pick=st.integers(0, 5), off=st.sampled_from((-1, 1, 7)))
    def of_a_wrong_attempt(self, job: str, pick: int, off: int) -> None:
        if (kind := self.may_follow(job, pick)) is not None:
            right = say(self.account, kind, job)
            self.tell(right._replace(attempt=right.attempt + off))

    @rule(
        kind=st.sampled_from((EventKind.POSTED, EventKind.SUBMITTED, EventKind.RESERVED)),
        job=st.sampled_from(JOBS),
        money=st.sampled_from((-1, 0)),
        pick=st.integers(0, 10**6),
    )
    def with_wrong_facts(self, kind: EventKind, job: str, money: int, pick: int) -> None:
        """The right kind of event for a job that waits for it, with money or a name that may be wrong."""
        waiting = [name for name in sorted({job, *self.state.jobs}) if self.is_possible(name, kind)]
        if waiting:
            facts = {"quote_microusd": money, "cost_microusd": money, "request_id": (None, "", "own")[pick % 3]}
            self.tell(say(self.account, kind, waiting[pick % len(waiting)], **facts))

    @rule(job=st.sampled_from(JOBS), name=st.sampled_from((None, "")))
    def answered_without_a_name(self, job: str, name: str | None) -> None:
        """What was reserved is answered, but under no name."""
        if self.is_possible(job, EventKind.RESERVED):
            self.tell(say(self.account, EventKind.RESERVED, job))
        if self.is_possible(job, EventKind.SUBMITTED):
            self.tell(say(self.account, EventKind.SUBMITTED, job, request_id=name))

    @rule(quote=st.sampled_from(QUOTES), more=st.lists(st.sampled_from((35_000_000, 1, -1, 0)), min_size=2, max_size=4))
    def charged_one_after_the_other(self, quote: int, more: list[int]) -> None:
        """Several that were reserved at one quote before the first of them was charged above it."""
        quote = self.state.books.quote(quote)
        begun = [job for job in JOBS if self.is_possible(job, EventKind.RESERVED)]
        for job in begun:
            self.tell(say(self.account, EventKind.RESERVED, job, quote_microusd=quote))
            self.tell(say(self.account, EventKind.SUBMITTED, job))
        for job, above in zip(begun, more, strict=False):
            self.tell(say(self.account, EventKind.POSTED, job, cost_microusd=quote + above))

    @rule(pick=st.integers(0, 10**6), job=st.sampled_from(JOBS), doubted=st.booleans())
    def under_the_name_of_another(self, pick: int, job: str, doubted: bool) -> None:
        """What was reserved is answered, or found after doubt, under a name that an attempt has already."""
        if self.state.request_ids and self.is_possible(job, EventKind.RESERVED):
            self.tell(say(self.account, EventKind.RESERVED, job))
            if doubted:
                self.tell(say(self.account, EventKind.IN_DOUBT, job))
            owned = list(self.state.request_ids)
            self.tell(say(self.account, EventKind.SUBMITTED, job, request_id=owned[pick % len(owned)]))

    @rule(pick=st.integers(0, 10**6), right=st.booleans())
    def found_again_after_doubt(self, pick: int, right: bool) -> None:
        """A submitted attempt whose record expired comes back, under its own name or another."""
        running = [record.job_id for record in self.state.in_state(JobState.SUBMITTED)]
        if running:
            job = running[pick % len(running)]
            self.tell(say(self.account, EventKind.IN_DOUBT, job))
            self.tell(say(self.account, EventKind.SUBMITTED, job, **{} if right else {"request_id": "another"}))

    @rule(job=st.sampled_from(JOBS), kind=st.sampled_from(sorted(LETTERS)))
    def anything(self, job: str, kind: EventKind) -> None:
        self.tell(say(self.account, kind, job))

    @rule(pick=st.integers(0, 10**6), as_recorded=st.booleans())
    def again(self, pick: int, as_recorded: bool) -> None:
        """An event that was heard before, with its own number or with the next one."""
        if self.history:
            said = self.history[pick % len(self.history)]
            self.tell(said, said.seq if as_recorded else None)

    @rule(job=st.sampled_from(JOBS), kind=st.sampled_from(sorted(LETTERS)), off=st.sampled_from((-2, -1, 1, 2, 99)))
    def under_a_wrong_number(self, job: str, kind: EventKind, off: int) -> None:
        self.tell(say(self.account, kind, job), len(self.history) + 1 + off or -1)

    @rule(kind=st.sampled_from(sorted(LETTERS)), job=st.sampled_from((None, "")))
    def about_nobody(self, kind: EventKind, job: str | None) -> None:
        self.tell(Event(event=kind, job_id=job, attempt=1, quote_microusd=1, request_id="request-of-nobody"))

    @rule(
        kind=st.sampled_from((EventKind.RUN_STARTED, EventKind.RUN_ENDED)),
        detail=st.sampled_from((None, "{}", '{"cap_microusd":5}', "[]", "5", "null", "NaN")),
    )
    def about_a_run(self, kind: EventKind, detail: str | None) -> None:
        self.tell(Event(event=kind, detail=detail, error_class="no trouble of an attempt"))

    @invariant()
    def the_books_are_what_the_attempts_add_up_to(self) -> None:
        books, account = self.state.books, self.account
        assert (books.posted, books.reserved, books.in_doubt) == (
            account.posted(),
            account.reserved(),
            account.in_doubt(),
        )
        assert books.committed == sum(record.liability_microusd for record in self.state.jobs.values())
        assert books.free(10**7) == max(0, 10**7 - account.posted() - account.reserved() - account.in_doubt())

    @invariant()
    def the_quotes_cover_every_charge_seen(self) -> None:
        for quote in (*QUOTES, *self.highest):
            assert self.state.books.quote(quote) >= self.highest.get(quote, quote)

    @invariant()
    def every_job_stands_where_its_last_word_left_it(self) -> None:
        account = self.account
        jobs = dict.fromkeys(name for name, _ in account.attempts)
        assert list(self.state.jobs) == list(jobs)
        for job in jobs:
            record, attempt = self.state.jobs[job], account.attempts[job, account.latest(job)]
            assert record.state is STANDS[attempt.word[-1]]
            assert record.attempt == account.latest(job)
            assert record.quote_microusd == attempt.quote
            assert record.request_id == attempt.request_id
            assert record.fetch_failures == attempt.word.count("x")
            assert record.counted_failures == account.counted_failures(job)
        assert +self.state.counts == Counter(STANDS[account.word(job)[-1]] for job in jobs)
        assert self.state.attempts == len(account.attempts)
        assert self.state.troubles == account.troubles
        assert len(self.state.runs) == account.runs
        assert self.state.last_seq == len(self.history)

    @invariant()
    def a_request_id_is_one_attempts_for_life(self) -> None:
        owners = [
            (attempt.request_id, job) for (job, _), attempt in self.account.attempts.items() if attempt.request_id
        ]
        assert self.state.request_ids == dict(owners)
        assert len(dict(owners)) == len(owners)

    @invariant()
    def the_events_alone_give_the_same_state(self) -> None:
        assert fold(self.history) == self.state


def arrow(before: JobState | None, kind: EventKind) -> str:
    """An arrow of the drawing, by its beginning and its event."""
    return f"{before.name.lower() if before else 'planned'} {kind}"


REFUSALS = (
    "wrong number",
    "wrong attempt",
    "no job",
    "no such move",
    "no quote",
    "a refund",
    "no request id",
    "another request id",
    "a foreign request id",
    "facts that are no facts",
)


def test_any_words_in_any_order(new_score: Callable[[str], Score]) -> None:
    """Possible or not, repeated, misnumbered or misnamed: the state is what the attempts add up to, or unchanged."""
    score = Ledgers.score = new_score("fold: any words in any order")
    with hunting(score):
        run_state_machine_as_test(Ledgers, settings=hunt(200))
    score.conclude(
        [arrow(*move) for move in MOVES]
        + [f"refused: {why}" for why in REFUSALS]
        + [f"charged: {kind}" for kind in ("above", "nothing", "at most the quote")]
    )


def lives(longest: int) -> Iterator[tuple[str, Account, list[Event]]]:
    """Every possible life of one job of at most `longest` events, as letters, account and events."""
    words = [""]
    for word in words:
        account, events = Account(), []
        for letter in word:
            kind = next(kind for kind, its in LETTERS.items() if its == letter)
            events.append(say(account, kind, "a")._replace(seq=len(events) + 1))
            account.take(events[-1])
        yield word, account, events
        if len(word) < longest:
            words += [word + letter for letter in LETTERS.values() if LIFE.fullmatch(word + letter)]


def test_every_life_of_a_job(new_score: Callable[[str], Score]) -> None:
    """All possible lives up to a length, each with every word after it: what the expression allows, the table does."""
    score = new_score("fold: every life of a job")
    for word, account, events in lives(14 if LONG else 9):
        for kind, letter in LETTERS.items():
            with score.trial(f"{letter} after {word or 'nothing'}"):
                state = fold(events)
                said = say(account, kind, "a")._replace(seq=len(events) + 1)
                before = STANDS[word[-1]] if word else None
                if LIFE.fullmatch(word + letter):
                    state.apply(said)
                    assert state.jobs["a"].state is STANDS[letter] is MOVES[before, kind]
                    score.fired[arrow(before, kind)] += 1
                else:
                    with pytest.raises(ImpossibleMoveError):
                        state.apply(said)
                    assert (before, kind) not in MOVES
                    assert state == fold(events)
    score.conclude([arrow(*move) for move in MOVES])
