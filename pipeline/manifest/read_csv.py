"""Reads CSV: a header line, then one row a job. Comma, semicolon or tab, as spreadsheets write it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from pipeline.manifest.document import MAX_ENTRIES, MAX_NAMES, Document, Row
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.models.base import Scalar

_DELIMITERS = ",;\t"


def read_csv(text: str, mistakes: Mistakes) -> Document:
    """The rows of a CSV text; what is wrong goes to `mistakes`. An empty cell is a value that is not given."""
    records = _records(text, mistakes)
    line, header = next(records, (1, []))
    names = [name.strip() for name in header]
    _check_header(names, line, mistakes)
    rows: list[Row] = []
    for line, record in records:
        number = len(rows) + 1
        if len(record) != len(names):
            mistakes.add(
                f"has {len(record)} cells, but the header has {len(names)} columns; "
                "put a value that has the delimiter in it in quotes",
                row=number,
                line=line,
            )
        elif any(cell and not name for name, cell in zip(names, record, strict=True)):
            mistakes.add("has a value in a column without a name", row=number, line=line)
        cells: dict[str, Scalar] = {name: cell for name, cell in zip(names, record, strict=False) if cell and name}
        rows.append(Row(cells, number=number, line=line))
        if len(rows) > MAX_ENTRIES:
            mistakes.add(f"has more than {MAX_ENTRIES:,} rows; split it", line=line)
            break
    return Document(tuple(rows))


def _check_header(names: list[str], line: int, mistakes: Mistakes) -> None:
    if len(names) > MAX_NAMES:
        mistakes.add(f"the header has {len(names):,} columns; {MAX_NAMES:,} are the most", line=line)
        mistakes.raise_if_any()
    if names and "prompt" not in names:
        meant = next((name for name in names if near_miss(name, ["prompt"])), None)
        hint = f"; is it the one named `{meant[:60]}`?" if meant else ""
        mistakes.add(f"the header has no column `prompt`{hint}", line=line)
        mistakes.raise_if_any()  # or every row would say so again
    seen: set[str] = set()
    for name in names:
        if name in seen:
            mistakes.add("two columns have this name; keep one", column=name, line=line)
        elif name:
            seen.add(name)


def _records(text: str, mistakes: Mistakes) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, with its cells stripped, and the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True, strict=True)
    line = 1
    try:
        for record in reader:
            # Nothing is made of a blank record, which may be millions of empty cells.
            if any(cell.strip() for cell in record):
                yield line, [cell.strip() for cell in record]
            line = reader.line_num + 1
    except csv.Error as error:
        mistakes.add(f"cannot be read on from here as CSV: {error}; is a quote not closed, or not doubled?", line=line)


def _delimiter(text: str) -> str:
    """The delimiter that makes most columns of the header line, one of them `prompt` if that can be."""
    start = text.lstrip("\r\n")
    header = start[: min((at for at in (start.find("\n"), start.find("\r")) if at >= 0), default=len(start))]

    def columns(delimiter: str) -> tuple[bool, int]:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return False, 0
        return "prompt" in [name.strip() for name in names], len(names)

    return max(_DELIMITERS, key=columns)
