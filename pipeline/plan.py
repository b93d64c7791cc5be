"""The plan: what a run would do and what it would cost. A pure function of the jobs, the ledger, prices and limits."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.jobs import Job
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.fold import JobRecord, JobState, State
from pipeline.models import find_model

CALLS_PER_JOB = 6
"""What a job takes of the rate limit where calls are scarce: submit, three polls, result, and one to spare."""


@dataclass(frozen=True, slots=True)
class PriceLine:
    """The jobs of one price: how many there are, how many are still to be made, and what those cost at most."""

    price_key: str
    price: MicroUsd
    jobs: int
    to_do: int
    cost: MicroUsd


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. Amounts in micro-dollars; `to_do` in the order in which jobs would start.

    `allowed` of them fit under the cap and the limit, for `allowed_cost`. `expected_s` is the time for these at the
    given limits, and `in_time` how many of them are done by the deadline, None without one.
    """

    rows: int
    jobs: int
    duplicates: int
    lines: tuple[PriceLine, ...]
    stored: int
    failed: int
    in_doubt: int
    running: int
    unfetched: int
    to_do: tuple[Job, ...]
    cost: MicroUsd
    allowed: int
    allowed_cost: MicroUsd
    cap: MicroUsd
    committed: MicroUsd
    free: MicroUsd
    expected_s: float
    in_time: int | None
    limit: int | None

    @property
    def held_by_limit(self) -> int:
        """How many jobs wait for the next run because of the limit alone."""
        return 0 if self.limit is None else max(0, len(self.to_do) - self.limit)

    @property
    def held_by_cap(self) -> int:
        """How many of the jobs within the limit do not fit under the cap."""
        return len(self.to_do) - self.held_by_limit - self.allowed

    @property
    def may_spend(self) -> bool:
        """Whether a run may submit anything: what is undecided today may turn out to need another attempt."""
        return bool(self.to_do or self.in_doubt or self.running)


def make_plan(
    *,
    rows: int,
    entries: int,
    jobs: Sequence[Job],
    state: State,
    price: Callable[[Job], MicroUsd],
    cap: MicroUsd,
    requests_per_minute: float,
    max_in_flight: int,
    expected_s: float,
    retried: Callable[[JobRecord], bool] = lambda _record: False,
    limit: int | None = None,
    time_left_s: float | None = None,
) -> Plan:
    """Hold the jobs of a manifest against the ledger, the prices, the cap and the clock.

    Args:
        retried: which of the jobs that failed for good are to be tried anew.
        limit: start at most so many.
        time_left_s: seconds until the deadline, if there is one.
    """
    where = {job.job_id: _standing(state, job, retried) for job in jobs}
    to_do = tuple(job for job in jobs if where[job.job_id] is None)
    free = state.books.free(cap)
    allowed, allowed_cost = _under_the_cap([state.books.quote(price(job)) for job in to_do[:limit]], free)

    def takes_s(some: int) -> float:
        return _expected_s(some, requests_per_minute, max_in_flight, expected_s)

    return Plan(
        rows=rows,
        jobs=len(jobs),
        duplicates=entries - len(jobs),
        lines=tuple(_price_lines(jobs, to_do, state, price)),
        stored=_count(where, JobState.STORED),
        failed=_count(where, JobState.FAILED),
        in_doubt=_count(where, JobState.IN_DOUBT),
        running=_count(where, JobState.SUBMITTED, JobState.RESERVED),
        unfetched=_count(where, JobState.POSTED),
        to_do=to_do,
        cost=MicroUsd(sum(state.books.quote(price(job)) for job in to_do)),
        allowed=allowed,
        allowed_cost=allowed_cost,
        cap=cap,
        committed=state.books.committed,
        free=free,
        expected_s=takes_s(allowed),
        in_time=None if time_left_s is None else bisect(range(1, allowed + 1), time_left_s, key=takes_s),
        limit=limit,
    )


def _standing(state: State, job: Job, retried: Callable[[JobRecord], bool]) -> JobState | None:
    """Where a job stands; None if it is still to be made."""
    record = state.jobs.get(job.job_id)
    if record is None or record.state is JobState.VOIDED:
        return None
    return None if record.state is JobState.FAILED and retried(record) else record.state


def _count(where: dict[str, JobState | None], *states: JobState) -> int:
    return sum(state in states for state in where.values())


def _under_the_cap(quotes: Sequence[int], free: int) -> tuple[int, MicroUsd]:
    """How many jobs fit into `free`, taken in order, a job that does not fit being passed over; and their cost."""
    allowed = spent = 0
    for quote in quotes:
        if spent + quote <= free:
            allowed += 1
            spent += quote
    return allowed, MicroUsd(spent)


def _price_lines(
    jobs: Sequence[Job], to_do: Sequence[Job], state: State, price: Callable[[Job], MicroUsd]
) -> list[PriceLine]:
    keys = {job.job_id: find_model(job.model).price_key(job.params) for job in jobs}
    lines = []
    for key in sorted(set(keys.values()), key=lambda key: (len(key), key)):
        mine = [job for job in jobs if keys[job.job_id] == key]
        left = [job for job in to_do if keys[job.job_id] == key]
        quote = state.books.quote(price(mine[0]))
        lines.append(PriceLine(key, quote, len(mine), len(left), MicroUsd(quote * len(left))))
    return lines


def _expected_s(jobs: int, requests_per_minute: float, max_in_flight: int, expected_s: float) -> float:
    if not jobs:
        return 0.0
    by_pace_s = jobs * CALLS_PER_JOB * 60 / requests_per_minute
    by_slots_s = math.ceil(jobs / max_in_flight) * expected_s
    return max(by_slots_s, by_pace_s + expected_s if jobs > 1 else expected_s)
