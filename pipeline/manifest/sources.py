"""Gets the text of a manifest file, and refuses at once what is none."""

from __future__ import annotations

from pathlib import Path

from pipeline.kernel.files import read_regular_file
from pipeline.manifest.mistakes import one_mistake

MAX_BYTES = 64 * 1024 * 1024


def read_text(path: Path) -> str:
    """The file's text: UTF-8, with or without a byte order mark, or UTF-16 with one, as Excel's "Unicode text" is.

    Raises:
        ManifestError: it is missing, no regular file, too large, or in neither. A FIFO or device is refused unread.
    """
    data = _read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise one_mistake(str(path), "begins as UTF-16 text and is none; save it as UTF-8") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise one_mistake(str(path), "is not UTF-8 text; save it as UTF-8", line) from None


def _read_bytes(path: Path) -> bytes:
    try:
        data = read_regular_file(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise one_mistake(str(path), f"cannot be read: {reason}") from None
    if data is None:
        raise one_mistake(str(path), f"is larger than {MAX_BYTES // 2**20} MiB; split it")
    return data
