"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernel.files import make_folder, write_file
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.entries import Line
from pipeline.report.gallery import gallery_page
from pipeline.report.summary import write_summary

_FORMULA = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@＝＋－＠]|[\t\r\n\x00]")
"""A cell that a spreadsheet would take for a formula (in any locale), or whose start it would swallow."""

_PLAIN = "^([A-Za-z0-9][ -~]*)?$"
_LINE_ENDS = re.compile(r"\r\n?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_INT = 2**63 - 1
_ROWS_AT_ONCE = 50_000
_PANDAS_TYPES = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.string(): pd.StringDtype()}


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
    fixed: pd.DataFrame = tables.outcomes(lines, state, live=live).to_pandas(types_mapper=_PANDAS_TYPES.get)
    asked = {name: pd.Series(values, dtype="object") for name, values in tables.asked(lines).items()}
    return pd.concat([fixed, pd.DataFrame(asked, index=fixed.index)], axis=1)


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
    if kinds == {str}:
        texts = [value if value is None or value.isascii() else _text(value) for value in column]
        return pd.Series(texts, dtype="string", index=column.index, name=column.name)
    if kinds == {bool}:
        return column.astype("boolean")
    return column.map(_text, na_action="ignore").astype("string")


def _text(value: object) -> str:
    """A value of a mixed column, in the manifest's spelling."""
    return str(value).lower() if isinstance(value, bool) else str(value).encode("utf-8", "replace").decode()


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table as CSV, with text that a spreadsheet would run as a formula made harmless by a leading `'`."""
    data = io.BytesIO()
    text = io.TextIOWrapper(data, "utf-8", newline="")
    # Not the table's own `to_csv`: it takes twice as long, and a copy of every column.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([harmless(name) for name in table])
    for first in range(0, len(table), _ROWS_AT_ONCE):
        part = table.iloc[first : first + _ROWS_AT_ONCE]
        writer.writerows(zip(*(_cells(part[name]) for name in part), strict=True))
    text.flush()
    return data.getvalue()


def _cells(column: pd.Series[Any]) -> list[Any]:
    """A column's values as the writer of CSV takes them: nothing where there is none, text made harmless."""
    values: list[Any] = column.astype("object").where(column.notna(), None).tolist()
    if not _is_text(column) or _is_plain(values):
        return values
    return [harmless(value) for value in values]


def _is_plain(values: list[Any]) -> bool:
    """Whether these are texts of ASCII with nothing to make harmless: most columns are, and that is seen at once."""
    try:
        is_plain = pc.match_substring_regex(pa.array(values, pa.string()), _PLAIN)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return False
    return bool(pc.all(is_plain).as_py() is not False)


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
