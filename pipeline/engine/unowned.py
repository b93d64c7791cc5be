"""The last look of a run: charges that may be its own and that no attempt in the ledger owns.

An answer such as 500 says that nothing is billed, and names no request. If the provider has accepted the request all
the same, the job was tried again and is paid twice, which only the history shows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from pipeline.engine.context import RunContext
from pipeline.engine.history import LONGEST_WINDOW_DAYS, read_history
from pipeline.engine.matching import rows_without_owner
from pipeline.kernel.clock import DAY_US
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.models import MODELS
from pipeline.provider.history import HistoryRow

LONGEST_LOOK_S = 30.0
"""A history that takes longer is left to `reconcile`: a run must come to its end."""

NAMED = 3
"""How many requests a message names."""


async def look_for_unowned(run: RunContext) -> None:
    """Note what the history shows of attempts that failed without a name, each of which is looked for by one run.

    Nothing is noted where it does not answer in time, or where a person or the account wants the run to be over: then
    the next run looks.

    Raises:
        LeavingError: the run is being left.
    """
    state = run.ledger.state
    unnamed = state.unnamed[run.unnamed_seen :]
    if not unnamed or run.stopping.is_urgent:
        return
    now_us = run.provider_now_us()
    oldest_us = min(attempt.began_us for attempt in unnamed)
    from_us = max(oldest_us - DAY_US, now_us - LONGEST_WINDOW_DAYS * DAY_US)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_LOOK_S):
            listed = await read_history(run, set(MODELS), from_us, now_us + DAY_US)
            run.unowned = rows_without_owner(unnamed, listed.rows, state.request_ids)
            run.unnamed_seen += len(unnamed) if listed.is_whole else 0


def unnamed_seen_before(state: State) -> int:
    """How many of the attempts that failed without a name were looked for by earlier runs."""
    seen = (run.outcome.get("unnamed_seen") for run in reversed(state.runs))
    return next((number for number in seen if isinstance(number, int)), 0)


def said_of(unowned: Sequence[HistoryRow], folder: str) -> str:
    """What a person is told of them, in a sentence or two."""
    names = ", ".join(row.request_id for row in unowned[:NAMED]) + (", …" if len(unowned) > NAMED else "")
    requests = "1 request" if len(unowned) == 1 else f"{len(unowned)} requests"
    charged = format_usd(sum(row.cost or 0 for row in unowned))
    return (
        f"the history shows {requests} that no attempt owns (${charged} so far: {names}), of the time of an answer by "
        f"which nothing was accepted: see `kling-batch reconcile {folder}`"
    )
