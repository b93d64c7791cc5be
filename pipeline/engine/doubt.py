"""Settling doubt: what the account's history says of attempts whose answer never came.

Presence settles at once: a row with the same request, near in time, that belongs to no other attempt. Absence is
weaker evidence, because rows land late: an attempt counts as never accepted only after two complete sweeps of the
history, both begun later than `in_doubt.settle_after_s` after the attempt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from pipeline.engine.context import RunContext
from pipeline.engine.worker import ending_of
from pipeline.kernel.clock import to_datetime
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import JobRecord, JobState
from pipeline.provider.replies import Finished, HistoryRow, Refused, fingerprint, standing

CLOCK_SKEW_US = 120_000_000
"""How far the provider's clock and ours may be apart."""

LONGEST_SUBMIT_US = 120_000_000
"""How long after its reservation a submission may at most have reached the provider."""

DAY_US = 86_400_000_000
LONGEST_WINDOW_DAYS = 30
"""The provider answers for at most 31 days."""

MAX_PAGES = 2_000
SWEEPS_FOR_ABSENCE = 2
PAGE_TRIES = 4


@dataclass(slots=True)
class Witness:
    """What this run has seen of the history so far."""

    first_seen_us: dict[str, int] = field(default_factory=dict)
    """When each row was first listed: an attempt never gets a row that was listed before it began."""
    absences: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    """Complete sweeps, late enough, that did not show an attempt (by job id and attempt number)."""


def match_rows(
    doubted: Iterable[JobRecord],
    rows: Iterable[HistoryRow],
    owned: Collection[str],
    first_seen_us: Mapping[str, int],
    now_us: int,
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
        if record.request_id is not None:
            # Its id is known, only its record had expired: no other row can be its own.
            if record.request_id in by_id:
                pairs.append((record, by_id[record.request_id]))
            continue
        for row in free.get(fingerprint(record.request) or b"", ()):
            if row.request_id not in taken and _may_be_its_row(record, row, first_seen_us, now_us):
                taken.add(row.request_id)
                pairs.append((record, row))
                break
    return pairs


def _may_be_its_row(record: JobRecord, row: HistoryRow, first_seen_us: Mapping[str, int], now_us: int) -> bool:
    """Whether a row of the same request is near enough in time to be this attempt's."""
    if first_seen_us.get(row.request_id, now_us) < record.reserved_us:
        return False
    # The submission left right after the reservation; only its answer may have taken long.
    earliest_us = record.reserved_us - CLOCK_SKEW_US
    latest_us = record.reserved_us + LONGEST_SUBMIT_US + CLOCK_SKEW_US
    return any(earliest_us <= moment_us <= latest_us for moment_us in row.times_us)


def speaks_against_absence(record: JobRecord, row: HistoryRow) -> bool:
    """Whether a row that belongs to nobody might be this attempt's all the same: then absence proves nothing.

    Far more is taken for possible here than for a match, since a mistake would pay twice: a body to which the provider
    has added its own defaults, a time without its zone.
    """
    asked = prompt_of(fingerprint(record.request))
    possible = row.fingerprint is None or prompt_of(row.fingerprint) in (None, asked)
    return possible and max(row.times_us, default=record.reserved_us) >= record.reserved_us - DAY_US


def prompt_of(body: bytes | None) -> str | None:
    """The prompt in a request body; None where there is none."""
    prompt = orjson.loads(body).get("prompt") if body else None
    return str(prompt) if prompt is not None else None


async def settle(run: RunContext, witness: Witness) -> list[JobRecord]:
    """Sweep the history once and settle what it settles; returns the jobs whose doubt is over.

    Raises:
        LeavingError: the run is being left.
    """
    doubted = list(run.ledger.state.in_state(JobState.IN_DOUBT))
    if not doubted:
        return []
    begun_us = run.clock.now_us()
    rows = await sweep(run, doubted)
    if rows is None:
        return []
    # When a row was listed is only known to be before the sweep's end: an attempt that began meanwhile may own it.
    ended_us = run.clock.now_us()
    for row in rows:
        witness.first_seen_us.setdefault(row.request_id, ended_us)
    # Someone else may have settled some of them while the pages came in.
    doubted = [record for record in doubted if record.state is JobState.IN_DOUBT]
    pairs = match_rows(doubted, rows, run.ledger.state.request_ids, witness.first_seen_us, ended_us)
    for record, row in pairs:
        # While the one before was recorded, an answer may have come that this row belongs to: the next sweep decides.
        owner = run.ledger.state.request_ids.get(row.request_id, record.job_id)
        if owner == record.job_id and record.state is JobState.IN_DOUBT:
            await _accept(run, record, row)
    unexplained = [row for row in rows if row.request_id not in run.ledger.state.request_ids]
    for record in doubted:
        if record.state is not JobState.IN_DOUBT or record.request_id is not None:
            continue
        if not any(speaks_against_absence(record, row) for row in unexplained):
            await _note_absence(run, witness, record, begun_us)
    return [record for record in doubted if record.state is not JobState.IN_DOUBT]


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


async def _note_absence(run: RunContext, witness: Witness, record: JobRecord, begun_us: int) -> None:
    if begun_us < record.reserved_us + run.settings.doubt.settle_after_s * 1e6:
        return
    if record.reserved_us < begun_us - (LONGEST_WINDOW_DAYS - 1) * DAY_US:
        # Too long ago for the history to be asked: what it cannot show, its silence does not deny.
        return
    key = record.job_id, record.attempt
    witness.absences[key] += 1
    if witness.absences[key] < SWEEPS_FOR_ABSENCE:
        return
    waited_s = (begun_us - record.reserved_us) / 1e6
    await run.record(
        record.event(
            EventKind.VOIDED,
            error_class=ErrorClass.NEVER_ACCEPTED.label,
            detail=f"absent from {SWEEPS_FOR_ABSENCE} complete sweeps of the provider's history, "
            f"the last begun {waited_s:.0f} s after the attempt",
        )
    )


async def sweep(run: RunContext, doubted: list[JobRecord]) -> list[HistoryRow] | None:
    """Every row of the history around the attempts in doubt, each once; None if it could not be read whole."""
    now_us = run.clock.now_us()
    oldest_us = min(record.reserved_us for record in doubted)
    from_us = max(oldest_us - DAY_US, now_us - LONGEST_WINDOW_DAYS * DAY_US)
    dates = to_datetime(from_us).date().isoformat(), to_datetime(now_us + DAY_US).date().isoformat()
    rows: dict[str, HistoryRow] = {}
    for model in sorted({record.model for record in doubted if record.model}):
        if not await _sweep_model(run, rows, *dates, model):
            return None
    return list(rows.values())


async def _sweep_model(run: RunContext, rows: dict[str, HistoryRow], from_date: str, to_date: str, model: str) -> bool:
    for page in range(1, MAX_PAGES + 1):
        listed = await _page(run, page, from_date, to_date, model)
        if listed is None:
            return False
        known = len(rows)
        for row in listed:
            if row.request_id not in rows or standing(row) > standing(rows[row.request_id]):
                rows[row.request_id] = row
        # A page that is empty, short of rows, or all seen before is the last. A page of repeats (a row for each
        # output of a request) is short in requests without being the last, so only new requests count as progress.
        if not listed or len(rows) == known:
            return True
    return False


async def _page(run: RunContext, page: int, from_date: str, to_date: str, model: str) -> list[HistoryRow] | None:
    for tries in range(PAGE_TRIES):
        reply = await run.ask(lambda: run.provider.history(page, from_date, to_date, model))
        if isinstance(reply, list):
            return reply
        if isinstance(reply, Refused) and run.stopping.is_stopping:
            return None
        await run.pause(run.settings.retry.base_delay_s * tries)
    return None
