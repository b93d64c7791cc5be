"""The one door to durable files: nothing half-made ever has its final name.

Every write here goes to a temporary file in the same folder, is flushed to the disk, takes its name in one step, and
the folder is flushed too: after the function returns, the file survives a power loss, and before it returns there is
either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TEMPORARY_PREFIX = "."
TEMPORARY_SUFFIX = ".part"

_CHUNK = 2**20

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Without O_NONBLOCK the opening of a FIFO would wait for somebody to write into it."""


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Make a file durable that was written without a flush: its bytes, and its name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_folder(path.parent)


def free_bytes(folder: Path) -> int | None:
    """How many bytes may still be written in `folder`; None where its file system does not say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def free_files(folder: Path) -> int | None:
    """How many files may still be made in `folder`; None where its file system has no such bound, or does not say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_favail if found.f_files else None


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents durably; an existing one is left as it is.

    Raises:
        OSError: the disk refused, or it is a link: what is written there would land somewhere else. Its parents may be
            links; where they lead is the user's choice.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{folder.name} is a link, and nothing is written through a link", str(folder))
    _make_folder(folder)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        # A process may have made this folder and died before its name was durable, so its parent is flushed. If we may
        # not read the parent, the folder is not ours, and old enough.
        with contextlib.suppress(PermissionError):
            fsync_folder(folder.parent)
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    fsync_folder(folder.parent)


def read_regular_file(path: Path, most: int) -> bytes | None:
    """All of a file that somebody else wrote; None if it is longer than `most` bytes.

    A FIFO or a device is refused unread: nobody may ever write into the one, and the other may have no end.

    Raises:
        OSError: it cannot be read; `strerror` says why.
    """
    return _read_and_close(open_regular_file(path), most)


def open_regular_file(path: Path) -> int:
    """The descriptor of a file that somebody else wrote, open for reading; what is no file is refused unread.

    Raises:
        OSError: it cannot be opened; `strerror` says why.
    """
    return _regular(os.open(path, _READ), path)


def read_file_below(folder: Path, names: Sequence[str], most: int) -> bytes | None:
    """All of the file that `names` lead to from `folder`, which somebody else chose; None as for `read_regular_file`.

    No step is taken through a link, so that nothing outside of `folder` is ever read. `folder` itself may be a link.

    Raises:
        OSError: it cannot be read; `strerror` says why.
    """
    return _read_and_close(open_file_below(folder, names), most)


def open_file_below(folder: Path, names: Sequence[str]) -> int:
    """The descriptor of the file that `names` lead to from `folder`, open for reading, as `read_file_below` reads it.

    Raises:
        OSError: it cannot be opened; `strerror` says why.
    """
    path = folder.joinpath(*names)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, name in enumerate(names):
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise OSError(errno.ELOOP, f"{'/'.join(names[: depth + 1])} is a link", str(path))
            is_last = depth == len(names) - 1
            if is_last and not stat.S_ISDIR(mode):
                _require_regular(mode, path)  # before it is opened: some devices act when they are opened
            below = os.open(name, _READ | os.O_NOFOLLOW | (0 if is_last else os.O_DIRECTORY), dir_fd=at)
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return _regular(at, path)


def _regular(descriptor: int, path: Path) -> int:
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        reason = "it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
        raise OSError(errno.EINVAL, reason, str(path))


def _read_and_close(descriptor: int, most: int) -> bytes | None:
    try:
        # Counts what comes rather than trust the size: a file may grow, and those of /proc say 0.
        data = bytearray()
        while len(data) <= most and (chunk := os.read(descriptor, _CHUNK)):
            data += chunk
        return bytes(data) if len(data) <= most else None
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte, or raise `OSError`: `os.write` may take fewer than it is given."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, "the disk takes nothing more")
        view = view[written:]


def temporary_in(folder: Path) -> Path:
    """A fresh path for a temporary file in `folder`. It begins with a dot, so that no reader takes it for a result."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"


def open_temporary(folder: Path) -> tuple[int, Path]:
    """Open a fresh file for writing in `folder`: never an existing one, never through a link.

    Returns its descriptor and its path, as of `temporary_in`.
    """
    path = temporary_in(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o644), path


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a flushed temporary file its final name, durably."""
    os.replace(temporary, final)
    fsync_folder(final.parent)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` durably and in one step, replacing what was there."""
    with replacing(path) as write:
        write(data)


def keep_file(path: Path, data: bytes) -> None:
    """Have `path` hold `data`, as `write_file`. If it does already, it is left alone: to compare needs no flush."""
    with contextlib.suppress(OSError):
        if not path.is_symlink() and _holds(path, data):
            return
    write_file(path, data)


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file has these bytes. A piece at a time: they may be many."""
    with open(open_regular_file(path), "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != len(data):
            return False
        return all(file.read(_CHUNK) == data[first : first + _CHUNK] for first in range(0, len(data), _CHUNK))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """What writes a file in parts, for the block. The file has its name, durably, once the block has ended well."""
    descriptor, temporary = open_temporary(path.parent)
    is_open = True

    def write(data: bytes | memoryview) -> None:
        if not is_open:
            # By now the descriptor's number may be another file's: a segment of the ledger, or the provider's socket.
            raise ValueError("the file is closed")
        write_all(descriptor, data)

    try:
        try:
            yield write
            os.fsync(descriptor)
        finally:
            is_open = False
            os.close(descriptor)
        put_in_place(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def discard(temporary: Path) -> None:
    """Delete a temporary file that failed; a disk that refuses even this hides nothing of why it failed."""
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files that a process which died has left in `folder`; returns how many."""
    # By names alone, and the prefix first, which is rare: beside a million videos, anything more takes seconds.
    names = [name for name in os.listdir(folder) if name[0] == TEMPORARY_PREFIX] if folder.is_dir() else []
    left = [name for name in names if name.endswith(TEMPORARY_SUFFIX)]
    for name in left:
        (folder / name).unlink(missing_ok=True)
    return len(left)


LOCK_TRIES = 5
LOCK_PAUSE_S = 0.02
"""Whoever asks `is_held` holds the lock for an instant: a few tries tell such a look from a real holder."""


@contextlib.contextmanager
def hold_lock(path: Path, holder: str) -> Iterator[None]:
    """Hold the exclusive lock at `path` for the block; `holder` is written there for others to read.

    `flock`, not `lockf`: a POSIX lock is lost when any other descriptor of the file is closed. The file is never
    renamed or removed, so that everybody locks the same one.

    Raises:
        BlockingIOError: somebody else holds it; `filename` is the path.
        OSError: there can be none; `strerror` says why.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    _regular(descriptor, path)
    try:
        _lock_soon(descriptor, path)
        os.ftruncate(descriptor, 0)
        name = holder.encode()
        write_all(descriptor, name)
        yield
        with contextlib.suppress(OSError):
            # Where locks do not work, another's name may stand there by now.
            if os.pread(descriptor, len(name) + 1, 0) == name:
                os.ftruncate(descriptor, 0)
    finally:
        # A close that fails has closed: the lock is free, and what was done under it is done.
        with contextlib.suppress(OSError):
            os.close(descriptor)


@contextlib.contextmanager
def hold_folder(folder: Path, tries: int = LOCK_TRIES) -> Iterator[None]:
    """Hold a folder for the block: a lock that leaves no file behind.

    Args:
        tries: how often it is tried, `LOCK_PAUSE_S` apart.

    Raises:
        BlockingIOError: somebody else holds it; `filename` is the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock_soon(descriptor, folder, tries)
        yield
    finally:
        os.close(descriptor)


def _lock_soon(descriptor: int, path: Path, tries: int = LOCK_TRIES) -> None:
    for tried in range(tries):
        if tried:
            time.sleep(LOCK_PAUSE_S)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            refused = error.errno
        else:
            return
    raise BlockingIOError(refused, "held by another process", str(path))


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock at `path` now. Looks without ever keeping it.

    Raises:
        OSError: it cannot be opened; `strerror` says why.
    """
    try:
        descriptor = _regular(os.open(path, _READ | os.O_NOFOLLOW), path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
