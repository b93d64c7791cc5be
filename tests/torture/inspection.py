"""The command, run in a forked child with bounds on its time and memory, without any network; what came of it."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worlds import load_command_line

MOST_CPU_S = 2.0
MOST_MEMORY_MB = 240
"""Beyond what the process began with, which is at most 60 MB in a command of its own."""
MOST_WALL_S = 20
"""What waits longer waits for ever: for a FIFO, say."""

_UNSAFE_ON_A_SCREEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C0, C1 and bidirectional controls; lines and tabs are the screen's own."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it left on the screen."""

    code: int
    out: str
    err: str
    cpu_s: float
    memory_mb: float

    def check_bounds(self) -> None:
        """It was quick and small, crashed nowhere, and wrote nothing that a terminal would obey."""
        assert "Traceback" not in self.err + self.out, self.err[-400:]
        assert self.code >= 0, f"killed by signal {-self.code}: {self.err[-200:]}"
        assert self.cpu_s <= MOST_CPU_S, f"{self.cpu_s:.1f} s"
        assert self.memory_mb <= MOST_MEMORY_MB, f"{self.memory_mb:.0f} MB"
        check_screen(self.out + self.err)


def check_screen(text: str) -> None:
    """No control character that a terminal would obey."""
    found = _UNSAFE_ON_A_SCREEN.search(text)
    assert not found, f"U+{ord(found[0]):04X} on the screen: {text[max(0, found.start() - 60) : found.end()]!r}"


_NEEDED = (
    "pipeline.cli.progress",
    "pipeline.runner.running",
    "pipeline.forecast",
    "pipeline.planning",
    "pipeline.runner.account",
    "pipeline.manifest.parts",
    "jinja2.sandbox",
)


def warm_command() -> None:
    """Import what the command needs before the first fork: then each call costs a few milliseconds."""
    for name in _NEEDED:
        importlib.import_module(name)
    load_command_line()


def call(arguments: list[str], folder: Path, before: Callable[[], None] = lambda: None) -> Ended:
    """`kling-batch` with `arguments` in `folder`; `before` may prepare its process."""
    before_mb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _in_child(arguments, folder, before)
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    out, err = (folder / name for name in ("stdout", "stderr"))
    return Ended(
        os.waitstatus_to_exitcode(status),
        out.read_text(errors="replace"),
        err.read_text(errors="replace"),
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024 - before_mb,
    )


def _in_child(arguments: list[str], folder: Path, before: Callable[[], None]) -> int:
    os.chdir(folder)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    _bound()
    before()
    sys.argv = ["kling-batch", *arguments]
    from pipeline.cli import main

    code: object = 70
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else 1


def _bound() -> None:
    seconds = int(MOST_CPU_S) + 8
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MOST_WALL_S)


def forbid_network() -> None:
    """Whoever makes a socket from now on crashes: for commands that send nothing."""

    def refuse(*_arguments: object, **_rest: object) -> None:
        raise AssertionError("a command that sends nothing made a socket")

    socket.socket.__init__ = refuse  # type: ignore[assignment, method-assign]
