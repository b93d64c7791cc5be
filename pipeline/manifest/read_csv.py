"""Reads CSV: a header line, then one record a row. The delimiter is recognised from the first lines."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.manifest.batches import Batch, of_table
from pipeline.manifest.document import MAX_ENTRIES, MAX_NAMES, as_given
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.manifest.sources import read_lines
from pipeline.models.base import Scalar

MAX_CELL = 1_000_000
CELLS_AT_ONCE = 300_000
"""A batch ends early when it has this many cells: a record of a broken file may have a million."""
_DELIMITERS = ",;\t|:^~\x1f"
_SAMPLE_LINES = 30
_SEPARATOR = re.compile(f"sep=([{re.escape(_DELIMITERS)}])", re.IGNORECASE)
"""The line before the header in which Excel is told the delimiter."""


def read_csv(path: Path, mistakes: Mistakes, needs_prompt: bool, size: int) -> Iterator[Batch]:
    """The rows of a CSV file; what is wrong goes to `mistakes`. An empty cell is a value that is not given.

    Args:
        needs_prompt: whether a header without the column `prompt` is a mistake.
        size: how many rows are given at once.
    """
    parts = _records(path, mistakes, size)
    [line], [header] = next(parts, ([1], [[]]))
    names = tuple(name.strip() for name in header)
    _check_header(names, line, needs_prompt, mistakes)
    first = 1
    for lines, written in parts:
        columns = list(map(as_given, itertools.islice(itertools.zip_longest(*written, fillvalue=""), len(names))))
        if "" in names or set(map(len, written)) != {len(names)}:
            _check_records(lines, written, columns, first, names, mistakes)
            columns = [column if name else [None] * len(lines) for name, column in zip(names, columns, strict=False)]
        batch = of_table(names, columns, lines, first, mistakes.file)
        first += len(batch)
        if first > MAX_ENTRIES + 1:
            mistakes.add(f"has more than {MAX_ENTRIES:,} rows; split it", line=lines[-1])
        yield batch


def _check_header(names: tuple[str, ...], line: int, needs_prompt: bool, mistakes: Mistakes) -> None:
    if len(names) > MAX_NAMES:
        raise mistakes.final(f"the header has {len(names):,} columns; {MAX_NAMES:,} are the most", line)
    if needs_prompt and names and "prompt" not in names:
        meant = next((name for name in names if near_miss(name, ["prompt"])), None)
        hint = f"; is it the one named `{meant[:60]}`?" if meant else ""
        raise mistakes.final(f"the header has no column `prompt`{hint}", line)  # or every row would say so again
    seen: set[str] = set()
    for name in names:
        if name in seen:
            mistakes.add("two columns have this name; keep one", column=name, line=line)
        elif name:
            seen.add(name)


def _check_records(
    lines: Sequence[int],
    records: Sequence[Sequence[str]],
    columns: Sequence[Sequence[Scalar]],
    first: int,
    names: tuple[str, ...],
    mistakes: Mistakes,
) -> None:
    """Note each record that does not fit the header; the first of these records has the number `first`."""
    width = len(names)
    nameless = [column for name, column in zip(names, columns, strict=False) if not name]
    for at, (line, record) in enumerate(zip(lines, records, strict=True)):
        if len(record) != width:
            cells_of = f"{len(record)} {'cell' if len(record) == 1 else 'cells'}"
            header_of = f"{width} {'column' if width == 1 else 'columns'}"
            alone = "; if this file is a list of prompts, give it the ending .txt" if names == ("prompt",) else ""
            mistakes.add(
                f"has {cells_of}, but the header has {header_of}; "
                f"put a value that has the delimiter in it in quotes{alone}",
                row=first + at,
                line=line,
            )
        elif any(column[at] is not None for column in nameless):
            mistakes.add("has a value in a column without a name", row=first + at, line=line)


def _records(path: Path, mistakes: Mistakes, size: int) -> Iterator[tuple[list[int], list[list[str]]]]:
    """All records that are not blank, with the lines where they begin: first the header alone, then `size` at once."""
    lines = read_lines(path, mistakes, newline="")
    blank = 0
    said = None
    for first in lines:
        if blank == 0 and (separator := _SEPARATOR.fullmatch(first.strip("\r\n"))):
            said = separator[1]
        elif first.strip():
            break
        blank += 1
    else:
        return
    sample = [first, *itertools.islice(lines, _SAMPLE_LINES)]
    csv.field_size_limit(MAX_CELL)
    delimiter = said or _delimiter(sample)
    reader = csv.reader(itertools.chain(sample, lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    begins: list[int] = []
    records: list[list[str]] = []
    line = blank + 1
    # At most the header, all rows that are allowed, and one more by which too many are noticed.
    cells, wanted, left = 0, 1, MAX_ENTRIES + 2
    try:
        for record in reader:
            # Blank records are skipped: one may have millions of empty cells. Of most, the first cell tells.
            if record and (record[0].strip() or any(map(str.strip, record))):
                begins.append(line)
                records.append(record)
                cells += len(record)
                if len(records) == wanted or cells >= CELLS_AT_ONCE:
                    yield begins, records
                    left -= len(records)
                    begins, records, cells, wanted = [], [], 0, min(size, left)
                    if not wanted:
                        return
            line = blank + reader.line_num + 1
    except csv.Error as error:
        mistakes.add(f"cannot be read on from here as CSV: {error}; is a quote not closed, or not doubled?", line=line)
    if records:
        yield begins, records


def _delimiter(sample: list[str]) -> str:
    """The delimiter that fits the first lines best: a column `prompt`, as many cells everywhere, many columns."""

    def fit(delimiter: str) -> tuple[bool, float, int]:
        try:
            records = [record for record in csv.reader(sample, delimiter=delimiter, skipinitialspace=True) if record]
        except csv.Error:
            return False, 0.0, 0
        width = len(records[0]) if records else 0
        if len(sample) > _SAMPLE_LINES:
            records = records[:-1]  # the sample may end in the middle of it
        alike = sum(len(record) == width for record in records) / len(records) if width > 1 and records else 0.0
        return "prompt" in [name.strip() for name in records[0]] if records else False, round(alike, 1), width

    return max(_DELIMITERS, key=fit)
