"""An export in object storage: made in a folder here first, then brought up file by file, the marker last.

An object is there whole or not at all, so who finds the marker finds all that `SHA256SUMS` lists, as in a folder. Each
object is held against its file after it was written, and what is there as an earlier export left it is not sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipeline.dataset.place import BEGUN, MADE_BY, MARKER, SUMS, not_ours
from pipeline.kernel.errors import InputError, MachineError
from pipeline.kernel.objects import UnknownStorage, check_object, open_storage, reason_of

T = TypeVar("T")

TRIES = 4
"""How often each object is tried before the export is given up for now."""

FIRST_WAIT_S = 0.5
"""The wait after the first failure; each further one is twice as long."""


class Store:
    """A folder of objects, by its address."""

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet."""
        self.url = url.rstrip("/")
        self._shown = self.url[:80]
        self._sleep = sleep
        try:
            self._files, self._root = open_storage(self.url)
        except UnknownStorage as what:
            raise InputError(f"--to: {self._shown!r} {what}. Nothing was exported.") from None

    def send(self, folder: Path) -> None:
        """Bring an export up that is whole in `folder`.

        Raises:
            InputError: the address cannot be written, or holds what is not ours; nothing was sent.
            MachineError: the storage has refused for too long; export again to go on.
        """
        sums = _sums((folder / SUMS).read_text())
        there = self._begin(sums)
        for name, digest in sums.items():
            if there.get(name) != digest or not self._has_size(name, (folder / name).stat().st_size):
                self._put(folder, name)
        self._put(folder, SUMS)
        for name in there.keys() - sums.keys():
            self._try(lambda name=name: self._files.rm_file(self._at(name)))  # type: ignore[misc]
        self._put(folder, MARKER)
        self._try(lambda: self._files.rm_file(self._at(BEGUN)))

    def _begin(self, sums: Mapping[str, str]) -> dict[str, str | None]:
        """Make the folder ours and incomplete; returns what earlier exports have left, with its checksum if known."""
        try:
            names = self._names()
            there = self._look_at(names)
            taken = min((names - there.keys()) & sums.keys(), default=None)
            if taken is not None:
                raise not_ours(f"{self._shown}/{taken}", "Nothing was exported")
            # Whoever goes on after a death in the middle must know what may be ours: also what was to be deleted.
            may_be_ours = sorted(there.keys() | sums.keys())
            self._files.pipe_file(self._at(BEGUN), orjson.dumps({"made_by": MADE_BY, "names": may_be_ours}))
            if MARKER in names:
                self._files.rm_file(self._at(MARKER))
        except InputError:
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise InputError(f"--to: {self._shown} cannot be used: {reason_of(error)}. Nothing was exported.") from None
        return there

    def _names(self) -> set[str]:
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return set()
        return {str(path)[len(self._root) :].lstrip("/") for path in found}

    def _look_at(self, names: set[str]) -> dict[str, str | None]:
        """What is there by earlier exports, with its checksum but where one is begun: that may have replaced it."""
        if not names:
            return {}
        signs = [self._sign(name) for name in (MARKER, BEGUN) if name in names]
        if not signs or any(sign.get("made_by") != MADE_BY for sign in signs):
            raise InputError(
                f"{self._shown} is not empty and no export of kling-batch: it has {min(names)[:60]!r}. Name a new or "
                "an empty folder. Nothing was exported."
            )
        listed: dict[str, str | None] = {}
        for sign in signs:
            begun = sign.get("names")
            listed |= dict.fromkeys(str(name) for name in (begun if isinstance(begun, list) else []))
        if SUMS in names:
            sums = _sums(self._files.cat_file(self._at(SUMS)).decode("utf-8", "replace"))
            listed |= dict.fromkeys(sums) if BEGUN in names else sums
        return {name: digest for name, digest in listed.items() if name in names - {MARKER, BEGUN, SUMS}}

    def _sign(self, name: str) -> dict[str, Any]:
        try:
            sign = orjson.loads(self._files.cat_file(self._at(name)))
        except ValueError:
            return {}
        return sign if isinstance(sign, dict) else {}

    def _has_size(self, name: str, size: int) -> bool:
        return bool(self._try(lambda: self._files.info(self._at(name)))["size"] == size)

    def _put(self, folder: Path, name: str) -> None:
        self._try(lambda: self._put_once(folder / name, self._at(name)))

    def _put_once(self, path: Path, at: str) -> None:
        self._files.put_file(str(path), at)
        check_object(self._files, path, at, self._files.info(at))

    def _try(self, work: Callable[[], T]) -> T:
        for number in range(TRIES):
            try:
                return work()
            except Exception as error:  # each kind of storage has errors of its own
                reason = reason_of(error)
            if number + 1 < TRIES:
                self._sleep(FIRST_WAIT_S * 2**number)
        raise MachineError(f"{self._shown} could not be written ({reason}). It is not whole; export again to go on.")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _sums(text: str) -> dict[str, str]:
    """A list of checksums, by name."""
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.split("\n")) if name}
