"""Settling doubt: what the account's history says of attempts whose answer never came.

Presence settles at once: a row with the same request, near in time, that belongs to no other attempt. Absence is
weaker evidence, because rows land late and clocks are set wrong: an attempt counts as never accepted only after two
complete sweeps of the history, both begun later than `in_doubt.settle_after_s` after the attempt by every clock there
is and listing all that was surely accepted, and never while the account's balance shows that money is missing.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from pipeline.engine.balance import BalanceSays, what_the_balance_says
from pipeline.engine.context import SKEW_NOISE_US, RunContext
from pipeline.engine.history import DAY_US, LONGEST_WINDOW_DAYS, read_history
from pipeline.engine.worker import ending_of
from pipeline.kernel.clock import duration
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import Account, JobRecord, JobState, State, Unnamed
from pipeline.provider.replies import Expired, Finished, HistoryRow, Refused, fingerprint

log = logging.getLogger("kling_batch")

CLOCK_SKEW_US = 120_000_000
"""How far the provider's clock and ours may be apart without being noticed."""

LONGEST_SUBMIT_US = 120_000_000
"""How long after its reservation a submission may at most have reached the provider."""

SWEEPS_FOR_ABSENCE = 2

MAX_ASKED_BY_NAME = 50
"""Doubts whose request is known and not listed, of which so many are asked for one by one with each sweep."""

Attempt = tuple[str, int]
"""A job's id and the attempt's number."""


def attempt_of(record: JobRecord) -> Attempt:
    return record.job_id, record.attempt


@dataclass(slots=True)
class Witness:
    """What this run has seen of the history so far."""

    first_seen_seq: dict[str, int] = field(default_factory=dict)
    """The ledger's last event when each row was first listed: an attempt gets no row that is older than itself."""
    absences: dict[Attempt, int] = field(default_factory=lambda: defaultdict(int))
    """Complete sweeps, late enough, that did not show an attempt."""
    noticed_s: dict[Attempt, float] = field(default_factory=dict)
    """When this process first knew of a doubt, by the clock that only grows; minus infinity for what it inherited."""

    def inherit(self, records: Iterable[JobRecord]) -> None:
        """Take over doubts of an earlier process: for their age there is only the wall clock."""
        self.noticed_s |= {attempt_of(record): float("-inf") for record in records}


def match_rows(
    doubted: Iterable[JobRecord],
    rows: Iterable[HistoryRow],
    owned: Collection[str],
    first_seen_seq: Mapping[str, int],
) -> list[tuple[JobRecord, HistoryRow]]:
    """Pair attempts in doubt with rows of the history, one to one.

    Attempts at the same request cannot be told apart, so of k such attempts and m rows that no other attempt owns,
    the earlier min(k, m) are paired. `owned` are the request ids that belong to other attempts.
    """
    free: dict[bytes, list[HistoryRow]] = defaultdict(list)
    by_id: dict[str, HistoryRow] = {}
    for row in sorted(rows, key=lambda row: min(row.times_us, default=0)):
        by_id.setdefault(row.request_id, row)
        if row.fingerprint is not None and row.request_id not in owned:
            free[row.fingerprint].append(row)
    pairs = []
    taken: set[str] = set()
    for record in sorted(doubted, key=lambda record: record.reserved_us):
        if record.request_id in by_id:
            pairs.append((record, by_id[record.request_id]))
            continue
        if record.request_id is not None and not record.is_named_by_hand:
            continue  # its id is known, only its record had expired: no other row can be its own
        for row in free.get(fingerprint(record.request) or b"", ()):
            if row.request_id not in taken and _may_be_its_row(record, row, first_seen_seq):
                taken.add(row.request_id)
                pairs.append((record, row))
                break
    return pairs


def _may_be_its_row(record: JobRecord, row: HistoryRow, first_seen_seq: Mapping[str, int]) -> bool:
    """Whether a row of the same request is near enough in time to be this attempt's."""
    if first_seen_seq.get(row.request_id, record.reserved_seq) < record.reserved_seq:
        return False
    return _is_near(row, began_us(record))


def _is_near(row: HistoryRow, began_us: int) -> bool:
    """Whether a row is of the time of an attempt that began then."""
    # The submission left right after the reservation; only its answer may have taken long.
    earliest_us = began_us - CLOCK_SKEW_US
    latest_us = began_us + LONGEST_SUBMIT_US + CLOCK_SKEW_US
    return any(earliest_us <= moment_us <= latest_us for moment_us in row.times_us)


def rows_to_set_aside(
    unnamed: Iterable[Unnamed], unanswered: Iterable[JobRecord], rows: Iterable[HistoryRow], owned: Collection[str]
) -> frozenset[str]:
    """The rows that may be of attempts which are not in doubt, and whose names nobody knows.

    Such a row, taken for that of another attempt at the same request, whose answer was lost, would free that one's
    money when it fails, and have it sent again. The other mistake is harmless: an attempt that failed, and whose row
    is set aside, counts as absent when its time has come.

    Args:
        unnamed: attempts whose answer said that they failed, but not their name: one row each.
        unanswered: attempts that still wait for their answer, as a blocking call does for minutes: any row.
    """
    free = [row for row in rows if row.request_id not in owned and not isinstance(ending_of(row), Finished)]
    # What has failed already is the likelier row of an attempt that was answered.
    free.sort(key=lambda row: (not isinstance(ending_of(row), Refused), min(row.times_us, default=0)))
    aside: set[str] = set()
    for attempt in unnamed:
        for row in _rows_near(free, attempt.request, attempt.began_us):
            if row.request_id not in aside:
                aside.add(row.request_id)
                break
    for record in unanswered:
        aside.update(row.request_id for row in _rows_near(free, record.request, began_us(record)))
    return frozenset(aside)


def rows_unexplained(rows: Iterable[HistoryRow], owned: Collection[str], aside: Collection[str]) -> list[HistoryRow]:
    """The rows that belong to nobody; one that is `aside` is explained once it has failed.

    Until then it explains nothing: it may be anybody's, and be charged in the end.
    """
    free = [row for row in rows if row.request_id not in owned]
    return [row for row in free if not (row.request_id in aside and isinstance(ending_of(row), Refused))]


def _rows_near(rows: Iterable[HistoryRow], request: str | None, began_us: int) -> Iterator[HistoryRow]:
    """Those of the same request and the same time as an attempt."""
    body = fingerprint(request)
    return (row for row in rows if row.fingerprint == body and _is_near(row, began_us))


def began_us(record: JobRecord) -> int:
    """When an attempt began, by the provider's clock as far as it was known then."""
    return record.reserved_us + record.skew_us


def speaks_against_absence(record: JobRecord, row: HistoryRow) -> bool:
    """Whether a row that belongs to nobody might be this attempt's all the same: then absence proves nothing.

    Far more is taken for possible here than for a match, since a mistake would pay twice: a body to which the provider
    has added its own defaults, a time without its zone.
    """
    asked = prompt_of(fingerprint(record.request))
    possible = row.fingerprint is None or prompt_of(row.fingerprint) in (None, asked)
    earliest_us = min(record.reserved_us, began_us(record)) - DAY_US
    return possible and max(row.times_us, default=earliest_us) >= earliest_us


def prompt_of(body: bytes | None) -> str | None:
    """The prompt in a request body; None where there is none."""
    prompt = orjson.loads(body).get("prompt") if body else None
    return str(prompt) if prompt is not None else None


@dataclass(frozen=True, slots=True)
class Begun:
    """When a sweep was begun, by the wall clock and by the clock that only grows."""

    wall_us: int
    monotonic_s: float


async def settle(run: RunContext, witness: Witness) -> list[JobRecord]:
    """Sweep the history once and settle what it settles; returns the jobs whose doubt is over.

    Raises:
        LeavingError: the run is being left.
    """
    doubted = list(run.ledger.state.in_state(JobState.IN_DOUBT))
    if not doubted:
        return []
    begun = Begun(run.clock.now_us(), run.clock.monotonic_s())
    for record in doubted:
        witness.noticed_s.setdefault(attempt_of(record), begun.monotonic_s)
    now_us = run.provider_now_us()
    from_us = sweeps_from_us(doubted, now_us)
    listed = await read_history(run, {record.model for record in doubted if record.model}, from_us, now_us + DAY_US)
    if listed is None:
        for record in doubted:
            _hold(run, record, "the account's history could not be read")
        return []
    rows = listed + await _rows_by_name(run, to_ask_by_name(doubted, listed, run.rng))
    # When a row was listed is only known to be before the sweep's end: an attempt that began meanwhile may own it.
    for row in rows:
        witness.first_seen_seq.setdefault(row.request_id, run.ledger.state.last_seq)
    # Someone else may have settled some of them while the pages came in.
    doubted = [record for record in doubted if record.state is JobState.IN_DOUBT]
    owned = run.ledger.state.request_ids
    unanswered = run.ledger.state.in_state(JobState.RESERVED)
    aside = rows_to_set_aside(run.ledger.state.unnamed, unanswered, rows, owned)
    others = [row for row in rows if row.request_id not in aside]
    pairs = match_rows(doubted, others, owned, witness.first_seen_seq)
    for record, row in pairs:
        # While the one before was recorded, an answer may have come that this row belongs to: the next sweep decides.
        owner = run.ledger.state.request_ids.get(row.request_id, record.job_id)
        if owner == record.job_id and record.state is JobState.IN_DOUBT:
            await _accept(run, record, row)
    unexplained = rows_unexplained(rows, owned, aside)
    absent = []
    for record in doubted:
        if record.state is JobState.IN_DOUBT:
            why = why_not_absent(run, witness, record, begun, unexplained)
            if why is None:
                absent.append(record)
            else:
                _hold(run, record, why)
    until_us = now_us - int(run.settings.doubt.settle_after_s * 1e6)
    if absent and (missing := next(surely_missing(run.ledger.state, listed, from_us, until_us), None)):
        surely = f"nor does it list request {missing}, which was surely accepted: it may be another account's"
        for record in absent:
            _hold(run, record, f"the history does not list it, {surely}")
    else:
        await _note_absences(run, witness, absent, begun)
    return [record for record in doubted if record.state is not JobState.IN_DOUBT]


def sweeps_from_us(doubted: Iterable[JobRecord], now_us: int) -> int:
    """Where a sweep begins that is to show these attempts, by the provider's clock, which shows `now_us`."""
    oldest_us = min(min(record.reserved_us, began_us(record)) for record in doubted)
    return max(oldest_us - DAY_US, now_us - LONGEST_WINDOW_DAYS * DAY_US)


def surely_missing(state: State, listed: Iterable[HistoryRow], from_us: int, until_us: int) -> Iterator[str]:
    """The requests of a time that the provider surely accepted, and that a list of its history lacks.

    Such a list is another account's, or stands still: that an attempt is absent from it proves nothing.

    Args:
        from_us: where the list begins, by the provider's clock.
        until_us: by the same; the rows of what began later may be on their way.
    """
    # Half a day inside, whatever zone the provider's days are of.
    from_us += DAY_US // 2
    ids = {row.request_id for row in listed}
    # By our clock first, which may be up to a day from the provider's where absence proves anything at all.
    for record in state.jobs.submitted(from_us - DAY_US, until_us + DAY_US, beside=ids):
        if _was_surely_accepted(record) and from_us <= began_us(record) <= until_us:
            yield str(record.request_id)


def _was_surely_accepted(record: JobRecord) -> bool:
    """Whether the provider itself has named an attempt, and nobody has said since that there is no such request."""
    is_denied = record.error_class == ErrorClass.NOT_BILLED.label
    return record.request_id is not None and not record.is_named_by_hand and not is_denied


def _hold(run: RunContext, record: JobRecord, why: str) -> None:
    """Keep in mind what holds an attempt in doubt, and say it in the log where it is news."""
    if run.why_in_doubt.get(record.attempt_name) != why:
        run.why_in_doubt[record.attempt_name] = why
        log.info("attempt %s stays in doubt: %s", record.attempt, why, extra={"job_id": record.job_id})


def to_ask_by_name(doubted: Iterable[JobRecord], rows: Iterable[HistoryRow], rng: random.Random) -> list[str]:
    """The known requests in doubt that a list does not show, not more than a sweep may ask for, in any order.

    They are drawn, so that those which the history never shows do not keep the others from being asked for.
    """
    listed = {row.request_id for row in rows}
    named = [record.request_id for record in doubted if record.request_id is not None]
    unlisted = [request_id for request_id in named if request_id not in listed]
    return rng.sample(unlisted, min(len(unlisted), MAX_ASKED_BY_NAME))


async def _rows_by_name(run: RunContext, request_ids: Iterable[str]) -> list[HistoryRow]:
    """The rows of these requests, as far as the history shows them: alone it shows one at any age."""
    rows = []
    for request_id in request_ids:
        reply = await run.ask(lambda request_id=request_id: run.provider.history_one(request_id))  # type: ignore[misc]
        if isinstance(reply, HistoryRow):
            rows.append(reply)
        elif not isinstance(reply, Expired):
            break  # whoever does not answer now is not asked for all of them
    return rows


async def _accept(run: RunContext, record: JobRecord, row: HistoryRow) -> None:
    """The history shows it: it was accepted. What became of it follows from the same row, or from polling."""
    submitted = record.event(EventKind.SUBMITTED, request_id=row.request_id, detail="found in the provider's history")
    ending = ending_of(row)
    if isinstance(ending, Refused):
        failed = record.event(
            EventKind.VOIDED,
            error_class=ending.error_class.label,
            http_status=ending.http_status,
            detail=ending.message,
        )
        await run.record(submitted, failed)
    elif isinstance(ending, Finished) and ending.cost:
        detail = "the charge is the history's: no answer of the request's own came"
        posted = record.event(EventKind.POSTED, cost_microusd=ending.cost, url=ending.url, detail=detail)
        await run.record(submitted, posted)
    else:
        await run.record(submitted)


def why_not_absent(
    run: RunContext, witness: Witness, record: JobRecord, begun: Begun, unexplained: Iterable[HistoryRow]
) -> str | None:
    """Why an attempt that a sweep does not show may exist all the same; None where it counts as absent.

    Args:
        unexplained: the rows of the sweep that belong to nobody.
    """
    if record.request_id is not None:
        return f"the history does not show request {record.request_id} yet"
    if (why := why_too_soon(run, witness, record, begun)) is not None:
        return why
    row = next((row for row in unexplained if speaks_against_absence(record, row)), None)
    return None if row is None else f"request {row.request_id} of the history belongs to nobody and may be this one"


def why_too_soon(run: RunContext, witness: Witness, record: JobRecord, begun: Begun) -> str | None:
    """Why the silence of a sweep begun then denies nothing; None where it was late enough by every clock."""
    settle_after_s = run.settings.doubt.settle_after_s
    skew_us = run.skew_us
    drift_us = skew_us - record.skew_us
    age_us = begun.wall_us - record.reserved_us
    if abs(drift_us) > SKEW_NOISE_US:
        # Our clock was set meanwhile, or theirs: only the smaller age is sure.
        age_us = min(age_us, age_us + drift_us)
    known_s = begun.monotonic_s - witness.noticed_s[attempt_of(record)]
    if min(age_us / 1e6, known_s) < settle_after_s:
        return f"the history does not list it yet, and may do so up to {duration(settle_after_s)} late"
    if age_us >= (LONGEST_WINDOW_DAYS - 1) * DAY_US:
        return "it is older than the history reaches"
    if max(abs(skew_us), abs(record.skew_us)) >= DAY_US:
        return "the clocks of this machine and of the provider are more than a day apart"
    return None


async def _note_absences(run: RunContext, witness: Witness, absent: list[JobRecord], begun: Begun) -> None:
    """Count a sweep that did not show these attempts; those that were absent often enough were never accepted."""
    for record in absent:
        witness.absences[attempt_of(record)] += 1
        _hold(run, record, "the history does not list it, and must be seen so twice")
    absent = [record for record in absent if witness.absences[attempt_of(record)] >= SWEEPS_FOR_ABSENCE]
    if not absent:
        return
    now = await look_at_account(run)
    for record in absent:
        if record.state is not JobState.IN_DOUBT:
            continue
        match what_the_balance_says(record.account, now, record.quote_microusd):
            case BalanceSays.NOT_CHARGED | BalanceSays.NOTHING as says:
                await _void_absent(run, record, begun, says)
            case BalanceSays.PERHAPS_CHARGED | BalanceSays.NOT_YET as says:
                _hold(run, record, f"the history does not list it, but of the account's balance: {says.value}")


async def look_at_account(run: RunContext) -> Account | None:
    """The account's balance now, beside what surely was accepted and charged before it was asked; None if unknown."""
    books = run.ledger.state.books
    posted, running = books.posted, books.reserved
    balance = await run.ask(run.provider.credits)
    return Account(balance, posted, max(running, books.reserved)) if isinstance(balance, int) else None


async def _void_absent(run: RunContext, record: JobRecord, begun: Begun, says: BalanceSays) -> None:
    waited_s = (begun.wall_us - record.reserved_us) / 1e6
    await run.record(
        record.event(
            EventKind.VOIDED,
            error_class=ErrorClass.NEVER_ACCEPTED.label,
            detail=f"absent from {SWEEPS_FOR_ABSENCE} complete sweeps of the provider's history, "
            f"the last begun {waited_s:.0f} s after the attempt; of the account's balance: {says.value}",
        )
    )
