"""What is said of the clips, in the formats that data sets have for it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pandas as pd

from pipeline.dataset.clips import COLUMNS, Clip, extra_columns, row_of
from pipeline.report.write import csv_bytes, frame, frame_of, uniform

Row = Mapping[str, Any]


def table_of(clips: Sequence[Clip]) -> pd.DataFrame:
    """A line for each clip; every column is of one type, so that every reader finds the same one."""
    extra = extra_columns(clips)
    types = COLUMNS | dict.fromkeys(extra.values(), "object")
    made = frame([row_of(clip, extra) for clip in clips], types)
    return frame_of(uniform(made[name]) for name in made)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table as plain values, None where there is none."""
    plain = {str(name): [None if pd.isna(value) else value for value in table[name].astype(object)] for name in table}
    return [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]


def as_csv(table: pd.DataFrame) -> bytes:
    """CSV that a spreadsheet may open: a text that it would run as a formula has a `'` in front."""
    return csv_bytes(table)


def as_parquet(table: pd.DataFrame) -> bytes:
    """Parquet, with every text as it is."""
    sink = io.BytesIO()
    table.to_parquet(sink, index=False)
    return sink.getvalue()


def as_metadata(table: pd.DataFrame) -> bytes:
    """The `metadata.jsonl` of a Hugging Face folder of videos; the videos lie beside it."""
    # It is read in pieces of some 10 MB, each of which must tell the same types: a piece of nothing but null does not.
    filled = frame_of(table[name].fillna("") if _has_texts(table[name]) else table[name] for name in table)
    return b"".join(orjson.dumps(_for_hugging_face(row)) + b"\n" for row in rows_of(filled))


def _has_texts(column: pd.Series[Any]) -> bool:
    return isinstance(column.dtype, pd.StringDtype) and bool(column.notna().any())


def _for_hugging_face(row: Row) -> dict[str, Any]:
    named = {_no_file_name(name): value for name, value in row.items() if name != "video"}
    return {"file_name": row["video"], **named}


def _no_file_name(column: str) -> str:
    """A name that ends so is taken for one of a video beside it."""
    return f"{column}_" if column.endswith(("_file_name", "_file_names")) else column


def as_json(row: Row) -> bytes:
    """One clip's line, for the file beside its video."""
    return orjson.dumps(dict(row), option=orjson.OPT_INDENT_2) + b"\n"
