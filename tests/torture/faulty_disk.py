"""What a bad disk does to a life: it refuses the n-th call on one part of the run directory, or fills up.

The process's own functions of the operating system are wrapped, so the provider's files beside the run directory, and
everything else, work as ever. Each refusal and each submission is written down in the order in which they happened.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ledger import segments
from pipeline.ledger.segments import SegmentName
from pipeline.provider.client import Client

GROWS = frozenset({"create", "write", "fsync", "replace", "mkdir"})
"""What needs room."""

OPENS = frozenset({"open", "create"})

POSSIBLE = {errno.ENOSPC: GROWS, errno.EDQUOT: GROWS, errno.EMFILE: OPENS}
"""The calls that a kind of trouble can befall; an I/O error can befall every one."""

SHORT = 0
"""In the place of an error: a write takes fewer bytes than it is given, which is none."""

_FOLDERS = ("ledger", "videos", "posters", "report")
_OWN_FILES = {"ledger/_lock": "lock", "ledger/_ballast": "ballast", "run.log": "log"}


def part_of(path: str, run_folder: str) -> str | None:
    """The part of the run directory that a path belongs to; None for the rest of the world."""
    if path != run_folder and not path.startswith(run_folder + "/"):
        return None
    inside = path[len(run_folder) + 1 :]
    folder = inside.partition("/")[0]
    return _OWN_FILES.get(inside) or (folder if folder in _FOLDERS else "copies")


@dataclass(frozen=True)
class FaultyDisk:
    """Refuses the `nth` call on a part of the run directory, and if it is `lasting` all that follow it too."""

    world: Path
    part: str
    """`ledger`, `videos`, `posters`, `report`, `lock`, `ballast`, `log`, or `copies`; `all` for any of them."""
    error: int
    nth: int = 1
    lasting: bool = False
    call: str | None = None
    """This call alone: `open` (of what is there), `create`, `write`, `fsync`, `close`, `replace`, `unlink`, `mkdir`."""

    def arm(self) -> None:
        _Refusals(self).arm()


class _Refusals:
    """A `FaultyDisk` at work in its process."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._run_folder = str(disk.world / "run")
        self._parts: dict[int, str] = {}
        """The part that each open descriptor belongs to."""
        self._calls = 0
        self._durable = -1
        """The latest event that was acknowledged when the commit now under way began; -1 before the first."""
        self._listdir = os.listdir
        self._diary = Diary(disk.world)

    def arm(self) -> None:
        for name in ("write", "fsync", "close", "unlink", "mkdir", "replace", "ftruncate"):
            setattr(os, name, self._wrap(name, getattr(os, name)))
        os.open = self._wrap_open(os.open)
        io.open = builtins.open = self._wrap_reading(builtins.open)
        submit = Client.submit

        def watched(client: Client, job: Any) -> Any:
            self._diary.note(sent=job.job_id)
            return submit(client, job)

        Client.submit = watched  # type: ignore[method-assign]

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **options: Any) -> Any:
            part = self._part(target if name != "replace" else rest[0])
            if part is None:
                return real(target, *rest, **options)
            if name == "close":
                # Forgotten first: the number may be another thread's as soon as it is free. A failing close closes.
                del self._parts[target]
                real(target)
            is_due = self._is_due(part, name)
            if is_due and self._disk.error == SHORT:
                return real(target, memoryview(rest[0])[: len(rest[0]) // 3 or 1])
            if is_due:
                self._refuse()
            return None if name == "close" else real(target, *rest, **options)

        return call

    def _wrap_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            part = self._part(path)
            if part is None:
                return real(path, flags, *rest, **options)
            creates = bool(flags & os.O_CREAT)
            if creates and part == "ledger" and str(path).endswith(".part"):
                self._durable = self._newest_event()
            if self._is_due(part, "create" if creates else "open"):
                self._refuse()
            descriptor = real(path, flags, *rest, **options)
            self._parts[descriptor] = part
            return descriptor

        return call

    def _wrap_reading(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, *rest: Any, **options: Any) -> Any:
            part = None if isinstance(file, int) else self._part(file)
            if part is not None and self._is_due(part, "open"):
                self._refuse()
            return real(file, *rest, **options)

        return call

    def _part(self, target: Any) -> str | None:
        if isinstance(target, int):
            return self._parts.get(target)
        return part_of(os.fsdecode(target), self._run_folder)

    def _is_due(self, part: str, call: str) -> bool:
        """Count a call; say, and write down, whether it is one to refuse."""
        disk = self._disk
        if disk.part not in (part, "all") or disk.call not in (None, call):
            return False
        if disk.error == SHORT and call != "write":
            return False
        if call not in POSSIBLE.get(disk.error, (call,)):
            return False
        self._calls += 1
        is_due = self._calls >= disk.nth if disk.lasting else self._calls == disk.nth
        if is_due:
            in_commit = part == "ledger" and self._durable >= 0 and call != "unlink" and disk.error != SHORT
            self._diary.note(refused=call, part=part, durable=self._durable if in_commit else None)
        return is_due

    def _refuse(self) -> None:
        raise OSError(self._disk.error, os.strerror(self._disk.error))

    def _newest_event(self) -> int:
        names = [SegmentName.parse(name) for name in self._listdir(self._run_folder + "/ledger")]
        return max((name.last for name in names if name is not None), default=0)


@dataclass(frozen=True)
class FillingDisk:
    """Fills a small disk with a file right after the n-th event of the ledger, until `left` bytes are free."""

    world: Path
    folder: Path
    left: int
    after_event: int

    def arm(self) -> None:
        write_segment = segments.write_segment
        diary = Diary(self.world)
        filled = False

        def fill(folder: Path, events: Any, data: bytes) -> SegmentName:
            nonlocal filled
            written = write_segment(folder, events, data)
            if not filled and events[-1].seq >= self.after_event:
                filled = True
                fill_up(self.folder, self.left)
                diary.note(filled=self.left)
            return written

        segments.write_segment = fill


def fill_up(folder: Path, left: int) -> None:
    """Take all room in `folder` but `left` bytes."""
    found = os.statvfs(folder)
    if (size := found.f_bavail * found.f_frsize - left) > 0:
        descriptor = os.open(folder / ".filler", os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(descriptor, 0, size)
        os.close(descriptor)


class Diary:
    """What happened in a life, in its order, told to the test; and all that its process prints."""

    def __init__(self, world: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._descriptor = os.open(world / "diary.jsonl", flags)
        self._write = os.write
        printed = os.open(world / "printed.txt", flags)
        os.dup2(printed, 1)
        os.dup2(printed, 2)

    def note(self, **facts: Any) -> None:
        self._write(self._descriptor, json.dumps(facts).encode() + b"\n")


@dataclass(frozen=True)
class Told:
    """What a life with a bad disk has left to be read."""

    entries: list[dict[str, Any]]
    printed: str

    @classmethod
    def of(cls, world: Path) -> Told:
        """Read it, and make place for what the next life tells."""
        lines = (world / "diary.jsonl").read_text().splitlines()
        told = cls([json.loads(line) for line in lines], (world / "printed.txt").read_text())
        (world / "diary.jsonl").unlink()
        (world / "printed.txt").unlink()
        return told

    @property
    def refused(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if "refused" in entry]

    def sent_without_leave(self, reserved: dict[str, int]) -> list[str]:
        """Jobs that were sent after a commit had failed, though their reservation had not been acknowledged before.

        `reserved` is the number of the event by which each job was reserved.
        """
        failed = next((index for index, entry in enumerate(self.entries) if entry.get("durable") is not None), None)
        if failed is None:
            return []
        durable = self.entries[failed]["durable"]
        later = [entry["sent"] for entry in self.entries[failed:] if "sent" in entry]
        return [job_id for job_id in later if not 0 < reserved.get(job_id, 0) <= durable]
