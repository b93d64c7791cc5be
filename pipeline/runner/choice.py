"""What a run is asked for: its directory, its jobs and their prices, which of them may start, and what it would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.engine.canary import Trial, trial
from pipeline.engine.retry import wants_retry
from pipeline.forecast import Plan, make_plan
from pipeline.jobs import Job
from pipeline.kernel.address import address_of
from pipeline.kernel.clock import SystemClock, to_datetime
from pipeline.kernel.errors import InputError
from pipeline.kernel.usd import MicroUsd, dollars
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.manifest import Campaign, Entry
from pipeline.manifest.order import in_order
from pipeline.mirror.places import local_folder
from pipeline.models import find_model

if TYPE_CHECKING:
    from pipeline.engine.context import RunContext


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is asked besides its configuration. `ids` are row or job ids; `retry_classes` None for no retries.

    `order` is one of `ORDERS`, the manifest's own without it. With `canary_approve`, a run stops when its canary is
    passed: a person decides about the rest.
    """

    limit: int | None = None
    ids: frozenset[str] = frozenset()
    retry_classes: frozenset[str] | None = None
    order: str | None = None
    canary_approve: bool = False


def run_address(config: Config, campaign: Campaign, out: Path | None) -> str | None:
    """Where in object storage the run directory of a campaign is; None where it is on a disk."""
    if out is not None:
        return address_of(out)
    address = address_of(config.output.dir)
    return f"{address}/{campaign.name}" if address else None


def run_folder(config: Config, campaign: Campaign, out: Path | None) -> Path:
    """The run directory of a campaign: where one in object storage works on the disk."""
    if (address := run_address(config, campaign, out)) is not None:
        return local_folder(address, Path(config.output.local_dir))
    return out if out is not None else Path(config.output.dir) / campaign.name


def plan_run(
    campaign: Campaign,
    config: Config,
    state: State,
    options: RunOptions,
    *,
    live: bool,
) -> Plan:
    """What a run would do, given what the ledger says.

    Args:
        live: whether a run holds the directory now.
    """
    now_us, price = SystemClock().now_us(), price_of(config)
    deadline_us = config.deadline_us(to_datetime(now_us).astimezone())
    tried = trial_of(campaign, config, state, options)
    return make_plan(
        entries=chosen_entries(campaign, options.ids),
        jobs=tried.first(choose(campaign, options, price)),
        state=state,
        price=price,
        cap=config.cap,
        requests_per_minute=config.limits.requests_per_minute,
        max_in_flight=config.limits.max_in_flight,
        expected_s=config.polling.expected_s / (1.0 if config.is_live else config.provider.time_scale),
        retried=lambda record: wants_retry(record, options.retry_classes),
        live=live,
        limit=options.limit,
        time_left_s=None if deadline_us is None else (deadline_us - now_us) / 1e6,
        canaries=len(tried.to_start),
    )


def trial_of(campaign: Campaign, config: Config, state: State, options: RunOptions) -> Trial:
    """The canary of a run, given what the ledger says; one without any job where none is asked for."""
    if not config.canary.jobs:
        return Trial((), (), ())
    price = price_of(config)
    return trial(
        config.canary.jobs,
        campaign.jobs,
        choose(campaign, options, price),
        state.jobs,
        may_start=lambda job: may_start(state, job, options),
        price=price,
    )


def price_of(config: Config) -> Callable[[Job], MicroUsd]:
    """The list price of a job. An unknown price is refused, never guessed."""

    known: dict[tuple[str, str], MicroUsd] = {}

    def price(job: Job) -> MicroUsd:
        model = find_model(job.model)
        key = model.name, job.price_key
        if key not in known:
            known[key] = config.price(key[1], model)
        return known[key]

    return price


def choose(campaign: Campaign, options: RunOptions, price: Callable[[Job], MicroUsd]) -> tuple[Job, ...]:
    """The jobs that are asked for, each once, in the order in which they start.

    Raises:
        InputError: an id that the manifest does not have.
    """
    entries = chosen_entries(campaign, options.ids)
    return in_order(entries, options.order or campaign.order, campaign.seed, price)


def chosen_entries(campaign: Campaign, ids: frozenset[str]) -> Sequence[Entry]:
    """The entries of these rows or jobs, as written; all without any id.

    Raises:
        InputError: an id that the manifest does not have.
    """
    if not ids:
        return campaign.entries
    chosen = [entry for entry in campaign.entries if entry.row_id in ids or entry.job.job_id in ids]
    known = {entry.row_id for entry in chosen} | {entry.job.job_id for entry in chosen}
    if unknown := ids - known:
        raise InputError(f"--ids: the manifest has no {', '.join(sorted(unknown))}")
    return chosen


def not_stored(jobs: Sequence[Job], states: Sequence[JobState | None]) -> list[Job]:
    """The jobs that are not stored yet, in their order: what is left of a million is looked at again and again."""
    if set(states) == {JobState.STORED}:
        return []
    return [job for job, standing in zip(jobs, states, strict=True) if standing is not JobState.STORED]


def may_start(state: State, job: Job, options: RunOptions) -> bool:
    """Whether a job may get an attempt now: it has none yet, or the latest was certainly not billed."""
    standing = state.state_of(job.job_id)
    if standing is JobState.FAILED:
        return wants_retry(state.jobs[job.job_id], options.retry_classes)
    return standing in (None, JobState.VOIDED)


def may_come_back(state: State, job: Job) -> bool:
    """Whether a job's attempt is undecided, and may turn out to need another."""
    return state.state_of(job.job_id) in (JobState.RESERVED, JobState.IN_DOUBT, JobState.SUBMITTED)


def lack_of_credits(context: RunContext, balance: MicroUsd, jobs: Iterable[Job]) -> str | None:
    """What a person should know before jobs are started whose cost, as far as the cap lets them, the account lacks."""
    free = context.free
    if balance >= free:
        return None
    cost = number = 0
    for job in jobs:
        quote = context.quote(job)
        if cost + quote <= free:
            cost, number = cost + quote, number + 1
    if balance >= cost:
        return None
    what = f"the {number:,} jobs that may start" if number > 1 else "the job that may start"
    return f"credits: {dollars(balance)}, {dollars(cost - balance)} short of {dollars(cost)} for {what}"
