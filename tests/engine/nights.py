"""A provider and a run directory in virtual time: what the tests of whole nights share.

Client and provider are joined as in a rehearsal, whose wire is held against a real one by `tests/rehearse`: polls are
what most of a night consists of, and sockets what most of a poll costs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from support import (
    check_books,
    check_liability,
    check_nothing_bought_twice,
    check_videos,
    fast_config,
    read_once,
    report_once,
)
from virtual_time import VirtualClock, run_virtually

from pipeline.config import Config
from pipeline.ledger.events import Event
from pipeline.manifest import Campaign
from pipeline.provider.client import Client
from pipeline.rehearsal.wire import MemoryConnector
from pipeline.runner import running
from pipeline.runner.choice import RunOptions
from pipeline.runner.ending import RunResult
from pipeline.runner.opening import OpenProvider
from pipeline.runner.running import run
from pipeline.runner.watching import LiveRun, Watcher
from pipeline.sandbox import Sandbox, SandboxSettings

T = TypeVar("T")

KEY = "SG_0123456789abcdef"

REAL = {
    "limits.requests_per_minute": "50",
    "limits.max_in_flight": "40",
    "polling.expected_s": "317",
    "polling.min_interval_s": "2",
    "polling.max_interval_s": "30",
    "retry.base_delay_s": "2",
    "retry.max_delay_s": "120",
    "timeouts.submit_s": "60",
    "timeouts.read_s": "60",
    "timeouts.download_s": "600",
    "in_doubt.settle_after_s": "7200",
    "in_doubt.wait_s": "300",
    "stop.failure_rate": "0.5",
    "stop.failure_window": "20",
}
"""The defaults of a live run: what the fast configuration of the system tests has shortened."""


def play(main: Coroutine[Any, Any, T]) -> T:
    """Run it in virtual time and without threads, which a night then never waits for: it is the same each time."""
    return run_virtually(main, threads=False)


class Night:
    """A provider and a run directory in virtual time."""

    def __init__(self, folder: Path, **provider: Any) -> None:
        self.clock = VirtualClock()
        self.folder = folder / "run"
        self.key = KEY
        usual = {"clips": "tiny", "hang_s": 90, "clock": self.clock.wall_s, "port": None}
        self._settings = SandboxSettings(**(usual | provider))

    async def __aenter__(self) -> Night:
        self.provider = await Sandbox(self._settings).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.__aexit__(None, None, None)

    def config(self, **changes: str) -> Config:
        return fast_config(
            self.provider.url, **({key.replace(".", "__"): value for key, value in REAL.items()} | changes)
        )

    async def run(
        self,
        made: Campaign,
        config: Config | None = None,
        watcher: Watcher | None = None,
        webhook: str | None = None,
        **options: Any,
    ) -> RunResult:
        with report_once(), patch.object(running, "open_provider", self.open_provider):
            return await run(
                made,
                config or self.config(),
                self.folder,
                key=self.key,
                options=RunOptions(**options),
                watcher=watcher,
                clock=self.clock,
                webhook=webhook,
            )

    def connect(self, **how: Any) -> MemoryConnector:
        """A connector whose connections all end at this night's provider."""
        return MemoryConnector(self.provider.connection, **how)

    @contextlib.asynccontextmanager
    async def open_provider(
        self, config: Config, _folder: Path, key: str, clock: VirtualClock, **_: object
    ) -> AsyncIterator[OpenProvider]:
        """In place of the pipeline's own: a client that is joined to this night's provider."""
        settings = config.provider_settings()
        async with Client(settings, key, clock, self.connect) as client:
            yield OpenProvider(client, key, settings.is_loopback, None, self.connect)

    def posts(self) -> int:
        return int(self.provider.state()["submissions"])

    def check(self, made: Campaign) -> None:
        """The scorecard of every night: covered, explained, nothing twice, every video right."""
        with read_once():
            check_liability(self.folder, self.provider.requests())
            check_books(self.folder, self.provider.invoice())
            check_nothing_bought_twice(made, self.provider.invoice())
            check_videos(self.folder, self.provider.requests())


class AtStart(Watcher):
    """Does something with a run as it starts, and with each event."""

    def __init__(
        self,
        started: Callable[[LiveRun], None] = lambda _live: None,
        event: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._started = started
        self._event = event

    def started(self, live: LiveRun) -> None:
        self._started(live)

    def event(self, event: Event) -> None:
        self._event(event)


def now_s() -> float:
    return asyncio.get_running_loop().time()
