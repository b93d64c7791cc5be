"""A provider, a run directory and a wall clock that outlive the processes which die in them.

A *world* is a folder. Each *life* in it is a real process, forked from one that has everything imported: the real
client and the real sandbox talk over real sockets in one virtual-time loop, so a life of an hour takes a fraction of a
second and is the same each time. The sandbox writes down whatever it does before it tells anybody, so SIGKILL at any
instruction leaves what a kill of the client alone would leave; the next life goes on with both.

    world = make_world(folder, rows=3)
    world.live(doom=KillAt(...))     # a life that dies, or not; -9 is its death
    world.check_exposure()           # right after a kill: the durable ledger covers what the provider accepted
    world.live_on()                  # lives until nothing is left to do
    world.check_rest()               # at rest: books equal to the invoice, nothing bought twice, each file right
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from support import (
    FAST,
    KEY,
    check_books,
    check_liability,
    check_nothing_bought_twice,
    check_videos,
    fast_config,
    report_once,
)
from virtual_time import STARTED_US, VirtualClock, run_virtually

from pipeline.kernel.errors import KlingBatchError
from pipeline.manifest import Campaign, load_manifest
from pipeline.runner import reporting
from pipeline.runner.choice import RunOptions
from pipeline.runner.ending import RunResult
from pipeline.runner.running import run
from pipeline.sandbox import Sandbox, SandboxSettings

T = TypeVar("T")

BETWEEN_LIVES_S = 60.0
"""How much later the next life begins, unless it is told otherwise."""

KILLED = -9

_one_at_a_time = threading.Lock()
"""Starting a process also looks after all the others, and of two threads that read one's exit code, one reads 255."""

REAL_TIMES = {
    "limits.requests_per_minute": "3000",
    "polling.expected_s": "20",
    "polling.min_interval_s": "1",
    "polling.max_interval_s": "10",
    "retry.base_delay_s": "1",
    "retry.max_delay_s": "30",
    "timeouts.submit_s": "30",
    "timeouts.read_s": "30",
    "timeouts.download_s": "60",
    "in_doubt.settle_after_s": "300",
    "in_doubt.wait_s": "900",
}
"""A night with short generations; in virtual time waiting costs nothing."""


class Doom(Protocol):
    """What shall befall a life. Picklable: it is handed to the process, and armed there before anything begins."""

    def arm(self) -> None:
        """Arrange for it, in the process that is about to live."""
        ...


@dataclass(frozen=True, slots=True)
class Life:
    """One life, as it is handed to its process."""

    manifest: Path
    folder: Path
    provider: Mapping[str, Any]
    changes: Mapping[str, str]
    options: Mapping[str, Any]
    begins_s: float
    doom: Sequence[Doom] = ()


PORT_TRIES = 300


@dataclass(frozen=True, slots=True)
class Unreported:
    """No doom: a life that leaves out the report, which takes a third of its time, where nobody will read it."""

    def arm(self) -> None:
        for name in ("write_report", "renew_report"):
            setattr(reporting, name, lambda *_arguments, **_options: None)


async def _open(stack: contextlib.AsyncExitStack, settings: SandboxSettings) -> Sandbox:
    """The provider of a world, at its own port; another test may have that for a moment."""
    for _ in range(PORT_TRIES):
        try:
            return await stack.enter_async_context(Sandbox(settings))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(0.1)  # noqa: ASYNC251 - the clock of this loop is virtual, and that of the other test is not
    raise AssertionError(f"port {settings.port} is taken for good")


async def _alive(life: Life) -> tuple[RunResult, float]:
    clock = VirtualClock()
    clock.wall_offset_s = life.begins_s
    settings = SandboxSettings(**{**life.provider, "clock": clock.wall_s, "state_dir": life.folder / "provider"})
    async with contextlib.AsyncExitStack() as stack:
        provider = await _open(stack, settings)
        result = await run(
            load_manifest(life.manifest),
            fast_config(provider.url, **life.changes),
            life.folder / "run",
            key=KEY,
            options=RunOptions(**life.options),
            clock=clock,
        )
        return result, clock.wall_s() - STARTED_US / 1e6


def _live(life: Life) -> None:
    """The main function of a life's process. What ends a command with one sentence ends a life with it too."""
    report_once().start()
    for doom in life.doom:
        doom.arm()
    told: dict[str, Any]
    try:
        result, ended_s = run_virtually(_alive(life))
    except KlingBatchError as error:
        told = {"exit_code": error.exit_code, "summary": {"message": str(error)}}
    else:
        told = {"exit_code": result.exit_code, "summary": result.summary, "ended_s": ended_s}
    (life.folder / "result.json").write_text(json.dumps(told))


@functools.cache
def _nursery() -> multiprocessing.context.ForkServerContext:
    """Start the process that all lives are forked from; it imports `nursery` first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nursery"])
    before = os.environ.get("PYTHONPATH")
    # The fork server of Python 3.11 looks for what it imports first in its own path only.
    os.environ["PYTHONPATH"] = os.pathsep.join([path for path in sys.path if path] + ([before] if before else []))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    """A process that runs `target(*args)`; both must be picklable by name. Starts in a few milliseconds."""
    with _one_at_a_time:  # of two that start the nursery, one would find it half made
        process = _nursery().Process(target=target, args=args, daemon=True)
        process.start()
    return process


def exit_code(process: BaseProcess, at_most_s: float) -> int | None:
    """Wait for the end of a process that `fork` has started; None if it is not over by then. Signals are negative."""
    with _one_at_a_time:
        code = process.exitcode  # what has been read once can never be waited for again
    if code is None and connection.wait([process.sentinel], at_most_s):
        with _one_at_a_time:
            process.join()
            code = process.exitcode
    return code


async def end_of(process: BaseProcess, at_most_s: float = 120.0) -> int | None:
    """As `exit_code`, while this loop goes on: for who is the provider of that process."""
    return await asyncio.to_thread(exit_code, process, at_most_s)


def close_nursery() -> None:
    """End the process that lives are forked from, so that it does not outlive the tests."""
    if _nursery.cache_info().currsize:
        _nursery.cache_clear()
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


@dataclass(slots=True)
class World:
    """See the module. `provider` are settings of the sandbox, `changes` keys of the configuration (`a__b` for a.b)."""

    folder: Path
    manifest: Path
    provider: dict[str, Any]
    changes: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    now_s: float = 0.0
    """When the next life begins, in seconds since the first."""
    lives: int = 0

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    @property
    def campaign(self) -> Campaign:
        return load_manifest(self.manifest)

    @property
    def result(self) -> dict[str, Any]:
        """`exit_code` and `summary` of the latest life that came to an end."""
        read: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return read

    def life(self, doom: Sequence[Doom] = (), **provider: Any) -> Life:
        """The next life; `provider` are settings of the sandbox for this one only."""
        self.lives += 1
        return Life(
            self.manifest, self.folder, self.provider | provider, self.changes, self.options, self.now_s, tuple(doom)
        )

    def live(self, doom: Sequence[Doom] = (), *, at_most_s: float = 60.0, **provider: Any) -> int:
        """Live once; returns the exit code of the run, or -9 for a life that was killed.

        Raises:
            AssertionError: it crashed, or was not over after so many real seconds.
        """
        (self.folder / "result.json").unlink(missing_ok=True)
        process = fork(_live, self.life(doom, **provider))
        code = exit_code(process, at_most_s)
        if code is None:
            process.kill()
            process.join()
            raise AssertionError(f"a life was not over after {at_most_s:g} s")
        process.close()
        self.now_s = max(self.now_s, self._last_seen_s()) + BETWEEN_LIVES_S
        assert code in (0, KILLED), f"a life ended with {code}"
        return KILLED if code == KILLED else int(self.result["exit_code"])

    def _last_seen_s(self) -> float:
        """The latest moment of a life that anybody wrote down, in seconds since the first began."""
        if (self.folder / "result.json").exists() and "ended_s" in self.result:
            return float(self.result["ended_s"])
        journal = self.folder / "provider" / "journal.jsonl"
        if not journal.exists():
            return 0.0
        records = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        moments_s = [record.get(name) or 0.0 for record in records for name in ("at", "accepted_at", "ended_at")]
        # A life may have gone on long after the provider's last word: time must not run backwards to the next one.
        for newest in sorted((self.run_folder / "ledger").glob("*.parquet"))[-1:]:
            with contextlib.suppress(pa.ArrowException, OSError):
                moments = pq.read_table(newest, columns=["at"])["at"].cast(pa.int64()).to_pylist()
                moments_s.append(max(moments) / 1e6)
        return float(max(moments_s, default=0.0)) - STARTED_US / 1e6

    def live_on(
        self, doom: Sequence[Doom] = (), *, most: int = 12, until: tuple[int, ...] = (0, 1), **provider: Any
    ) -> int:
        """Live again and again, as a person would after each cure, until nothing is left to do; the last exit code.

        Without faults, if `provider` says nothing else.
        """
        for _ in range(most):
            code = self.live(doom, **({"faults": {}} | provider))
            if code in until:
                return code
        raise AssertionError(f"still not done after {most} more runs: {self.result['summary']}")

    def look(self) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
        """What the provider knows now: its accepted requests, its invoice, its counters."""

        async def ask() -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
            clock = VirtualClock()
            clock.wall_offset_s = self.now_s
            settings = self.provider | {"clock": clock.wall_s, "state_dir": self.folder / "provider"}
            async with Sandbox(SandboxSettings(**settings)) as provider:
                return provider.requests(), provider.invoice(), provider.state()

        return run_virtually(ask())

    def check_exposure(self) -> None:
        """Right after a kill: the durable ledger covers all that was accepted, and every final name is whole."""
        requests, _, _ = self.look()
        if (self.run_folder / "ledger").is_dir():
            check_liability(self.run_folder, requests)
        else:
            assert not requests, "something was accepted, and there is no ledger"
        check_final_names(self.run_folder, requests)

    def check_rest(self) -> None:
        """At rest: the books are the invoice, nothing was bought twice, every billed video is here and right."""
        requests, invoice, _ = self.look()
        check_liability(self.run_folder, requests)
        check_books(self.run_folder, invoice)
        check_nothing_bought_twice(self.campaign, invoice)
        check_videos(self.run_folder, requests)


def check_final_names(run_folder: Path, requests: Iterable[Mapping[str, Any]]) -> None:
    """At any instant: whatever has its final name is whole, and a video that the provider made."""
    known = {request["sha256"] for request in requests}
    videos = run_folder / "videos"
    for path in videos.iterdir() if videos.is_dir() else ():
        if not path.name.startswith("."):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest in known, f"{path.name} has its final name and is no video that the provider made"


def make_world(folder: Path, *, rows: int = 3, changes: Mapping[str, str] | None = None, **provider: Any) -> World:
    """A world with a campaign of `rows` rows, the first of them 10 s long. `provider` are settings of the sandbox."""
    folder.mkdir(parents=True)
    manifest = folder / "campaign.jsonl"
    lines = [{"id": f"row-{n}", "prompt": f"a film of {n} lamps", "duration": 10 if n == 0 else 5} for n in range(rows)]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"clips": "tiny", "mean_s": 20.0, "hang_s": 45.0, "port": free_port()} | provider
    times = {name.replace(".", "__"): value for name, value in (FAST | REAL_TIMES).items()}
    return World(folder, manifest, settings, times | dict(changes or {}))


def side_by_side(trial: Callable[[T], object], items: Iterable[T], hands: int = 2) -> None:
    """Make the trials of all `items`, `hands` at a time: each waits for processes, so both cores are used."""
    with ThreadPoolExecutor(hands) as pool:
        try:
            for done in [pool.submit(trial, item) for item in items]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def free_port() -> int:
    """A free port below those that the system hands out by itself, so that a world keeps its own over many lives."""
    for _ in range(100):
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def load_command_line() -> None:
    """Load every verb, which a process would else do for itself when it is called."""
    from pipeline.cli.app import VERBS, load_verb

    for name in VERBS:
        load_verb(name)


def warm() -> None:
    """Import what lives need, and draw the clips of every shape, before the first fork."""
    for name in ("pipeline.cli.lines", "pipeline.cli.progress", "pipeline.api.shield",
                 "pipeline.looking.tally", "pipeline.manifest.parts", "pipeline.planning", "pipeline.report.write",
                 "pipeline.runner.account", "pipeline.sandbox.server",
                 "pandas.core.arrays.arrow._arrow_utils", "pyarrow.pandas_compat",
                 "pandas.io.formats.csvs", "pandas.core.arrays.arrow.extension_types",
                 "encodings.utf_8_sig", "encodings.ascii", "pyarrow.vendored.version"):  # fmt: skip
        importlib.import_module(name)
    load_command_line()
    from pipeline.provider.secrecy import Eraser
    from pipeline.sandbox import studio
    from pipeline.sandbox.clips import tiny_clip

    for aspect in ("16:9", "9:16", "1:1"):
        for duration in (5, 10):
            studio._BASES["tiny", aspect, duration] = tiny_clip(aspect, duration)
    Eraser(KEY).strike_out(b"%")  # its pattern, once compiled, is found again by every life
