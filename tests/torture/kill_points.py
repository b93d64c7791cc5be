"""Where a life can be killed: every line, and every opcode, of the modules that keep the promise.

A life that *leaves tracks* is only watched: each line that it executes in those modules is written down, in order and
with all its threads. A life that is killed *at a line* dies before the line does anything.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pipeline
from pipeline.ledger import segments, store
from pipeline.ledger.events import Event
from pipeline.sandbox.faults import FaultPlan

ROOT = Path(pipeline.__file__).parent

TRACED = frozenset(
    [
        *(
            f"ledger/{name}.py"
            for name in ("budget", "encoding", "events", "fold", "job", "merge", "segments", "store")
        ),
        *(f"engine/{name}.py" for name in ("asking", "balance", "collecting", "context", "dispatcher", "doubt")),
        *(f"engine/{name}.py" for name in ("matching", "outages", "recovery", "retry", "worker")),
        *("kernel/files.py", "media/collect.py", "media/landing.py"),
        *(f"runner/{path.name}" for path in (ROOT / "runner").glob("*.py")),
    ]
)
"""The modules in which every step counts: those that write, pay, decide and recover."""


class Line(NamedTuple):
    """A line of a traced module."""

    module: str
    number: int

    def __str__(self) -> str:
        return f"{self.module}:{self.number}"


_MODULE_OF_FILE = {str(ROOT / module): module for module in TRACED}


def _trace(
    local: Callable[[FrameType, str, Any], Any], concerns: Callable[[CodeType], bool], *, opcodes: bool = False
) -> None:
    """Call `local` for what happens in the traced code that concerns it, in this thread and in all that it will start.

    Every call of a function in the process comes through here: what was found out about its code is kept.
    """
    found: dict[int, Any] = {}

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in _MODULE_OF_FILE:
            return None
        frame.f_trace_opcodes = opcodes
        try:
            return found[id(code)]
        except KeyError:
            return found.setdefault(id(code), local if concerns(code) else None)

    threading.settrace(enter)
    sys.settrace(enter)


def die() -> None:
    """End this process as the kernel would: nothing of it runs any more, what it has handed to the disk stays."""
    os.kill(os.getpid(), signal.SIGKILL)


class Step(NamedTuple):
    """The execution of a line, and what was on the disk before it."""

    line: Line
    disk: str


@dataclass(frozen=True, slots=True)
class LeaveTracks:
    """No doom at all: every traced line that is executed is appended to a file, with a digest of the disk before it."""

    world: Path
    path: Path

    def arm(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        run, journal = self.world / "run", self.world / "provider" / "journal.jsonl"
        folders = [run, run / "ledger", run / "videos"]
        changes, noted = _Changes(), 0
        known: tuple[int, int] | None = None
        seen = 0

        def note(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal known, noted, seen
            if event == "line":
                # To look is what takes long, and between most lines nothing has changed.
                if (now := changes.until_now(noted)) != known:
                    known = now
                    seen = hash((journal.stat().st_size if journal.exists() else 0, *map(_look, folders)))
                module = _MODULE_OF_FILE[frame.f_code.co_filename]
                noted += 1  # before it is written: of two threads one may see a change a line late, and none for ever
                os.write(descriptor, f"{module} {frame.f_lineno} {seen:x}\n".encode())
            return note

        _trace(note, lambda _code: True)


class _Changes:
    """Counts what this process does to files: the kernel counts writes, and calls that change names are wrapped."""

    def __init__(self) -> None:
        self._kernel = os.open("/proc/self/io", os.O_RDONLY)
        self._calls = 0
        for name in ("open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "truncate", "ftruncate"):
            setattr(os, name, self._counted(getattr(os, name)))

    def until_now(self, but: int) -> tuple[int, int]:
        """How many writes, but for so many, and how many other calls."""
        return int(os.pread(self._kernel, 512, 0).partition(b"syscw: ")[2].split(None, 1)[0]) - but, self._calls

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return real(*arguments, **named)
            finally:
                self._calls += 1

        return call


def _look(folder: Path) -> int:
    """What files a folder holds, how much of them, and since when."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return 0
    known = set()
    for entry in entries:
        # The log changes all the time, and nobody reads it; the names of temporary files are random.
        if entry.is_file() and entry.name != "run.log":
            with contextlib.suppress(FileNotFoundError):  # another thread has just given it its final name
                stat = entry.stat()
                known.add(("" if entry.name.endswith(".part") else entry.name, stat.st_size, stat.st_mtime_ns))
    return hash(frozenset(known))


def read_tracks(path: Path) -> list[Step]:
    """The steps of a life, in order."""
    words = (line.split() for line in path.read_text().splitlines())
    return [Step(Line(module, int(number)), disk) for module, number, disk in words]


def function_of(line: Line) -> str:
    """The name of the function that a line stands in."""
    return _functions(line.module).get(line.number, "")


@functools.cache
def _functions(module: str) -> dict[int, str]:
    names: dict[int, str] = {}
    left = [compile((ROOT / module).read_text(), module, "exec")]
    while left:
        code = left.pop()
        if not code.co_name.startswith("<"):
            names |= {number: code.co_name for _, _, number in code.co_lines() if number is not None}
        left += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return names


@dataclass(frozen=True, slots=True)
class KillAtLine:
    """SIGKILL before the n-th execution of a line."""

    line: Line
    nth: int = 1

    def arm(self) -> None:
        file, number = str(ROOT / self.line.module), self.line.number
        executed = itertools.count(1)

        def kill(frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "line" and frame.f_lineno == number and next(executed) == self.nth:
                die()
            return kill

        def concerns(code: CodeType) -> bool:
            return code.co_filename == file and any(number == at for _, _, at in code.co_lines())

        _trace(kill, concerns)


@dataclass(frozen=True, slots=True)
class KillAtStep:
    """SIGKILL before the n-th of all traced lines, or opcodes, that a life executes."""

    nth: int
    opcodes: bool = False

    def arm(self) -> None:
        kind = "opcode" if self.opcodes else "line"
        steps = itertools.count(1)

        def kill(_frame: FrameType, event: str, _argument: Any) -> Any:
            if event == kind and next(steps) == self.nth:
                die()
            return kill

        _trace(kill, lambda _code: True, opcodes=self.opcodes)


@dataclass(frozen=True, slots=True)
class KillAtCall:
    """SIGKILL at the first call of a function."""

    module: str
    function: str

    def arm(self) -> None:
        file, name = str(ROOT / self.module), self.function

        def enter(frame: FrameType, _event: str, _argument: Any) -> None:
            if frame.f_code.co_name == name and frame.f_code.co_filename == file:
                die()

        threading.settrace(enter)
        sys.settrace(enter)


@dataclass(frozen=True, slots=True)
class KillOnceDurable:
    """SIGKILL right after the n-th event of a kind has become durable."""

    kind: str
    nth: int = 1

    def arm(self) -> None:
        write_segment, left = segments.write_segment, self.nth

        def write(folder: Path, events: Sequence[Event], data: bytes) -> segments.SegmentName:
            nonlocal left
            written = write_segment(folder, events, data)
            left -= sum(event.event == self.kind for event in events)
            if left <= 0:
                die()
            return written

        segments.write_segment = write


@dataclass(frozen=True, slots=True)
class MergeAbove:
    """The ledger merges its segments when there are more than so many: a small campaign makes few."""

    segments: int

    def arm(self) -> None:
        store.MERGE_ABOVE = self.segments


@dataclass(frozen=True, slots=True)
class NoteFaults:
    """Append the name of each fault of the provider that fires to a file."""

    path: Path

    def arm(self) -> None:
        draw = FaultPlan.draw

        def noted(*arguments: Any, **named: Any) -> str | None:
            fault = draw(*arguments, **named)
            if fault is not None:
                with self.path.open("a") as file:
                    file.write(f"{fault}\n")
            return fault

        FaultPlan.draw = noted  # type: ignore[method-assign]
