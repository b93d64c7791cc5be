"""What a run prints where nobody reads it: neither the run nor its end waits for that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FAST
from test_cli_progress import Night, played

from pipeline.cli import outlet, progress
from pipeline.cli.outlet import Outlet, outlets
from pipeline.cli.progress import Progress
from pipeline.cli.screen import say_if_possible


def fill(writer: int) -> None:
    """Leave no room in a pipe or a terminal."""
    os.set_blocking(writer, False)
    for size in (65_536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * size)
    os.set_blocking(writer, True)


@contextlib.contextmanager
def stuck(kind: str) -> Iterator[tuple[int, int]]:
    """Both ends of a terminal or a pipe that takes nothing."""
    reader, writer = pty.openpty() if kind == "terminal" else os.pipe()
    fill(writer)
    try:
        yield reader, writer
    finally:
        os.close(reader)  # whoever still hangs at the other end is let go
        for thread in threading.enumerate():
            if thread.name == "outlet":
                thread.join(30)
        os.close(writer)


@contextlib.contextmanager
def heard_by(writer: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The outlets of a process whose standard output and error are there."""
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, open(writer, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        with outlets():
            yield


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
async def test_progress_that_nobody_takes_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Frames and lines are left out, the event loop goes on, and the end waits for a moment only."""
    for name in ("PLAIN_INTERVAL_S", "REFRESH_INTERVAL_S"):
        monkeypatch.setattr(progress, name, 0.0001)
    monkeypatch.setattr(outlet, "LONGEST_SILENCE_S", 0.05)
    for name in ("BEHIND_FRAMES", "BEHIND_LINES"):
        monkeypatch.setattr(progress, name, 2_000)
    with stuck(kind) as (_, writer), heard_by(writer, monkeypatch):
        with Progress(shown=True) as shown:
            await played(Night(), shown)
            stream = shown._stream
            assert isinstance(stream, Outlet)
            for _ in range(1_000):
                if stream.backlog > 2_000:
                    break
                await asyncio.sleep(0.01)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert 2_000 < stream.backlog < 4_000
        assert not say_if_possible("how it ended")


def test_what_was_late_is_shown_when_it_is_taken_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads on finds what was said meanwhile, whole and in its order."""
    with stuck("pipe") as (reader, writer), heard_by(writer, monkeypatch):
        for number in range(3):
            print("line", number)
        threading.Timer(0.05, lambda: os.read(reader, 1 << 20)).start()
        assert say_if_possible("the end")
        assert os.read(reader, 1_000).decode() == "line 0\nline 1\nline 2\nthe end\n"


def test_a_reader_that_is_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as anything is taken, however little, nothing is given up."""
    monkeypatch.setattr(outlet, "LONGEST_SILENCE_S", 0.5)
    with stuck("pipe") as (reader, writer), heard_by(writer, monkeypatch):
        taken: list[bytes] = []

        def read() -> None:
            while not b"".join(taken[-2:]).endswith(b"end\n"):
                taken.append(os.read(reader, 8_192))
                time.sleep(0.05)

        thread = threading.Thread(target=read)
        thread.start()
        assert say_if_possible("a long word " * 5_000 + "end")
        thread.join()


def test_a_process_that_can_start_no_thread_prints_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of threads what is to be said is written on the spot."""
    reading, writing = os.pipe()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with os.fdopen(reading) as reader:
        with os.fdopen(writing, "w") as stream:
            made = Outlet(stream)
            made.put("one\n")
            made.put("two\n")
            made.end()
        assert reader.read() == "one\ntwo\n"


@pytest.mark.usefixtures("manifest")
def test_a_run_on_a_stuck_terminal_is_ended_by_two_signals(tmp_path: Path) -> None:
    """Ctrl-S, or a connection that has gone silent: the books are closed, the exit code comes, within seconds."""
    with stuck("terminal") as (_, writer):
        slow = ("--set", "provider.time_scale=10", *FAST[2:])
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "m.csv", *slow],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=writer,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            deadline_s = time.monotonic() + 60
            while '"submitted"' not in _log(tmp_path) and time.monotonic() < deadline_s:
                time.sleep(0.05)
            time.sleep(1.5)  # bars have been drawn, if anything could be
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            assert process.wait(15) == 130
        finally:
            process.kill()
            process.wait()
    assert '"run_ended"' in _log(tmp_path)


def _log(folder: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (folder / "outputs" / "m" / "run.log").read_text()
    return ""
