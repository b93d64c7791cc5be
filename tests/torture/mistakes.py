"""The mistakes that this pipeline must never make, each as a change of its source that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake: its name, what it changes (path, old text, new text), and the scenario that catches it, for pytest."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    scenario: str

    def make(self, root: Path) -> None:
        """Make it in the copy of the project at `root`."""
        for path, old, new in self.edits:
            source = (root / path).read_text()
            assert source.count(old) == 1, f"{path} does not hold once: {old}"
            (root / path).write_text(source.replace(old, new))


MISTAKES: tuple[Mistake, ...] = ()
