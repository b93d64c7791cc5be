"""The rows of a manifest as they come by: their number, their places, and the mistakes and warnings about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.manifest.document import Block, Row
from pipeline.manifest.mistakes import Mistakes

Place = int | tuple[int, str]
"""Where a row stands, for other rows' messages: its number, and its file where that is not the manifest."""


@dataclass(slots=True)
class Rows:
    """The rows that have come by, numbered from 1 through all files."""

    shared: Block
    """The manifest's `defaults`: what is wrong with a value may stand there instead of in the row."""
    mistakes: Mistakes
    count: int = 0
    """How many rows have come by, which is the running number of the latest one as well."""
    _places: dict[int, Place] = field(default_factory=dict)
    """The place of each row whose number in its file differs from its running number, or that is in another file."""

    def enter(self, row: Row) -> None:
        """Count the next row, and remember where it stands."""
        self.count += 1
        if row.file is not None and row.file != self.mistakes.file:
            self._places[self.count] = row.number, row.file
        elif row.number != self.count:
            self._places[self.count] = row.number

    def place(self, number: int) -> str:
        """The row with this running number, as messages name it."""
        place = self._places.get(number, number)
        return f"row {place}" if isinstance(place, int) else f"row {place[0]} of {place[1]}"

    def mistake(self, row: Row, name: str, message: str) -> None:
        """Note what is wrong with a value of the latest row, at the line where the value was written."""
        is_shared = name not in row.lines and name in self.shared.lines and name not in row.cells
        if (line := row.outright.get(name)) is not None:
            self.mistakes.add(f"{message} ({self.place(self.count)})", column=name, line=line)
        elif is_shared and row.file not in (None, self.mistakes.file):
            # The value stands in the manifest and the row in another file: the line is the manifest's, the text names
            # the row.
            self.mistakes.add(f"{message} ({self.place(self.count)})", column=name, line=self.shared.lines[name])
        else:
            at = self.shared.lines[name] if is_shared else row.line_of(name)
            self.mistakes.add(message, row=row.number, column=name, line=at, file=row.file)

    def warn(self, row: Row, message: str, column: str | None = None, line: int | None = None) -> None:
        """Note what is allowed in a row and probably not meant."""
        self.mistakes.warn(message, row=row.number, column=column, line=line or row.line, file=row.file)


@dataclass(slots=True)
class FirstRows:
    """The first row of each key. The table is built only when two rows have the same key and a message needs it."""

    _known: dict[str | None, int] = field(default_factory=dict)
    _looked_at: int = 0

    def of(self, key: str, pairs: int, pair: Callable[[int], tuple[str | None, int]]) -> int:
        """The first row that has `key`, among the first `pairs` of them; `pair(n)` gives the n-th (from 0) key and its
        row.
        """
        for at in range(self._looked_at, pairs):
            other, row = pair(at)
            self._known.setdefault(other, row)
        self._looked_at = pairs
        return self._known[key]
