"""Gets the text of a manifest file, and refuses at once what is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.manifest.mistakes import one_mistake

MAX_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024


def read_text(path: Path) -> str:
    """The file's text: UTF-8, with or without a byte order mark.

    Raises:
        ManifestError: it is missing, no regular file, too large or not UTF-8. A FIFO or device is refused unread.
    """
    data = _read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise one_mistake(str(path), "is UTF-16 text; save it as UTF-8 (in Excel: “CSV UTF-8”)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise one_mistake(str(path), "is not UTF-8 text; save it as UTF-8", line) from None


def _read_bytes(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK the opening of a FIFO would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise one_mistake(str(path), f"cannot be read: {reason}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            kind = "a directory" if stat.S_ISDIR(about.st_mode) else "not a regular file"
            raise one_mistake(str(path), f"is {kind}; give a manifest file")
        return _read_bounded(descriptor, path)
    except OSError as error:
        raise one_mistake(str(path), f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _read_bounded(descriptor: int, path: Path) -> bytes:
    """Counts what comes rather than trust the size: a file may grow, and those of /proc say 0."""
    data = bytearray()
    while chunk := os.read(descriptor, _CHUNK):
        data += chunk
        if len(data) > MAX_BYTES:
            raise one_mistake(str(path), f"is larger than {MAX_BYTES // 2**20} MiB; split it")
    return bytes(data)
