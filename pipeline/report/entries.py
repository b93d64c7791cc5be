"""The rows of a campaign as the run directory keeps them, so that a report needs neither manifest nor provider."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.kernel.errors import RunDirectoryError
from pipeline.kernel.files import read_regular_file, write_file

if TYPE_CHECKING:
    # At run time whoever only looks at a run directory need not wait for what reads manifests.
    from pipeline.manifest import Entry

FILE = "jobs.parquet"

_FIELDS: list[pa.Field[Any]] = [
    pa.field("row", pa.int64()),
    pa.field("id", pa.string()),
    pa.field("replicate", pa.int32()),
    pa.field("job_id", pa.string()),
    pa.field("model", pa.string()),
    pa.field("priority", pa.int64()),
    pa.field("params", pa.string()),
    pa.field("variables", pa.string()),
]
_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of results.csv before anything became of it."""

    row: int
    id: str
    replicate: int
    job_id: str
    model: str
    params: Mapping[str, Any]
    variables: Mapping[str, Any]


def lines_of(entries: Iterable[Entry]) -> list[Line]:
    """The lines of a campaign, in the order of its manifest."""
    return [
        Line(
            entry.row,
            entry.row_id,
            entry.job.replicate,
            entry.job.job_id,
            entry.job.model,
            entry.job.params,
            entry.variables,
        )
        for entry in entries
    ]


def save_entries(folder: Path, entries: Iterable[Entry]) -> bool:
    """Keep a campaign's rows in its run directory; returns whether others were kept there before, or none."""
    rows = [
        (
            entry.row,
            entry.row_id,
            entry.job.replicate,
            entry.job.job_id,
            entry.job.model,
            entry.priority,
            orjson.dumps(dict(entry.job.params)).decode(),
            # Not orjson: a variable may be a number of any size, and half a character.
            json.dumps(dict(entry.variables)) if entry.variables else "{}",
        )
        for entry in entries
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_SCHEMA)
    table = pa.Table.from_arrays(
        [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    path = folder / FILE
    with contextlib.suppress(OSError):
        if not path.is_symlink() and read_regular_file(path, len(data)) == data:
            return False
    write_file(path, data)
    return True


def has_entries(folder: Path) -> bool:
    """Whether a run directory keeps the rows of a campaign."""
    return (folder / FILE).exists()


def load_lines(folder: Path, only: Collection[str] | None = None) -> list[Line]:
    """The lines of a run directory's campaign.

    Args:
        only: the ids of the jobs whose lines are wanted; all without it.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table = _read(folder, _SCHEMA.names)
    if only is not None:
        ids = table.column("job_id").to_pylist()
        wanted = [index for index, job_id in enumerate(ids) if job_id in only]
        table = table.take(pa.array(wanted, pa.int64()))
    try:
        return [
            Line(
                row["row"],
                row["id"],
                row["replicate"],
                row["job_id"],
                row["model"],
                orjson.loads(row["params"]),
                json.loads(row["variables"]),
            )
            for row in table.to_pylist()
        ]
    except (ValueError, TypeError) as error:
        raise _unreadable(folder, error) from None


class Key(NamedTuple):
    """Which row asked for which job."""

    row: int
    id: str
    job_id: str


def load_keys(folder: Path) -> list[Key]:
    """The lines of a run directory's campaign without what they ask for, which is most of the reading.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table = _read(folder, list(Key._fields))
    return [Key(*values) for values in zip(*(table.column(name).to_pylist() for name in Key._fields), strict=True)]


def _read(folder: Path, columns: list[str]) -> pa.Table:
    try:
        # Without threads: a command that ends while Arrow's are still being started is aborted.
        source = pa.BufferReader((folder / FILE).read_bytes())
        table = pq.ParquetFile(source).read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise RunDirectoryError(f"{folder} is not a run directory: it has no {FILE}") from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, error) from None
    if missing := set(columns) - set(table.column_names):
        raise _unreadable(folder, f"it has no column {min(missing)}")
    return table


def _unreadable(folder: Path, why: Exception | str) -> RunDirectoryError:
    return RunDirectoryError(f"{folder / FILE} cannot be read ({why if isinstance(why, str) else type(why).__name__})")
