"""What became of a manifest since the last run on its directory: what it asks for anew, and what it no longer asks for.

Pure. A job is the same job whatever became of its row's place or name, so only new and dropped jobs are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from pipeline.jobs import Job, canonical_json, job_id
from pipeline.kernel.arrow import Texts
from pipeline.kernel.usd import ZERO_USD, MicroUsd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.manifest import Entry
from pipeline.models import find_model

PAID = (JobState.POSTED, JobState.STORED)
ON_ITS_WAY = (JobState.RESERVED, JobState.SUBMITTED, JobState.IN_DOUBT, JobState.POSTED)


class KeptLine(Protocol):
    """A line of the last run's manifest, by its row and its job."""

    @property
    def row(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def job_id(self) -> str: ...


class KeptJob(KeptLine, Protocol):
    """A line of the last run's manifest with all that its job's id is made of."""

    @property
    def replicate(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Change:
    """A number of rows, how many of their `jobs` are new, and what became of the jobs that they no longer ask for.

    `to_do` of the new jobs are still to be made, for `cost`. Of the dropped ones `videos` are on disk and stay,
    `on_their_way` may yet bring a video, and `spent` is what all of these have cost.
    """

    rows: int
    jobs: int
    to_do: int
    cost: MicroUsd
    videos: int
    on_their_way: int
    spent: MicroUsd


_NOTHING = Change(rows=0, jobs=0, to_do=0, cost=ZERO_USD, videos=0, on_their_way=0, spent=ZERO_USD)


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the rows: those with a new id, those that kept theirs and ask for other jobs, those gone."""

    added: Change
    changed: Change
    removed: Change

    def __bool__(self) -> bool:
        return bool(self.added.rows or self.changed.rows or self.removed.rows)


NO_DIFFERENCE = Difference(_NOTHING, _NOTHING, _NOTHING)
"""The difference of a manifest that asks for the same jobs."""


def difference(
    before: Sequence[KeptLine], entries: Sequence[Entry], state: State, quote: Callable[[Job], int]
) -> Difference:
    """Hold what is asked for now against the lines of the last run.

    Args:
        quote: the most that a job may cost, in micro-dollars.
    """
    old_jobs, old_rows = {line.job_id for line in before}, {line.id for line in before}
    new_jobs, new_rows = {entry.job.job_id for entry in entries}, {entry.row_id for entry in entries}
    fresh = [entry for entry in entries if entry.job.job_id not in old_jobs]
    gone = [line for line in before if line.job_id not in new_jobs]

    def change(rows: int, new: Iterable[Entry], dropped: Iterable[KeptLine]) -> Change:
        jobs = {entry.job.job_id: entry.job for entry in new}
        to_do = [job for job in jobs.values() if _is_to_do(state, job.job_id)]
        records = [state.jobs[job_id] for job_id in {line.job_id for line in dropped} if job_id in state.jobs]
        return Change(
            rows=rows,
            jobs=len(jobs),
            to_do=len(to_do),
            cost=MicroUsd(sum(quote(job) for job in to_do)),
            videos=sum(record.state is JobState.STORED for record in records),
            on_their_way=sum(record.state in ON_ITS_WAY for record in records),
            spent=MicroUsd(sum(record.cost_microusd for record in records if record.state in PAID)),
        )

    added = [entry for entry in fresh if entry.row_id not in old_rows]
    removed = [line for line in gone if line.id not in new_rows]
    other = [entry for entry in fresh if entry.row_id in old_rows]
    dropped = [line for line in gone if line.id in new_rows]
    changed = len({entry.row_id for entry in other} | {line.id for line in dropped})
    return Difference(
        added=change(len({entry.row for entry in added}), added, ()),
        changed=change(changed, other, dropped),
        removed=change(len({line.row for line in removed}), (), removed),
    )


def _is_to_do(state: State, job_id: str) -> bool:
    return state.state_of(job_id) in (None, JobState.VOIDED)


@dataclass(frozen=True, slots=True)
class Rebought:
    """A video that is paid for, or may be, and would be bought again under another id."""

    name: str
    liability: MicroUsd


def paid_and_unasked(job_ids: Iterable[str] | Texts, state: State) -> dict[str, JobRecord]:
    """The records that hold money and whose ids are not among these: removed rows, or ids made differently."""
    unpaid = (JobState.VOIDED, JobState.FAILED)
    return {record.job_id: record for record in state.jobs.beside(job_ids) if record.state not in unpaid}


def bought_again(
    jobs: Mapping[str, Job],
    state: State,
    paid: Mapping[str, JobRecord],
    lines: Iterable[KeptJob],
    requests: Mapping[str, str],
) -> list[Rebought]:
    """The videos that would be bought again only because the same job has another id now.

    Args:
        jobs: all that is asked for, by id.
        paid: the records that hold money and are not among `jobs`.
        lines: the lines of the last run, at least those in `paid`. Each is given the id that this version makes, to see
            whether that one is to do.
        requests: the bodies as sent of records in `paid` whose ids are of another scheme, to see whether a job with the
            same body is to do.
    """
    to_do = {job_id: job for job_id, job in jobs.items() if _is_to_do(state, job_id)}
    found: dict[str, Rebought] = {}
    for line in lines:
        now = _id_now(line)
        if line.job_id not in paid or line.job_id in found or now not in to_do:
            continue
        del to_do[now]
        name = f"{line.id}-{line.replicate}"
        found[line.job_id] = Rebought(name, MicroUsd(paid[line.job_id].liability_microusd))
    # Counted, because two takes have the same body.
    wanted = Counter((job.model, job.body) for job in to_do.values())
    for old_id, request in requests.items():
        record = paid[old_id]
        key = (record.model or "", _canonical(request))
        if old_id not in found and wanted[key]:
            wanted[key] -= 1
            name = Path(record.path).stem if record.path else old_id
            found[old_id] = Rebought(name, MicroUsd(record.liability_microusd))
    return list(found.values())


def _id_now(line: KeptJob) -> str | None:
    """The id that this version gives to a line's job; None where it would not take its parameters."""
    try:
        params, problems = find_model(line.model).normalise(line.params)
    except ValueError:
        return None
    return None if problems else job_id(line.model, params, line.replicate)


def _canonical(request: str) -> bytes:
    try:
        return canonical_json(orjson.loads(request))
    except ValueError:
        return request.encode()
