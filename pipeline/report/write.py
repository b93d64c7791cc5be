"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute

from pipeline.kernel.files import make_folder, write_file
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.entries import Line
from pipeline.report.gallery import gallery_page
from pipeline.report.summary import write_summary

pc: Any = pyarrow.compute
"""Its types do not say what it takes beside arrays."""

_FORMULA = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@＝＋－＠]|[\t\r\n\x00]")
"""A cell that a spreadsheet would take for a formula (in any locale), or whose start it would swallow."""

_PRINTABLE = "^([A-Za-z0-9][ -~]*)?$"
"""ASCII with nothing to make harmless."""
_PLAIN = "^([A-Za-z0-9][ !#-+--~]*)?$"
"""The same with nothing to quote: no quotation mark and no comma."""
_QUOTED = re.compile(r'[",\n]')
_LINE_ENDS = re.compile(r"\r\n?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_INT = 2**63 - 1
_ROWS_AT_ONCE = 50_000
_ARROW_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.string(),
    frozenset([str]): pa.string(),
    frozenset([int]): pa.int64(),
    frozenset([float]): pa.float64(),
}
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
    values = [value for value in column.tolist() if value is not None]
    kinds = set(map(type, values))
    if kinds == {int} and min(values) >= -_MAX_INT and max(values) <= _MAX_INT:
        return column.astype("Int64")
    if float in kinds and kinds <= {int, float}:
        return column.astype("Float64")
    if kinds == {str}:
        texts = [value if value is None or value.isascii() else _text(value) for value in column.tolist()]
        return pd.Series(texts, dtype="string", index=column.index, name=column.name)
    if kinds == {bool}:
        return column.astype("boolean")
    return column.map(_text, na_action="ignore").astype("string")


def _text(value: object) -> str:
    """A value of a mixed column, in the manifest's spelling."""
    return str(value).lower() if isinstance(value, bool) else str(value).encode("utf-8", "replace").decode()


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table as CSV, with text that a spreadsheet would run as a formula made harmless by a leading `'`."""
    parts = [_lines_of([",".join(map(_cell, table))])]
    for first in range(0, len(table), _ROWS_AT_ONCE):
        part = table.iloc[first : first + _ROWS_AT_ONCE]
        # Column by column: a million rows one by one take half a minute, most of it for texts with nothing to quote.
        rows = pc.binary_join_element_wise(*(_cells(part[name]) for name in part), ",")
        parts.append(_lines_of(rows.to_pylist()))
    return b"".join(parts)


def _cells(column: pd.Series[Any]) -> Any:
    """A column's cells as texts: nothing where there is none, made harmless and quoted where needed."""
    values = pa.Array.from_pandas(column) if column.dtype != object else _of_one_kind(column)
    if isinstance(values, list):
        return pa.array(list(map(_cell, values)), pa.string())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _text_cells(pc.fill_null(values.cast(pa.string()), ""))
    if pa.types.is_integer(values.type):
        return pc.fill_null(values.cast(pa.string()), "")
    # Not by a cast: Arrow writes 5.0 as 5, and true as Python does not.
    encoded = values.dictionary_encode(null_encoding="encode")
    return pa.array(list(map(_cell, encoded.dictionary.to_pylist())), pa.string()).take(encoded.indices)


def _of_one_kind(column: pd.Series[Any]) -> Any:
    """The values as an array where they are of one kind; else as they are."""
    values = column.where(column.notna(), None).tolist()
    kind = _ARROW_TYPES.get(frozenset(map(type, values)) - {type(None)})
    if kind is not None:
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            return pa.array(values, kind)
    return values


def _text_cells(texts: Any) -> Any:
    """Texts as cells: what is plain as it is, other ASCII quoted, and only what is neither looked at one by one."""
    is_plain = pc.match_substring_regex(texts, _PLAIN)
    if pc.all(is_plain).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    is_odd = pc.invert(pc.match_substring_regex(texts, _PRINTABLE))
    odd = pa.array(list(map(_cell, texts.filter(is_odd).to_pylist())), pa.string())
    return pc.replace_with_mask(pc.if_else(is_plain, texts, quoted), is_odd, odd)


def _cell(value: object) -> str:
    """A value as a cell, quoted as Python's own writer of CSV would."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = str(harmless(value))
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _lines_of(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def mark_utf8(folder: Path) -> None:
    """Begin the CSV files of a run directory's report with a byte order mark, by which Excel knows UTF-8.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    for name in ("results.csv", "errors.csv", classes.FILE):
        path = folder / "report" / name
        write_file(path, codecs.BOM_UTF8 + path.read_bytes().removeprefix(codecs.BOM_UTF8))


def harmless(value: Any) -> Any:
    """A cell's text, with `'` in front if a spreadsheet would take it for a formula. Numbers stay numbers.

    What is no writing (control characters, half characters) is shown as such, and a line ends in one way only: a lone
    carriage return would end the row for some readers.
    """
    if not isinstance(value, str) or not value or (value[0].isalnum() and value.isprintable()):
        return value
    shown = _UNPRINTABLE.sub("�", _LINE_ENDS.sub("\n", value))
    return f"'{shown}" if _FORMULA.match(value) else shown
