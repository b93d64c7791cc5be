"""Standard output and error of a run, each written in a thread of its own: whoever does not read holds nobody up."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO, cast

MOST_WAITING = 1 << 20
"""So many bytes are kept for a reader that does not read; what comes later is left out."""

LONGEST_SILENCE_S = 10.0
"""How long an end waits for a reader that takes nothing."""

LEAVING_SILENCE_S = 1.0
"""The same where a person wants the run to be over."""

PIECE = 4096
"""Bytes that are written at once, so that a reader who takes them slowly is not held for one who takes nothing."""


class Outlet(io.TextIOBase):
    """A stream to write to without ever waiting; `wait_until_taken` waits, but not for a reader that is silent.

    It writes past every buffer of `stream`: a thread that hangs in one would keep its lock, and with it the process.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        encoding: str | None = None,
        of_lost: Callable[[int], str] | None = None,
        silence_s: float | None = None,
    ) -> None:
        """With `of_lost`, what is written in the place of pieces that could not be, by what they are worth together."""
        self._stream = stream
        self._encoding, self._of_lost = encoding or stream.encoding or "utf-8", of_lost
        self.silence_s = LONGEST_SILENCE_S if silence_s is None else silence_s
        try:
            self._descriptor: int | None = stream.fileno()
        except (io.UnsupportedOperation, ValueError):
            self._descriptor = None  # no file, where the command is embedded
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self.backlog = 0
        """How many bytes wait to be taken."""
        self._writer: threading.Thread | None = None
        self._is_over = False
        self._moved_s = 0.0
        """When something was last taken, or began to wait."""
        self._failure: OSError | None = None
        self._lost = 0
        self._is_torn = False
        """Whether the last that was written broke off within a line."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def pieces(self) -> int:
        """How many pieces wait to be taken."""
        return len(self._waiting)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.backlog < MOST_WAITING:
            self.put(text)
        return len(text)

    def put(self, text: str, worth: int = 1) -> None:
        """Have a piece written, whatever waits before it."""
        data = text.encode(self._encoding, self.errors or "strict")
        with self._changed:
            if not self._waiting:
                self._moved_s = time.monotonic()
            self._waiting.append((data, worth))
            self.backlog += len(data)
            self._changed.notify_all()
        if self._writer is None:
            self._begin()

    def _begin(self) -> None:
        writer = threading.Thread(target=self._write_all, name="outlet", daemon=True)
        try:
            writer.start()
        except RuntimeError:  # no thread can be had: better said here and now than not at all
            self._is_over = True
            self._write_all()
        else:
            self._writer = writer

    def wait_until_taken(self) -> None:
        """Wait until all is taken, for as long as anything is.

        Raises:
            TimeoutError: nothing was taken for long.
            OSError: something could not be written.
        """
        with self._changed:
            while self._waiting:
                left_s = self._moved_s + self.silence_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._changed.wait(left_s)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def end(self) -> None:
        """Wait as long as it makes sense; what is taken by then is all that ever will be."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self.wait_until_taken()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_over:
                        return
                    self._changed.wait()
                data, worth = self._waiting[0]
            if self._lost and self._of_lost is not None and self._wrote(self._of_lost(self._lost).encode()):
                self._lost = 0
            if not self._wrote(data):
                self._lost += worth
            with self._changed:
                self._waiting.popleft()
                self.backlog -= len(data)
                self._moved_s = time.monotonic()
                self._changed.notify_all()

    def _wrote(self, data: bytes) -> bool:
        """Write a piece, on a line of its own if the one before broke off; whether it could be."""
        left = memoryview(b"\n" + data if self._is_torn else data)
        taken = b""
        try:
            while left:
                if some := self._write_some(left):
                    taken, left = some, left[len(some) :]
                    self._moved_s = time.monotonic()
        except (OSError, ValueError) as error:
            self._failure = error if isinstance(error, OSError) else OSError(str(error))
            if taken:
                self._is_torn = not taken.endswith(b"\n")
            return False
        self._is_torn = False
        return True

    def _write_some(self, data: memoryview) -> bytes:
        """What of it was written."""
        if self._descriptor is None:
            self._stream.write(bytes(data).decode(self._encoding))
            self._stream.flush()
            return bytes(data)
        try:
            return bytes(data[: os.write(self._descriptor, data[:PIECE])])
        except BlockingIOError:  # whoever shares it has made it so
            select.select([], [self._descriptor], [])
            return b""


def is_behind(stream: object, at_most: int) -> bool:
    """Whether more than so many bytes wait for whoever reads a stream."""
    return isinstance(stream, Outlet) and stream.backlog > at_most


def wait_until_taken(stream: object) -> None:
    """Wait until what was written is taken; see the method."""
    if isinstance(stream, Outlet):
        stream.wait_until_taken()


@contextlib.contextmanager
def outlets() -> Iterator[None]:
    """For the block, what is written to standard output and error is never waited for, and at its end not for ever."""
    before = sys.stdout, sys.stderr
    made = [_outlet_of(stream) for stream in before]
    sys.stdout, sys.stderr = made
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for outlet in made:
            if isinstance(outlet, Outlet):
                outlet.end()


def _outlet_of(stream: TextIO) -> TextIO:
    outlet = Outlet(stream)
    return stream if outlet._descriptor is None else cast("TextIO", outlet)


def hurry() -> None:
    """Have little patience with whoever reads standard output and error: a person wants the run to be over."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Outlet):
            stream.silence_s = LEAVING_SILENCE_S


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """For a question, and after all else that was said: the streams themselves, for its answer is waited for anyway."""
    before = sys.stdout, sys.stderr
    for stream in before:
        with contextlib.suppress(OSError):
            wait_until_taken(stream)
    sys.stdout, sys.stderr = (stream._stream if isinstance(stream, Outlet) else stream for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
