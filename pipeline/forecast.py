"""The plan: what a run would do and what it would cost. A pure function of the jobs, the ledger, prices and limits."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.jobs import Job
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.manifest import Entry
from pipeline.manifest.campaign import count_rows, has_axes, jobs_of
from pipeline.models.base import Scalar

CALLS_PER_JOB = 6
"""What a job takes of the rate limit where calls are scarce: submit, three polls, result, and one to spare."""

MAX_HELD = 1_000
"""How many of the jobs that do not start are named."""


@dataclass(frozen=True, slots=True)
class PriceLine:
    """The jobs of one price: how many there are, how many are still to be made, and what those cost at most."""

    price_key: str
    price: MicroUsd
    """The most that one job may cost: its list price, or more where charges above the price were seen."""
    jobs: int
    to_do: int
    cost: MicroUsd
    listed: MicroUsd


@dataclass(frozen=True, slots=True)
class AxisValue:
    """The jobs of one value of an axis; a job that several rows share counts where it is mentioned first."""

    value: Scalar
    jobs: int
    to_do: int
    cost: MicroUsd


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of the sweeps, with its values in order of first mention."""

    name: str
    values: tuple[AxisValue, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. Amounts in micro-dollars; `to_do` in the order in which jobs would start.

    `allowed` of them fit under the cap and the limit, for `allowed_cost`: those where `fits`, which runs beside
    `to_do`, is true. `last` is the last of these, and `held` are the first `MAX_HELD` that do not start, both as the
    manifest mentions them first. `expected_s` is the time for what is allowed at the given limits, `time_left_s` the
    time until the deadline and `in_time` how many are done by then; both None without one.
    """

    rows: int
    jobs: int
    duplicates: int
    lines: tuple[PriceLine, ...]
    axes: tuple[Axis, ...]
    stored: int
    failed: int
    in_doubt: int
    running: int
    unfetched: int
    to_do: tuple[Job, ...]
    fits: tuple[bool, ...]
    last: Entry | None
    held: tuple[Entry, ...]
    cost: MicroUsd
    allowed: int
    allowed_cost: MicroUsd
    cap: MicroUsd
    committed: MicroUsd
    free: MicroUsd
    expected_s: float
    time_left_s: float | None
    in_time: int | None
    limit: int | None

    def price_of(self, job: Job) -> MicroUsd:
        """What a job of the plan costs at most."""
        key = job.price_key
        return next(line.price for line in self.lines if line.price_key == key)

    @property
    def held_by_limit(self) -> int:
        """How many jobs wait for the next run because of the limit alone."""
        return 0 if self.limit is None else max(0, len(self.to_do) - self.limit)

    @property
    def held_by_cap(self) -> int:
        """How many of the jobs within the limit do not fit under the cap."""
        return len(self.to_do) - self.held_by_limit - self.allowed

    @property
    def passes_over(self) -> bool:
        """Whether a job that does not fit under the cap is passed over for a cheaper one behind it."""
        return not all(self.fits[: self.allowed])

    @property
    def may_spend(self) -> bool:
        """Whether a run may submit anything: what is undecided today may turn out to need another attempt."""
        return bool(self.to_do or self.in_doubt or self.running)


def make_plan(
    *,
    entries: Sequence[Entry],
    jobs: Sequence[Job],
    state: State,
    price: Callable[[Job], MicroUsd],
    cap: MicroUsd,
    requests_per_minute: float,
    max_in_flight: int,
    expected_s: float,
    retried: Callable[[JobRecord], bool] = lambda _record: False,
    live: bool = False,
    limit: int | None = None,
    time_left_s: float | None = None,
    canaries: int = 0,
) -> Plan:
    """Hold the jobs of a manifest against the ledger, the prices, the cap and the clock.

    Args:
        entries: what is asked for, as written.
        jobs: the jobs of these, each once, in the order in which they would start.
        retried: which of the jobs that failed for good are to be tried anew.
        live: whether a run holds the directory now. At rest, what is reserved is in doubt.
        limit: start at most so many.
        time_left_s: seconds until the deadline, if there is one.
        canaries: how many of the jobs to do go first; all others wait until these are done.
    """
    standing = _standing(state, jobs, retried)
    counts = Counter(standing)
    is_to_do = [where is None for where in standing]
    del standing
    to_do = tuple(itertools.compress(jobs, is_to_do))
    kinds = [job.kind for job in jobs]
    of_kind = dict(zip(kinds, jobs, strict=True))
    keys = list(map({kind: job.price_key for kind, job in of_kind.items()}.__getitem__, kinds))
    listed = {job.price_key: price(job) for job in of_kind.values()}
    quotes = {key: state.books.quote(amount, key) for key, amount in listed.items()}
    costs = [quotes[key] for key in itertools.compress(keys, is_to_do)]
    free = state.books.free(cap)
    fits = _under_the_cap(costs, free, limit)
    allowed, allowed_cost = sum(fits), MicroUsd(sum(itertools.compress(costs, fits)))
    last = next((job for job, fit in zip(reversed(to_do), reversed(fits), strict=True) if fit), None)
    held = tuple(itertools.islice(_held(to_do, fits), MAX_HELD))
    rows, is_swept = count_rows(entries), has_axes(entries)
    first = _first_entries(entries, {job.job_id for job in (last, *held) if job is not None})

    def takes_s(some: int) -> float:
        batches = min(some, canaries), max(0, some - canaries)
        return sum(_expected_s(batch, requests_per_minute, max_in_flight, expected_s) for batch in batches)

    return Plan(
        rows=rows,
        jobs=len(jobs),
        duplicates=len(entries) - len(jobs),
        lines=tuple(_price_lines(Counter(keys), Counter(itertools.compress(keys, is_to_do)), quotes, listed)),
        axes=tuple(_axes(entries, dict(zip((job.job_id for job in to_do), costs, strict=True)))) if is_swept else (),
        stored=counts[JobState.STORED],
        failed=counts[JobState.FAILED],
        in_doubt=counts[JobState.IN_DOUBT] + (0 if live else counts[JobState.RESERVED]),
        running=counts[JobState.SUBMITTED] + (counts[JobState.RESERVED] if live else 0),
        unfetched=counts[JobState.POSTED],
        to_do=to_do,
        fits=fits,
        last=None if last is None else first[last.job_id],
        held=tuple(first[job.job_id] for job in held),
        cost=MicroUsd(sum(costs)),
        allowed=allowed,
        allowed_cost=allowed_cost,
        cap=cap,
        committed=state.books.committed,
        free=free,
        expected_s=takes_s(allowed),
        time_left_s=time_left_s,
        in_time=None if time_left_s is None else bisect(range(1, allowed + 1), time_left_s, key=takes_s),
        limit=limit,
    )


def _standing(state: State, jobs: Sequence[Job], retried: Callable[[JobRecord], bool]) -> list[JobState | None]:
    """Where each job stands; None if it is still to be made."""
    standing = state.states_of([job.job_id for job in jobs])
    if {JobState.VOIDED, JobState.FAILED}.isdisjoint(standing):
        return standing
    for number, where in enumerate(standing):
        if where is JobState.VOIDED or (where is JobState.FAILED and retried(state.jobs[jobs[number].job_id])):
            standing[number] = None
    return standing


def _under_the_cap(costs: Sequence[int], free: int, limit: int | None) -> tuple[bool, ...]:
    """Which jobs fit into `free`, taken in order up to the limit, a job that does not fit being passed over."""
    left, fits = free, []
    for cost in costs[:limit]:
        fit = cost <= left
        fits.append(fit)
        left -= cost if fit else 0
    fits.extend(itertools.repeat(False, len(costs) - len(fits)))
    return tuple(fits)


def _held(to_do: Sequence[Job], fits: Sequence[bool]) -> Iterator[Job]:
    return (job for job, fit in zip(to_do, fits, strict=True) if not fit)


def _price_lines(
    jobs: Counter[str], to_do: Counter[str], quotes: Mapping[str, MicroUsd], listed: Mapping[str, MicroUsd]
) -> Iterator[PriceLine]:
    for key in sorted(jobs, key=lambda key: (len(key), key)):
        yield PriceLine(key, quotes[key], jobs[key], to_do[key], MicroUsd(quotes[key] * to_do[key]), listed[key])


def _first_entries(entries: Sequence[Entry], wanted: Collection[str]) -> dict[str, Entry]:
    """The first entry of each of the jobs that are wanted."""
    first: dict[str, Entry] = {}
    for number, job in enumerate(jobs_of(entries)):
        if len(first) == len(wanted):
            break
        if job.job_id in wanted:
            first.setdefault(job.job_id, entries[number])
    return first


def _axes(entries: Sequence[Entry], costs: Mapping[str, int]) -> Iterator[Axis]:
    """Every axis, in order of first mention, with what its values come to.

    Args:
        costs: for each job to do the most that it may cost, in micro-dollars.
    """
    sums: dict[str, dict[tuple[type, Scalar], list[int]]] = {}
    mentioned: set[str] = set()
    for entry in entries:
        job_id = entry.job.job_id
        is_counted = job_id not in mentioned
        mentioned.add(job_id)
        cost = costs.get(job_id) if is_counted else None
        for name, value in entry.axes.items():
            # With its type, because True == 1.
            line = sums.setdefault(name, {}).setdefault((type(value), value), [0, 0, 0])
            line[0] += is_counted
            if cost is not None:
                line[1] += 1
                line[2] += cost
    for name, values in sums.items():
        lines = (AxisValue(value, jobs, to_do, MicroUsd(cost)) for (_, value), (jobs, to_do, cost) in values.items())
        yield Axis(name, tuple(lines))


def starts_per_minute(requests_per_minute: float, *, count_polls: bool) -> float:
    """How many jobs a minute the rate limit lets start, in the long run."""
    return requests_per_minute / CALLS_PER_JOB if count_polls else requests_per_minute


def _expected_s(jobs: int, requests_per_minute: float, max_in_flight: int, expected_s: float) -> float:
    if not jobs:
        return 0.0
    by_pace_s = jobs * CALLS_PER_JOB * 60 / requests_per_minute
    by_slots_s = math.ceil(jobs / max_in_flight) * expected_s
    return max(by_slots_s, by_pace_s + expected_s if jobs > 1 else expected_s)
