"""Batches of rows: what holds for every row of a table is checked for hundreds of rows at once."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.manifest.document import NO_SWEEP, Cells, Row
from pipeline.models.base import Scalar

_NO_LINES: dict[str, int] = {}


class Batch(ABC):
    """Rows of a manifest that follow each other."""

    shapes: frozenset[tuple[str, ...]]
    """The different sets of names of their cells, each in the order of its row."""
    is_swept: bool
    """Whether any row has a sweep of its own."""

    @property
    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """Each row. The rows of a table are made only when somebody asks for them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, name: str, default: Scalar = None) -> Sequence[Scalar]:
        """The value of this name in each row, `default` where it has none."""

    @abstractmethod
    def follows(self, number: int, file: str) -> bool:
        """Whether these are the next rows of the manifest's own file, and the row before the first has this number."""

    def has_none_of(self, names: Collection[str]) -> bool:
        """Whether no row has a value under any of these names."""
        return all(name not in shape for shape in self.shapes for name in names)


Batches = Callable[[int], Iterator[Batch]]
"""Gives all rows in their order, in batches of the size it is given. It is called once."""


def in_batches(rows: Iterable[Row], size: int) -> Iterator[Batch]:
    """All rows in their order, in batches of `size`."""
    left = iter(rows)
    while some := list(itertools.islice(left, size)):
        yield _Rows(some)


def of_table(
    names: tuple[str, ...],
    columns: Sequence[Sequence[Scalar]],
    lines: Sequence[int | None],
    first: int,
    file: str,
) -> Batch:
    """Some rows of a table.

    Args:
        columns: the values under each name of the header, None where a row has none. There may be fewer columns than
            names.
        lines: the line where each row begins.
        first: the number of the first row.
    """
    table = _TablePart(names, columns, lines, first, file)
    missing = [0 if all(column) else column.count(None) for column in columns]
    said = [(name, column) for name, column, none in zip(names, columns, missing, strict=False) if none < len(lines)]
    # Where only some rows have a value in a column, each row must have its own set of names.
    return _Columns(dict(said), table) if set(missing) <= {0, len(lines)} else _Rows(table.rows())


@dataclass(frozen=True, slots=True)
class _TablePart:
    """Some rows of a table, by columns."""

    names: tuple[str, ...]
    columns: Sequence[Sequence[Scalar]]
    lines: Sequence[int | None]
    first: int
    file: str

    def rows(self) -> list[Row]:
        numbers, values = itertools.count(self.first), zip(*self.columns, strict=True)
        return [
            Row(self._cells(row), NO_SWEEP, _NO_LINES, number, line, self.file, self.names)
            for number, line, row in zip(numbers, self.lines, values, strict=False)
        ]

    def _cells(self, row: tuple[Scalar, ...]) -> Cells:
        cells = dict(zip(self.names, row, strict=False))
        if None not in cells.values():
            return cells
        return {name: value for name, value in zip(self.names, row, strict=False) if value is not None}


class _Rows(Batch):
    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._cells = [row.cells for row in rows]
        self.shapes = frozenset(map(tuple, self._cells))
        self.is_swept = any(row.sweep is not NO_SWEEP for row in rows)

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str, default: Scalar = None) -> Sequence[Scalar]:
        return [cells.get(name, default) for cells in self._cells]

    def follows(self, number: int, file: str) -> bool:
        if {row.file for row in self._rows} - {None, file}:
            return False
        return [row.number for row in self._rows] == list(range(number + 1, number + 1 + len(self)))


class _Columns(Batch):
    """Rows of a table that all have values in the same columns, as in most tables."""

    is_swept = False

    def __init__(self, columns: Mapping[str, Sequence[Scalar]], part: _TablePart) -> None:
        self.shapes = frozenset((tuple(columns),))
        self._columns = columns
        self._part = part

    @cached_property
    def rows(self) -> Sequence[Row]:
        return self._part.rows()

    def __len__(self) -> int:
        return len(self._part.lines)

    def column(self, name: str, default: Scalar = None) -> Sequence[Scalar]:
        return self._columns.get(name) or [default] * len(self)

    def follows(self, number: int, file: str) -> bool:
        return self._part.first == number + 1 and self._part.file == file
