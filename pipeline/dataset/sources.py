"""The videos as they leave the run directory: each is read once, and checked against what the ledger says of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset.clips import ExportedClip
from pipeline.kernel.address import names_below
from pipeline.kernel.files import open_file_below, read_file_below, write_all

MAX_POSTER = 8 * 2**20
"""Bytes of a poster; ours have some ten thousand."""

_CHUNK = 2**20


class NotAsStored(Exception):  # noqa: N818 - an outcome inside this package, never an error that leaves it
    """A video is not what the ledger says was stored; the message says why, after its name."""


@dataclass(frozen=True, slots=True)
class Source:
    """A video that is open for reading."""

    path: Path
    descriptor: int
    bytes: int
    sha256: str

    def read_through(self, copy: int | None = None) -> None:
        """Read all of it, into the descriptor `copy` if there is one.

        Raises:
            NotAsStored: it is not what was stored; what was copied is to be thrown away.
        """
        digest, left = hashlib.sha256(), self.bytes
        while left and (chunk := _read(self.descriptor, min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
            if copy is not None:
                write_all(copy, chunk)
        if left or digest.hexdigest() != self.sha256:
            raise NotAsStored("has been changed: its SHA-256 is not the ledger's")


def _read(descriptor: int, most: int) -> bytes:
    try:
        return os.read(descriptor, most)
    except OSError as error:
        raise NotAsStored(f"cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def open_source(folder: Path, clip: ExportedClip) -> Iterator[Source]:
    """Open the video of a stored job in its run directory.

    Raises:
        NotAsStored: it is not there, is not a regular file, or has another size.
    """
    names = names_below(clip.path)
    if names is None:
        raise NotAsStored("has no name inside the run directory")
    try:
        descriptor = open_file_below(folder, names)
    except FileNotFoundError:
        raise NotAsStored("is not there any more") from None
    except OSError as error:
        raise NotAsStored(f"cannot be read: {error.strerror}") from None
    try:
        size = os.fstat(descriptor).st_size
        if size != clip.bytes:
            raise NotAsStored(f"has been changed: it has {size:,} bytes instead of {clip.bytes:,}")
        yield Source(folder.joinpath(*names), descriptor, size, clip.sha256 or "")
    finally:
        os.close(descriptor)


def read_poster(folder: Path, clip: ExportedClip) -> bytes | None:
    """The poster of a stored job; None if none can be read. It is an extra, so no export fails for it."""
    names = names_below(clip.poster)
    if names is None:
        return None
    try:
        return read_file_below(folder, names, MAX_POSTER)
    except OSError:
        return None
