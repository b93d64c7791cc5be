"""Reads the text of a manifest file, and refuses at once what is no text."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.kernel.files import open_regular_file, read_regular_file
from pipeline.manifest.mistakes import Mistakes

MAX_BYTES = 64 * 2**20
"""The largest file that is held in memory as a whole."""
MAX_TABLE_BYTES = 4 * 2**30
MAX_LINE = 2**20
"""Characters of one line of a table. A longer line is no line of a table, and would fill the memory."""


def read_text(path: Path, mistakes: Mistakes) -> str:
    """The file's text: UTF-8, with or without a byte order mark, or UTF-16 with one, as Excel's "Unicode text" is.

    Raises:
        ManifestError: it is missing, no regular file, too large, or in neither. A FIFO or device is refused unread.
    """
    try:
        data = read_regular_file(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise mistakes.final(f"cannot be read: {_reason(error)}") from None
    if data is None:
        raise mistakes.final(
            f"is larger than {MAX_BYTES // 2**20} MiB; put the rows into a CSV file and name it with `rows_from`"
        )
    try:
        return data.decode(_encoding(data[:2]))
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _no_utf_16(mistakes) from None
        raise _no_utf_8(mistakes, data.count(b"\n", 0, error.start) + 1) from None


def read_lines(path: Path, mistakes: Mistakes, newline: str | None) -> Iterator[str]:
    """The lines of a table, one by one, with their ends; `newline` as in `open`.

    Raises:
        ManifestError: as `read_text`, or a line is too long to be one.
    """
    try:
        descriptor = open_regular_file(path)
    except (OSError, ValueError) as error:
        raise mistakes.final(f"cannot be read: {_reason(error)}") from None
    with open(descriptor, "rb") as source:
        encoding = _encoding(start := os.pread(descriptor, 2, 0))
        if b"\0" in start:
            raise mistakes.final("has zero bytes: it is binary, or UTF-16 without its mark; save it as UTF-8", 1)
        if os.fstat(descriptor).st_size > MAX_TABLE_BYTES:
            raise mistakes.final(f"is larger than {MAX_TABLE_BYTES // 2**30} GiB; split it")
        text = io.TextIOWrapper(source, encoding, newline=newline)
        number = 0
        try:
            while line := text.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE:
                    raise mistakes.final(f"this line is longer than {MAX_LINE:,} characters", number)
                yield line
        except UnicodeDecodeError:
            if encoding == "utf-16":
                raise _no_utf_16(mistakes) from None
            raise _no_utf_8(mistakes, _first_bad_line(source)) from None
        except OSError as error:
            raise mistakes.final(f"cannot be read: {_reason(error)}") from None


def _encoding(start: bytes) -> str:
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _first_bad_line(source: io.BufferedReader) -> int:
    """The number of the first line that is not UTF-8."""
    source.seek(0)
    number = 1
    while line := source.readline(8 * MAX_LINE):
        try:
            line.decode()
        except UnicodeDecodeError:
            break
        number += 1
    return number


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _no_utf_8(mistakes: Mistakes, line: int) -> Exception:
    return mistakes.final("is not UTF-8 text; save it as UTF-8", line)


def _no_utf_16(mistakes: Mistakes) -> Exception:
    return mistakes.final("begins as UTF-16 text and is none; save it as UTF-8")
