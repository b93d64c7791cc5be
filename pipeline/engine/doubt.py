"""Settling doubt: what the account's history says of attempts whose answer never came.

Presence settles at once: a row with the same request, near in time, that belongs to no other attempt. Absence is
weaker evidence, because rows appear late and clocks may be wrong. An attempt counts as never accepted only after two
complete sweeps of the history. Both must begin later than `in_doubt.settle_after_s` after the attempt by every clock
there is, and must list everything that was surely accepted. And an attempt is not given up for absent while the
account's balance shows that money is missing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.engine.accounts import unseen_keys
from pipeline.engine.balance import BalanceSays, what_the_balance_says
from pipeline.engine.context import SKEW_NOISE_US, RunContext
from pipeline.engine.history import LONGEST_WINDOW_DAYS, read_history
from pipeline.engine.matching import (
    ending_of,
    match_rows,
    rows_to_set_aside,
    rows_unexplained,
    speaks_against_absence,
    surely_missing,
    to_ask_by_name,
)
from pipeline.engine.troubles import facts_of
from pipeline.kernel.clock import DAY_US, duration
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.logger import LOGGER
from pipeline.ledger.events import EventKind
from pipeline.ledger.job import Account, JobRecord, JobState
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired, Finished, Refused

log = logging.getLogger(LOGGER)

SWEEPS_FOR_ABSENCE = 2


@dataclass(slots=True)
class Witness:
    """What this run has seen of the history so far. Attempts by `JobRecord.attempt_name`."""

    first_seen_seq: dict[str, int] = field(default_factory=dict)
    """The ledger's last event when each row was first listed: an attempt that begins later cannot own the row."""
    absences: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many complete sweeps, begun late enough, did not show an attempt."""
    noticed_s: dict[str, float] = field(default_factory=dict)
    """When this process first knew of a doubt, by the monotonic clock; minus infinity for doubts that it inherited."""

    def inherit(self, records: Iterable[JobRecord]) -> None:
        """Take over doubts of an earlier process: only the wall clock tells their age."""
        self.noticed_s |= {record.attempt_name: float("-inf") for record in records}


@dataclass(frozen=True, slots=True)
class Begun:
    """When a sweep was begun, by the wall clock and by the monotonic clock."""

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
        witness.noticed_s.setdefault(record.attempt_name, begun.monotonic_s)
    now_us = run.provider_now_us()
    from_us = sweeps_from_us(doubted, now_us)
    models = {record.model for record in doubted if record.model}
    listed = await read_history(run, models, from_us, now_us + DAY_US)
    if not listed.rows and not listed.is_whole:
        for record in doubted:
            _hold(run, record, "the account's history could not be read")
        return []
    rows = listed.rows + await _rows_by_name(run, to_ask_by_name(doubted, listed.rows, run.rng))
    # All that is known is that a row was listed before the sweep's end: an attempt that began meanwhile may own it.
    for row in rows:
        witness.first_seen_seq.setdefault(row.request_id, run.ledger.state.last_seq)
    # Someone else may have settled some of them while the pages came in.
    doubted = [record for record in doubted if record.state is JobState.IN_DOUBT]
    owned = run.ledger.state.request_ids
    unanswered = run.ledger.state.in_state(JobState.RESERVED)
    aside = rows_to_set_aside(run.ledger.state.unnamed, unanswered, rows, owned)
    others = [row for row in rows if row.request_id not in aside]
    await _accept_all(run, match_rows(doubted, others, owned, witness.first_seen_seq))
    left = [record for record in doubted if record.state is JobState.IN_DOUBT]
    if not listed.is_whole:
        for record in left:
            _hold(run, record, "the account's history could not be read whole")
        return [record for record in doubted if record.state is not JobState.IN_DOUBT]
    until_us = now_us - int(run.settings.doubt.settle_after_s * 1e6)
    missing = surely_missing(run.ledger.state, listed.rows, from_us, until_us)
    absent = _held_or_absent(run, witness, left, begun, rows_unexplained(rows, owned, aside))
    absent = await _sent_to_this_account(run, absent, rows)
    await _judge_absence(run, witness, absent, begun, missing)
    return [record for record in doubted if record.state is not JobState.IN_DOUBT]


def sweeps_from_us(doubted: Iterable[JobRecord], now_us: int) -> int:
    """Where a sweep must begin to show these attempts, by the provider's clock, which shows `now_us`."""
    oldest_us = min(min(record.reserved_us, record.began_us) for record in doubted)
    return max(oldest_us - DAY_US, now_us - LONGEST_WINDOW_DAYS * DAY_US)


def _hold(run: RunContext, record: JobRecord, why: str) -> None:
    """Remember what holds an attempt in doubt, and log it if it is news."""
    if run.why_in_doubt.get(record.attempt_name) != why:
        run.why_in_doubt[record.attempt_name] = why
        log.info("attempt %s stays in doubt: %s", record.attempt, why, extra={"job_id": record.job_id})


async def _rows_by_name(run: RunContext, request_ids: Iterable[str]) -> list[HistoryRow]:
    """The rows of these requests, as far as the history shows them: asked for one request, it shows any age."""
    rows = []
    for request_id in request_ids:
        reply = await run.ask_history(request_id)
        if isinstance(reply, HistoryRow):
            rows.append(reply)
        elif not isinstance(reply, Expired):
            break  # the history does not answer now, so it is not asked for the others
    return rows


async def _accept_all(run: RunContext, pairs: Iterable[tuple[JobRecord, HistoryRow]]) -> None:
    for record, row in pairs:
        # While the previous pair was recorded, an answer may have come that owns this row: the next sweep decides.
        owner = run.ledger.state.request_ids.get(row.request_id, record.job_id)
        if owner == record.job_id and record.state is JobState.IN_DOUBT:
            await _accept(run, record, row)


async def _accept(run: RunContext, record: JobRecord, row: HistoryRow) -> None:
    """The history shows it: it was accepted. What became of it follows from the same row, or from polling."""
    submitted = record.event(EventKind.SUBMITTED, request_id=row.request_id, detail="found in the provider's history")
    ending = ending_of(row)
    run.breaker.note_accepted(record.attempt_name)
    if isinstance(ending, Refused):
        run.breaker.note_end(record.attempt_name, failed=True)
        await run.record(submitted, record.event(EventKind.VOIDED, **facts_of(ending)))
    elif isinstance(ending, Finished) and ending.cost:
        run.breaker.note_end(record.attempt_name, failed=False)
        detail = "the charge is the history's: no answer of the request's own came"
        posted = record.event(EventKind.POSTED, cost_microusd=ending.cost, url=ending.url, detail=detail)
        await run.record(submitted, posted)
    else:
        await run.record(submitted)


def _held_or_absent(
    run: RunContext,
    witness: Witness,
    doubted: Iterable[JobRecord],
    begun: Begun,
    unexplained: list[HistoryRow],
) -> list[JobRecord]:
    """Those that a sweep's silence speaks of; what holds the others is remembered.

    Args:
        unexplained: the rows of the sweep that belong to nobody.
    """
    absent = []
    for record in doubted:
        why = why_not_absent(run, witness, record, begun, unexplained)
        if why is None:
            absent.append(record)
        else:
            _hold(run, record, why)
    return absent


async def _sent_to_this_account(run: RunContext, absent: list[JobRecord], rows: list[HistoryRow]) -> list[JobRecord]:
    """Those of them of which the history of today's key would know; the others are held.

    Args:
        rows: what the sweep shows.
    """
    unseen = await unseen_keys(run, absent, rows)
    if not unseen:
        return absent
    known = []
    for record in absent:
        if run.ledger.state.key_mark_at(record.reserved_seq) in unseen:
            _hold(run, record, "it was sent with another key, whose account this one may not see")
        else:
            known.append(record)
    return known


async def _judge_absence(
    run: RunContext, witness: Witness, absent: list[JobRecord], begun: Begun, missing: Iterator[str]
) -> None:
    """Take note of what a sweep did not show, unless it lacks what it should have shown.

    Args:
        missing: requests that it should have shown.
    """
    if absent and (request_id := next(missing, None)) is not None:
        surely = f"nor does it list request {request_id}, which was surely accepted: it may be another account's"
        for record in absent:
            _hold(run, record, f"the history does not list it, {surely}")
    else:
        await _note_absences(run, witness, absent, begun)


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
    """Why a sweep that was `begun` then proves nothing by its silence; None if it was late enough by every clock."""
    settle_after_s = run.settings.doubt.settle_after_s
    skew_us = run.skew_us
    drift_us = skew_us - record.skew_us
    age_us = begun.wall_us - record.reserved_us
    if abs(drift_us) > SKEW_NOISE_US:
        # Our clock or the provider's was set meanwhile: only the smaller age is sure.
        age_us = min(age_us, age_us + drift_us)
    known_s = begun.monotonic_s - witness.noticed_s[record.attempt_name]
    if min(age_us / 1e6, known_s) < settle_after_s:
        return f"the history does not list it yet, and may do so up to {duration(settle_after_s)} late"
    if age_us >= (LONGEST_WINDOW_DAYS - 1) * DAY_US:
        return "it is older than the history reaches"
    if max(abs(skew_us), abs(record.skew_us)) >= DAY_US:
        return "the clocks of this machine and of the provider are more than a day apart"
    return None


async def _note_absences(run: RunContext, witness: Witness, absent: list[JobRecord], begun: Begun) -> None:
    """Count a sweep that did not show these attempts, and void those that were absent often enough."""
    for record in absent:
        witness.absences[record.attempt_name] += 1
        _hold(run, record, "the history does not list it, and must be seen so twice")
    absent = [record for record in absent if witness.absences[record.attempt_name] >= SWEEPS_FOR_ABSENCE]
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
