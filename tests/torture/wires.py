"""A provider in this process and clients in processes of their own, in real time: it decides what befalls them.

The clients are real command lines (`kling-batch run …`), forked with everything imported. The provider is a sandbox
whose hook stands still while it acts, so what befalls a client at an instant of the protocol does so exactly there.

    async with Wire(folder) as wire:
        code, said = await wire.run(At("submit_accepted", 2, Client.end))
        wire.check_covered()
        code, said = await wire.run()
        wire.check_rest()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import (
    FAST,
    KEY,
    check_books,
    check_liability,
    check_nothing_bought_twice,
    check_videos,
    quick_provider,
)
from support import campaign as make_campaign
from worlds import Unreported, check_final_names, exit_code, fork

from pipeline.manifest import Campaign
from pipeline.sandbox import Sandbox

AT_MOST_S = 60.0
"""No client takes longer, however busy the machine is."""


SMALL_BATCH = 256
"""Bytes of a video that are written at a time."""


def command(arguments: Sequence[str], said: Path) -> None:
    """The main function of a client's process: the command line, with all that it says in one file."""
    from pipeline.cli import main
    from pipeline.media import collect

    # The clips here are small: written in one piece, none would ever be half on the disk.
    collect.BATCH = SMALL_BATCH
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["SEGMIND_API_KEY"] = KEY
    sys.argv = ["kling-batch", *arguments]
    main()


def command_without_report(arguments: Sequence[str], said: Path) -> None:
    """The same for a client whose report nobody will read."""
    Unreported().arm()
    command(arguments, said)


@dataclass(slots=True)
class Client:
    """One process that runs the command line. `said` is the file that its output goes to."""

    process: BaseProcess
    said: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def output(self) -> str:
        return self.said.read_text()

    def signal(self, number: int) -> None:
        """Send a signal, and return when the process has taken it: two of a kind must not melt into one."""
        os.kill(self.pid, number)
        while _is_pending(self.pid, number):
            os.sched_yield()

    async def over(self, at_most_s: float = AT_MOST_S) -> int:
        """Wait until it is over; its exit code."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self.process.sentinel, gone.set)
        try:
            async with asyncio.timeout(at_most_s):
                await gone.wait()
        except TimeoutError:
            raise AssertionError(f"a client was not over after {at_most_s:g} s: {self.output}") from None
        finally:
            loop.remove_reader(self.process.sentinel)
        return self.over_soon()

    def over_in_s(self) -> float:
        """Stand still until it is over; how long it took, less the time for which it stood in line for a core."""
        began_s, in_line_s = time.monotonic(), 0.0
        before_s = self._in_line_s()
        while exit_code(self.process, 0.02) is None:
            in_line_s = max(in_line_s, self._in_line_s() - before_s)
            assert time.monotonic() < began_s + AT_MOST_S, f"not over after {AT_MOST_S:g} s: {self.output}"
        return time.monotonic() - began_s - in_line_s

    def _in_line_s(self) -> float:
        """For how long its threads that live now were ready to run and had no core."""
        waited_ns = 0
        for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                waited_ns += int(path.read_text().split()[1])
        return waited_ns / 1e9

    def end(self) -> None:
        """Kill it, if it is not over; returns when it is no more."""
        if exit_code(self.process, 0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.over_soon()

    def over_soon(self) -> int:
        """Stand still until it is over; its exit code."""
        code = exit_code(self.process, AT_MOST_S)
        assert code is not None, f"a client was not over after {AT_MOST_S:g} s: {self.output}"
        return code


def _is_pending(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:")).split()[1]
    return bool(int(pending, 16) >> (number - 1) & 1)


@dataclass(frozen=True, slots=True)
class At:
    """What shall befall the client at the `nth` occurrence of an instant."""

    instant: str
    nth: int
    befall: Callable[[Client], None]


def trouble_for(instant: str) -> dict[str, Any]:
    """What the provider must do wrong so that an instant comes, and means something when it comes.

    Only doubt makes a client sweep the history; and only a slow download is half on the disk when half of it was sent.
    """
    if instant.startswith("history"):
        faults = ("submit_504_after", "submit_504_before")
        return {"faults": dict.fromkeys(faults, 0.5), "fault_limit": dict.fromkeys(faults, 2)}
    if instant.startswith("file"):
        return {"faults": {"file_slow": 1.0}, "file_slow_s": 0.4}
    return {}


@dataclass(slots=True)
class Wire:
    """See the module. `provider` are settings of the sandbox, `changes` keys of the configuration (`a.b`)."""

    folder: Path
    rows: int = 3
    provider: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    campaign: Campaign = field(init=False)
    sandbox: Sandbox = field(init=False)
    _fate: At | None = None
    _seen: int = 0
    _open: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: list[Client] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._quiet.set()
        self.campaign = make_campaign(self.folder, self.rows, ten_seconds=1)
        settings = quick_provider(**({"mean_s": 0.05, "on_event": self._hear} | self.provider))
        self.sandbox = await Sandbox(settings).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.end()
        await self.sandbox.__aexit__(kind, error, trace)
        if error is None:
            shutil.rmtree(self.folder)  # thousands of them would fill the disk

    def _hear(self, instant: str, _facts: dict[str, Any]) -> None:
        self._open += (instant == "connected") - (instant == "disconnected")
        if self._open:
            self._quiet.clear()
        else:
            self._quiet.set()
        fate = self._fate
        if fate is None or instant != fate.instant:
            return
        self._seen += 1
        if self._seen == fate.nth:
            self._fate = None
            fate.befall(self._clients[-1])

    def start(self, *more: str, target: Callable[..., None] = command) -> Client:
        """Start a client on the run directory, with `more` flags. `target` is the main function of its process."""
        urls = {f"provider.{name}_url": self.sandbox.url for name in ("base", "storage", "history")}
        settings = FAST | urls | self.changes
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        arguments = ["run", str(self.campaign.source), "--out", str(self.run_folder), "--yes", *flags, *more]
        said = self.folder / f"said-{len(list(self.folder.glob('said-*')))}"
        said.touch()
        self._clients.append(Client(fork(target, arguments, said), said))
        return self._clients[-1]

    async def run(self, fate: At | None = None, target: Callable[..., None] = command) -> tuple[int, str]:
        """Run a client to its end, or to its fate; exit code and output. -9 is the code of one that was killed."""
        self._seen = 0
        self._fate = fate
        client = self.start(target=target)
        code = await client.over()
        # What the dead have said is still taken in: it lies in the sockets.
        await self._quiet.wait()
        return code, client.output

    @property
    def fate_came(self) -> bool:
        """Whether the instant of the latest fate was reached."""
        return self._fate is None

    def check_covered(self) -> None:
        """The durable ledger covers all that the provider has accepted by now, and every final name is whole."""
        accepted = self.sandbox.requests()
        if (self.run_folder / "ledger").is_dir():
            check_liability(self.run_folder, accepted)
        else:
            assert not accepted, "something was accepted, and there is no ledger"
        check_final_names(self.run_folder, accepted)

    def check_rest(self) -> None:
        """At rest: the books are the invoice, nothing was bought twice, every billed video is here and right."""
        requests, invoice = self.sandbox.requests(), self.sandbox.invoice()
        check_liability(self.run_folder, requests)
        check_books(self.run_folder, invoice)
        check_nothing_bought_twice(self.campaign, invoice)
        check_videos(self.run_folder, requests)
