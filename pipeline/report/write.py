"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from pipeline.kernel.files import make_folder, write_file
from pipeline.ledger.fold import State
from pipeline.report import tables
from pipeline.report.entries import Line

_FORMULA = re.compile(r"[\s\x00]*[=+\-@]|[\t\r\n\x00]")
"""A cell that a spreadsheet would take for a formula, or whose start it would swallow."""


def write_report(folder: Path, lines: Sequence[Line], state: State, summary: Mapping[str, Any]) -> None:
    """Write all files of `<run directory>/report/`.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    report = folder / "report"
    make_folder(report)
    results = frame(tables.results(lines, state), tables.result_types(lines))
    parquet = io.BytesIO()
    results.apply(_uniform).to_parquet(parquet, index=False)
    write_file(report / "results.parquet", parquet.getvalue())
    write_file(report / "results.csv", csv_bytes(results))
    write_file(report / "errors.csv", csv_bytes(frame(tables.errors(lines, state), tables.ERROR_COLUMNS)))
    write_file(report / "summary.json", orjson.dumps(dict(summary), option=orjson.OPT_INDENT_2) + b"\n")


def frame(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a table with exactly these columns and types, whether or not there are any rows."""
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in types.items()})


def _uniform(column: pd.Series[Any]) -> pd.Series[Any]:
    """A variable may be a number in one row and text in another; a column of parquet is one or the other."""
    if column.dtype != object:
        return column
    kinds = {type(value) for value in column if value is not None}
    if kinds <= {int, float}:
        return column.astype("Float64" if float in kinds else "Int64")
    if kinds <= {bool}:
        return column.astype("boolean")
    return column.map(str, na_action="ignore").astype("string")


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table as CSV, with text that a spreadsheet would run as a formula made harmless by a leading `'`."""
    safe = table.apply(lambda column: column.map(harmless, na_action="ignore") if _is_text(column) else column)
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _is_text(column: pd.Series[Any]) -> bool:
    return column.dtype == object or isinstance(column.dtype, pd.StringDtype)


def harmless(value: object) -> object:
    """A cell's text, with `'` in front if a spreadsheet would take it for a formula. Numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
