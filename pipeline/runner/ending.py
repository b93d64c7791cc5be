"""How a run ends: its exit code, its last word in ledger and report, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline import notify
from pipeline.config import Config
from pipeline.engine.context import RunContext
from pipeline.engine.stopping import Stopping, StopReason, gravest
from pipeline.engine.unowned import said_of
from pipeline.kernel.clock import Clock
from pipeline.kernel.errors import MachineError
from pipeline.kernel.logger import LOGGER
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.looking.missing import missing_videos
from pipeline.manifest import Campaign
from pipeline.mirror.mirror import Mirror
from pipeline.mirror.run_files import ENDS
from pipeline.provider.secrecy import Eraser
from pipeline.report.summary import no_longer_asked, summarise
from pipeline.runner import reporting
from pipeline.runner.opening import SANDBOX_KEY, log_to
from pipeline.runner.watching import LiveRun

log = logging.getLogger(LOGGER)

MOST_DOUBTS = 20
"""At most this many attempts in doubt are listed, with what holds them."""

LEAVING_NOTICE_S = 1.0
"""How long a webhook may take when a person wants the run to be over."""


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


async def close_run(live: LiveRun, config: Config, bill: MicroUsd | None, shown_seq: int | None) -> RunResult:
    """Say in the ledger how the run ended, and write the report.

    Args:
        shown_seq: the event up to which a report must reach to show all that has happened; None if none can.
    """
    context = live.context
    stopping, state = context.stopping, context.ledger.state
    code = exit_code(state, live.asked, stopping.reason, unowned=bool(context.unowned))
    unowned = said_of(context.unowned, str(context.folder)) if context.unowned else None
    message = _told(stopping.message, unowned, _left_of_others(live, state, code))
    facts = {
        "exit_code": code,
        "stopped_by": stopping.reason.word if stopping.reason else None,
        "message": message,
        "requests_sent": context.provider.calls["submit"],
        "polls": context.provider.calls["poll"],
        "why_in_doubt": _why_in_doubt(context),
        "unnamed_seen": context.unnamed_seen,
    }
    with contextlib.suppress(MachineError):
        await context.record(Event(event=EventKind.RUN_ENDED, detail=orjson.dumps(facts).decode()))
    missing = await asyncio.to_thread(missing_videos, context.folder, state)
    summary = summarise(live.lines, state, cap_microusd=config.cap, live=False, missing=missing)
    trouble = None
    try:
        await asyncio.to_thread(reporting.renew_report, context.folder, live.lines, state, summary, shown_seq)
    except Exception as error:  # of memory or threads there may be too few as well as of room
        log.exception("the report could not be written")
        trouble = f"the report could not be written: {_reason(error)}"
    if context.ledger.failure is not None:
        # The ledger could not take the end of the run in: say it here all the same.
        summary |= facts
    result = RunResult(context.folder, code, summary, bill)
    return result if trouble is None else with_trouble(result, trouble)


def with_trouble(result: RunResult, message: str) -> RunResult:
    """How a run ended that this machine could not bring to its end in good order."""
    code = gravest([result.exit_code, StopReason.MACHINE.exit_code])
    return dataclasses.replace(result, exit_code=code, summary=result.summary | {"exit_code": code, "message": message})


def noted(error: Exception, folder: Path) -> MachineError:
    """What nobody foresaw, kept in run.log and said in a sentence; an error that was foreseen is what it is."""
    if isinstance(error, MachineError):
        return error
    if isinstance(error, OSError) and error.filename and error.strerror:
        return MachineError(f"{error.filename}: {error.strerror}")
    with contextlib.suppress(MachineError), log_to(folder / "run.log", SANDBOX_KEY):
        log.error("defect", exc_info=error)
    return MachineError(
        f"a defect in kling-batch, or this machine lacks something ({_reason(error)}): nothing is lost, "
        f"see {folder / 'run.log'} and run again"
    )


def _reason(error: Exception) -> str:
    """Why something failed, without a stranger's words, which may hold anything."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _told(*reasons: str | None) -> str | None:
    """Several reasons as sentences, the first as it is; None where there are none."""
    first, *others = [*filter(None, reasons), ""]
    sentences = [first, *(f"{each[0].upper()}{each[1:]}" for each in others if each)]
    return ". ".join(each.rstrip(".") for each in sentences) if len(sentences) > 1 else first or None


def _left_of_others(live: LiveRun, state: State, code: int) -> str | None:
    """What is left of jobs that no row asks for any more: an exit 5 for their sake shows in no count of the rows."""
    if code != 5:
        return None
    left = no_longer_asked(live.lines.keys.column("job_id"), state, live=False)
    words = {"in_doubt": "in doubt", "running": "running", "unfetched": "paid, not yet on disk"}
    counts = [f"{left[name]:,} {word}" for name, word in words.items() if left[name]]
    return f"jobs that the manifest no longer asks for are left: {', '.join(counts)}" if counts else None


def _why_in_doubt(context: RunContext) -> dict[str, str]:
    """What holds attempts in doubt, by `JOB_ID/NUMBER`, as `resolve` names them."""
    doubted = itertools.islice(context.ledger.state.in_state(JobState.IN_DOUBT), MOST_DOUBTS)
    reasons = ((record.attempt_name, context.why_in_doubt.get(record.attempt_name)) for record in doubted)
    return {name: why for name, why in reasons if why is not None}


def exit_code(state: State, asked: Collection[str], reason: StopReason | None, *, unowned: bool) -> int:
    """The exit code of a run that has come to rest.

    Args:
        asked: the ids of the jobs that it was asked for.
        unowned: whether it has found charges that may be its own and that no attempt owns.
    """
    codes = [reason.exit_code] if reason else []
    if any(state.counts[left] for left in (JobState.IN_DOUBT, JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED)):
        codes.append(5)
    if unowned:
        codes.append(5)
    if any(record.job_id in asked for record in state.in_state(JobState.FAILED)):
        codes.append(1)
    return gravest(codes)


def notice_of(campaign: Campaign, result: RunResult, state: State, *, is_idle: bool) -> dict[str, Any] | None:
    """What a webhook is told of a run; None if it had nothing to do, or if its trouble was told a moment ago."""
    event = notify.event_of(result.summary)
    if (is_idle and event == "ended") or (event == "trouble" and _is_told(state)):
        return None
    return notify.notice(campaign.name, str(result.folder), result.summary)


def _is_told(state: State) -> bool:
    *earlier, last = state.runs
    return notify.is_too_soon(earlier, last.ended_us or last.started_us)


async def publish(mirror: Mirror, result: RunResult) -> RunResult:
    """Bring the reports to the storage, once they are written."""
    try:
        await asyncio.to_thread(mirror.files.publish, ENDS)
    except Exception as error:
        return with_trouble(result, str(noted(error, result.folder)))
    return result


async def tell(
    webhook: str, notice: Mapping[str, Any], folder: Path, key: str, clock: Clock, stopping: Stopping
) -> None:
    """Tell the webhook how the run ended. Trouble here is logged and nothing else."""
    body = Eraser(key).strike_out(notify.as_json(notice))
    with contextlib.suppress(Exception), log_to(folder / "run.log", key, webhook):
        if stopping.is_leaving:
            async with asyncio.timeout(LEAVING_NOTICE_S):
                await notify.send(webhook, body, clock)
        else:
            await stopping.unless_leaving(notify.send(webhook, body, clock))
