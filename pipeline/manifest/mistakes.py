"""Collects everything that is wrong, so that the user hears of it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pipeline.kernel.errors import ManifestError, Mistake

MAX_SHOWN = 200
MAX_COUNTED = 10_000
"""After so many the file is not what it was taken for, and reading on tells nobody anything."""


class Mistakes:
    """The mistakes of one manifest, each once, in the order in which they were found."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Mistake, None] = {}

    def add(self, message: str, *, row: int | None = None, column: str | None = None, line: int | None = None) -> None:
        """Remember one.

        Raises:
            ManifestError: there are too many to go on.
        """
        self._found[Mistake(self.file, message, row, column, line)] = None
        if len(self._found) >= MAX_COUNTED:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise ManifestError with all of them, if there are any."""
        if self._found:
            raise ManifestError(shortened(list(self._found), self.file, "mistakes"))

    def __len__(self) -> int:
        return len(self._found)


def shortened(found: list[Mistake], file: str, what: str) -> list[Mistake]:
    """The first 200, and how many more there are."""
    if len(found) <= MAX_SHOWN:
        return found
    more = f"{len(found) - MAX_SHOWN:,}" + (" or more" if len(found) >= MAX_COUNTED else "")
    return [*found[:MAX_SHOWN], Mistake(file, f"and {more} more {what}")]


def one_mistake(file: str, message: str, line: int | None = None) -> ManifestError:
    """The error for a file that cannot be read on."""
    return ManifestError([Mistake(file, message, line=line)])


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably meant to be, or None.

    Short names must be nearer than long ones: `promt` is `prompt`, but `country` is not `count`.
    """
    wanted = re.sub(r"[\s-]+", "_", name.strip()).casefold()
    candidates = []
    for target in known:
        if wanted == target:
            return target
        most = 0 if len(target) <= 3 else 1 if len(target) <= 6 else 2
        if most and abs(len(wanted) - len(target)) <= most:
            candidates.append(target)
    near = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.8)
    return near[0] if near else None
