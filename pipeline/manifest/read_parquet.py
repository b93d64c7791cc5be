"""Reads Parquet: each record is a row, with the same columns as in CSV."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.kernel.files import open_regular_file
from pipeline.manifest.batches import Batch, of_table
from pipeline.manifest.document import MAX_ENTRIES, MAX_NAMES, as_given
from pipeline.manifest.mistakes import Mistakes
from pipeline.models.base import Scalar

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_GROUP_BYTES = 2**30
"""The largest uncompressed size that a row group may declare."""
_BATCH_ROWS = 2_000
_TEXTS = (Decimal, datetime.date, datetime.time, datetime.datetime)


def read_parquet(path: Path, mistakes: Mistakes, needs_prompt: bool, size: int) -> Iterator[Batch]:
    """The rows of a Parquet file; what is wrong goes to `mistakes`. A null or NaN is a value that is not given.

    Args:
        needs_prompt: whether a file without the column `prompt` is a mistake.
        size: how many rows are given at once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        descriptor = open_regular_file(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise mistakes.final(f"cannot be read: {reason}") from None
    with open(descriptor, "rb") as source:
        try:
            file = pq.ParquetFile(source)
            names = _checked_columns(file, needs_prompt, mistakes)
            done = 0
            for written in _parts(file, size) if names else ():
                wrong: list[tuple[int, str, str]] = []
                columns = [_cells(name, values, wrong) for name, values in zip(names, written, strict=True)]
                for at, name, message in sorted(wrong, key=itemgetter(0)):
                    mistakes.add(message, row=done + at + 1, column=name)
                yield of_table(names, columns, [None] * len(columns[0]), done + 1, mistakes.file)
                done += len(columns[0])
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise mistakes.final(f"cannot be read as Parquet: {str(error).splitlines()[0][:200]}") from None


def _checked_columns(file: pq.ParquetFile, needs_prompt: bool, mistakes: Mistakes) -> tuple[str, ...]:
    schema, metadata = file.schema_arrow, file.metadata
    names = tuple(schema.names)
    if metadata.num_rows > MAX_ENTRIES:
        raise mistakes.final(f"has {metadata.num_rows:,} rows; {MAX_ENTRIES:,} are the most")
    if len(names) > MAX_NAMES:
        raise mistakes.final(f"has {len(names):,} columns; {MAX_NAMES:,} are the most")
    if any(metadata.row_group(at).total_byte_size > MAX_GROUP_BYTES for at in range(metadata.num_row_groups)):
        most = f"{MAX_GROUP_BYTES // 2**30} GiB"
        raise mistakes.final(f"has a row group that unpacks to more than {most}; write smaller ones")
    for name in sorted({name for name in names if names.count(name) > 1}):
        mistakes.add("two columns have this name; keep one", column=name)
    for field in schema:
        if not _is_readable(field.type):
            kind = str(field.type)[:60]
            mistakes.add(f"is a column of {kind}; a row has texts, numbers and truth values", column=field.name)
    mistakes.raise_if_any()
    if needs_prompt and "prompt" not in names:
        raise mistakes.final("has no column `prompt`")
    return names


def _parts(file: pq.ParquetFile, size: int) -> Iterator[list[list[Any]]]:
    """The values of each column, for `size` rows at once."""
    columns: list[list[Any]] = [[] for _ in file.schema_arrow]
    for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
        columns = [left + _values(column) for left, column in zip(columns, batch.columns, strict=True)]
        whole = len(columns[0]) // size * size
        for start in range(0, whole, size):
            yield [column[start : start + size] for column in columns]
        columns = [column[whole:] for column in columns]
    if columns[0]:
        yield columns


def _values(column: Any) -> list[Any]:
    """The values of a column. A 32-bit float becomes the number that it prints as: 0.7, not 0.699999988079071."""
    import pyarrow as pa

    if pa.types.is_float32(column.type):
        return [None if text is None else float(text) for text in column.cast(pa.string()).to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _is_readable(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(check(kind) for check in (*checks, types.is_null, types.is_decimal, types.is_temporal))


def _cells(name: str, values: Sequence[Any], wrong: list[tuple[int, str, str]]) -> Sequence[Scalar]:
    """The cells of a column. For each bad value, its index, the name and a message are appended to `wrong`."""
    types = set(map(type, values)) - {type(None)}
    if types <= {str}:
        return as_given(value or "" for value in values)
    if types <= {int, bool}:
        return values
    cells: list[Scalar] = [None] * len(values)
    for at, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            wrong.append((at, name, f"{value} is not a finite number"))
        elif isinstance(value, float):
            cells[at] = value
        elif isinstance(value, _TEXTS):
            cells[at] = str(value)
        else:
            wrong.append((at, name, "is no text, number or truth value"))
    return cells
