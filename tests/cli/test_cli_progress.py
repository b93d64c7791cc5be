"""The progress of a run: on terminals of any width, in a log, and whatever else is written meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import FAST
from looking_doubles import NOW_US, QUOTE, Terminal

from pipeline.cli import progress
from pipeline.cli.progress import Progress, WholeLines, bar_line, fitting
from pipeline.engine.polling import Durations
from pipeline.engine.settings import Bounds, EngineSettings, Limits
from pipeline.engine.stopping import Stopping, StopReason
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.runner.watching import LiveRun

JOBS = tuple(f"job-{number}" for number in range(60))


class Night:
    """A run of 60 jobs, seen from its progress: what happens in it is told here."""

    def __init__(self) -> None:
        self.state, self.at_us, self.stopping = State(), NOW_US, Stopping()
        self.pace = SimpleNamespace(is_open=True, per_minute=50.0)
        self.slots = SimpleNamespace(in_flight=34)
        self.context: Any = SimpleNamespace(
            outages=SimpleNamespace(why_paused=""),
            ledger=SimpleNamespace(state=self.state),
            clock=SimpleNamespace(now_us=lambda: self.at_us),
            settings=EngineSettings(Bounds(cap=100_000_000), limits=Limits(max_in_flight=40)),
            polls=SimpleNamespace(durations=Durations(317.0)),
            pace=self.pace,
            slots=self.slots,
            stopping=self.stopping,
        )
        self.live = LiveRun(self.context, [], frozenset(JOBS), 0, to_start=60)

    def tell(self, shown: Progress, job: int, *kinds: str, later_s: float = 0.0) -> None:
        self.at_us += round(later_s * 1e6)
        facts: dict[str, dict[str, Any]] = {
            "reserved": {"quote_microusd": QUOTE},
            "submitted": {"request_id": f"req-{job}"},
            "posted": {"cost_microusd": QUOTE},
            "voided": {"error_class": "bad_request"},
        }
        for kind in kinds:
            event = Event(event=EventKind(kind), job_id=JOBS[job], attempt=1, **facts.get(kind, {}))
            event = event._replace(seq=self.state.last_seq + 1, at_us=self.at_us)
            self.state.apply(event)
            shown.event(event)


async def played(night: Night, shown: Progress, noise: Callable[[], object] = lambda: None) -> None:
    """The middle of a night: 40 in flight for four minutes, 5 of them stored and 1 failed since."""
    shown.started(night.live)
    await asyncio.sleep(0)
    for job in range(40):
        night.tell(shown, job, "reserved", "submitted")
    night.tell(shown, 0, "posted", "stored", later_s=240)
    noise()
    for job in range(1, 5):
        night.tell(shown, job, "posted", "stored")
    night.tell(shown, 5, "voided", "failed")
    noise()


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Iterator[int]:
    """Standard error as a terminal of so many columns; gives the end from which what is shown can be read."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    stream = os.fdopen(writer, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        yield reader
    finally:
        monkeypatch.undo()
        stream.close()
        os.close(reader)


def read(reader: int) -> str:
    os.set_blocking(reader, False)
    parts = []
    try:
        while part := os.read(reader, 65_536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts).decode()


async def test_a_terminal_that_does_not_tell_its_width_is_shown_as_much_as_a_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "REFRESH_INTERVAL_S", 0.001)
    shown_on = {}
    for columns in (0, 80):
        with terminal(monkeypatch, columns) as reader, Progress(shown=True) as shown:
            await played(Night(), shown)
            await asyncio.sleep(0.02)
            shown_on[columns] = [line.rstrip() for line in Terminal(80).feed(read(reader)).shown]
    assert "5/60 stored" in "".join(shown_on[0])
    assert shown_on[0] == shown_on[80]


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (
            80,
            [
                "10% |#            | 5/60 stored, 1 failed, about 10 min left, $8.75 of $100.00",
                "34 of 40 in flight, the oldest for 4 min (5 min is usual)",
            ],
        ),
        (40, ["5/60 stored, 1 failed, ~10 min, $8.75", "34 in flight, oldest 4 min, usual 5 min"]),
    ],
)
async def test_two_lines_that_fit(monkeypatch: pytest.MonkeyPatch, columns: int, lines: list[str]) -> None:
    """What is done and what is in flight, in as many words as there is room for; nothing wraps, nothing is coloured."""
    monkeypatch.setattr(progress, "REFRESH_INTERVAL_S", 0.001)
    night = Night()
    with terminal(monkeypatch, columns) as reader, Progress(shown=True) as shown:
        await played(night, shown)
        await asyncio.sleep(0.02)
        screen = Terminal(columns).feed(read(reader))
        assert not screen.has_wrapped
        assert [line.replace("█", "#").strip() for line in screen.shown] == lines
        shown.ended()
        assert screen.feed(read(reader)).shown == [], "it leaves nothing behind"


@pytest.mark.parametrize("columns", [None, 80])
async def test_what_was_found_at_the_opening_is_told_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int | None
) -> None:
    """In a sentence that moves no cursor, on a terminal above the lines that move."""
    found = dataclasses.replace(Night().live, notices=("another machine's place was taken: \x1b[2Jbox",))
    with (
        terminal(monkeypatch, columns) if columns else contextlib.nullcontext() as reader,
        Progress(shown=True) as shown,
    ):
        shown.started(found)
        shown.notice("credits: $5.00, too little")
        await asyncio.sleep(0)
        said = capsys.readouterr().err.splitlines() if reader is None else Terminal(80).feed(read(reader)).shown
    told = ["Note: another machine's place was taken: �[2Jbox.", "Note: credits: $5.00, too little."]
    assert [line.rstrip() for line in said[:2]] == told


async def test_what_others_write_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and half lines of whoever writes to standard error stand above the bars, each on its own line."""
    night, columns = Night(), 100

    def noise() -> None:
        logging.getLogger("some.library").warning("a library has something to say")
        sys.stderr.write("half a line, ")
        print("and its end \x1b[2J", file=sys.stderr)

    logging.getLogger("some.library").propagate = False
    monkeypatch.setattr(logging.getLogger("some.library"), "handlers", [logging.lastResort])
    with terminal(monkeypatch, columns) as reader:
        ours = sys.stderr
        with Progress(shown=True) as shown:
            await played(night, shown, noise)
            night.stopping.stop(StopReason.CAP, "the cap is reached")
            shown._tell_stop()
            sys.stderr.write("no end")
            screen = Terminal(columns).feed(read(reader))
        assert sys.stderr is ours
        after = Terminal(columns).feed(read(reader))
    once = ["a library has something to say", "half a line, and its end �[2J"]
    assert list(screen.shown[:-2]) == [
        *once, *once, "Stopping: the cap is reached. Ctrl-C leaves what runs to the next run."
    ]  # fmt: skip
    assert "in flight" in screen.shown[-1]
    assert "no end" in after.shown


async def test_a_log_has_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is one line now and then, with all that the bars say, and no escapes."""
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.01)
    night = Night()
    with Progress(shown=True) as shown:
        await played(night, shown)
        night.pace.is_open, night.context.outages.why_paused = False, "no connection"
        await asyncio.sleep(0.05)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        "6/60 done, 5/60 stored, 1 failed, about 10 min left, $8.75 of $100.00, "
        "34 of 40 in flight, the oldest for 4 min (5 min is usual), all calls wait: no connection"
    )


def test_what_a_run_waits_for_is_said() -> None:
    """Before the first end there is an estimate already; a lowered pace, a cap and what only the history knows show."""
    night, shown = Night(), Progress(shown=True)
    asyncio.run(started(night, shown))
    assert shown._left() == "about 15 min left", "60 jobs for 40 slots, and 8 starts a minute"
    for job in range(40):
        night.tell(shown, job, "reserved", "submitted")
    night.pace.per_minute = 25.0
    assert "slowed to 25 calls a minute" in shown._plain()
    assert "34 of 40 in flight" in shown._plain()
    assert ", 6 to collect" in shown._plain(), "what is done has left its slot and waits for its turn"
    night.tell(shown, 0, "posted")
    assert ", 1 to download" in shown._plain(), "it is paid, and its video is on its way, or comes later"
    night.stopping.stop(StopReason.LIMIT, "enough")
    assert shown._left() == "about 9 min left", "nothing new starts: only what runs is waited for"
    for job in range(1, 40):
        night.tell(shown, job, "in_doubt")
    assert shown._left() == "waiting for the account's history"
    assert "39 in doubt" in shown._plain()
    assert night.state.counts[JobState.IN_DOUBT] == 39


def test_downloads_that_are_left_are_no_hurry() -> None:
    """A storage that is out is waited for: that a run is nearly done would be more than is known."""
    night, shown = Night(), Progress(shown=True)
    asyncio.run(started(night, shown))
    night.stopping.stop(StopReason.LIMIT, "enough")
    assert shown._left() == "nearly done"
    night.tell(shown, 0, "reserved", "submitted", "posted")
    assert shown._left() == "downloading"


async def started(night: Night, shown: Progress) -> None:
    shown.started(night.live)
    shown.ended()


def test_no_line_is_too_long() -> None:
    """At every width; what is done is given up last, and there is a bar where all else has its room."""
    fields: list[tuple[str, ...]] = [
        ("59/60 stored",),
        ("1 failed",),
        ("about 3 h 05 min left", "~3 h 05 min", ""),
        ("$1.75 of $9.00", ""),
    ]
    for width in range(1, 130):
        line = bar_line(0.5, fields, width)
        assert len(line) <= width
        assert len(fitting(fields, width)) <= width
        assert "59/60 stored" in line or width < 23
        assert ("█" in line) == (width >= len("59/60 stored, 1 failed, about 3 h 05 min left, $1.75 of $9.00") + 16)


def test_whole_lines_only() -> None:
    """A stream that hands on lines as they are complete, and the rest when it is over."""
    told: list[str] = []
    stream = WholeLines(told.append)
    assert stream.write("a\nb") == 3
    stream.write("c\r\n\n")
    stream.write("d")
    assert told == ["a", "bc�", ""]
    stream.end()
    assert told[-1] == "d"


@pytest.mark.usefixtures("manifest")
def test_a_run_on_a_narrow_terminal(tmp_path: Any) -> None:
    """As a process on a terminal of 40 columns, with a Ctrl-C: nothing of the progress wraps or is torn."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    slow = ("--set", "provider.time_scale=100", *FAST[2:])
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "m.csv", *slow],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=writer,
    )
    os.close(writer)
    printed = ""
    try:
        while "2 of 40 in flight" not in printed and "2 in flight" not in printed:
            printed += os.read(reader, 65_536).decode()
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a terminal says that nobody is at its other end
            while True:
                printed += os.read(reader, 65_536).decode()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    assert "".join(Terminal(40).feed(printed).shown).startswith("Stopping: interrupted")
    pieces = [piece.split("\n")[0] for piece in printed.split("\r") if "stored" in piece or "in flight" in piece]
    assert max(map(len, pieces)) < 40
