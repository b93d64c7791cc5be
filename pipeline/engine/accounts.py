"""Whether today's key sees the account that an attempt was sent to.

The history of another account is silent about every attempt, so its silence proves nothing. That two keys are of one
account is shown by a request that was surely accepted under the one and that the other can see.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from pipeline.engine.context import RunContext
from pipeline.engine.matching import was_surely_accepted
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired

MAX_CONTROLS = 3
"""So many requests of another key are asked for by name with each sweep, until one of them is shown."""


async def unseen_keys(run: RunContext, records: Iterable[JobRecord], rows: Iterable[HistoryRow]) -> set[str]:
    """The marks of the keys that these attempts were sent with and whose account today's key may not see.

    An attempt whose key is not known, because an earlier version has recorded it, is taken for one of today's.

    Args:
        rows: what the history shows by today's key.

    Raises:
        LeavingError: the run is being left.
    """
    state = run.ledger.state
    others = {state.key_mark_at(record.reserved_seq) for record in records} - {None, run.key_mark}
    if run.key_mark is None or not others:
        return set()
    run.seen_keys |= keys_shown_by(state, rows)
    return {mark for mark in others - run.seen_keys if mark and not await _is_seen(run, mark)}


def keys_shown_by(state: State, rows: Iterable[HistoryRow]) -> set[str]:
    """The marks of the keys under which requests in these rows were surely accepted."""
    shown = set()
    for row in rows:
        job_id = state.request_ids.get(row.request_id)
        record = state.jobs.get(job_id) if job_id is not None else None
        if record is not None and record.request_id == row.request_id and was_surely_accepted(record):
            shown.add(state.key_mark_at(record.reserved_seq))
    return {mark for mark in shown if mark is not None}


async def _is_seen(run: RunContext, mark: str) -> bool:
    """Whether the history shows, asked by name, a request that was surely accepted under another key: at any age."""
    for record in itertools.islice(accepted_under(run.ledger.state, mark), MAX_CONTROLS):
        reply = await run.ask_history(record.request_id)
        if isinstance(reply, HistoryRow):
            run.seen_keys.add(mark)
            return True
        if not isinstance(reply, Expired):
            return False  # the history does not answer now, so it is not asked for the others
    return False


def accepted_under(state: State, mark: str) -> Iterator[JobRecord]:
    """The requests that were surely accepted under a key, those of the latest run first."""
    for run in reversed(state.runs):
        if run.facts.get("key_mark") == mark:
            until_us = run.ended_us if run.ended_us is not None else 2**62
            for record in state.jobs.submitted(run.started_us, until_us, beside=()):
                if was_surely_accepted(record) and state.key_mark_at(record.reserved_seq) == mark:
                    yield record
