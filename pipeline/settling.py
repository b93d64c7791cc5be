"""Settling without a run: the ledger held against the provider's history, and a person's word on an attempt in doubt.

Neither submits anything. Both take the directory's lock, since both may write what they learn.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, load_config
from pipeline.engine.context import RunContext
from pipeline.engine.doubt import SWEEPS_FOR_ABSENCE, Witness, settle
from pipeline.engine.reconcile import Comparison, compare
from pipeline.engine.recovery import LAST_RUN_ENDED, doubt_what_was_reserved
from pipeline.engine.stopping import LeavingError, Stopping, StopReason, gravest
from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import ErrorClass, InputError
from pipeline.ledger.events import SAID_BILLED, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.reading import each_request
from pipeline.ledger.store import Ledger, open_ledger
from pipeline.looking.view import require_ledger
from pipeline.mirror.mirror import mirror_of
from pipeline.mirror.run_files import ENDS
from pipeline.provider.values import fingerprint, valid_request_id
from pipeline.report.jobs_file import load_keys
from pipeline.runner.continuity import check_provider, key_facts
from pipeline.runner.opening import log_to, open_context, open_provider, signals_to
from pipeline.runner.reporting import rewrite_report

BETWEEN_SWEEPS_S = 2.0

LOST_AFTER_S = 2 * 3600.0
"""A generation that was accepted longer ago and has no end has been lost by the provider, which a person may say."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An attempt whose doubt is over. Amounts in micro-dollars; `evidence` is the ledger's sentence."""

    job_id: str
    attempt: int
    state: JobState
    request_id: str | None
    quote_microusd: int
    cost_microusd: int
    evidence: str | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of holding a run directory against the history. `comparison` is None where it could not be read."""

    folder: Path
    settled: tuple[Settled, ...]
    left: tuple[JobRecord, ...]
    """Attempts that are still in doubt."""
    row_ids: Mapping[str, str]
    """The row that asks for each job, by the job's id: its first, if several do."""
    to_collect: int
    """Jobs that are accepted or paid and not on disk yet: the next run collects them."""
    comparison: Comparison | None
    exit_code: int
    message: str
    why_in_doubt: Mapping[str, str]
    """What holds those in doubt, by `JobRecord.attempt_name`, as far as this look at the history has told."""


def config_of(folder: Path, file: Path | None, settings: list[str]) -> Config:
    """The configuration of a run directory: `file` if it is given, else the one that its last run was made with.

    Raises:
        InputError: neither is there, or it has mistakes.
    """
    used = folder / "config.yaml"
    if file is None and not used.is_file():
        raise InputError(f"{folder} has no config.yaml: it is not a run directory, or name the config with -c")
    return load_config(file or used, {}, settings)


async def reconcile(folder: Path, config: Config, *, key: str, clock: Clock | None = None) -> Reconciliation:
    """Settle what is in doubt from the provider's history, and list what ledger and history do not agree on.

    Free of charge: nothing is submitted, and nothing is downloaded.

    Raises:
        InputError: the directory is held, damaged, none at all, or belongs to another provider. Nothing was sent.
        MachineError: the disk refused.
    """
    clock = clock or SystemClock()
    require_ledger(folder)
    async with _ledger_held(folder, clock) as ledger:
        check_provider(ledger.state, config, folder)
        async with open_provider(config, folder, key, clock) as provider:
            with log_to(folder / "run.log", provider.key) as run_log:
                async with open_context(config, folder, ledger, provider, clock, run_log.event, Stopping()) as context:
                    context.key_mark = key_facts(ledger.state, provider.client)["key_mark"]
                    found = await _look(context)
    return found


def _jobs_asking(folder: Path, wanted: Collection[bytes]) -> dict[bytes, str]:
    """The first job of a run directory that has asked for each of these, by the fingerprint of its request."""
    asked: dict[bytes, str] = {}

    def take(job_id: str, request: str) -> None:
        mark = fingerprint(request)
        if mark is not None and mark in wanted:
            asked.setdefault(mark, job_id)

    each_request(folder / "ledger", take)
    return asked


@contextlib.asynccontextmanager
async def _ledger_held(folder: Path, clock: Clock) -> AsyncIterator[Ledger]:
    """The ledger, to be written to under the directory's lock; then the report and the copy in object storage follow.

    After an exception neither is touched: the ledger alone has what was recorded.
    """
    mirror = mirror_of(folder)
    with open_ledger(folder / "ledger", clock, follower=mirror) as ledger:
        try:
            yield ledger
        finally:
            await ledger.close()
        rewrite_report(folder, clock)
        if mirror is not None:
            # While the place is ours: afterwards these would replace those of a run that has begun since.
            await asyncio.to_thread(mirror.files.publish, ENDS)


async def _look(run: RunContext) -> Reconciliation:
    doubted: list[JobRecord] = []
    comparison = None
    leave = functools.partial(run.stopping.leave, StopReason.INTERRUPTED, "interrupted")
    with signals_to(leave), contextlib.suppress(LeavingError):
        await doubt_what_was_reserved(run, LAST_RUN_ENDED)
        doubted = list(run.ledger.state.in_state(JobState.IN_DOUBT))
        await _settle(run, doubted)
        comparison = await compare(run, functools.partial(_jobs_asking, run.folder))
    if comparison is None and not run.stopping.is_stopping:
        run.stopping.stop(StopReason.MACHINE, "the provider's history could not be read whole: try again later")
    return _conclude(run, doubted, comparison)


async def _settle(run: RunContext, doubted: list[JobRecord]) -> None:
    """Sweep the history as often as it takes to prove an absence, or until nothing is in doubt any more."""
    witness = Witness()
    witness.inherit(doubted)
    for sweeps in range(SWEEPS_FOR_ABSENCE):
        if sweeps:
            await run.pause(BETWEEN_SWEEPS_S)
        await settle(run, witness)
        if not run.ledger.state.counts[JobState.IN_DOUBT]:
            return


def _conclude(run: RunContext, doubted: list[JobRecord], comparison: Comparison | None) -> Reconciliation:
    state, stopping = run.ledger.state, run.stopping
    settled = tuple(
        Settled(
            record.job_id,
            record.attempt,
            record.state,
            record.request_id,
            record.quote_microusd,
            record.cost_microusd if record.state is JobState.POSTED else 0,
            record.error,
        )
        for record in doubted
        if record.state is not JobState.IN_DOUBT
    )
    left = tuple(state.in_state(JobState.IN_DOUBT))
    to_collect = state.counts[JobState.SUBMITTED] + state.counts[JobState.POSTED]
    codes = [stopping.reason.exit_code] if stopping.reason else []
    if left or to_collect or (comparison is not None and not comparison.is_clean):
        codes.append(5)
    row_ids = {line.job_id: line.id for line in reversed(load_keys(run.folder))}
    return Reconciliation(
        run.folder,
        settled,
        left,
        row_ids,
        to_collect,
        comparison,
        gravest(codes),
        stopping.message,
        {record.attempt_name: run.why_in_doubt.get(record.attempt_name, "") for record in left},
    )


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's word on an attempt, as it stands in the ledger now. `quote_microusd` is the money that it frees."""

    job_id: str
    attempt: int
    billed: bool
    request_id: str | None
    quote_microusd: int
    by: str


def resolve(folder: Path, named: str, *, request_id: str | None, note: str | None = None) -> Resolution:
    """Record a person's word on an attempt in doubt, with the time and who said it.

    Args:
        named: the attempt: `JOB_ID/NUMBER` as `status` shows it, or a job's or row's id where only one is in doubt.
        request_id: the provider's name for it if it was billed; None if it was not.
        note: why, in the person's own words.

    Raises:
        InputError: no such attempt is in doubt, or the request belongs to another. Nothing was recorded.
        MachineError: the disk refused.
    """
    require_ledger(folder)
    if request_id is not None and valid_request_id(request_id) is None:
        raise InputError(f"--billed: {request_id[:70]!r} is no request id: 8 to 64 letters, digits, `-` and `_`")
    return asyncio.run(_resolve(folder, named, request_id, note, SystemClock()))


async def _resolve(folder: Path, named: str, request_id: str | None, note: str | None, clock: Clock) -> Resolution:
    by = f"{_user()} on {socket.gethostname()}"
    said = f"{by} {SAID_BILLED if request_id else 'said that it was not billed'}"
    detail = f"{said}: {note}" if note else said
    async with _ledger_held(folder, clock) as ledger:
        record = attempt_named(ledger.state, folder, named, clock.now_us())
        if request_id is not None and request_id != record.request_id:
            _require_possible(ledger.state, record, request_id)
        if request_id is not None and record.state is JobState.SUBMITTED:
            raise InputError(f"--billed: the attempt is {request_id} already; each run asks how it ended")
        if record.state is JobState.RESERVED:
            interrupted = ErrorClass.INTERRUPTED.label
            await ledger.record(record.event(EventKind.IN_DOUBT, error_class=interrupted, detail=LAST_RUN_ENDED))
        if request_id is not None:
            event = record.event(EventKind.SUBMITTED, request_id=request_id, detail=detail)
        else:
            event = record.event(EventKind.VOIDED, error_class=ErrorClass.NOT_BILLED.label, detail=detail)
        await ledger.record(event)
    billed = request_id is not None
    return Resolution(record.job_id, record.attempt, billed, request_id, record.quote_microusd, by)


def _require_possible(state: State, record: JobRecord, request_id: str) -> None:
    """Refuse a request id that the attempt does not have and cannot get.

    Raises:
        InputError: it is another attempt's, of this job or another, or the provider itself has named this one.
    """
    owner = state.request_ids.get(request_id)
    if owner is not None:
        which = "an earlier attempt of this job" if owner == record.job_id else "another job"
        raise InputError(f"--billed: request {request_id} belongs to {owner} already, {which}")
    if record.request_id is not None and not record.is_named_by_hand:
        raise InputError(f"--billed: the attempt was accepted as {record.request_id}, so it is that request")


def attempt_named(state: State, folder: Path, named: str, now_us: int) -> JobRecord:
    """The attempt that a person means: one in doubt, or one that was accepted long ago and of which no end is known.

    Raises:
        InputError: none or several; says which there are.
    """
    name, slash, number = named.partition("/")
    rows = {line.job_id for line in load_keys(folder) if line.id == name}
    meant = [record for record in state.jobs.values() if record.job_id == name or record.job_id in rows]
    if not meant:
        raise InputError(
            f"{folder} has no attempt {named[:80]!r}; `kling-batch status {folder}` shows what is in doubt"
        )
    doubted = [record for record in meant if _may_be_resolved(record, now_us)]
    if slash:
        doubted = [record for record in doubted if str(record.attempt) == number]
    if len(doubted) > 1:
        those = ", ".join(record.attempt_name for record in doubted)
        raise InputError(f"{named} means several attempts in doubt; say which: {those}")
    if not doubted:
        stand = ", ".join(f"{record.attempt_name} is {record.state.name.lower()}" for record in meant[:5])
        raise InputError(f"{named[:80]} is not in doubt: {stand}. Nothing was recorded.")
    return doubted[0]


def _may_be_resolved(record: JobRecord, now_us: int) -> bool:
    is_lost = record.state is JobState.SUBMITTED and now_us - record.accepted_us > LOST_AFTER_S * 1e6
    return is_lost or record.state in (JobState.IN_DOUBT, JobState.RESERVED)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a person without a name"
