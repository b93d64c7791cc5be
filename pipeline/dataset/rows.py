"""The table of the clips in the formats of data sets: CSV, Parquet, JSON and Hugging Face's `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.kernel.arrow import by_name
from pipeline.report.columns import csv_bytes, parquet_bytes

Row = Mapping[str, Any]

_ROWS_AT_ONCE = 2**14


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The lines of a table as plain values, None where there is none."""
    for batch in table.to_batches(_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def as_csv(table: pa.Table) -> bytes:
    """CSV that a spreadsheet may open: a text that it would run as a formula has a `'` in front."""
    return csv_bytes(by_name(table))


def as_parquet(table: pa.Table) -> bytes:
    """Parquet, with every text as it is."""
    return bytes(parquet_bytes(by_name(table)))


def as_metadata(table: pa.Table) -> bytes:
    """The `metadata.jsonl` of a Hugging Face folder of videos; the videos lie beside it."""
    # `datasets` reads this file in pieces of some 10 MB and takes the types from each. In a piece where it is null
    # throughout, a column of texts would have no type: so empty texts stand for null.
    columns = by_name(table).items()
    filled = pa.table({name: column.fill_null("") if _has_texts(column) else column for name, column in columns})
    names = _hugging_face_names(table.column_names)
    lines = ({called: row[name] for name, called in names.items()} for row in rows_of(filled))
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def _has_texts(column: pa.ChunkedArray[Any]) -> bool:
    return pa.types.is_string(column.type) and column.null_count < len(column)


def _hugging_face_names(columns: Sequence[str]) -> dict[str, str]:
    """What each column is called there, the video's first.

    Any name that ends as the video's own, `file_name`, would be taken for another video's, so it gets a `_`.
    """
    names, taken = {"video": "file_name"}, set(columns)
    for column in columns:
        name = column
        if column.endswith(("_file_name", "_file_names")):
            while name in taken:
                name += "_"
            taken.add(name)
        names.setdefault(column, name)
    return names


def as_json(row: Row) -> bytes:
    """One clip's line, for the file beside its video."""
    return orjson.dumps(dict(row), option=orjson.OPT_INDENT_2) + b"\n"
