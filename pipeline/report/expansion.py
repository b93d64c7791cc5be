"""Every entry of a plan as a table: what would start when, and all that is asked for, prompts filled in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.jobs import Job
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.manifest import Entry
from pipeline.report.columns import Column, column_of, csv_bytes, parquet_bytes
from pipeline.report.tables import extra_columns, status_of

COLUMNS = {
    "start": pa.int64(),
    "row": pa.int64(),
    "id": pa.string(),
    "replicate": pa.int64(),
    "job_id": pa.string(),
    "status": pa.string(),
    "allowed": pa.string(),
    "price_usd": pa.string(),
    "tags": pa.string(),
}
"""The fixed columns of an expansion, in order, with their types."""

FORMATS = (".csv", ".parquet")


def expansion_bytes(
    ending: str,
    entries: Sequence[Entry],
    state: State,
    *,
    starts: Mapping[str, tuple[int, bool]],
    price: Callable[[Job], int],
    live: bool,
) -> bytes | memoryview:
    """The content of a `.csv` or `.parquet` file with a line for every entry, as written.

    Entries that share a job each have their line; the price stands on the first, so that the column adds up.

    Args:
        ending: one of `FORMATS`.
        starts: for each job to do its place in the order in which jobs start, from 1, and whether it starts now.
        price: the most that a job may cost, in micro-dollars.
        live: whether a run holds the directory now.
    """
    table = _fixed(entries, state, starts, price, live=live) | _asked(entries)
    return csv_bytes(table) if ending == ".csv" else parquet_bytes(table)


def _fixed(
    entries: Sequence[Entry],
    state: State,
    starts: Mapping[str, tuple[int, bool]],
    price: Callable[[Job], int],
    *,
    live: bool,
) -> dict[str, Column]:
    ids = [entry.job.job_id for entry in entries]
    found = [starts.get(job_id) for job_id in ids]
    first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
    quotes = [price(entry.job) if first[entry.job.job_id] == index else 0 for index, entry in enumerate(entries)]
    columns: dict[str, list[Any]] = {
        "start": [each and each[0] for each in found],
        "row": [entry.row for entry in entries],
        "id": [entry.row_id for entry in entries],
        "replicate": [entry.job.replicate for entry in entries],
        "job_id": ids,
        "status": [status_of(state, job_id, live=live) for job_id in ids],
        "allowed": [each and ("yes" if each[1] else "no") for each in found],
        "price_usd": list(map(functools.cache(format_usd), quotes)),
        "tags": [", ".join(entry.tags) for entry in entries],
    }
    return {name: pa.array(columns[name], kind) for name, kind in COLUMNS.items()}


def _asked(entries: Sequence[Entry]) -> dict[str, Column]:
    """Every parameter, then every variable."""
    names = extra_columns(
        dict.fromkeys(entry.job.model for entry in entries),
        dict.fromkeys(name for entry in entries for name in entry.variables),
        COLUMNS,
    )
    params = [entry.job.params for entry in entries]
    variables = [entry.variables for entry in entries]
    return {
        column: column_of(
            [mine[name] if name in mine else other.get(name) for mine, other in zip(params, variables, strict=True)]
        )
        for name, column in names.items()
    }
