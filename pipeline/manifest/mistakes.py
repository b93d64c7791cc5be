"""Collects all mistakes of a manifest, so that the user learns of all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pipeline.kernel.errors import ManifestError, Mistake

MAX_SHOWN = 200
MAX_COUNTED = 10_000
"""After this many mistakes the file is not what it was taken for, and reading on is of no use."""


class Mistakes:
    """The mistakes of one manifest and of the other files that it names, each mistake once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Mistake, None] = {}
        self._warnings: dict[Mistake, None] = {}

    def of(self, file: str) -> Mistakes:
        """The same list of mistakes, with another file of the manifest as the default place."""
        theirs = Mistakes(file)
        theirs._found, theirs._warnings = self._found, self._warnings
        return theirs

    def add(
        self,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        line: int | None = None,
        file: str | None = None,
    ) -> None:
        """Note a mistake; without `file` it is in the manifest itself.

        Raises:
            ManifestError: there are too many to go on.
        """
        self._found[Mistake(file or self.file, message, row, column, line)] = None
        if len(self._found) >= MAX_COUNTED:
            self.raise_if_any()

    def warn(
        self,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
        line: int | None = None,
        file: str | None = None,
    ) -> None:
        """Note what is allowed but probably not meant."""
        if len(self._warnings) < MAX_COUNTED:
            self._warnings[Mistake(file or self.file, message, row, column, line)] = None

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """The first warnings, and how many more there are."""
        return tuple(shortened(_by_place(self._warnings), self.file, "warnings"))

    def final(self, message: str, line: int | None = None) -> ManifestError:
        """The error to raise where the file cannot be read on: this mistake, and all before it."""
        self._found[Mistake(self.file, message, line=line)] = None
        return self._error()

    def raise_if_any(self) -> None:
        """Raise ManifestError with all of them, if there are any."""
        if self._found:
            raise self._error()

    def _error(self) -> ManifestError:
        return ManifestError(shortened(_by_place(self._found), self.file, "mistakes"))

    def __len__(self) -> int:
        return len(self._found)


def _by_place(found: Iterable[Mistake]) -> list[Mistake]:
    """Sorted by line or row within each file; the files in the order in which they came up."""
    files: dict[str, int] = {}
    for mistake in found:
        files.setdefault(mistake.file, len(files))
    return sorted(found, key=lambda mistake: (files[mistake.file], mistake.line or mistake.row or 0))


def shortened(found: list[Mistake], file: str, what: str) -> list[Mistake]:
    """The first 200, and how many more there are."""
    if len(found) <= MAX_SHOWN:
        return found
    more = f"{len(found) - MAX_SHOWN:,}" + (" or more" if len(found) >= MAX_COUNTED else "")
    return [*found[:MAX_SHOWN], Mistake(file, f"and {more} more {what}")]


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably meant to be, or None.

    Short names must be nearer than long ones: `promt` is `prompt`, but `country` is not `count`.
    """
    wanted = _folded(name)
    candidates: dict[str, str] = {}
    for target in known:
        if wanted == (folded := _folded(target)):
            return target
        most = 0 if len(target) <= 3 else 1 if len(target) <= 6 else 2
        if most and abs(len(wanted) - len(target)) <= most:
            candidates[folded] = target
    near = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.8)
    return candidates[near[0]] if near else None


def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()
