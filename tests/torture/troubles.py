"""What befalls a life at a chosen instant: it is killed, its wall clock is set, its machine is suspended.

A life that troubles can befall has two clocks: the provider's, which is the true one, and its own machine's, which
somebody may have set wrong. `Troubles` is a doom: it is handed to `World.live`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import worlds
from virtual_time import VirtualClock, VirtualLoop

from pipeline.ledger import segments
from pipeline.sandbox import wire
from pipeline.sandbox.core import Core

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEAR_S = 365.25 * DAY_S

EVENTS = (
    "submit_head", "submit_body", "submit_accepted", "submit_reply_sent", "poll_reply_sent", "result_reply_sent",
    "history_reply_sent", "file_first_bytes", "file_done",
)  # fmt: skip
"""Instants of the protocol, as the sandbox names them."""


class MachineClock:
    """The clock of the machine that a life runs on. `wrong_s` is how far its wall clock is ahead of the true one."""

    def __init__(self, true: VirtualClock, wrong_s: float) -> None:
        self.wrong_s = wrong_s
        self._true = true
        self._loop = asyncio.get_running_loop()
        self._slept_s = 0.0

    @property
    def true_s(self) -> float:
        """The true time, in seconds since the first life began. Any thread may ask."""
        return self._true.wall_offset_s + self._loop.time()

    def now_us(self) -> int:
        return self._true.now_us() + int(self.wrong_s * 1e6)

    def monotonic_s(self) -> float:
        return self._true.monotonic_s() + self._slept_s

    async def sleep(self, seconds: float) -> None:
        await self._true.sleep(seconds)

    def suspend(self, seconds: float) -> None:
        """Stand still while the rest of the world goes on: every clock moves, and no timer of this process has."""
        self._slept_s += seconds
        self._true.wall_offset_s += seconds


class Act(Protocol):
    """Something that happens to a life. Picklable."""

    @property
    def name(self) -> str:
        """What it is counted as."""
        ...

    def __call__(self, clock: MachineClock) -> None: ...


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""

    name: str = "kill"

    def __call__(self, _clock: MachineClock) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class SetClock:
    """Somebody sets the wall clock: from now on it is so far ahead of the true one."""

    wrong_s: float
    name: str = "clock set"

    def __call__(self, clock: MachineClock) -> None:
        clock.wrong_s = self.wrong_s


@dataclass(frozen=True, slots=True)
class Suspend:
    """The lid is closed, and opened again so many seconds later."""

    seconds: float
    name: str = "suspend"

    def __call__(self, clock: MachineClock) -> None:
        clock.suspend(self.seconds)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An act, and its instant: the `nth` time that `what` happens in this life.

    `what` is one of `EVENTS`, `append` for a segment of the ledger that has become durable, or `second`: then `nth` is
    a moment of virtual time.
    """

    what: str
    nth: float
    act: Act


@dataclass(frozen=True, slots=True)
class Troubles:
    """All that befalls one life. `note` is a file in which each act that happens is written down by its name.

    Attributes:
        wrong_s: how far the wall clock is ahead of the true one from the beginning.
        date_lie_s: how far the provider's `Date` headers are ahead of its own clock.
        disk_s: how long each piece of work of a thread takes in virtual time; a disk that takes none never lets two
            events into one commit.
    """

    note: Path
    wrong_s: float = 0.0
    date_lie_s: float = 0.0
    disk_s: float = 0.3
    troubles: tuple[Trouble, ...] = field(default_factory=tuple)

    def arm(self) -> None:
        """Arrange for all of it, in the process that is about to live."""
        run = worlds.run

        async def troubled(*arguments: Any, clock: VirtualClock, **options: Any) -> Any:
            mine = MachineClock(clock, self.wrong_s)
            self._watch(mine)
            return await run(*arguments, clock=mine, **options)

        worlds.run = troubled
        _slow_threads(self.disk_s)
        if self.date_lie_s:
            formatdate = wire.formatdate
            wire.formatdate = lambda now, **options: formatdate(now + self.date_lie_s, **options)

    def _watch(self, clock: MachineClock) -> None:
        happened: Counter[str] = Counter()

        def happen(what: str) -> None:
            happened[what] += 1
            for trouble in self.troubles:
                if trouble.what == what and trouble.nth == happened[what]:
                    befall(trouble)

        def befall(trouble: Trouble) -> None:
            self._write_down(trouble.act.name, clock)
            trouble.act(clock)

        if self.wrong_s:
            self._write_down("wrong clock", clock)
        if self.date_lie_s:
            self._write_down("lying Date", clock)

        for trouble in self.troubles:
            if trouble.what == "second":
                asyncio.get_running_loop().call_later(trouble.nth, befall, trouble)
        segments.write_segment = _then(segments.write_segment, lambda: happen("append"))
        tell = Core.event

        def event(core: Core, name: str, **facts: Any) -> None:
            tell(core, name, **facts)
            happen(name)

        Core.event = event  # type: ignore[method-assign]

    def _write_down(self, name: str, clock: MachineClock) -> None:
        with self.note.open("a") as file:
            file.write(f"{name}\t{clock.true_s}\n")


def unheard(_name: str, _facts: dict[str, Any]) -> None:
    """A hook for a sandbox: with one, it comes by every instant of the protocol, also by those after an answer."""


def what_happened(note: Path) -> Counter[str]:
    """How often each act has happened in a world, by its name."""
    return Counter(name for name, _ in _read(note))


def last_moment_s(note: Path) -> float:
    """When the latest act happened: a provider tells nobody how long it has lived when it is killed."""
    return max((moment_s for _, moment_s in _read(note)), default=0.0)


def _read(note: Path) -> list[tuple[str, float]]:
    lines = [line.split("\t") for line in note.read_text().splitlines()] if note.exists() else []
    return [(name, float(moment_s)) for name, moment_s in lines]


def _then(function: Callable[..., Any], afterwards: Callable[[], None]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        returned = function(*arguments)
        afterwards()
        return returned

    return both


def _slow_threads(seconds: float) -> None:
    """Let the work of every thread take so long in virtual time, after it is done and before anybody is told."""
    run_in_executor = VirtualLoop.run_in_executor

    def slow(loop: VirtualLoop, *arguments: Any) -> asyncio.Task[Any]:
        async def told_late() -> Any:
            returned = await working
            await asyncio.sleep(seconds)
            return returned

        working = run_in_executor(loop, *arguments)
        return loop.create_task(told_late())

    VirtualLoop.run_in_executor = slow  # type: ignore[assignment, method-assign]
