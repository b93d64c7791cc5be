"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.kernel.files import make_folder, write_file
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.entries import Line
from pipeline.report.gallery import gallery_page
from pipeline.report.summary import write_summary

_FORMULA = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@＝＋－＠]|[\t\r\n\x00]")
"""A cell that a spreadsheet would take for a formula (in any locale), or whose start it would swallow."""

_LINE_ENDS = re.compile(r"\r\n?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_INT = 2**63 - 1


def write_report(
    folder: Path, lines: Sequence[Line], state: State, summary: Mapping[str, Any], *, live: bool = False
) -> None:
    """Write all files of `<run directory>/report/`.

    Args:
        live: whether a run holds the directory now.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    report = folder / "report"
    make_folder(report)
    write_file(report / classes.FILE, csv_bytes(frame(classes.errors_by_class(lines, state), classes.COLUMNS)))
    results = results_frame(lines, state, live=live)
    parquet = io.BytesIO()
    typed(results).to_parquet(parquet, index=False)
    write_file(report / "results.parquet", parquet.getvalue())
    write_file(report / "results.csv", csv_bytes(results))
    errors = tables.errors(lines, state)
    write_file(report / "errors.csv", csv_bytes(frame(errors, tables.ERROR_COLUMNS)))
    name = folder.absolute().name
    write_file(report / "index.html", gallery_page(name, lines, state, summary, errors, live=live))
    # Last: by what it says of itself, the next run may leave all the others as they are.
    write_summary(report, summary)


def results_frame(lines: Sequence[Line], state: State, *, live: bool = False) -> pd.DataFrame:
    """The table of results.csv, before it is text."""
    return frame(tables.results(lines, state, live=live), tables.result_types(lines))


def errors_frame(lines: Sequence[Line], state: State) -> pd.DataFrame:
    """The table of errors.csv, before it is text."""
    return frame(tables.errors(lines, state), tables.ERROR_COLUMNS)


def frame(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a table with exactly these columns and types, whether or not there are any rows."""
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in types.items()})


def frame_of(columns: Iterable[pd.Series[Any]]) -> pd.DataFrame:
    """Columns under their own names, side by side; also where there are no rows."""
    return pd.DataFrame({column.name: column for column in columns})


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose every column has one type, as in results.parquet."""
    return frame_of(uniform(table[name]) for name in table)


def uniform(column: pd.Series[Any]) -> pd.Series[Any]:
    """A variable may be a number in one row and text in another; a column of parquet is one or the other."""
    if column.dtype != object:
        return column
    values = [value for value in column if value is not None]
    kinds = {type(value) for value in values}
    if kinds == {int} and all(-_MAX_INT <= value <= _MAX_INT for value in values):
        return column.astype("Int64")
    if float in kinds and kinds <= {int, float}:
        return column.astype("Float64")
    if kinds == {bool}:
        return column.astype("boolean")
    return column.map(_text, na_action="ignore").astype("string")


def _text(value: object) -> str:
    """A value of a mixed column, in the manifest's spelling."""
    return str(value).lower() if isinstance(value, bool) else str(value).encode("utf-8", "replace").decode()


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table as CSV, with text that a spreadsheet would run as a formula made harmless by a leading `'`."""
    safe = frame_of(
        column.map(harmless, na_action="ignore") if _is_text(column) else column
        for column in (table[name] for name in table)
    )
    text: str = safe.to_csv(index=False, header=[harmless(name) for name in table], lineterminator="\n")
    return text.encode()


def mark_utf8(folder: Path) -> None:
    """Begin the CSV files of a run directory's report with a byte order mark, by which Excel knows UTF-8.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    for name in ("results.csv", "errors.csv", classes.FILE):
        path = folder / "report" / name
        write_file(path, codecs.BOM_UTF8 + path.read_bytes().removeprefix(codecs.BOM_UTF8))


def _is_text(column: pd.Series[Any]) -> bool:
    return column.dtype == object or isinstance(column.dtype, pd.StringDtype)


def harmless(value: Any) -> Any:
    """A cell's text, with `'` in front if a spreadsheet would take it for a formula. Numbers stay numbers.

    What is no writing (control characters, half characters) is shown as such, and a line ends in one way only: a lone
    carriage return would end the row for some readers.
    """
    if not isinstance(value, str) or not value or (value[0].isalnum() and value.isprintable()):
        return value
    shown = _UNPRINTABLE.sub("�", _LINE_ENDS.sub("\n", value))
    return f"'{shown}" if _FORMULA.match(value) else shown
