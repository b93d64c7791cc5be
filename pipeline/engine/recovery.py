"""What a run does first, before it spends anything: take up what the last one left, in the order of what could be lost.

1. What was reserved and no more when the process died is in doubt, and the ledger says so.
2. What is running or paid is collected, the nearest to its expiry first.
3. What was tried in vain often enough is given up; the rest waits for its next try.
4. What is in doubt is looked for in the history.
"""

from __future__ import annotations

from collections.abc import Collection

from pipeline.engine.context import RunContext
from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.expiry import expires_us
from pipeline.engine.retry import wants_retry
from pipeline.engine.stopping import LeavingError
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.events import EventKind
from pipeline.ledger.job import JobState

LAST_RUN_ENDED = "the last run ended before the answer was recorded"


async def recover(run: RunContext, dispatcher: Dispatcher) -> None:
    """Take up everything that the ledger shows unfinished."""
    await doubt_what_was_reserved(run, LAST_RUN_ENDED)
    state = run.ledger.state
    dispatcher.witness.inherit(state.in_state(JobState.IN_DOUBT))
    unfinished = state.in_state(JobState.SUBMITTED, JobState.POSTED)
    voided = [record for record in state.in_state(JobState.VOIDED) if record.job_id in dispatcher.jobs]
    for record in [*sorted(unfinished, key=expires_us), *voided]:
        dispatcher.take_up(record)
    if state.counts[JobState.IN_DOUBT]:
        try:
            await dispatcher.settle_once()
        except LeavingError:
            return


async def doubt_what_was_reserved(run: RunContext, why: str) -> None:
    """Record that all reserved attempts are in doubt: nobody waits for their answers any more."""
    abandoned = [
        record.event(EventKind.IN_DOUBT, error_class=ErrorClass.INTERRUPTED.label, detail=why)
        for record in run.ledger.state.in_state(JobState.RESERVED)
    ]
    if abandoned:
        await run.record(*abandoned)


async def grant_retries(run: RunContext, job_ids: Collection[str], classes: Collection[str]) -> int:
    """Let jobs that failed for good be tried again, with a new allowance; returns how many.

    Args:
        job_ids: only these.
        classes: only failures of these error classes; all if empty.
    """
    granted = [
        record.event(EventKind.RETRY_GRANTED)
        for record in run.ledger.state.in_state(JobState.FAILED)
        if record.job_id in job_ids and wants_retry(record, classes)
    ]
    if granted:
        await run.record(*granted)
    return len(granted)
