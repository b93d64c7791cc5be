"""Room on the disk: what is on its way must fit, or nothing new starts.

A video that is paid for and does not fit is kept by the provider for days only, so the disk is looked at before money
is reserved, and not first when a write fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.kernel.clock import Clock
from pipeline.kernel.files import free_bytes, free_files

MIB = 2**20

UNKNOWN_VIDEO_BYTES = 16 * MIB
"""The size that a video is reckoned at until one has been stored: more than ten seconds at 720p take."""

RECORDS_BYTES = 2 * MIB
"""What the ledger, the log and the report may still need for what is on its way."""

FILES_PER_VIDEO = 7
"""The video, its poster, a temporary file, and a segment of the ledger for each of its four events."""

RECORDS_FILES = 16
"""What merges, the log and the report may need beside them."""

LOOK_AGAIN_S = 5.0
"""How long an answer of the file system is believed."""


def needed_bytes(on_their_way: int, largest: int) -> int:
    """The room that so many videos need, and the records of them; `largest` is the largest seen, 0 if none was."""
    return on_their_way * (largest or UNKNOWN_VIDEO_BYTES) + RECORDS_BYTES


def needed_files(on_their_way: int) -> int:
    """How many files so many videos need, and the records of them."""
    return on_their_way * FILES_PER_VIDEO + RECORDS_FILES


@dataclass(slots=True)
class Room:
    """The room in a run directory, as it was a few seconds ago at most."""

    folder: Path
    clock: Clock
    largest: int = 0
    """The largest video stored so far, in bytes."""
    _free: dict[str, tuple[float, int | None, int | None]] = field(default_factory=dict)

    def note(self, video_bytes: int) -> None:
        """Learn from a video that was stored."""
        self.largest = max(self.largest, video_bytes)

    def lack(self, on_their_way: int) -> str | None:
        """Why so many videos may not be on their way at once, in a sentence; None if they fit or that is unknown."""
        for name, needed in (("videos", needed_bytes(on_their_way, self.largest)), ("ledger", RECORDS_BYTES)):
            free, files = self._look(name)
            if free is not None and free < needed:
                return (
                    f"the disk under {self.folder / name} has {free / MIB:.1f} MiB free and {needed / MIB:.1f} MiB are "
                    "needed for another video: nothing new was started. Make room and run again."
                )
            if files is not None and files < needed_files(on_their_way):
                return (
                    f"the disk under {self.folder / name} has room for {files} more files (inodes) and "
                    f"{needed_files(on_their_way)} are needed for another video: nothing new was started. Remove files "
                    "there and run again."
                )
        return None

    def _look(self, name: str) -> tuple[int | None, int | None]:
        """The bytes that are free, and the files that may still be made."""
        now_s = self.clock.monotonic_s()
        asked_s, free, files = self._free.get(name, (None, None, None))
        if asked_s is None or now_s - asked_s >= LOOK_AGAIN_S:
            free, files = free_bytes(self.folder / name), free_files(self.folder / name)
            self._free[name] = now_s, free, files
        return free, files
