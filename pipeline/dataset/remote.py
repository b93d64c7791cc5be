"""An export in object storage: made in a folder here first, then uploaded file by file, the marker last.

An object is there whole or not at all, so who finds the marker finds all that `SHA256SUMS` lists, as in a folder. What
an earlier export has uploaded and this one has, too, is not sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipeline.dataset.place import BEGUN, MADE_BY, MARKER, SUMS, not_ours, read_sums
from pipeline.kernel.errors import InputError, MachineError
from pipeline.kernel.objects import Objects, UnknownStorage, patiently, reason_of

T = TypeVar("T")

PATIENCE_S = 3.0
"""The waits between the tries of one object, in sum, after which the export is given up for now."""


class Store:
    """A folder of objects, by its address, that one export is sent to."""

    def __init__(self, url: str) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet."""
        self.url = url.rstrip("/")
        self._shown = self.url[:80]
        try:
            self._objects = Objects(self.url)
        except UnknownStorage as what:
            raise InputError(f"--to: {self._shown!r} {what}. Nothing was exported.") from None

    def send(self, folder: Path) -> None:
        """Upload an export that is whole in `folder`.

        Raises:
            InputError: the address cannot be written, or holds what is not ours; nothing was sent.
            MachineError: the storage has refused for too long; export again to go on.
        """
        sums = read_sums((folder / SUMS).read_text())
        there = self._begin(sums)
        for name, digest in sums.items():
            if there.get(name) != digest or not self._has_size(name, (folder / name).stat().st_size):
                self._put(folder, name)
        self._put(folder, SUMS)
        for name in there.keys() - sums.keys():
            self._remove(name)
        self._put(folder, MARKER)
        self._remove(BEGUN)

    def _begin(self, sums: Mapping[str, str]) -> dict[str, str | None]:
        """Make the folder ours and incomplete; returns what earlier exports have left, with its checksum if known."""
        try:
            names = self._objects.names()
            there = self._look_at(names)
            taken = min((names - there.keys()) & sums.keys(), default=None)
            if taken is not None:
                raise not_ours(f"{self._shown}/{taken}", "Nothing was exported")
            # If this export dies halfway, the next one must know every object that may be ours, also those that this
            # one was going to delete.
            may_be_ours = sorted(there.keys() | sums.keys())
            self._objects.write(BEGUN, orjson.dumps({"made_by": MADE_BY, "names": may_be_ours}))
            if MARKER in names:
                self._objects.remove(MARKER)
        except InputError:
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise InputError(f"--to: {self._shown} cannot be used: {reason_of(error)}. Nothing was exported.") from None
        return there

    def _look_at(self, names: set[str]) -> dict[str, str | None]:
        """What earlier exports have left, with its checksum.

        After an export that was not finished the checksum is None: it may have replaced the object already.
        """
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
            sums = read_sums((self._objects.read(SUMS) or b"").decode("utf-8", "replace"))
            listed |= dict.fromkeys(sums) if BEGUN in names else sums
        return {name: digest for name, digest in listed.items() if name in names - {MARKER, BEGUN, SUMS}}

    def _sign(self, name: str) -> dict[str, Any]:
        try:
            sign = orjson.loads(self._objects.read(name) or b"")
        except ValueError:
            return {}
        return sign if isinstance(sign, dict) else {}

    def _has_size(self, name: str, size: int) -> bool:
        return self._patiently(lambda: self._objects.size(name)) == size

    def _put(self, folder: Path, name: str) -> None:
        self._patiently(lambda: self._objects.put(folder / name, name))

    def _remove(self, name: str) -> None:
        self._patiently(lambda: self._objects.remove(name))

    def _patiently(self, work: Callable[[], T]) -> T:
        # The clock stands still, so that the waits alone count: an archive may be uploaded for minutes before its
        # connection breaks, and is then tried as often as what fails at once.
        return patiently(work, PATIENCE_S, self._gave_up, time.sleep, now_s=lambda: 0.0)

    def _gave_up(self, error: Exception) -> MachineError:
        return MachineError(
            f"{self._shown} could not be written ({reason_of(error)}). It is not whole; export again to go on."
        )
