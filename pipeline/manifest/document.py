"""A manifest as written: what each format's reader hands to `expand`, and the scalars in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.manifest.sweep import Sweep
from pipeline.models.base import Scalar
from pipeline.models.values import spelled

if TYPE_CHECKING:
    from pipeline.manifest.batches import Batches

RESERVED = ("id", "count", "priority", "model", "tags")
"""Names in a row that are neither a parameter nor a variable."""

ROW_SWEEP = ("matrix", "zip", "include", "exclude")
"""Names in a row of a YAML manifest that make several videos of it."""

Cells = Mapping[str, Scalar]
Lines = Mapping[str, int]

MAX_ENTRIES = 2_000_000
MAX_NAMES = 10_000
"""Columns of a table, and different names in a manifest. With more, the file is not what it was taken for."""
MAX_NUMBER = 40
"""Characters of a variable that may be a number; longer ones are text."""


class _Nothing(Mapping[str, Any]):
    """A mapping without any name. One object is the default in all rows, so that none is made for each row."""

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    __hash__ = object.__hash__


_NOTHING = _Nothing()
NO_SWEEP = Sweep()
"""The sweep of every row that has none of its own: one object, so that `is` tells."""
_NUMBER_BEGINNINGS = frozenset("-0123456789")


@dataclass(slots=True)
class Block:
    """Values and a sweep that belong together, and the line of each name where the format knows it.

    Treat it as immutable. It is not frozen because a million are made, and frozen ones take three times as long.
    """

    cells: Cells = _NOTHING
    sweep: Sweep = NO_SWEEP
    lines: Lines = _NOTHING


@dataclass(slots=True)
class Row(Block):
    """One row: its number as written and the line where it begins, both from 1.

    `file` is the file it stands in, None for the manifest itself. `columns` are all names in the header of its table,
    also those without a value in this row. Of a row that the template `each` made: `record` is the record it was made
    from, `named` are the manifest's lines of all names in that template, `outright` the lines of values that are the
    same for every record.
    """

    number: int = 0
    line: int | None = None
    file: str | None = None
    columns: tuple[str, ...] = ()
    record: Cells | None = None
    named: Lines = _NOTHING
    outright: Lines = _NOTHING

    def line_of(self, name: str) -> int | None:
        """The line of a value, or of the row."""
        return self.lines.get(name, self.line)

    @property
    def place(self) -> str:
        """The row as other rows' messages name it."""
        return f"row {self.number}" if self.file is None else f"row {self.number} of {self.file}"

    def as_record(self) -> Cells:
        """Every column as templates see it: an empty text where it has no value, a number where a text shows one."""
        if self.record is not None:
            return self.record
        cells = {**dict.fromkeys(self.columns, ""), **self.cells} if self.columns else self.cells
        return {name: from_text(value) if isinstance(value, str) else value for name, value in cells.items()}


@dataclass(frozen=True, slots=True)
class Document:
    """A whole manifest. `shared` holds `defaults` and the top sweep. The rows can be gone over once."""

    batches: Batches
    shared: Block = field(default_factory=Block)
    name: str | None = None
    model: str | None = None
    order: str | None = None
    seed: int = 0
    lines: Lines = _NOTHING


def as_written(value: Scalar, text: str) -> Scalar:
    """`value`, or `text` where the value would not be printed as the user wrote it.

    A price of 0.50 stays "0.50" in a prompt, 007 stays "007", in every format alike: the same work, the same ids.
    """
    return value if text == spelled(value) and len(text) <= MAX_NUMBER else text


def as_given(texts: Iterable[str]) -> Sequence[str | None]:
    """The values of a table's cells: stripped of the space around them, None for an empty one."""
    values = list(map(str.strip, texts))
    return values if all(values) else [value or None for value in values]


def from_text(text: str) -> Scalar:
    """The number or truth value that a variable's text shows, if it is printed exactly so; else the text itself.

    CSV cannot tell 5 from "5", so no format does: or a template that compares would give the same work two ids.
    """
    if text in ("true", "false"):
        return text == "true"
    if text[:1] not in _NUMBER_BEGINNINGS or len(text) > MAX_NUMBER:
        return text
    try:
        value = float(text)
        return as_written(int(text) if text.lstrip("-").isdecimal() else value, text)
    except ValueError:
        return text
