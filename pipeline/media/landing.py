"""One video on its way to the disk: the half of a download that runs in a thread.

Everything here blocks. One landing is used by one thread at a time; only `abandon` may be called from another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import discard, open_temporary, put_in_place, write_all, write_file
from pipeline.media.results import Clip, Damaged, Expectation, Trouble, bad_file
from pipeline.media.settings import VerifyLevel
from pipeline.media.verify import Finding, differences, examine


class Abandoned(Exception):  # noqa: N818 - an outcome inside this package, never an error that leaves it
    """Nobody waits for this landing any more."""


Deliver = Callable[[Path, Path | None, str, Callable[[], None]], None]
"""Brings a video that has its final name, and its poster, to a second place, without which they do not count.

The other arguments are the video's SHA-256 and a checkpoint, which is called all the while and raises when nobody waits
any more. Blocks; raises `MachineError` if it cannot.
"""


class Landing:
    """Takes a body in pieces, hashes and counts it, and gives it its final name once it is proven whole.

    Use it in a `with` block: whatever has no final name at its end is removed.
    """

    def __init__(
        self,
        video: Path,
        poster: Path,
        expectation: Expectation,
        level: VerifyLevel,
        deliver: Deliver | None = None,
    ) -> None:
        self._video = video
        self._poster = poster
        self._expectation = expectation
        self._level = level
        self._deliver = deliver
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._descriptor: int | None = None
        self._temporary: Path | None = None
        self._abandoned = False

    def __enter__(self) -> Landing:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def abandon(self) -> None:
        """Let the thread that works on this stop at its next step."""
        self._abandoned = True

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append `chunks`.

        Raises:
            MachineError: the disk does not take them.
        """
        self._checkpoint()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        with _disk("write", self._video):
            if self._descriptor is None:
                self._descriptor, self._temporary = open_temporary(self._video.parent)
            write_all(self._descriptor, data)
        self._hash.update(data)
        self._bytes += len(data)

    def finish(self, rest: Sequence[bytes], http_status: int | None) -> Clip | Trouble:
        """Append `rest`, verify, flush, and give the poster and the video their final names.

        Raises:
            MachineError: the disk fails.
        """
        self.write(rest)
        assert self._descriptor is not None
        assert self._temporary is not None
        try:
            with _disk("read back", self._video):
                finding = examine(self._temporary, self._level, self._checkpoint)
        except Damaged as damage:
            return bad_file(damage, http_status, self._hash.hexdigest())
        self._checkpoint()
        # The poster goes first: the video's name is the sign that nothing is left to do.
        if finding.poster is not None:
            with _disk("write", self._poster):
                write_file(self._poster, finding.poster)
        with _disk("write", self._video):
            os.fsync(self._descriptor)
            self._close()
            put_in_place(self._temporary, self._video)
            self._temporary = None
        clip = self._clip(finding)
        if self._deliver is not None:
            self._deliver(clip.path, clip.poster, clip.sha256, self._checkpoint)
        return clip

    def _clip(self, finding: Finding) -> Clip:
        return Clip(
            path=self._video,
            sha256=self._hash.hexdigest(),
            bytes=self._bytes,
            duration_s=finding.duration_s,
            width=finding.width,
            height=finding.height,
            poster=None if finding.poster is None else self._poster,
            not_as_asked=differences(finding, self._expectation),
        )

    def _checkpoint(self) -> None:
        if self._abandoned:
            raise Abandoned

    def _close(self) -> None:
        # Forgotten before it is closed: even a close that raises has closed it.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _discard(self) -> None:
        # The file is thrown away, so an error of its close does not matter.
        with contextlib.suppress(OSError):
            self._close()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            discard(temporary)


@contextlib.contextmanager
def _disk(verb: str, path: Path) -> Iterator[None]:
    """Within the block, an error of the disk becomes a `MachineError` of one sentence."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot {verb} {path}: {error.strerror or type(error).__name__}") from error
