"""An export in object storage: made in a folder here first, then brought up file by file, the marker last.

An object is there whole or not at all, so who finds the marker finds all that `SHA256SUMS` lists, as in a folder. Each
object is held against its file after it was written, and what is there as an earlier export left it is not sent again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipeline.dataset.place import BEGUN, MADE_BY, MARKER, SUMS
from pipeline.kernel.errors import InputError, MachineError

T = TypeVar("T")

TRIES = 4
"""How often each object is tried before the export is given up for now."""

FIRST_WAIT_S = 0.5
"""The wait after the first failure; each further one is twice as long."""

_MD5 = re.compile(r"[0-9a-f]{32}")
_CHUNK = 2**20


class BrokenUpload(Exception):  # noqa: N818 - an outcome inside this module
    """An object is not what was sent."""


class Store:
    """A folder of objects, by its address. The one door to `fsspec`, which is loaded here and nowhere else."""

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet."""
        self.url = url.rstrip("/")
        self._shown = self.url[:80]
        self._sleep = sleep
        try:
            from fsspec.core import url_to_fs

            # What another has written in the meantime must be seen.
            self._files, root = url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError:
            raise InputError(
                f"--to: {self._shown!r} needs more packages: pip install 'kling-batch[s3]' for s3://, gcsfs for gs://. "
                "Nothing was exported."
            ) from None
        except ValueError:
            raise InputError(
                f"--to: {self._shown!r} is an address of a kind that is not known; s3:// and gs:// are. "
                "Nothing was exported."
            ) from None
        self._root = str(root).rstrip("/")

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
            # Whoever goes on after a death in the middle must know what may be ours: also what was to be deleted.
            may_be_ours = sorted(there.keys() | sums.keys())
            self._files.pipe_file(self._at(BEGUN), orjson.dumps({"made_by": MADE_BY, "names": may_be_ours}))
            if MARKER in names:
                self._files.rm_file(self._at(MARKER))
        except InputError:
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise InputError(f"--to: {self._shown} cannot be used: {_reason(error)}. Nothing was exported.") from None
        return there

    def _names(self) -> set[str]:
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return set()
        return {str(path)[len(self._root) :].lstrip("/") for path in found}

    def _look_at(self, names: set[str]) -> dict[str, str | None]:
        """What is there by earlier exports, whole or begun."""
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
            listed |= _sums(self._files.cat_file(self._at(SUMS)).decode("utf-8", "replace"))
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
        self._check(path, at, self._files.info(at))

    def _check(self, path: Path, at: str, info: dict[str, Any]) -> None:
        """Hold an object against its file: by the storage's own checksum where it has one, else by reading it back."""
        if info["size"] != path.stat().st_size:
            raise BrokenUpload
        said = str(info.get("ETag", "")).strip('"')
        with path.open("rb") as file:
            if _MD5.fullmatch(said):
                if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != said:
                    raise BrokenUpload
                return
            with self._files.open(at, "rb") as back:
                while chunk := file.read(_CHUNK):
                    if back.read(len(chunk)) != chunk:
                        raise BrokenUpload

    def _try(self, work: Callable[[], T]) -> T:
        for number in range(TRIES):
            try:
                return work()
            except Exception as error:  # each kind of storage has errors of its own
                reason = "an object is not what was sent" if isinstance(error, BrokenUpload) else _reason(error)
            if number + 1 < TRIES:
                self._sleep(FIRST_WAIT_S * 2**number)
        raise MachineError(f"{self._shown} could not be written ({reason}). It is not whole; export again to go on.")

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _sums(text: str) -> dict[str, str]:
    """A list of checksums, by name."""
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.split("\n")) if name}


_PLAINLY = {
    "NoCredentialsError": "no credentials in the environment",
    "PartialCredentialsError": "the credentials in the environment are not complete",
    "EndpointConnectionError": "it could not be reached",
    "ConnectTimeoutError": "it could not be reached",
    "ClientConnectorError": "it could not be reached",
}
"""Strangers' errors by name: their packages need not be installed."""


def _reason(error: Exception) -> str:
    """What was wrong, in few words; never a stranger's text, which may hold an address with a signature."""
    if said := _PLAINLY.get(type(error).__name__):
        return said
    match error:
        case FileNotFoundError():
            return "there is no such bucket"
        case PermissionError():
            return "access was refused"
        case OSError(strerror=str(text)):
            return text[:80]
        case _:
            return type(error).__name__
