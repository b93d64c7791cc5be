"""The ids of rows: what an id may be, and that no two rows have the same one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.manifest.batches import Batch
from pipeline.manifest.document import Row
from pipeline.manifest.rows import FirstRows, Rows

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an id may be, and a campaign's name as well."""
ID_RULE = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
"""The same for people."""
_IDS = re.compile(rf"{ID.pattern}(\n{ID.pattern})*")


@dataclass(slots=True)
class RowIds:
    """The ids of the rows that have come by. Ids name files, and for some file systems `Hero` is `hero`."""

    rows: Rows
    _ids: set[str] = field(default_factory=set)
    """Every id in small letters."""
    _row_ids: list[str | None] = field(default_factory=list)
    """The id of each row in small letters, if it has one."""
    _first_rows: FirstRows = field(default_factory=FirstRows)

    def of(self, row: Row) -> str | None:
        """The id of the latest row as written; None if it has none, or none that is good."""
        row_id, folded = self._looked_at(row)
        self._row_ids.append(folded)
        return row_id

    def of_each(self, batch: Batch) -> Sequence[str | None] | None:
        """The id of each row of the next batch; None if anything is wrong with one, and then nothing has changed."""
        values = batch.column("id")
        if values.count(None) == len(values):
            self._row_ids += [None] * len(values)
            return [None] * len(values)
        ids = [value for value in values if isinstance(value, str)]
        written = "\n".join(ids)
        if len(ids) < len(values) or written.count("\n") >= len(ids) or not _IDS.fullmatch(written):
            return None
        small = written.casefold()
        folded = (
            ids
            if small == written
            else [text if text == small else small for text, small in zip(ids, small.split("\n"), strict=True)]
        )
        if len(set(folded)) < len(folded) or not self._ids.isdisjoint(folded):
            return None
        self._ids.update(folded)
        self._row_ids += folded
        return ids

    def _looked_at(self, row: Row) -> tuple[str | None, str | None]:
        """The row's id as written and in small letters."""
        value = row.cells.get("id")
        if value is None:
            return None, None
        if isinstance(value, bool) or not ID.fullmatch(text := str(value)):
            self.rows.mistake(row, "id", f"{str(value)[:70]!r} is no id; use {ID_RULE}")
            return None, None
        folded = text if text == (small := text.casefold()) else small
        before = len(self._ids)
        self._ids.add(folded)
        if len(self._ids) == before:
            place = self.rows.place(self._first_rows.of(folded, self.rows.count - 1, self._id_and_row))
            message = f"{text!r} is the id of {place} already (large and small letters are one)"
            self.rows.mistake(row, "id", message)
        return text, folded

    def _id_and_row(self, at: int) -> tuple[str | None, int]:
        return self._row_ids[at], at + 1
