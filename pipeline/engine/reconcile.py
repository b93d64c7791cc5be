"""Holding the ledger against the provider's history: what only one of them knows, and where their amounts differ."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from pipeline.engine.context import RunContext
from pipeline.engine.history import read_history
from pipeline.engine.matching import prompt_of
from pipeline.kernel.clock import DAY_US
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.provider.history import HistoryRow

MAX_ASKED_SINGLY = 100
"""Requests missing from the list that are asked for one by one: a list that shifts while it is paged may skip a few."""


@dataclass(frozen=True, slots=True)
class UnknownCharge:
    """A charge in the history that no attempt of the ledger explains.

    `at_us` is the earliest time that its row shows; `same_request_as` the job that asks for the same, if there is one:
    then it was most likely made by this run directory, else by other work on the account.
    """

    request_id: str
    at_us: int | None
    cost_microusd: int
    prompt: str
    url: str | None
    same_request_as: str | None


@dataclass(frozen=True, slots=True)
class AmountDifference:
    """A request of which the ledger and the history tell different amounts."""

    job_id: str
    request_id: str
    ledger_microusd: int
    history_microusd: int


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An accepted attempt that the history does not show; its row may only be late."""

    job_id: str
    attempt: int
    request_id: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ledger beside the history, from `from_us` to `to_us` by the provider's clock. Amounts in micro-dollars."""

    from_us: int
    to_us: int
    listed: int
    agreed: int
    agreed_microusd: int
    unknown: tuple[UnknownCharge, ...] = ()
    different: tuple[AmountDifference, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the bill differs from the ledger's. Charges of other work on the account do not count."""
        return bool(self.different) or any(charge.same_request_as for charge in self.unknown)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to explain. A request that the history does not show yet was not compared."""
        return not self.differs and not self.unlisted


async def compare(
    run: RunContext, jobs_asking: Callable[[Collection[bytes]], Mapping[bytes, str]]
) -> Comparison | None:
    """Read the history over the ledger's whole life and hold the two against each other; None if it can't be read.

    Args:
        jobs_asking: finds the jobs that have asked for the same as some requests, by the requests' fingerprints. It
            reads the whole ledger, and is called only for charges that no attempt owns.

    Raises:
        LeavingError: the run is being left.
    """
    state = run.ledger.state
    now_us = run.provider_now_us()
    from_us, models = now_us, set[str]()
    # One record at a time here and below: a million of them at once would take gigabytes.
    for record in state.jobs.values():
        # Not only what was accepted: a first attempt that was refused may have been billed all the same.
        from_us = min(from_us, record.first_began_us, record.began_us)
        models.update({record.model} if record.model else ())
    from_us -= DAY_US
    read = await read_history(run, models, from_us, now_us + DAY_US)
    if not read.is_whole:
        return None
    listed = {row.request_id: row for row in read.rows}
    unlisted = (record.request_id for record in state.jobs.values() if _is_unlisted(record, listed))
    for request_id in list(itertools.islice(unlisted, MAX_ASKED_SINGLY)):
        reply = await run.ask_history(request_id)
        if isinstance(reply, HistoryRow):
            listed[reply.request_id] = reply
    strange = {
        row.fingerprint for row in listed.values() if row.fingerprint and row.request_id not in state.request_ids
    }
    asked = await asyncio.to_thread(jobs_asking, strange) if strange else {}
    return held_against(state, asked, listed.values(), from_us, now_us)


def held_against(
    state: State, asked: Mapping[bytes, str], rows: Iterable[HistoryRow], from_us: int, to_us: int
) -> Comparison:
    """Hold what the ledger says against the rows of the history. Pure.

    Args:
        asked: the job that has asked for the same as a request that no attempt owns, by the request's fingerprint.
    """
    listed = {row.request_id: row for row in rows}
    unknown, different = [], []
    agreed = agreed_microusd = 0
    for row in listed.values():
        charge = row.cost or 0
        job_id = state.request_ids.get(row.request_id)
        if job_id is None:
            if charge or row.status == "COMPLETED":
                unknown.append(_unknown(row, asked))
            continue
        record = state.jobs[job_id]
        ours = _booked(record, row.request_id)
        if ours is None or (row.cost is None and row.status != "FAILED"):
            continue  # not over yet, or a row that does not say
        if ours == charge:
            agreed += 1
            agreed_microusd += charge
        else:
            different.append(AmountDifference(job_id, row.request_id, ours, charge))
    unlisted = [
        Unlisted(record.job_id, record.attempt, record.request_id or "", max(0.0, (to_us - record.began_us) / 1e6))
        for record in state.jobs.values()
        if _is_unlisted(record, listed)
    ]
    return Comparison(
        from_us,
        to_us,
        len(listed),
        agreed,
        agreed_microusd,
        tuple(sorted(unknown, key=lambda charge: (charge.same_request_as is None, charge.at_us or 0))),
        tuple(different),
        tuple(unlisted),
    )


def _unknown(row: HistoryRow, asked: Mapping[bytes, str]) -> UnknownCharge:
    return UnknownCharge(
        request_id=row.request_id,
        at_us=min(row.times_us, default=None),
        cost_microusd=row.cost or 0,
        prompt=prompt_of(row.fingerprint) or "",
        url=row.url,
        same_request_as=asked.get(row.fingerprint) if row.fingerprint else None,
    )


def _booked(record: JobRecord, request_id: str) -> int | None:
    """What the ledger has booked for a request: its cost, nothing for one that failed; None while it is not over."""
    if record.request_id != request_id:
        return 0  # an earlier attempt of the job: another could follow only because it was not billed
    if record.state in (JobState.POSTED, JobState.STORED):
        return record.cost_microusd
    return 0 if record.state in (JobState.VOIDED, JobState.FAILED) else None


def _is_unlisted(record: JobRecord, listed: dict[str, HistoryRow]) -> bool:
    accepted = record.state in (JobState.SUBMITTED, JobState.POSTED, JobState.STORED)
    return accepted and record.request_id not in listed
