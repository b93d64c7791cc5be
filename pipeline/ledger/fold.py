"""The fold: what the events say is true now.

`State.apply` is the only way in which state comes to be: a live run applies each event as it records it, and a restart
applies the same events from the files, so the two are equal by construction. `MOVES` is the one table of what may
follow what; `docs/design.md` draws it, and a test holds the two equal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.kernel.arrow import Texts
from pipeline.kernel.errors import ERROR_CLASSES, ErrorClass, Reaction
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.budget import Books, ImpossibleMoveError
from pipeline.ledger.events import RUN_EVENTS, SAID_BILLED, Event, EventKind
from pipeline.ledger.job import Account, JobRecord, JobState
from pipeline.ledger.records import Records, RequestIds
from pipeline.models import MODELS
from pipeline.models.values import is_image_hash

MOVES: dict[tuple[JobState | None, EventKind], JobState] = {
    (None, EventKind.RESERVED): JobState.RESERVED,
    (JobState.VOIDED, EventKind.RESERVED): JobState.RESERVED,
    (JobState.RESERVED, EventKind.SUBMITTED): JobState.SUBMITTED,
    (JobState.RESERVED, EventKind.IN_DOUBT): JobState.IN_DOUBT,
    (JobState.RESERVED, EventKind.VOIDED): JobState.VOIDED,
    (JobState.IN_DOUBT, EventKind.SUBMITTED): JobState.SUBMITTED,
    (JobState.IN_DOUBT, EventKind.VOIDED): JobState.VOIDED,
    (JobState.SUBMITTED, EventKind.IN_DOUBT): JobState.IN_DOUBT,
    (JobState.SUBMITTED, EventKind.VOIDED): JobState.VOIDED,
    (JobState.SUBMITTED, EventKind.POSTED): JobState.POSTED,
    (JobState.POSTED, EventKind.FETCH_FAILED): JobState.POSTED,
    (JobState.POSTED, EventKind.STORED): JobState.STORED,
    (JobState.VOIDED, EventKind.FAILED): JobState.FAILED,
    (JobState.FAILED, EventKind.RETRY_GRANTED): JobState.VOIDED,
}
"""(state, event) to the state after it. What is not here must not happen."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """An attempt that may have run and failed, where the answer did not say its request id.

    The history may list it as a failed row that no attempt owns. `began_us` is by the provider's clock.
    """

    request: str
    began_us: int


@dataclass(slots=True)
class RunRecord:
    """One run on the directory: what it said when it started and when it ended."""

    started_us: int
    facts: dict[str, Any]
    ended_us: int | None = None
    outcome: dict[str, Any] = field(default_factory=dict)
    started_seq: int = 0
    was_idle: bool = False
    """Whether nothing was recorded between its start and its end."""


@dataclass(slots=True)
class State:
    """Everything that the ledger says, folded."""

    books: Books = field(default_factory=Books)
    jobs: Records = field(default_factory=Records)
    request_ids: RequestIds = field(init=False)
    runs: list[RunRecord] = field(default_factory=list)
    counts: Counter[JobState] = field(default_factory=Counter)
    """How many jobs are in each state."""
    troubles: list[Event] = field(default_factory=list)
    """Every event that carries an error class, in order, with its attempt's request id: what errors.csv is made of."""
    above_quotes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What was charged for each attempt above its quote, and that quote, by `JobRecord.attempt_name`. Micro-dollars."""
    tried_again_us: dict[tuple[str, int], int] = field(default_factory=dict)
    """When each attempt after the first of its job began, by job and number."""
    unnamed: list[Unnamed] = field(default_factory=list)
    """The attempts that may have run and failed without a known request id, in order."""
    largest_bytes: int = 0
    """The size of the largest video that was ever stored."""
    account: Account | None = None
    """The last look at the account."""
    skew_us: int = 0
    """How far the provider's clock was ahead of ours when it was last noted."""
    uploads: dict[str, str] = field(default_factory=dict)
    """Where the provider keeps each start image that was a file, by `sha256:` and the hash of its bytes."""
    last_seq: int = 0
    attempts: int = 0

    def __post_init__(self) -> None:
        self.request_ids = RequestIds(self.jobs)

    def apply(self, event: Event) -> None:
        """Take in one event.

        Raises:
            ImpossibleMoveError: the table of moves does not allow it, or its attempt, request id or money contradicts
                what is known. Nothing is changed then.
        """
        if event.seq != self.last_seq + 1:
            raise ImpossibleMoveError(f"event {event.seq} follows event {self.last_seq}")
        if event.event in RUN_EVENTS:
            self._apply_run(event)
        else:
            self._apply_job(event)
        self.last_seq = event.seq

    def _apply_run(self, event: Event) -> None:
        facts = _facts(event)
        if event.event is EventKind.RUN_STARTED:
            self.runs.append(RunRecord(event.at_us, facts, started_seq=event.seq))
        elif event.event is EventKind.ACCOUNT:
            self._apply_account(event, facts)
        elif event.event is EventKind.UPLOADED:
            self._apply_upload(event)
        elif self.runs:
            last = self.runs[-1]
            last.ended_us, last.outcome = event.at_us, facts
            last.was_idle = event.seq == last.started_seq + 1

    def _apply_account(self, event: Event, facts: dict[str, Any]) -> None:
        balance, skew_us = facts.get("balance_microusd"), facts.get("skew_us", self.skew_us)
        if not (balance is None or isinstance(balance, int)) or not isinstance(skew_us, int):
            raise ImpossibleMoveError(f"event {event.seq}: the account's facts are no whole numbers")
        self.skew_us = skew_us
        if balance is not None:
            self.account = Account(MicroUsd(balance), self.books.posted, self.books.reserved, self.books.in_doubt)

    def _apply_upload(self, event: Event) -> None:
        hashed = f"sha256:{event.sha256}"
        if not is_image_hash(hashed) or not event.url:
            raise ImpossibleMoveError(f"event {event.seq}: an upload without a hash or a URL")
        self.uploads[hashed] = event.url

    def _apply_job(self, event: Event) -> None:
        if not event.job_id:
            raise ImpossibleMoveError(f"event {event.seq}: {event.event} of no job")
        known = self.jobs.get(event.job_id)
        after = self._check_move(known, event)
        record = known or JobRecord(event.job_id)
        # Each of these moves its money first: if the books refuse that, nothing has changed yet.
        _TAKE_IN[event.event](self, record, event)
        if known is None:
            self.jobs[event.job_id] = record
        else:
            self.counts[record.state] -= 1
        record.state = after
        self.counts[after] += 1
        if event.error_class is not None:
            # The event does not hold the request id of its attempt, and the record forgets it with the next attempt.
            self.troubles.append(event._replace(request_id=record.request_id))

    def _check_move(self, record: JobRecord | None, event: Event) -> JobState:
        before = record.state if record else None
        after = MOVES.get((before, event.event))
        if after is None:
            stands = f"is {before.name.lower()}" if before else "has no attempt yet"
            raise ImpossibleMoveError(f"event {event.seq} says `{event.event}` for job {event.job_id}, which {stands}")
        latest = record.attempt if record else 0
        expected = latest + 1 if event.event is EventKind.RESERVED else latest
        if event.attempt != expected:
            raise ImpossibleMoveError(f"event {event.seq}: attempt {event.attempt} of {event.job_id}, not {expected}")
        if event.event is EventKind.SUBMITTED:
            self._check_request_id(record, event)
        return after

    def _check_request_id(self, record: JobRecord | None, event: Event) -> None:
        """An attempt keeps its request id for life, unless only a person gave it. No other attempt may have it."""
        mine = record.request_id if record else None
        owner = self.request_ids.get(event.request_id or "")
        if not event.request_id or (owner is not None and mine != event.request_id):
            raise ImpossibleMoveError(f"event {event.seq}: request id {event.request_id} belongs to {owner}")
        if mine not in (None, event.request_id) and not (record and record.is_named_by_hand):
            raise ImpossibleMoveError(f"event {event.seq}: request id {event.request_id}, but its attempt is {mine}")

    @property
    def key_salt(self) -> str | None:
        """What the marks of keys are made with, the same for all runs; None before the first that has noted one."""
        return next((salt for run in self.runs if isinstance(salt := run.facts.get("key_salt"), str)), None)

    def key_mark_at(self, seq: int) -> str | None:
        """The mark of the key that the run of an event had; None if it has not noted one."""
        at = bisect_right(self.runs, seq, key=lambda run: run.started_seq)
        mark = self.runs[at - 1].facts.get("key_mark") if at else None
        return mark if isinstance(mark, str) else None

    def in_state(self, *states: JobState) -> Iterator[JobRecord]:
        """The jobs in any of `states`, in the order in which they were first reserved."""
        among = self.jobs.values() if JobState.STORED in states else self.jobs.unsettled()
        return (record for record in among if record.state in states)

    def states_of(self, job_ids: Collection[str] | Texts) -> list[JobState | None]:
        """The state of each of these jobs, as `state_of` tells it, looked up together."""
        found = self.jobs.find(job_ids)
        states: list[JobState | None] = found.of_rows(JobState.STORED)
        for place, record in found.beside_rows():
            states[place] = record.state
        return states

    def count(self, job_ids: Collection[str] | Texts) -> Counter[JobState | None]:
        """How many of these jobs are in each state; None counts those before their first attempt."""
        found = self.jobs.find(job_ids)
        others = found[found.of_no_row()].records()
        counts = Counter(None if record is None else record.state for record in others)
        counts[JobState.STORED] += len(found) - len(others)
        return counts

    def state_of(self, job_id: str) -> JobState | None:
        """The state of a job, without a record being made; None before its first attempt."""
        record = self.jobs.unsettled_record(job_id)
        if record is not None:
            return record.state
        return JobState.STORED if job_id in self.jobs else None


def _facts(event: Event) -> dict[str, Any]:
    try:
        facts = orjson.loads(event.detail or "{}")
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ImpossibleMoveError(f"event {event.seq}: the facts of a run are not a JSON object")
    return facts


def _reserved(state: State, record: JobRecord, event: Event) -> None:
    state.books.reserve(event.quote_microusd)
    state.attempts += 1
    if event.attempt == 1:
        record.first_reserved_seq = event.seq
        record.first_began_us = event.at_us + state.skew_us
    else:
        state.tried_again_us[record.job_id, event.attempt] = event.at_us
    record.attempt = event.attempt
    record.quote_microusd = event.quote_microusd
    record.request = event.request
    record.model = event.model
    record.path = event.path
    record.reserved_us = event.at_us
    record.reserved_seq = event.seq
    record.skew_us = state.skew_us
    record.account = state.account
    record.is_named_by_hand = False
    record.doubted_us = record.submitted_us = record.posted_us = record.ended_us = None
    record.request_id = record.url = record.error_class = record.error = None
    record.http_status = record.fetch_failures = 0


def _submitted(state: State, record: JobRecord, event: Event) -> None:
    if record.state is JobState.IN_DOUBT:
        state.books.settle(record.quote_microusd)
    is_known = record.request_id == event.request_id and not record.is_named_by_hand
    if record.request_id not in (None, event.request_id):
        _take_back_name(state, record)
    record.is_named_by_hand = SAID_BILLED in (event.detail or "") and not is_known
    if event.request_id is not None:  # always: the move was checked
        state.request_ids.note(event.request_id, record.job_id)
    record.request_id = event.request_id
    # An attempt in doubt was submitted when its money was reserved: its age, and so its expiry, count from there.
    accepted_us = record.reserved_us if record.state is JobState.IN_DOUBT else event.at_us
    if record.submitted_us is None:
        record.submitted_us = accepted_us
    record.error_class = record.error = None


def _in_doubt(state: State, record: JobRecord, event: Event) -> None:
    state.books.doubt(record.quote_microusd)
    record.doubted_us = event.at_us
    _note_error(record, event)


def _voided(state: State, record: JobRecord, event: Event) -> None:
    state.books.void(record.quote_microusd, doubted=record.state is JobState.IN_DOUBT)
    error_class = ERROR_CLASSES.get(event.error_class or "")
    if error_class is not None and error_class.reaction is Reaction.RETRY_COUNTED:
        record.counted_failures += 1
    if error_class in MAY_HAVE_RUN and record.request_id is None and record.request is not None:
        state.unnamed.append(Unnamed(record.request, record.began_us))
    if error_class is ErrorClass.NOT_BILLED and record.is_named_by_hand:
        _take_back_name(state, record)
    _note_error(record, event)
    record.ended_us = event.at_us


def _take_back_name(state: State, record: JobRecord) -> None:
    """Forget a request id that a person has named wrongly: the request may be another attempt's."""
    if record.request_id is not None:
        state.request_ids.take_back(record.request_id)
    record.request_id, record.is_named_by_hand = None, False


def _posted(state: State, record: JobRecord, event: Event) -> None:
    # The price key is looked up only where it counts: most are charged what was quoted.
    is_above = event.cost_microusd > record.quote_microusd
    state.books.post(record.quote_microusd, event.cost_microusd, _price_key(record) if is_above else None)
    if is_above:
        state.above_quotes[record.attempt_name] = event.cost_microusd, record.quote_microusd
    record.cost_microusd = event.cost_microusd
    record.is_named_by_hand = False
    record.url = event.url
    record.posted_us = event.at_us
    record.queue_s = event.queue_s
    record.inference_s = event.inference_s
    record.error_class, record.error = event.error_class, event.detail


def _price_key(record: JobRecord) -> str | None:
    """Which price holds for a job, by the body that was sent; None where the body does not tell."""
    model = MODELS.get(record.model or "")
    try:
        return model.price_key(orjson.loads(record.request or "")) if model is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def _fetch_failed(_state: State, record: JobRecord, event: Event) -> None:
    record.fetch_failures += 1
    record.url = event.url or record.url
    _note_error(record, event)


def _stored(state: State, record: JobRecord, event: Event) -> None:
    state.largest_bytes = max(state.largest_bytes, event.bytes)
    record.path, record.poster, record.sha256 = event.path, event.poster, event.sha256
    # Nobody needs these two once the video is here, and a million of them take much memory.
    record.request = record.url = None
    record.bytes, record.duration_s = event.bytes, event.duration_s
    record.width, record.height = event.width, event.height
    record.ended_us = event.at_us
    _note_error(record, event)


def _failed(_state: State, record: JobRecord, event: Event) -> None:
    record.ended_us = event.at_us
    _note_error(record, event)


def _retry_granted(_state: State, record: JobRecord, _event: Event) -> None:
    record.counted_failures = 0
    # Why it failed no longer decides anything: the person who grants the retry knows better.
    record.error_class = record.error = None


def _note_error(record: JobRecord, event: Event) -> None:
    record.error_class, record.error, record.http_status = event.error_class, event.detail, event.http_status


_TAKE_IN = {
    EventKind.RESERVED: _reserved,
    EventKind.SUBMITTED: _submitted,
    EventKind.IN_DOUBT: _in_doubt,
    EventKind.VOIDED: _voided,
    EventKind.POSTED: _posted,
    EventKind.FETCH_FAILED: _fetch_failed,
    EventKind.STORED: _stored,
    EventKind.FAILED: _failed,
    EventKind.RETRY_GRANTED: _retry_granted,
}


MAY_HAVE_RUN = frozenset({ErrorClass.SERVER_ERROR, ErrorClass.GENERATION_FAILED, ErrorClass.INPUT_REFUSED})
"""Refusals by a provider that may have accepted the request first."""


def fold(events: Iterable[Event]) -> State:
    """The state after `events`, in the order of their `seq` from 1, without gaps."""
    state = State()
    for event in events:
        state.apply(event)
    return state
