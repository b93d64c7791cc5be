"""How much a manifest asks for, counted before it is made: a small file can ask for more than a machine holds."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.kernel.errors import ManifestError
from pipeline.manifest.batches import Batch
from pipeline.manifest.document import MAX_ENTRIES, Row
from pipeline.manifest.row_settings import MAX_COUNT
from pipeline.manifest.rows import Rows
from pipeline.manifest.sweep import MAX_WORK, Sweep
from pipeline.models.values import whole_number

MAX_PROMPT_TEXT = 256_000_000
"""Characters of all prompts together, before a small file fills the memory."""


@dataclass(slots=True)
class Sizes:
    """What the rows that have come by ask for together."""

    rows: Rows
    entries: int = 0
    characters: int = 0
    """Of their prompts, each combination's once."""
    _foreseen: int = 0
    """The least number of entries that all batches up to the present one ask for."""
    _work: int = 0
    """How often an entry of `include` or `exclude` was compared with a combination."""

    def foresee(self, batch: Batch) -> None:
        """Count what these rows ask for at least, before the first entry is made: a large `count` is quickly written.

        Raises:
            ManifestError: it is too much.
        """
        default = self.rows.shared.cells.get("count")
        if default is None and batch.has_none_of(("count",)) and self._foreseen + len(batch) <= MAX_ENTRIES:
            self._foreseen += len(batch)
            return
        for row in batch.rows:
            written = row.cells.get("count", default)
            count = 1 if written is None else whole_number(written)
            self._foreseen += count if count is not None and 0 < count <= MAX_COUNT else 1
            if self._foreseen > MAX_ENTRIES:
                raise self._too_many(row)

    def have_room_for(self, entries: int, characters: int) -> bool:
        """Whether this many more entries, with this many characters in their prompts, are within the limits."""
        return self.entries + entries <= MAX_ENTRIES and self.characters + characters <= MAX_PROMPT_TEXT

    def add(self, entries: int, characters: int) -> None:
        """Count entries that there is room for."""
        self.entries += entries
        self.characters += characters

    def add_entries(self, entries: int, row: Row) -> None:
        """Count the entries of a row before they are made.

        Raises:
            ManifestError: they are too many.
        """
        self.entries += entries
        if self.entries > MAX_ENTRIES:
            raise self._too_many(row)

    def add_prompt(self, prompt: str) -> None:
        """Count the prompt of a combination.

        Raises:
            ManifestError: all prompts together are too long.
        """
        self.characters += len(prompt)
        if self.characters > MAX_PROMPT_TEXT:
            message = f"asks for prompts of more than {MAX_PROMPT_TEXT:,} characters together"
            raise self.rows.mistakes.final(message)

    def check_sweep(self, sweep: Sweep, bases: int, row: Row) -> None:
        """Count the combinations of a row's sweep for this number of bases, before they are made.

        Raises:
            ManifestError: they are too many, or too many entries of `include` and `exclude` are held against them.
        """
        if sweep.size() * bases > MAX_ENTRIES:
            raise self._too_many(row)
        self._work += sweep.work(bases)
        if self._work > MAX_WORK:
            message = "has too many combinations for so many entries of include and exclude; write rows of their own"
            raise self.rows.mistakes.final(message, row.line)

    def _too_many(self, row: Row) -> ManifestError:
        mistakes = self.rows.mistakes
        line = row.line if row.file in (None, mistakes.file) else None
        return mistakes.final(f"asks for more than {MAX_ENTRIES:,} videos, which are the most", line)
