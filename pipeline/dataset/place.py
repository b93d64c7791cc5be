"""The folder that an export is written to: ours or empty, and whole only when its marker is there.

`_incomplete` is written first and lists every file that may be ours; a file of somebody else's is never among them, and
an export that needs its name is refused. `_export.json`, the marker, is written last. Between the two each file takes
its name in one step, so who finds the marker finds all that `SHA256SUMS` lists.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline.dataset.sources import Source
from pipeline.kernel.errors import InputError
from pipeline.kernel.files import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    discard,
    fsync_folder,
    hold_folder,
    make_folder,
    open_temporary,
    read_regular_file,
    temporary_in,
    write_all,
    write_file,
)

MARKER = "_export.json"
BEGUN = "_incomplete"
SUMS = "SHA256SUMS"
MADE_BY = "kling-batch"

FOLDERS = ("videos", "train")
"""The folders that an export may have."""

_FIRST_LINE = "An export of kling-batch that is not finished; export again. It may have these files:"
_OURS = re.compile(
    r"(videos|train)/[A-Za-z0-9][A-Za-z0-9._-]*|clips-[0-9]{6}\.tar|clips\.(csv|parquet)|README\.md|SHA256SUMS"
)
"""Only files with such names are ever deleted, whatever a list says."""

_SHARD = re.compile(r"clips-[0-9]{6}\.tar")

_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}")

_MAX_LIST = 2**28

_NO_LINK = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
)
"""Errors that say that there can be no hard link, and nothing of the disk's health."""


@dataclass(slots=True)
class Place:
    """A folder that is being filled. `sums` are the SHA-256 of the files that stand in it, by name."""

    path: Path
    theirs: frozenset[str]
    """The names of what was in it and is not ours."""
    sums: dict[str, str] = field(default_factory=dict)
    linked: int = 0
    copied: int = 0

    def claim(self, name: str) -> None:
        """Note durably that a file may be ours which is not in the list of `_begin`.

        Raises:
            InputError: it is somebody else's.
            OSError: the disk refused.
        """
        if name in self.theirs:
            raise not_ours(self.path / name, "The export is not whole")
        # Appended, because there may be many. A line that a crash has cut short is no name of ours.
        descriptor = os.open(self.path / BEGUN, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            write_all(descriptor, f"{name}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def add_file(self, name: str, source: Source) -> None:
        """Put a video into the folder: a hard link where that is possible, else a copy.

        Raises:
            NotAsStored: it is not what was stored; nothing has the name then.
            OSError: the disk refused.
        """
        final = self.path / name
        temporary = self._link(source, final.parent)
        if temporary is not None:
            self.linked += 1
        else:
            temporary = _copy(source, final.parent)
            self.copied += 1
        os.replace(temporary, final)
        discard(temporary)  # it is still there where both names were links to one file: then os.replace does nothing
        self.sums[name] = source.sha256

    def _link(self, source: Source, folder: Path) -> Path | None:
        """A hard link to a video that was read and is as stored; None if there can be none."""
        if self.copied and not self.linked:
            return None  # the first video could not be linked, so none will be
        temporary = temporary_in(folder)
        try:
            os.link(source.path, temporary, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
        try:
            if not os.path.samestat(os.lstat(temporary), os.fstat(source.descriptor)):
                discard(temporary)
                return None  # another file has its name by now: the one that is open is copied
            source.read_through()
        except BaseException:
            discard(temporary)
            raise
        return temporary

    def add_bytes(self, name: str, data: bytes) -> None:
        """Write a file of our own making."""
        write_file(self.path / name, data)
        self.sums[name] = hashlib.sha256(data).hexdigest()

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Write the checksums, delete what an earlier export has left, and set the marker."""
        for folder in self._folders():
            fsync_folder(folder)
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        write_file(self.path / SUMS, sums.encode())
        for name in _listed(self.path / BEGUN) - self.sums.keys() - {SUMS}:
            discard(self.path / name)
        for folder in self._folders():
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing is left in it
        write_file(self.path / MARKER, orjson.dumps({"made_by": MADE_BY, **facts}, option=orjson.OPT_INDENT_2) + b"\n")
        discard(self.path / BEGUN)

    def _folders(self) -> list[Path]:
        return [self.path / name for name in FOLDERS if (self.path / name).is_dir()]


def _copy(source: Source, folder: Path) -> Path:
    descriptor, temporary = open_temporary(folder)
    try:
        try:
            source.read_through(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        discard(temporary)
        raise
    return temporary


@contextlib.contextmanager
def open_place(path: Path, folder: str | None, names: Iterable[str], most_shards: int = 0) -> Iterator[Place]:
    """The folder at `path`, made if it is not there, and held for the block.

    Args:
        folder: the one of `FOLDERS` that the export needs.
        names: the files that it is going to write; what it may write besides, it has to claim.
        most_shards: about how many shards may be written. If a foreign file has the name of one of the first
            `most_shards` shards, the export is refused before it starts.

    Raises:
        InputError: it is a file, it holds what is not ours, one of its files is not ours and has such a name, or
            another export is writing there.
        OSError: the disk refused.
    """
    _refuse_a_file(path)
    if folder is not None and (path / folder).exists() and not (path / folder).is_dir():
        raise not_ours(path / folder, "Nothing was exported")
    make_folder(path)
    try:
        with hold_folder(path):
            theirs = _begin(path, names, most_shards)
            if folder is not None:
                make_folder(path / folder)
            yield Place(path, theirs)
    except BlockingIOError:
        raise InputError(f"{path}: another export is writing there. Nothing was exported.") from None


def _refuse_a_file(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link; name the folder that it leads to. Nothing was exported.")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a new or an empty folder. Nothing was exported.")


def _begin(path: Path, names: Iterable[str], most_shards: int) -> frozenset[str]:
    """Make the folder ours and incomplete; returns the names of what is not ours in it.

    From here on nobody takes it for an export that is whole.
    """
    strange = _strange(path)
    if strange is not None:
        raise InputError(
            f"{path} is not empty and no export of kling-batch: it has {strange[:60]!r}. Name a new or an empty "
            "folder. Nothing was exported."
        )
    folders = [path, *(path / name for name in FOLDERS)]
    for folder in folders:
        if folder.is_symlink():
            raise InputError(f"{folder} is a link, and nothing is written through a link. Nothing was exported.")
    may_be_ours, names = _listed(path / SUMS) | _listed(path / BEGUN), set(names)
    theirs = _found(path) - may_be_ours
    taken = min((name for name in theirs if name in names or _is_shard(name, most_shards)), default=None)
    if taken is not None and not may_be_ours:
        raise InputError(
            f"{path / SUMS} does not say which files are the export's: restore it, or name another folder. "
            "Nothing was exported."
        )
    if taken is not None:
        raise not_ours(path / taken, "Nothing was exported")
    for folder in folders:
        _sweep(folder)
    write_file(path / BEGUN, "\n".join([_FIRST_LINE, *sorted(may_be_ours | names), ""]).encode())
    if (path / MARKER).exists():
        (path / MARKER).unlink()
        fsync_folder(path)
    return theirs


def _is_shard(name: str, most: int) -> bool:
    """Whether it is the name of one of the first `most` shards."""
    return _SHARD.fullmatch(name) is not None and int(name[6:12]) < most


def _found(path: Path) -> frozenset[str]:
    """What is in the folder and in its `FOLDERS`, named as the lists name it."""
    below = [f"{name}/{each}" for name in FOLDERS if (path / name).is_dir() for each in os.listdir(path / name)]
    return frozenset([*os.listdir(path), *below])


def not_ours(path: Path | str, outcome: str) -> InputError:
    """The error of an export that needs the name of somebody else's file."""
    return InputError(
        f"{path} is your own: no export has written it. This one needs its name, so move it away or name another "
        f"folder. {outcome}."
    )


def _strange(path: Path) -> str | None:
    """The name of something in the folder, where the folder is not ours; None where it is, or is empty."""
    if _is_ours(path):
        return None
    # An export that died before it wrote its first sign has left a temporary file.
    found = (each.name for each in path.iterdir() if not _TEMPORARY.fullmatch(each.name))
    return min(found, default=None)


def _sweep(folder: Path) -> None:
    """Delete the temporary files of exports that died; nobody else gives such names."""
    if folder.is_dir():
        for each in folder.iterdir():
            if _TEMPORARY.fullmatch(each.name):
                discard(each)


def _is_ours(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        marker = read_regular_file(path / MARKER, _MAX_LIST)
        if marker is not None and orjson.loads(marker).get("made_by") == MADE_BY:
            return True
    with contextlib.suppress(OSError):
        return (read_regular_file(path / BEGUN, _MAX_LIST) or b"").startswith(_FIRST_LINE.encode())
    return False


def _listed(path: Path) -> set[str]:
    """The names in `SHA256SUMS` or `_incomplete`; what cannot be one of our files is not among them."""
    try:
        text = (read_regular_file(path, _MAX_LIST) or b"").decode("utf-8", "replace")
    except OSError:
        return set()
    names = read_sums(text) if path.name == SUMS else text.split("\n")
    return {name for name in names if _OURS.fullmatch(name)}


def read_sums(text: str) -> dict[str, str]:
    """The checksums in the text of `SHA256SUMS`, by name."""
    # Two spaces stand before a name, or a space and a star where `sha256sum --binary` has written the line.
    lines = (re.split(" [ *]", line, maxsplit=1) for line in text.split("\n"))
    return {line[1]: line[0] for line in lines if len(line) == 2 and line[1]}
