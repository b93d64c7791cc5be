"""Room on the disk: what is on its way must fit, or nothing new starts.

A video that is paid for and does not fit is kept by the provider for days only, so the disk is looked at before money
is reserved, and not first when a write fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.kernel.clock import Clock
from pipeline.kernel.files import free_bytes

MIB = 2**20

UNKNOWN_VIDEO_BYTES = 16 * MIB
"""The size that a video is reckoned at until one has been stored: more than ten seconds at 720p take."""

RECORDS_BYTES = 2 * MIB
"""What the ledger, the log and the report may still need for what is on its way."""

LOOK_AGAIN_S = 5.0
"""How long an answer of the file system is believed."""


def needed_bytes(on_their_way: int, largest: int) -> int:
    """The room that so many videos need, and the records of them; `largest` is the largest seen, 0 if none was."""
    return on_their_way * (largest or UNKNOWN_VIDEO_BYTES) + RECORDS_BYTES


@dataclass(slots=True)
class Room:
    """The room in a run directory, as it was a few seconds ago at most."""

    folder: Path
    clock: Clock
    largest: int = 0
    """The largest video stored so far, in bytes."""
    _free: dict[str, tuple[float, int | None]] = field(default_factory=dict)

    def note(self, video_bytes: int) -> None:
        """Learn from a video that was stored."""
        self.largest = max(self.largest, video_bytes)

    def lack(self, on_their_way: int) -> str | None:
        """Why so many videos may not be on their way at once, in a sentence; None if they fit or that is unknown."""
        for name, needed in (("videos", needed_bytes(on_their_way, self.largest)), ("ledger", RECORDS_BYTES)):
            free = self._free_bytes(name)
            if free is not None and free < needed:
                return (
                    f"the disk under {self.folder / name} has {free / MIB:.1f} MiB free and {needed / MIB:.1f} MiB are "
                    "needed for another video: nothing new was started. Make room and run again."
                )
        return None

    def _free_bytes(self, name: str) -> int | None:
        now_s = self.clock.monotonic_s()
        asked_s, free = self._free.get(name, (None, None))
        if asked_s is None or now_s - asked_s >= LOOK_AGAIN_S:
            free = free_bytes(self.folder / name)
            self._free[name] = now_s, free
        return free
