"""The file in which a run directory keeps the lines of its campaign, so that a report needs no manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.kernel.files import keep_file, open_regular_file
from pipeline.report.jobs_format import BROKEN, FILE, SCHEMA, objects, parted, read_settings, sharing, unreadable
from pipeline.report.lines import KEY, LINES_AT_ONCE, Keys, Lines, are_among


def save_lines(lines: Lines, folder: Path) -> str:
    """Write the lines to a run directory, unless the same bytes are there already. Returns the file's SHA-256."""
    sink = pa.BufferOutputStream()
    pq.write_table(lines.table.cast(SCHEMA), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    keep_file(folder / FILE, data)
    return hashlib.sha256(data).hexdigest()


def has_entries(folder: Path) -> bool:
    """Whether a run directory keeps the rows of a campaign."""
    return (folder / FILE).exists()


def kept_sha256(folder: Path) -> str | None:
    """The SHA-256 of a run directory's jobs.parquet; None if it has none."""
    path = folder / FILE
    try:
        if path.is_symlink():
            return None
        descriptor = open_regular_file(path)
        with open(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def load_lines(folder: Path, only: Collection[str] | None = None) -> Lines:
    """The lines of a run directory's campaign.

    Args:
        only: the ids of the jobs whose lines are wanted; all without it.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, sha256 = _read(folder, SCHEMA.names)
    if only is not None:
        return Lines(table.filter(are_among(table["job_id"], only)), folder)
    return Lines(table, folder, Keys(*table.select(KEY).columns, sha256=sha256))


def load_keys(folder: Path) -> Keys:
    """The keys of a run directory's lines, without reading what they ask for, which is most of the file.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, sha256 = _read(folder, list(KEY))
    return Keys(*table.columns, sha256=sha256)


def are_of(folder: Path, job_ids: pa.ChunkedArray[Any]) -> bool:
    """Whether the lines of a run directory's campaign ask for these jobs, in their order.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, _ = _read(folder, ["job_id"])
    return bool(table["job_id"].equals(job_ids))


def _read(folder: Path, columns: list[str]) -> tuple[pa.Table, str]:
    """These columns, and the SHA-256 of the file that has them.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
        MachineError: this machine has too little memory for them; the file may be whole.
    """
    try:
        with open(open_regular_file(folder / FILE), "rb") as opened:
            data = opened.read()
        # Without threads: a command that ends while Arrow's are still being started is aborted.
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        if "prompt" in columns and "prompt" not in names and names.count("params") == 1:
            table = _of_older(file.read(use_threads=False))
        else:
            table = file.read(columns=columns, use_threads=False)
        # Without this check a damaged text would get into the tables unnoticed.
        table.validate(full=True)
    except FileNotFoundError:
        raise RunDirectoryError(f"{folder} is not a run directory: it has no {FILE}") from None
    except MemoryError:
        what = "cannot be read: this machine has too little memory"
        raise MachineError(f"{folder / FILE} {what}. Nothing was sent.") from None
    except (pa.ArrowException, OSError, *BROKEN) as error:
        raise unreadable(folder, error) from None
    for name in columns:
        if (count := table.column_names.count(name)) != 1:
            raise unreadable(folder, f"it has {'no' if not count else 'more than one'} column {name}")
        if table[name].type != SCHEMA.field(name).type or (table[name].null_count and name != "prompt"):
            raise unreadable(folder, f"its column {name} is none of a run directory's")
    return sharing(table.select(columns)), hashlib.sha256(data).hexdigest()


def _of_older(table: pa.Table) -> pa.Table:
    """The same lines in the present format: an older version kept the prompt among the other parameters."""
    parts = [table.slice(first, LINES_AT_ONCE) for first in range(0, max(1, len(table)), LINES_AT_ONCE)]
    return pa.concat_tables(map(_part_of_older, parts))


def _part_of_older(table: pa.Table) -> pa.Table:
    pairs = [parted(params) for params in objects(read_settings, table["params"])]
    return table.append_column("prompt", pa.array([prompt for prompt, _ in pairs], pa.string())).append_column(
        "settings", pa.array([settings for _, settings in pairs], pa.string())
    )
