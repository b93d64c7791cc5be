"""Rows from other files: each record of a table as a row, or a row made from each record by a template."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.manifest.batches import Batch
from pipeline.manifest.document import Cells, Row
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.read_csv import read_csv
from pipeline.manifest.read_jsonl import read_jsonl
from pipeline.manifest.read_parquet import read_parquet
from pipeline.manifest.read_txt import read_txt
from pipeline.manifest.template_language import BadTemplateError
from pipeline.manifest.templates import is_template, render, scope
from pipeline.models.base import Scalar

Reader = Callable[[Path, Mistakes, bool, int], Iterator[Batch]]
"""Reads a table in batches, and notes what is wrong with it. Its arguments are the path, the mistakes, whether a table
without the column `prompt` is a mistake, and the number of rows in a batch."""

TABLES: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
    ".txt": read_txt,
}
"""The reader of each format that has rows and nothing else."""

_AT_ONCE = 300
"""Records of a table that are read together."""

LATE = ("prompt", "negative_prompt", "start_image")
"""Texts that may use the values of axes, so they are rendered for each combination and not when the row is made."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One entry of `rows_from`: a file, the condition on its records, and the template of their rows. Lines from 1."""

    path: str
    line: int
    where: str | None = None
    where_line: int = 0
    each: Row | None = None


def rows_of(feed: Feed, folder: Path, mistakes: Mistakes, needs_prompt: bool) -> Iterator[Row]:
    """The rows that a feed gives; `folder` is the manifest's.

    Args:
        needs_prompt: whether the rows must bring their prompt themselves.
    """
    path = folder / feed.path
    reader = _reader(path)
    if reader is None:
        formats = ", ".join((*TABLES, ".yaml"))
        mistakes.add(f"{feed.path[:60]!r} is no table; use {formats}", column="rows_from", line=feed.line)
        return
    if not os.path.lexists(path):
        advice = (
            "is a URL; download it" if "://" in feed.path else "is not there; a path counts from the manifest's folder"
        )
        mistakes.add(f"{feed.path[:60]!r} {advice}", column="rows_from", line=feed.line)
        return
    theirs = mistakes.of(str(path))
    each = (
        None
        if feed.each is None
        else replace(feed.each, lines={}, named=feed.each.lines, outright=_outright(feed.each))
    )
    rows, before = 0, len(mistakes)
    batches = reader(path, theirs, needs_prompt and each is None, _AT_ONCE)
    for row in itertools.chain.from_iterable(batch.rows for batch in batches):
        record = {} if feed.where is None and each is None else row.as_record()
        if feed.where is None or _is_wanted(row, record, feed, mistakes):
            rows += 1
            yield row if each is None else _made(row, record, each, theirs)
    if not rows and len(mistakes) == before:
        what = "has no row" if feed.where is None else "has no record for which `where` is true"
        mistakes.add(f"{feed.path[:60]} {what}", column="rows_from", line=feed.line)


def _reader(path: Path) -> Reader | None:
    if path.suffix.lower() in (".yaml", ".yml"):
        from pipeline.manifest.read_yaml import read_yaml_rows

        return read_yaml_rows
    return TABLES.get(path.suffix.lower())


def _is_wanted(row: Row, record: Cells, feed: Feed, mistakes: Mistakes) -> bool:
    text = f"{{% if ({feed.where}) %}}true{{% endif %}}"
    try:
        if feed.where is not None and ("%}" in feed.where or feed.where.lstrip().startswith("{{")):
            raise BadTemplateError('is one condition: `row["Price"]|float(0) > 10`, without {% %} and {{ }}')
        return render(text, scope(record)) == "true"
    except BadTemplateError as problem:
        mistakes.add(f"{problem} ({row.place})", column="where", line=feed.where_line)
        # Stop at the first record: the others would only repeat the mistake.
        mistakes.raise_if_any()
        raise AssertionError("a mistake was noted") from None


def _outright(each: Row) -> Mapping[str, int]:
    """The lines of the values in `each` that are not the record's: mistakes in all others belong to the record."""
    return {
        name: line
        for name, line in each.lines.items()
        if name in ("prompt", "negative_prompt") or not is_template(str(each.cells.get(name, "")))
    }


def _made(row: Row, record: Cells, each: Row, mistakes: Mistakes) -> Row:
    """The row that the template makes of a record."""
    values = scope(record)
    cells: dict[str, Scalar] = {}
    for name, value in each.cells.items():
        if name in LATE or not isinstance(value, str) or not is_template(value):
            cells[name] = value
            continue
        try:
            text = render(value, values).strip()
        except BadTemplateError as problem:
            mistakes.add(
                f"the template of this name in `each` cannot be rendered for this record: {problem}",
                row=row.number,
                column=name,
                line=row.line,
            )
            continue
        if text:
            cells[name] = text
    columns = tuple(each.cells)
    return replace(each, cells=cells, columns=columns, number=row.number, line=row.line, file=row.file, record=record)
