"""The canary: a few jobs first, and the rest only if these are stored and cost what they should. Pure.

Nothing of it is remembered beside the ledger: a canary is passed when enough jobs of the manifest are stored at their
quote, whichever run has made them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.jobs import Job
from pipeline.kernel.usd import dollars
from pipeline.ledger.job import JobRecord, JobState

NAMED = 5
"""How many videos a sentence names."""

_UNDER_WAY = (JobState.SUBMITTED, JobState.POSTED)


@dataclass(frozen=True, slots=True)
class Canary:
    """A run's canary: the ids of its jobs, all of which must be proven before another starts.

    With `needs_approval`, that is not enough: a person must agree.
    """

    job_ids: frozenset[str] = frozenset()
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary as it stands before a run.

    `proven` are the manifest's jobs that are stored at their quote, up to the number that is asked for; `under_way` are
    jobs that an earlier run has sent and that count as well, and `to_start` those that are to be started first.
    """

    proven: tuple[JobRecord, ...]
    under_way: tuple[str, ...]
    to_start: tuple[Job, ...]

    @property
    def is_passed(self) -> bool:
        """Whether nothing is left to try."""
        return not self.under_way and not self.to_start

    def canary(self, limit: int | None, *, needs_approval: bool) -> Canary:
        """The canary of a run that starts at most `limit` jobs."""
        ids = [*(record.job_id for record in self.proven), *self.under_way]
        return Canary(frozenset(ids + [job.job_id for job in self.to_start[:limit]]), needs_approval)

    def first(self, jobs: Iterable[Job]) -> tuple[Job, ...]:
        """The jobs, those of the canary before all others."""
        ahead = {job.job_id for job in self.to_start}
        return (*self.to_start, *(job for job in jobs if job.job_id not in ahead)) if ahead else tuple(jobs)


def trial(
    size: int,
    manifest: Iterable[Job],
    asked: Iterable[Job],
    known: Mapping[str, JobRecord],
    *,
    may_start: Callable[[Job], bool],
    price: Callable[[Job], int],
) -> Trial:
    """Which jobs the canary is made of.

    Args:
        size: how many.
        manifest: every job of the manifest: what of it is proven counts.
        asked: the jobs that the run is asked for, in the order in which they would start.
        known: what the ledger says of each job that has an attempt.
        may_start: whether a job may get an attempt now.
        price: the list price of a job; where there are enough jobs, each price is tried.
    """
    all_proven = (job for job in manifest if job.job_id in known and is_proven(known[job.job_id]))
    proven = list(itertools.islice(all_proven, size))
    sent = [job for job in asked if job.job_id in known and known[job.job_id].state in _UNDER_WAY]
    under_way = sent[: size - len(proven)]
    seen = {price(job) for job in [*proven, *under_way]}
    to_start = _spread([job for job in asked if may_start(job)], size - len(proven) - len(under_way), seen, price)
    return Trial(tuple(known[job.job_id] for job in proven), tuple(job.job_id for job in under_way), to_start)


def _spread(jobs: list[Job], size: int, seen: set[int], price: Callable[[Job], int]) -> tuple[Job, ...]:
    """The first job of each price that was not seen, filled up with the first of the others; in their order."""
    if size <= 0:
        return ()
    first_of_price: dict[int, Job] = {}
    for job in jobs:
        first_of_price.setdefault(price(job), job)
    picked = [job for amount, job in first_of_price.items() if amount not in seen][:size]
    ids = {job.job_id for job in picked}
    picked += [job for job in jobs if job.job_id not in ids][: size - len(picked)]
    ids |= {job.job_id for job in picked}
    return tuple(job for job in jobs if job.job_id in ids)


def is_proven(record: JobRecord) -> bool:
    """Whether a job is stored as it was asked for, at the cost that was quoted."""
    right = record.error_class is None and record.cost_microusd == record.quote_microusd
    return record.state is JobState.STORED and right


def lets(canary: Canary, known: Mapping[str, JobRecord], job: Job) -> bool:
    """Whether a job may start: it belongs to the canary, or all that belong to it are stored."""
    return job.job_id in canary.job_ids or all(
        job_id in known and is_proven(known[job_id]) for job_id in canary.job_ids
    )


def reason_to_stop(canary: Canary, known: Mapping[str, JobRecord], carried: Container[str]) -> str | None:
    """Why nothing more may start, in a sentence; None while the canary is under way or if it is passed.

    Args:
        known: what the ledger says of each job that has an attempt.
        carried: the ids of the jobs that a worker is busy with, or of which more may become known without one.
    """
    records = sorted((known[each] for each in canary.job_ids if each in known), key=lambda it: it.reserved_seq)
    for record in records:
        if trouble := _trouble(record, is_carried=record.job_id in carried):
            return f"canary {_name(record)} {trouble}: the other jobs were not started"
    if canary.needs_approval and len(records) == len(canary.job_ids) and all(map(is_proven, records)):
        names = ", ".join(map(_name, records[:NAMED])) + (", …" if len(records) > NAMED else "")
        return f"the canary is passed: look at {names} in videos, and run again without --canary-approve to go on"
    return None


def _trouble(record: JobRecord, *, is_carried: bool) -> str | None:
    """What is wrong with a job of the canary; None if it is proven, or may yet be."""
    match record.state:
        case JobState.FAILED:
            return f"failed ({record.error_class})"
        case JobState.IN_DOUBT if not is_carried:
            return f"is in doubt ({record.error_class})"
        case JobState.POSTED | JobState.STORED if record.cost_microusd != record.quote_microusd:
            return f"cost {dollars(record.cost_microusd)}, not the {dollars(record.quote_microusd)} quoted"
        case JobState.STORED if record.error_class is not None:
            return f"is not as asked ({record.error})"
        case JobState.POSTED if not is_carried:
            return "is paid and could not be brought to the disk"
        case JobState.SUBMITTED if not is_carried:
            return "is still running at the provider"
        case _:
            return None


def _name(record: JobRecord) -> str:
    """A job by the file name that its video has or shall have."""
    return PurePosixPath(record.path).stem if record.path else record.job_id
