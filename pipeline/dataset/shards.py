"""Clips in tar archives as the library webdataset reads them: one key, several endings, a new archive now and then."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.dataset.place import Place
from pipeline.dataset.sources import NotAsStored, Source
from pipeline.kernel.files import discard, open_temporary, write_all

_BLOCK = 512
_END = bytes(2 * _BLOCK)


def shard_name(number: int) -> str:
    """The name of an archive, from 0."""
    return f"clips-{number:06d}.tar"


def _header(name: str, size: int) -> bytes:
    """The header of a member: the same bytes for every user and at every time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


class Shards:
    """Writes archives of at most `limit` bytes; a larger clip has one of its own. Use it in a `with` block."""

    def __init__(self, place: Place, limit: int) -> None:
        self.number = 0
        self._place = place
        self._limit = limit
        self._descriptor: int | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def add(self, key: str, source: Source, sidecars: Mapping[str, bytes]) -> None:
        """Append a clip: its video, and `sidecars` by their endings.

        Raises:
            NotAsStored: the video is not what was stored; the archive is as it was before.
            InputError: a file that is not ours has the name of the archive.
            OSError: the disk refused.
        """
        sizes = {**{ending: len(data) for ending, data in sidecars.items()}, "mp4": source.bytes}
        whole = sum(len(_header(f"{key}.{ending}", size)) + size + -size % _BLOCK for ending, size in sizes.items())
        if self._descriptor is not None and self._written() + whole + len(_END) > self._limit:
            self.close()
        if self._descriptor is None:
            self._place.claim(shard_name(self.number))
            self._descriptor, self._temporary = open_temporary(self._place.path)
        start = self._written()
        try:
            for ending in sorted(sizes):
                self._append(f"{key}.{ending}", sidecars.get(ending), source)
        except NotAsStored:
            os.ftruncate(self._descriptor, start)
            os.lseek(self._descriptor, start, os.SEEK_SET)
            raise
        self._place.copied += 1

    def _append(self, name: str, data: bytes | None, source: Source) -> None:
        """Append one member: `data`, or the video where that is None."""
        assert self._descriptor is not None
        size = source.bytes if data is None else len(data)
        write_all(self._descriptor, _header(name, size))
        if data is None:
            source.read_through(self._descriptor)
        else:
            write_all(self._descriptor, data)
        write_all(self._descriptor, _padding(size))

    def _written(self) -> int:
        assert self._descriptor is not None
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """End the archive that is open, if any clip is in it, and give it its name."""
        if self._descriptor is None or self._temporary is None or not self._written():
            self._drop()
            return
        write_all(self._descriptor, _END)
        os.fsync(self._descriptor)
        name = shard_name(self.number)
        with self._temporary.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        os.replace(self._temporary, self._place.path / name)
        self._place.sums[name] = digest
        self.number += 1
        self._drop()

    def _drop(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        temporary, self._temporary = self._temporary, None
        if descriptor is not None:
            os.close(descriptor)
        if temporary is not None:
            discard(temporary)
