"""The run itself: opens what it needs, lets the engine make the jobs, keeps house meanwhile, and closes in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.engine.canary import Trial
from pipeline.engine.context import RunContext
from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.recovery import doubt_what_was_reserved, grant_retries, recover
from pipeline.engine.stopping import LeavingError, Stopping, StopReason
from pipeline.engine.unowned import look_for_unowned, unnamed_seen_before
from pipeline.jobs import Job
from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import KlingBatchError, MachineError
from pipeline.kernel.garbage import calm_garbage_collector, give_back_memory
from pipeline.kernel.logger import LOGGER
from pipeline.kernel.usd import MicroUsd, dollars
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import Reader
from pipeline.ledger.store import Ledger, open_ledger
from pipeline.looking.missing import missing_videos
from pipeline.manifest import Campaign
from pipeline.mirror.mirror import Mirror, mirror_of
from pipeline.mirror.run_files import ROWS
from pipeline.provider.replies import Refused
from pipeline.report.lines import Lines
from pipeline.runner import reporting
from pipeline.runner.choice import RunOptions, choose, lack_of_credits, may_come_back, may_start, not_stored, trial_of
from pipeline.runner.continuity import (
    check_folder,
    check_ids,
    check_part,
    check_provider,
    is_tidy,
    key_facts,
    noted_rows,
    pace_owed_s,
    run_started,
)
from pipeline.runner.ending import RunResult, close_run, noted, notice_of, publish, tell, with_trouble
from pipeline.runner.opening import (
    SANDBOX_KEY,
    OpenProvider,
    Stage,
    log_to,
    open_context,
    open_provider,
    opened_beside,
    prepare_folder,
    signals_to,
)
from pipeline.runner.watching import AskedJobs, LiveRun, Watcher, to_all

HOUSEKEEPING_S = 60.0
"""How often the report is written again, and the account's floor looked at, while a run is live."""

REPORT_RESTS = 20
"""Live reports start at least this multiple of the last one's duration apart: they take 5 % of a core at most."""

CREDITS_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Assignment:
    """What a run is to do, where, and for whom; see `run`."""

    campaign: Campaign
    config: Config
    folder: Path
    key: str
    options: RunOptions
    watcher: Watcher
    clock: Clock
    webhook: str | None
    stage: Stage | None

    @property
    def is_rehearsal(self) -> bool:
        return self.stage is not None


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
        known: the reader that has read the ledger for this run already, if there is one.

    Raises:
        InputError: nothing was sent; the directory is held, damaged, or belongs to another provider.
        MachineError: the disk refused before anything began.
    """
    clock, stopping = clock or SystemClock(), Stopping()
    assignment = _Assignment(
        campaign, config, folder, key, options or RunOptions(), watcher or Watcher(), clock, webhook, stage
    )
    mirror = None
    if stage is None:
        mirror = mirror_of(folder, keep_videos=config.output.keep_videos, is_left=lambda: stopping.is_leaving)
    check_folder(folder, campaign)
    opening = open_ledger(folder / "ledger", clock, durable=stage is None, follower=mirror, known=known)
    # Around everything: a signal while the ledger is opened or closed is only a wish, too, and cuts off no bookkeeping.
    with signals_to(stopping.interrupt):
        async with opened_beside(opening, asks=mirror is not None) as ledger:
            result = None
            try:
                result = await _run_on(assignment, ledger, mirror, stopping)
            finally:
                if result is not None and mirror is not None:
                    result = await publish(mirror, result)
                try:
                    await ledger.close()
                except Exception as error:
                    if result is None:
                        raise
                    result = with_trouble(result, str(noted(error, folder)))
    if webhook is not None and result.notice is not None:
        with signals_to(stopping.interrupt):
            await tell(webhook, result.notice, folder, key, clock, stopping)
    return result


async def _run_on(assignment: _Assignment, ledger: Ledger, mirror: Mirror | None, stopping: Stopping) -> RunResult:
    """Run on an open ledger: check that it is this campaign's, prepare the folder, open the rest, run, and close it."""
    campaign, config, folder = assignment.campaign, assignment.config, assignment.folder
    clock, stage, webhook = assignment.clock, assignment.stage, assignment.webhook
    result = None
    try:
        check_provider(ledger.state, config, folder)
        check_part(folder, campaign, ledger.state)
        # Before the folder is prepared: that replaces what the last run has kept of its rows.
        check_ids(folder, campaign, ledger.state)
        # A mirror brings back videos as well as the ledger, and may have died while it did.
        untidy = mirror is not None or not is_tidy(ledger.state)
        lines, mark = prepare_folder(folder, campaign, config, untidy=untidy, noted=noted_rows(ledger.state))
        if mirror is not None:
            await asyncio.to_thread(mirror.files.publish, ROWS)
        async with open_provider(config, folder, assignment.key, clock, stage=stage) as provider:
            with log_to(folder / "run.log", provider.key, webhook) as run_log:
                listener = to_all(run_log.event, assignment.watcher.event)
                notices = (mirror.taken_over,) if mirror is not None and mirror.taken_over else ()
                for notice in notices:
                    logging.getLogger(LOGGER).warning("%s", notice)
                opened = open_context(
                    config, folder, ledger, provider, clock, listener, stopping, campaign.images, mirror
                )
                async with opened as context:
                    if stage is not None:
                        context.rng = stage.rng
                    result = await _run_engine(assignment, context, provider, lines, mark, notices)
    except Exception as error:
        if result is None and isinstance(error, KlingBatchError):
            raise
        if result is None:
            raise noted(error, folder) from error
        # All is recorded: what could not be closed is no reason to keep how the run ended to itself.
        result = with_trouble(result, str(noted(error, folder)))
    return result


async def _run_engine(
    assignment: _Assignment,
    context: RunContext,
    provider: OpenProvider,
    lines: Lines,
    mark: str,
    notices: tuple[str, ...],
) -> RunResult:
    campaign, config, options = assignment.campaign, assignment.config, assignment.options
    watcher, state = assignment.watcher, context.ledger.state
    context.pace.pause(pace_owed_s(state, context.pace.interval_s, context.clock.now_us()))
    chosen = choose(campaign, options, context.price)
    job_ids = [job.job_id for job in chosen]
    states = state.states_of(job_ids)
    left, of_these = not_stored(chosen, states), Counter(states)
    del states
    if left:
        # Now, while nothing waits for it, rather than at the first submission.
        state.jobs.get_ready()
    to_start = min(sum(may_start(state, job, options) for job in left), options.limit or len(chosen))
    settings = context.settings
    key = {} if assignment.is_rehearsal else key_facts(state, context.provider)
    context.key_mark = key.get("key_mark")
    started = run_started(
        config, campaign, settings, len(chosen), to_start, mark, tells=assignment.webhook is not None, key=key
    )
    await context.record(started)
    begun_seq, before_seq = state.last_seq, state.last_seq - 1
    done_elsewhere = sum(state.counts[each] - of_these[each] for each in (JobState.STORED, JobState.FAILED))
    asked = AskedJobs(job_ids, [job.job_id for job in left])
    live = LiveRun(context, lines, asked, done_elsewhere, to_start, notices)
    watcher.started(live)
    # A plan takes far more memory while it is made than it keeps, and a run may go on for hours beside it.
    give_back_memory()
    with calm_garbage_collector():
        housekeeping = asyncio.create_task(_keep_house(live, reports=not assignment.is_rehearsal))
        try:
            await _make_jobs(context, left, options, trial_of(campaign, config, state, options), watcher)
        finally:
            housekeeping.cancel()
            await asyncio.wait([housekeeping])
        watcher.ended()
        is_idle = state.last_seq == begun_seq
        result = await close_run(live, config, provider.bill(), before_seq if is_idle else None)
        return dataclasses.replace(result, notice=notice_of(campaign, result, state, is_idle=is_idle))


async def _make_jobs(
    context: RunContext, left: Sequence[Job], options: RunOptions, tried: Trial, watcher: Watcher
) -> None:
    """Recover, then make what is left, up to the limit. A ledger that fails ends it; everything else is recorded."""
    state = context.ledger.state
    startable = tried.first(job for job in left if may_start(state, job, options))
    allowed = startable[: options.limit]
    on_their_way = [job for job in left if may_come_back(state, job)]
    if options.limit is not None:
        # A job that turns out to need another attempt is a start like any other, except a canary's: all wait for it.
        others = [job for job in on_their_way if job.job_id not in tried.under_way][: options.limit - len(allowed)]
        on_their_way = [job for job in on_their_way if job.job_id in tried.under_way] + others
    canary = tried.canary(options.limit, needs_approval=options.canary_approve)
    dispatcher = Dispatcher(context, {job.job_id: job for job in [*allowed, *on_their_way]}, canary)
    context.unnamed_seen = unnamed_seen_before(state)
    try:
        if options.retry_classes is not None:
            # Only to those that this run may start: a grant is durable, and a later run would act upon it.
            await grant_retries(context, {job.job_id for job in allowed}, options.retry_classes)
        await recover(context, dispatcher)
        if dispatcher.jobs:
            await _check_account(context, allowed, watcher)
        await dispatcher.dispatch()
        is_cut = any(job.job_id not in dispatcher.jobs and may_start(state, job, options) for job in left)
        if options.limit is not None and is_cut and not context.stopping.is_stopping:
            context.stopping.stop(StopReason.LIMIT, f"the limit of this run is reached: {_jobs(options.limit)}")
        await look_for_unowned(context)
    except MachineError as error:
        context.stopping.stop(StopReason.MACHINE, str(error))
    except LeavingError:
        pass
    except Exception as error:
        dispatcher.stop_at_defect(error, "the heart of the run")
    finally:
        await dispatcher.wait_for_workers()
        with contextlib.suppress(MachineError):
            await doubt_what_was_reserved(context, "the run ended before the answer was recorded")


def _jobs(number: int | None) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


async def _check_account(context: RunContext, to_start: Sequence[Job], watcher: Watcher) -> None:
    """A free call that proves the key before the first submission, and holds the balance against floor and cost."""
    for tries in range(CREDITS_TRIES):
        await context.pause(context.settings.retry.base_delay_s * tries)
        try:
            # All calls may be paused for long; a stop or a deadline must not wait for that.
            async with asyncio.timeout(context.time_to_start_s):
                balance = await context.stopping.unless_stopping(context.ask(context.provider.credits))
        except (LeavingError, TimeoutError):
            return
        if isinstance(balance, Refused) and not context.stopping.is_stopping:
            continue
        if isinstance(balance, int):
            await context.record(context.account_event(balance))
            if lack := lack_of_credits(context, balance, to_start):
                # No reason to stop: it may be topped up meanwhile, and what can be made is made.
                logging.getLogger(LOGGER).warning("%s", lack)
                watcher.notice(lack)
            _hold_against_floor(context, balance)
            return
        if context.stopping.is_stopping:
            return


def _hold_against_floor(context: RunContext, balance: MicroUsd) -> None:
    floor = context.settings.bounds.credits_floor
    if floor is not None and balance < floor:
        context.stopping.stop(
            StopReason.CREDITS,
            f"the account's credits of {dollars(balance)} are below the floor of {dollars(floor)}",
        )


async def _keep_house(live: LiveRun, *, reports: bool) -> None:
    """Once a minute, look at the account's floor and write the report. A failure stops neither the run nor the next."""
    clock, report_due_s = live.context.clock, 0.0
    while True:
        await clock.sleep(HOUSEKEEPING_S)
        try:
            await _look_at_floor(live.context)
            began_s = clock.monotonic_s()
            if reports and began_s >= report_due_s:
                await _write_live_report(live)
                report_due_s = began_s + REPORT_RESTS * (clock.monotonic_s() - began_s)
        except Exception:
            logging.getLogger(LOGGER).exception(
                "the minute's report or look at the account failed; the next one follows"
            )


async def _look_at_floor(context: RunContext) -> None:
    """Hold the account's balance against the floor, if there is one."""
    if context.settings.bounds.credits_floor is None:
        return
    with contextlib.suppress(LeavingError):
        # Not as urgent: where no answer comes, urgent questions would be the only ones that are ever asked.
        balance = await context.ask(context.provider.credits)
        if isinstance(balance, int):
            _hold_against_floor(context, balance)


async def _write_live_report(live: LiveRun) -> None:
    """Write the report as of now, in a thread of its own."""
    context = live.context
    state, lines = context.ledger.state, live.lines.afresh()
    summary = live.summary(await asyncio.to_thread(missing_videos, context.folder, state))
    writing = asyncio.ensure_future(asyncio.to_thread(reporting.write_report, context.folder, lines, state, summary))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        # The thread goes on: it must be done before the last report of the run is written.
        await asyncio.wait([writing])
        raise
