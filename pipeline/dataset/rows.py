"""What is said of the clips, in the formats that data sets have for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.dataset.clips import COLUMNS, Clip, extra_columns, row_of
from pipeline.report.columns import Column, by_columns, csv_bytes, parquet_bytes, typed

Row = Mapping[str, Any]


def table_of(clips: Sequence[Clip], lead: str) -> pa.Table:
    """A line for each clip; every column is of one type, so that every reader finds the same one.

    Args:
        lead: what the path of each video begins with.
    """
    extra = extra_columns(clips)
    types = COLUMNS | dict.fromkeys(extra.values(), "object")
    return typed(by_columns([row_of(clip, extra, lead) for clip in clips], types))


def without(table: pa.Table, job_ids: Collection[str]) -> pa.Table:
    """The lines of other jobs than these."""
    return table.filter(pa.array([job_id not in job_ids for job_id in table["job_id"].to_pylist()], pa.bool_()))


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The lines of a table as plain values, None where there is none."""
    return table.to_pylist()


def as_csv(table: pa.Table) -> bytes:
    """CSV that a spreadsheet may open: a text that it would run as a formula has a `'` in front."""
    return csv_bytes(_columns_of(table))


def as_parquet(table: pa.Table) -> bytes:
    """Parquet, with every text as it is."""
    return bytes(parquet_bytes(_columns_of(table)))


def _columns_of(table: pa.Table) -> dict[str, Column]:
    return dict(zip(table.column_names, table.columns, strict=True))


def as_metadata(table: pa.Table) -> bytes:
    """The `metadata.jsonl` of a Hugging Face folder of videos; the videos lie beside it."""
    # It is read in pieces of some 10 MB, each of which must tell the same types: a piece of nothing but null does not.
    columns = _columns_of(table).items()
    filled = pa.table({name: column.fill_null("") if _has_texts(column) else column for name, column in columns})
    return b"".join(orjson.dumps(_for_hugging_face(row)) + b"\n" for row in rows_of(filled))


def _has_texts(column: pa.ChunkedArray[Any]) -> bool:
    return pa.types.is_string(column.type) and column.null_count < len(column)


def _for_hugging_face(row: Row) -> dict[str, Any]:
    named = {_no_file_name(name): value for name, value in row.items() if name != "video"}
    return {"file_name": row["video"], **named}


def _no_file_name(column: str) -> str:
    """A name that ends so is taken for one of a video beside it."""
    return f"{column}_" if column.endswith(("_file_name", "_file_names")) else column


def as_json(row: Row) -> bytes:
    """One clip's line, for the file beside its video."""
    return orjson.dumps(dict(row), option=orjson.OPT_INDENT_2) + b"\n"
