"""Rows that are looked at together: what most tables have in common is seen of a thousand at once."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.manifest.document import NO_SWEEP, Cells, Row
from pipeline.models.base import Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows that follow each other."""

    rows: Sequence[Row]
    cells: Sequence[Cells]
    shapes: frozenset[tuple[str, ...]]
    """The different sets of names of these cells, each in the order of its row."""

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Scalar]:
        """The value of this name in each row, None where it has none."""
        return [cells.get(name) for cells in self.cells]

    def has_none_of(self, names: Collection[str]) -> bool:
        """Whether no row says anything under any of these names."""
        return all(name not in shape for shape in self.shapes for name in names)

    @property
    def is_swept(self) -> bool:
        """Whether any row has a sweep of its own."""
        return any(row.sweep is not NO_SWEEP for row in self.rows)

    def follows(self, number: int, file: str) -> bool:
        """Whether these are the next rows of the manifest's own file, and the row before the first has this number."""
        if {row.file for row in self.rows} - {None, file}:
            return False
        return [row.number for row in self.rows] == list(range(number + 1, number + 1 + len(self.rows)))


def in_batches(rows: Iterable[Row], size: int) -> Iterator[Batch]:
    """All rows in their order, so many at once."""
    left = iter(rows)
    while batch := list(itertools.islice(left, size)):
        cells = [row.cells for row in batch]
        yield Batch(batch, cells, frozenset(map(tuple, cells)))
