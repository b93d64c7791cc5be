"""Reading the account's history whole: every request of a window of days, each once.

What could not be read whole shows what is there all the same; that something is not there, it does not show.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.context import RunContext
from pipeline.kernel.clock import DAY_US, to_datetime
from pipeline.provider.history import HistoryRow, rank
from pipeline.provider.replies import Refused, Unavailable

LONGEST_WINDOW_DAYS = 30
"""The provider answers for at most 31 days."""

MAX_PAGES = 2_000
PAGE_TRIES = 4
REPEATS_AT_THE_END = 2

MISSING_AT_THE_END = 2
"""So many answers of 404 in a row to one page say that there is none: one alone may be a slip."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows that were read. Unless they are the whole of what was asked for, the lack of one proves nothing."""

    rows: list[HistoryRow]
    is_whole: bool


async def read_history(run: RunContext, models: set[str], from_us: int, to_us: int) -> Listed:
    """Every row between two days, both ends in, by the provider's clock, as far as they can be read.

    Raises:
        LeavingError: the run is being left.
    """
    rows: dict[str, HistoryRow] = {}
    for model in sorted(models):
        begins_us = from_us
        while begins_us <= to_us:
            ends_us = min(begins_us + (LONGEST_WINDOW_DAYS - 1) * DAY_US, to_us)
            dates = to_datetime(begins_us).date().isoformat(), to_datetime(ends_us).date().isoformat()
            if not await _read_window(run, rows, *dates, model):
                return Listed(list(rows.values()), is_whole=False)
            begins_us = ends_us + DAY_US
    return Listed(list(rows.values()), is_whole=True)


async def _read_window(run: RunContext, rows: dict[str, HistoryRow], from_date: str, to_date: str, model: str) -> bool:
    repeats = 0
    for page in range(1, MAX_PAGES + 1):
        listed = await _page(run, page, from_date, to_date, model)
        if listed is None:
            return False
        known = len(rows)
        for row in listed:
            if row.request_id not in rows or rank(row) > rank(rows[row.request_id]):
                rows[row.request_id] = row
        # An empty page is behind the last. So is one that was all seen before, where the provider repeats its last page
        # for ever; but rows that come in meanwhile push those of one page onto the next, so it takes two of them.
        repeats = repeats + 1 if len(rows) == known else 0
        if not listed or repeats == REPEATS_AT_THE_END:
            return True
    return False


async def _page(run: RunContext, page: int, from_date: str, to_date: str, model: str) -> list[HistoryRow] | None:
    """The rows of a page, none where there is no such page; None if it could not be read."""
    missing = 0
    for tries in range(PAGE_TRIES):
        reply = await run.ask(lambda: run.provider.history(page, from_date, to_date, model))
        if isinstance(reply, list):
            return reply
        if isinstance(reply, Refused) and run.stopping.is_stopping:
            return None
        is_missing = page > 1 and isinstance(reply, Unavailable) and reply.http_status == 404
        missing = missing + 1 if is_missing else 0
        if missing == MISSING_AT_THE_END:
            return []
        await run.pause(run.settings.retry.base_delay_s * max(tries, missing))
    return None
