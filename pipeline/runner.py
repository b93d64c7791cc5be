"""The composition root: opens a run's lock, ledger, provider and engine, lets it run, and closes them in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from pipeline import notify
from pipeline.config import Config, dump_config
from pipeline.difference import bought_again, paid_and_unasked
from pipeline.engine.canary import Trial, trial
from pipeline.engine.context import Listener, RunContext
from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.limits import Turn
from pipeline.engine.recovery import doubt_what_was_reserved, grant_retries, recover, wants_retry
from pipeline.engine.settings import EngineSettings
from pipeline.engine.stopping import LeavingError, Stopping, StopReason, gravest
from pipeline.forecast import Plan, make_plan, starts_per_minute
from pipeline.jobs import Job, is_of_this_scheme
from pipeline.kernel.address import address_of
from pipeline.kernel.clock import Clock, SystemClock, to_datetime
from pipeline.kernel.errors import InputError, MachineError, RunDirectoryError
from pipeline.kernel.files import make_folder, remove_leftovers, write_file
from pipeline.kernel.garbage import no_garbage_collector
from pipeline.kernel.usd import MicroUsd, format_usd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import JobRecord, JobState, State
from pipeline.ledger.store import Ledger, Reader, open_ledger, read_events
from pipeline.looking.view import Look, look
from pipeline.manifest import Campaign, Entry
from pipeline.manifest.campaign import jobs_of
from pipeline.manifest.order import in_order
from pipeline.media import Collector, collector_for
from pipeline.mirror.mirror import ENDS, ROWS, Mirror, mirror_of
from pipeline.mirror.places import local_folder
from pipeline.models import find_model
from pipeline.provider.client import Client
from pipeline.provider.replies import Refused
from pipeline.provider.secrecy import Eraser
from pipeline.provider.settings import ProviderSettings
from pipeline.report.entries import Line, Lines, lines_of, load_lines
from pipeline.report.summary import is_complete, read_summary, says_the_same, summarise, write_summary
from pipeline.runlog import LOGGER, RunLog

if TYPE_CHECKING:
    from pipeline.sandbox import SandboxSettings

SANDBOX_KEY = "SG_0000000000000000"
"""What the embedded sandbox is given as a key: it takes any that is well formed."""

SANDBOX_FOLDER = ".sandbox"
"""Where in a run directory its embedded sandbox remembers."""

NAMED = 5
"""How many videos a refusal names."""

HOUSEKEEPING_S = 60.0
"""How often the report is written again, and the account's floor looked at, while a run is live."""

CREDITS_TRIES = 3

LEAVING_NOTICE_S = 1.0
"""How long a webhook may take when a person wants the run to be over."""


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


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rehearsal plays: what is there instead of the provider, the network and chance. All else is a run's own.

    Its ledger need not be durable, and no report is written while it goes on.
    """

    sandbox: Mapping[str, Any]
    """What its provider is told, over what a run's sandbox is: fields of `SandboxSettings`."""
    join: Callable[[Any], Callable[..., aiohttp.BaseConnector]]
    """Given that provider, what makes the connectors by which it is reached."""
    rng: random.Random
    """Where the waits between two tries come from."""


class Watcher:
    """Whoever watches a run, in its event loop: the command line's progress. Every method may be left as it is."""

    def started(self, live: LiveRun) -> None:
        """The run is open and about to begin; of its events only `run_started` was told before."""

    def event(self, event: Event) -> None:
        """An event has become durable."""

    def ended(self) -> None:
        """The engine has come to rest; the report is about to be written."""


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that is going on, for its watcher."""

    context: RunContext
    lines: Lines
    asked: Set[str]
    """The ids of the jobs that were asked for."""
    done_elsewhere: int
    """Jobs of the directory that are done and were not asked for now."""
    to_start: int = 0
    """How many jobs this run was to start when it began, up to its limit; the cap may stop it before."""

    @property
    def done(self) -> int:
        """How many of the jobs asked for are stored or have failed for good."""
        counts = self.context.ledger.state.counts
        return counts[JobState.STORED] + counts[JobState.FAILED] - self.done_elsewhere

    def summary(self) -> dict[str, Any]:
        """The summary as of now."""
        context = self.context
        return summarise(
            self.lines,
            context.ledger.state,
            cap_microusd=context.settings.bounds.cap,
            live=True,
            requests_sent=context.provider.calls["submit"],
            polls=context.provider.calls["poll"],
            now_us=context.clock.now_us(),
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `summary` is the content of summary.json; `sandbox_bill` what an embedded sandbox charged.

    `notice` is what a webhook is told; None where there is no news.
    """

    folder: Path
    exit_code: int
    summary: dict[str, Any] = field(default_factory=dict)
    sandbox_bill: MicroUsd | None = None
    notice: dict[str, Any] | None = None

    @property
    def message(self) -> str:
        """Why it stopped, in a sentence; empty if it simply finished."""
        return self.summary.get("message") or ""


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
    options: RunOptions | None = None,
    clock: Clock | None = None,
    *,
    live: bool = False,
) -> Plan:
    """What a run would do, given what the ledger says.

    Args:
        live: whether a run holds the directory now.
    """
    options, now_us, price = options or RunOptions(), (clock or SystemClock()).now_us(), price_of(config)
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
        may_start=lambda job: _may_start(state, job, options),
        price=price,
    )


def check_ids(folder: Path, campaign: Campaign, state: State) -> None:
    """Refuse to buy finished work again because the ids of jobs are made differently by now.

    Raises:
        InputError: that would happen; it names the videos and their price.
    """
    if not state.jobs:
        return
    asked = jobs_of(campaign.entries)
    paid = paid_and_unasked([job.job_id for job in asked], state)
    if not paid:
        return
    jobs = {job.job_id: job for job in asked}
    lines: Sequence[Line] = []
    # Rows that cannot be read keep nobody from what is paid: then the ledger alone must tell.
    with contextlib.suppress(RunDirectoryError):
        lines = load_lines(folder, only=paid)
    again = bought_again(jobs, state, paid, lines, _foreign_requests(folder, paid))
    if again:
        names = ", ".join(each.name for each in again[:NAMED]) + (", …" if len(again) > NAMED else "")
        videos = "1 finished video" if len(again) == 1 else f"{len(again):,} finished videos"
        raise InputError(
            f"{videos} (${format_usd(sum(each.liability for each in again))}) would be bought again, because job ids "
            f"are made differently now: {names}; use the version that made them, or another directory (-o). "
            "Nothing was sent."
        )


def _foreign_requests(folder: Path, paid: Mapping[str, JobRecord]) -> dict[str, str]:
    """The bodies of those jobs whose ids are of another scheme; the fold has forgotten those that are stored."""
    foreign = {job_id for job_id in paid if not is_of_this_scheme(job_id)}
    if not foreign:
        return {}
    events = read_events(folder / "ledger")
    return {event.job_id: event.request for event in events if event.job_id in foreign and event.request}


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


async def run(
    campaign: Campaign,
    config: Config,
    folder: Path,
    *,
    key: str = SANDBOX_KEY,
    options: RunOptions | None = None,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
    webhook: str | None = None,
    stage: Stage | None = None,
    known: Reader | None = None,
) -> RunResult:
    """Bring a run directory to what a campaign says: always resumes, and does nothing where nothing is left to do.

    Args:
        key: the API key; the embedded sandbox needs none.
        watcher: told what happens.
        webhook: the address that is told how the run ended, after all else; a secret.
        stage: where it is rehearsed, if it is.
        known: who has read the ledger for this run already, if somebody has.

    Raises:
        InputError: nothing was sent; the directory is held, damaged, or belongs to another provider.
        MachineError: the disk refused before anything began.
    """
    options, watcher, clock = options or RunOptions(), watcher or Watcher(), clock or SystemClock()
    stopping = Stopping()
    mirror = mirror_of(folder, keep_videos=config.output.keep_videos) if stage is None else None
    # Around everything: a signal while the ledger is opened or closed is a wish as well, and kills no bookkeeping.
    with signals_to(stopping.interrupt), _open_ledger(folder, clock, stage, mirror, known) as ledger:
        try:
            check_provider(ledger.state, config, folder)
            check_part(folder, campaign, ledger.state)
            # Now or never: what the last run has kept of its rows is about to be replaced.
            check_ids(folder, campaign, ledger.state)
            lines, has_new_rows = _prepare_folder(folder, campaign, config)
            if mirror is not None:
                await asyncio.to_thread(mirror.publish, ROWS)
            async with open_provider(config, folder, key, clock, stage=stage) as provider:
                with log_to(folder / "run.log", provider.key, webhook) as run_log:
                    listener = told(run_log.event, watcher.event)
                    if mirror is not None and mirror.taken_over is not None:
                        logging.getLogger(LOGGER).warning("%s", mirror.taken_over)
                    opened = open_context(
                        config, folder, ledger, provider, clock, listener, stopping, campaign.images, mirror
                    )
                    async with opened as context:
                        if stage is not None:
                            context.rng = stage.rng
                        result = await _run_engine(
                            campaign,
                            config,
                            context,
                            provider,
                            options,
                            watcher,
                            lines,
                            has_new_rows=has_new_rows,
                            tells=webhook is not None,
                            rehearsed=stage is not None,
                        )
            if mirror is not None:
                result = await _publish(mirror, result)
        finally:
            await ledger.close()
    if webhook is not None and result.notice is not None:
        with signals_to(stopping.interrupt):
            await _tell(webhook, result.notice, folder, key, clock, stopping)
    return result


async def _publish(mirror: Mirror, result: RunResult) -> RunResult:
    """Bring the reports to the storage, once they are written."""
    try:
        await asyncio.to_thread(mirror.publish, ENDS)
    except MachineError as error:
        code = gravest([result.exit_code, StopReason.MACHINE.exit_code])
        return dataclasses.replace(
            result, exit_code=code, summary=result.summary | {"exit_code": code, "message": str(error)}
        )
    return result


async def _tell(
    webhook: str, notice: Mapping[str, Any], folder: Path, key: str, clock: Clock, stopping: Stopping
) -> None:
    """Tell the webhook how the run ended. Trouble here is logged and nothing else."""
    body = Eraser(key).strike_out(notify.as_json(notice))
    with contextlib.suppress(MachineError, LeavingError, TimeoutError), log_to(folder / "run.log", key, webhook):
        if stopping.is_leaving:
            async with asyncio.timeout(LEAVING_NOTICE_S):
                await notify.send(webhook, body, clock)
        else:
            await stopping.unless_leaving(notify.send(webhook, body, clock))


def _open_ledger(
    folder: Path, clock: Clock, stage: Stage | None, mirror: Mirror | None, known: Reader | None
) -> contextlib.AbstractContextManager[Ledger]:
    return open_ledger(folder / "ledger", clock, durable=stage is None, follower=mirror, known=known)


def identity(config: Config) -> dict[str, str]:
    """Which provider a run directory belongs to, for life."""
    if config.is_live:
        return {"provider": "segmind", "base_url": config.provider.base_url.rstrip("/")}
    return {"provider": "sandbox", "base_url": "embedded"}


def check_provider(state: State, config: Config, folder: Path) -> None:
    """Refuse a run directory that belongs to another provider.

    Raises:
        RunDirectoryError: it does; its money belongs there too.
    """
    for record in state.runs[:1]:
        theirs = {name: record.facts.get(name) for name in ("provider", "base_url")}
        if theirs != identity(config):
            raise RunDirectoryError(
                f"{folder} belongs to {theirs['provider']} ({theirs['base_url']}), and its money with it: "
                "use another directory (-o) or the same provider. Nothing was sent."
            )


def check_part(folder: Path, campaign: Campaign, state: State) -> None:
    """Refuse to make another part of a manifest in a directory that was begun with one.

    Raises:
        InputError: it was: what this directory has paid for could belong to another directory by the new division.
    """
    for record in state.runs[:1]:
        theirs = record.facts.get("part", "")
        if theirs != campaign.part:
            was, now = (
                f"part {part} of its manifest" if part else "all of its manifest" for part in (theirs, campaign.part)
            )
            remedy = f"say --part {theirs}" if theirs else "leave --part out"
            raise InputError(
                f"{folder} was begun with {was}, not with {now}: a job could be made and paid for in two directories; "
                f"{remedy}, or use another directory (-o). Nothing was sent."
            )


def _prepare_folder(folder: Path, campaign: Campaign, config: Config) -> tuple[Lines, bool]:
    """Lay the run directory out and keep in it what is being run; returns its lines, and whether they are new there."""
    lines = lines_of(campaign.entries)
    try:
        remove_leftovers(folder)
        for name in ("videos", "posters", "report", *(() if config.is_live else (SANDBOX_FOLDER,))):
            make_folder(folder / name)
            remove_leftovers(folder / name)
        has_new_rows = lines.save(folder)
        write_file(folder / f"manifest{campaign.source.suffix.lower()}", campaign.source.read_bytes())
        write_file(folder / "config.yaml", dump_config(config).encode())
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was sent.") from None
    return lines, has_new_rows


@dataclass(frozen=True, slots=True)
class OpenProvider:
    """The provider of a run, open: its client, and the embedded double behind it, if there is one."""

    client: Client
    key: str
    is_loopback: bool
    sandbox: Any = None
    connect: Callable[..., aiohttp.BaseConnector] | None = None
    """What makes its connectors, where they are not those of the network."""

    def bill(self) -> MicroUsd | None:
        """What the embedded sandbox has on its own bill; None for the real provider, which sends none."""
        return MicroUsd(self.sandbox.invoice()["total_microusd"]) if self.sandbox is not None else None


@contextlib.asynccontextmanager
async def open_provider(
    config: Config, folder: Path, key: str, clock: Clock, looking: bool = False, stage: Stage | None = None
) -> AsyncIterator[OpenProvider]:
    """The client of the configured provider; in a sandbox run and in a rehearsal, the sandbox is served first.

    Args:
        looking: whether an embedded sandbox is only asked: then it draws nothing, and counts no calls.
        stage: where it is rehearsed: then whatever is configured, nobody else is reached.
    """
    settings, sandbox, connect = config.provider_settings(), None, None
    async with contextlib.AsyncExitStack() as stack:
        if stage is not None or not config.is_live:
            from pipeline.sandbox import Sandbox

            told = _sandbox_settings(config, folder, looking=looking)
            if stage is not None:
                told = dataclasses.replace(told, **stage.sandbox)
            sandbox = await stack.enter_async_context(Sandbox(told))
            settings, key = _at(settings, sandbox.url), SANDBOX_KEY
            connect = stage.join(sandbox) if stage is not None else None
        client = await stack.enter_async_context(Client(settings, key, clock, connect or aiohttp.TCPConnector))
        yield OpenProvider(client, key, settings.is_loopback, sandbox, connect)


def _sandbox_settings(config: Config, folder: Path, *, looking: bool) -> SandboxSettings:
    """An embedded sandbox that remembers in the run directory, so that a run can die and go on."""
    from pipeline.sandbox import SandboxSettings

    counts = not looking and config.limits.count_polls  # it cannot count submissions alone
    return SandboxSettings(
        time_scale=config.provider.time_scale,
        rpm=max(1, int(config.limits.requests_per_minute)) if counts else None,
        mean_s=config.polling.expected_s,
        clips="tiny" if looking else "own",
        state_dir=folder / SANDBOX_FOLDER,
    )


def _at(settings: ProviderSettings, url: str) -> ProviderSettings:
    return dataclasses.replace(settings, base_url=url, storage_url=url, history_url=url)


async def _run_engine(
    campaign: Campaign,
    config: Config,
    context: RunContext,
    provider: OpenProvider,
    options: RunOptions,
    watcher: Watcher,
    lines: Lines,
    *,
    has_new_rows: bool,
    tells: bool,
    rehearsed: bool,
) -> RunResult:
    state = context.ledger.state
    context.pace.pause(pace_owed_s(state, context.pace.interval_s, context.clock.now_us()))
    chosen = choose(campaign, options, context.price)
    left = _left(state, chosen)
    to_start = min(sum(_may_start(state, job, options) for job in left), options.limit or len(chosen))
    await context.record(_run_started(config, campaign, context.settings, len(chosen), to_start, tells=tells))
    begun_seq, before_seq = state.last_seq, state.last_seq - 1
    # In the order of the jobs, in which they are quicker looked up than in any other.
    asked = dict.fromkeys([job.job_id for job in chosen]).keys()
    over, of_these = state.counts, state.count(asked)
    done_elsewhere = sum(over[each] - of_these[each] for each in (JobState.STORED, JobState.FAILED))
    live = LiveRun(context, lines, asked, done_elsewhere, to_start)
    watcher.started(live)
    with _calm_garbage_collector():
        housekeeping = asyncio.create_task(_keep_house(live, reports=not rehearsed))
        try:
            await _make_jobs(context, left, options, trial_of(campaign, config, state, options))
        finally:
            housekeeping.cancel()
            await asyncio.wait([housekeeping])
        watcher.ended()
        is_idle = state.last_seq == begun_seq
        shown_seq = before_seq if is_idle and not has_new_rows else None
        result = await _close_run(live, config, provider.bill(), shown_seq)
        return dataclasses.replace(result, notice=_notice(campaign, result, state, is_idle=is_idle))


def _notice(campaign: Campaign, result: RunResult, state: State, *, is_idle: bool) -> dict[str, Any] | None:
    """What a webhook is told of a run; None if it had nothing to do, or if its trouble was told a moment ago."""
    event = notify.event_of(result.summary)
    if (is_idle and event == "ended") or (event == "trouble" and _is_told(state)):
        return None
    return notify.notice(campaign.name, str(result.folder), result.summary)


def _is_told(state: State) -> bool:
    *earlier, last = state.runs
    return notify.is_too_soon(earlier, last.ended_us or last.started_us)


def told(*listeners: Listener) -> Listener:
    """One listener that tells several."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


@contextlib.asynccontextmanager
async def open_context(
    config: Config,
    folder: Path,
    ledger: Ledger,
    provider: OpenProvider,
    clock: Clock,
    listener: Listener,
    stopping: Stopping,
    images: Mapping[str, Path] = MappingProxyType({}),
    mirror: Mirror | None = None,
) -> AsyncIterator[RunContext]:
    """All that an engine works with, open for the block; `images` are a campaign's, for those who submit."""
    fetch = config.fetch_settings(allow_loopback=provider.is_loopback)
    media = config.media_settings()
    deliver = mirror.deliver if mirror is not None else None
    async with contextlib.AsyncExitStack() as stack:
        try:
            opened = stack.enter_async_context(collector_for(fetch, media, folder, provider.connect, deliver))
            collector = await stopping.unless_leaving(opened)
        except LeavingError:  # before it had begun: nobody will ask for a video
            collector = await stack.enter_async_context(Collector(fetch, media, provider.connect, deliver))
        yield RunContext(
            folder=folder,
            ledger=ledger,
            provider=provider.client,
            collector=collector,
            clock=clock,
            settings=config.engine_settings(to_datetime(clock.now_us()).astimezone()),
            price=price_of(config),
            listener=listener,
            stopping=stopping,
            images=images,
        )


def pace_owed_s(state: State, interval_s: float, now_us: int) -> float:
    """How long the first call must wait so that the pace holds across the restart, in seconds.

    Whoever held the lock before has made its last call by now, and one interval after that is soon enough: calls that
    are evenly spaced on both sides of a restart are so across it. A run that has said its last word since longer than
    that owes nothing.
    """
    if not state.runs:
        return 0.0
    ended_us = state.runs[-1].ended_us
    since_s = (now_us - ended_us) / 1e6 if ended_us is not None else 0.0
    return interval_s if since_s < 0 else max(0.0, interval_s - since_s)


def _run_started(
    config: Config, campaign: Campaign, settings: EngineSettings, jobs: int, to_start: int, *, tells: bool
) -> Event:
    """What a run says of itself when it begins; who looks at it later knows its limits from here."""
    limits, deadline_us = settings.limits, settings.bounds.deadline_us
    facts = {
        **identity(config),
        "manifest": campaign.source.name,
        **({"part": campaign.part} if campaign.part else {}),
        "jobs": jobs,
        "to_start": to_start,
        "cap_microusd": config.cap,
        "requests_per_minute": limits.requests_per_minute,
        "starts_per_minute": starts_per_minute(limits.requests_per_minute, count_polls=limits.count_polls),
        "max_in_flight": limits.max_in_flight,
        "expected_s": settings.polling.expected_s,
        "pid": os.getpid(),
        **({"deadline_us": deadline_us} if deadline_us is not None else {}),
        **({"tells": True} if tells else {}),
    }
    return Event(event=EventKind.RUN_STARTED, detail=orjson.dumps(facts).decode())


def _left(state: State, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are not stored yet, in their order: what is left of a million is looked at again and again."""
    states = state.states_of([job.job_id for job in jobs])
    if set(states) == {JobState.STORED}:
        return []
    return [job for job, standing in zip(jobs, states, strict=True) if standing is not JobState.STORED]


async def _make_jobs(context: RunContext, left: Sequence[Job], options: RunOptions, tried: Trial) -> None:
    """Recover, then make what is left, up to the limit. A ledger that fails ends it; everything else is recorded."""
    state = context.ledger.state
    startable = tried.first(job for job in left if _may_start(state, job, options))
    allowed = startable[: options.limit]
    on_their_way = [job for job in left if _may_come_back(state, job)]
    canary = tried.canary(options.limit, needs_approval=options.canary_approve)
    dispatcher = Dispatcher(context, {job.job_id: job for job in [*allowed, *on_their_way]}, canary)
    try:
        if options.retry_classes is not None:
            # Only to those that this run may start: a grant is durable, and a later run would act upon it.
            await grant_retries(context, {job.job_id for job in allowed}, options.retry_classes)
        await recover(context, dispatcher)
        if dispatcher.jobs:
            await _check_account(context)
        await dispatcher.dispatch()
        if len(allowed) < len(startable) and not context.stopping.is_stopping:
            context.stopping.stop(StopReason.LIMIT, f"the limit of this run is reached: {_jobs(options.limit)}")
    except MachineError as error:
        context.stopping.stop(StopReason.MACHINE, str(error))
    except LeavingError:
        pass
    finally:
        await dispatcher.wait_for_workers()
        with contextlib.suppress(MachineError):
            await doubt_what_was_reserved(context, "the run ended before the answer was recorded")


def _jobs(number: int | None) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _may_start(state: State, job: Job, options: RunOptions) -> bool:
    """Whether a job may get an attempt now: it has none yet, or the latest was certainly not billed."""
    standing = state.state_of(job.job_id)
    if standing is JobState.FAILED:
        return wants_retry(state.jobs[job.job_id], options.retry_classes)
    return standing in (None, JobState.VOIDED)


def _may_come_back(state: State, job: Job) -> bool:
    """Whether a job's attempt is undecided, and may turn out to need another."""
    return state.state_of(job.job_id) in (JobState.RESERVED, JobState.IN_DOUBT, JobState.SUBMITTED)


async def _check_account(context: RunContext) -> None:
    """A free call that proves the key before the first submission, and holds the balance against the floor."""
    for tries in range(CREDITS_TRIES):
        await context.pause(context.settings.retry.base_delay_s * tries)
        balance = await context.ask(context.provider.credits)
        if isinstance(balance, Refused) and not context.stopping.is_stopping:
            continue
        if isinstance(balance, int):
            await context.record(context.account_event(balance))
            _hold_against_floor(context, balance)
            return
        if context.stopping.is_stopping:
            return


def _hold_against_floor(context: RunContext, balance: int) -> None:
    floor = context.settings.bounds.credits_floor
    if floor is not None and balance < floor:
        context.stopping.stop(
            StopReason.CREDITS,
            f"the account's credits of ${format_usd(balance)} are below the floor of ${format_usd(floor)}",
        )


async def _keep_house(live: LiveRun, *, reports: bool) -> None:
    """Once a minute: look at the account's floor, write the report. Trouble here never touches the run."""
    context = live.context
    while True:
        await context.clock.sleep(HOUSEKEEPING_S)
        if context.settings.bounds.credits_floor is not None:
            with contextlib.suppress(LeavingError):
                balance = await context.ask(context.provider.credits, Turn.URGENT)
                if isinstance(balance, int):
                    _hold_against_floor(context, balance)
        if not reports:
            continue
        state, summary = context.ledger.state, live.summary()
        writing = asyncio.ensure_future(
            asyncio.to_thread(_write_report, context.folder, live.lines, state, summary, live=True)
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The thread goes on: it must be done before the last report of the run is written.
            await asyncio.wait([writing])
            raise
        except Exception:
            logging.getLogger(LOGGER).exception("the report could not be written; it is tried again in a minute")


def _write_report(
    folder: Path, lines: Sequence[Line], state: State, summary: dict[str, Any], *, live: bool = False
) -> None:
    # pandas takes half a second to load: only who writes a report waits for it.
    from pipeline.report.write import write_report

    write_report(folder, lines, state, summary, live=live)


async def _close_run(live: LiveRun, config: Config, bill: MicroUsd | None, shown_seq: int | None) -> RunResult:
    """Say in the ledger how the run ended, and write the report.

    Args:
        shown_seq: the event up to which a report must reach to show all that has happened; None if none can.
    """
    context, report = live.context, live.context.folder / "report"
    stopping, state = context.stopping, context.ledger.state
    code = exit_code(state, live.asked, stopping.reason)
    facts = {
        "exit_code": code,
        "stopped_by": stopping.reason.word if stopping.reason else None,
        "message": stopping.message or None,
        "requests_sent": context.provider.calls["submit"],
        "polls": context.provider.calls["poll"],
    }
    with contextlib.suppress(MachineError):
        await context.record(Event(event=EventKind.RUN_ENDED, detail=orjson.dumps(facts).decode()))
    summary = summarise(live.lines, state, cap_microusd=config.cap, live=False)
    try:
        shown = read_summary(report)
        is_current = shown_seq is not None and shown.get("events") == shown_seq
        if is_current and says_the_same(shown, summary) and is_complete(report):
            # A million rows take long to write down: what would be the same again is left as it is. It was looked at
            # just now, as one that was written during this run shows a run that goes on, and no event is its last.
            write_summary(report, summary)
        else:
            await asyncio.to_thread(_write_report, context.folder, live.lines, state, summary)
    except OSError as error:
        code = gravest([code, StopReason.MACHINE.exit_code])
        summary |= {"exit_code": code, "message": f"the report could not be written: {error.strerror}"}
    if context.ledger.failure is not None:
        # The ledger could not take the end of the run in: say it here all the same.
        summary |= facts
    return RunResult(context.folder, code, summary, bill)


def exit_code(state: State, asked: Collection[str], reason: StopReason | None) -> int:
    """The exit code of a run that has come to rest; `asked` are the ids of the jobs that it was asked for."""
    codes = [reason.exit_code] if reason else []
    if any(state.counts[left] for left in (JobState.IN_DOUBT, JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED)):
        codes.append(5)
    if any(record.job_id in asked for record in state.in_state(JobState.FAILED)):
        codes.append(1)
    return gravest(codes)


@contextlib.contextmanager
def signals_to(wish: Callable[[], None]) -> Iterator[None]:
    """Take Ctrl-C, SIGTERM and a closed terminal as wishes, for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    wishes = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wishes.append(signal.SIGHUP)  # whoever started it under nohup wants it to go on
    before = {number: signal.getsignal(number) for number in wishes}
    caught = []
    for number in wishes:
        # Not in a thread that may not catch signals, nor where the loop has been told what to do with one: whoever
        # embeds a run there stops it by other means.
        if getattr(before[number], "__module__", None) == "asyncio.unix_events":
            continue
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, wish)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            if callable(handler := before[number]):
                signal.signal(number, handler)  # a program around the run has its own back


@contextlib.contextmanager
def _calm_garbage_collector() -> Iterator[None]:
    """Thousands of live coroutines make frequent collections dear: measured, 1.5 times the throughput."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def log_to(path: Path, key: str, webhook: str | None = None) -> Iterator[RunLog]:
    logger = logging.getLogger(LOGGER)
    try:
        handler = RunLog(path, "" if key == SANDBOX_KEY else key, webhook or "")
    except OSError as error:
        raise MachineError(f"{path} cannot be opened: {error.strerror}") from None
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        handler.close()


def rewrite_report(
    folder: Path, clock: Clock | None = None, *, bom: bool = False, xlsx: bool = False
) -> dict[str, Any]:
    """Write the report of a run directory again from its ledger; returns the summary.

    Args:
        bom: whether the CSV files begin with a byte order mark.
        xlsx: whether a workbook is written as well.

    Raises:
        RunDirectoryError: it is none, or it is damaged.
        MachineError: the disk refused.
    """
    seen = look(folder, (clock or SystemClock()).now_us())
    with no_garbage_collector():
        lines, summary = seen.lines(), seen.summary()
        try:
            _write_report(folder, lines, seen.state, summary, live=seen.is_held)
            _write_for_desk(seen, lines, summary, bom=bom, xlsx=xlsx)
        except OSError as error:
            raise MachineError(f"{folder / 'report'} cannot be written: {error.strerror}") from None
    return summary


def _write_for_desk(seen: Look, lines: Sequence[Line], summary: dict[str, Any], *, bom: bool, xlsx: bool) -> None:
    """What people with a spreadsheet ask for."""
    if bom:
        from pipeline.report.write import mark_utf8

        mark_utf8(seen.folder)
    if xlsx:
        from pipeline.report.workbook import write_workbook

        write_workbook(seen.folder, lines, seen.state, summary, live=seen.is_held)


def write_contact_sheets(folder: Path) -> list[str]:
    """Write the contact sheets of a run directory; returns their names.

    Raises:
        RunDirectoryError: it is none, or it is damaged.
        MachineError: the disk refused.
    """
    from pipeline.report import contact_sheet

    seen = look(folder, SystemClock().now_us())
    try:
        return contact_sheet.write_contact_sheets(folder, seen.lines(), seen.state)
    except OSError as error:
        raise MachineError(f"{folder / 'report'} cannot be written: {error.strerror}") from None
