"""A cluster on this machine for one run: the scheduler in this process, the workers in processes of their own.

They are started as programs, not forked or spawned: a Python program that starts a run without a main guard would be
run again by each of its workers. Each has a session of its own, so a Ctrl-C on the terminal reaches the run alone, and
an environment without secrets. All speak TLS over loopback with a certificate of this run: a scheduler does whatever
it is told, and another user of this machine must not tell it anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from pipeline.kernel.errors import InputError
from pipeline.media.cluster.worker import LOOPBACK, SETTINGS

RESTARTS = 32
"""How many dead workers of one run are replaced."""

REFUSED_S = 5.0
"""The wait before a worker is started again that could not be started, in seconds."""

CLOSE_S = 5.0
"""Longest wait for the scheduler, or a connection to it, to close, in seconds."""

START_S = 60.0
"""Longest wait of a worker for the scheduler, in seconds."""

_PASSED_ON = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH"})
_PASSED_ON_BEGINNINGS = ("PYTHON", "LC_", "SSL_CERT_", "COVERAGE_")


class LocalCluster:
    """An async context manager. `address` and `security` are what a client needs."""

    def __init__(self, workers: int, downloads: int) -> None:
        """`downloads`: how many each worker has under way at once."""
        self._workers = workers
        self._downloads = downloads
        self._restarts_left = RESTARTS
        self._keepers: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self.address = ""
        self.security: Any = None

    async def __aenter__(self) -> Self:
        import dask
        from distributed import Scheduler, Security

        async with self._stack as stack:
            self._scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="kling-batch-"))
            try:
                self.security = Security.temporary()
            except ImportError:
                raise InputError("media.executor: dask on this machine needs the package cryptography") from None
            with dask.config.set(SETTINGS):
                scheduler = Scheduler(
                    host=LOOPBACK,
                    port=0,
                    protocol="tls",
                    security=self.security,
                    dashboard=False,
                    dashboard_address=f"{LOOPBACK}:0",
                )
                await scheduler
            stack.push_async_callback(close_soon, scheduler)
            self.address = scheduler.address
            stack.push_async_callback(self._end_workers)
            self._keepers = [asyncio.create_task(self._keep(number)) for number in range(self._workers)]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def is_dead(self) -> bool:
        """Whether no worker is left and none will come."""
        return all(keeper.done() for keeper in self._keepers)

    async def _keep(self, number: int) -> None:
        """Start a worker, and another whenever it dies."""
        while True:
            try:
                process = await self._start(number)
            except OSError:  # for now this machine has no memory for a process, or no number
                await asyncio.sleep(REFUSED_S)
            else:
                await _until_dead(process)
            if not self._restarts_left:
                return
            self._restarts_left -= 1

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pipeline.media.cluster.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
        )
        told = {
            "address": self.address,
            "name": f"{number}-{process.pid}",
            "downloads": self._downloads,
            "scratch": self._scratch,
            "death_timeout_s": START_S,
            "security": {
                "require_encryption": True,
                "tls_ca_file": self.security.tls_ca_file,
                "tls_worker_key": self.security.tls_worker_key,
                "tls_worker_cert": self.security.tls_worker_cert,
            },
        }
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it may have died already, which `_keep` sees
            process.stdin.write(json.dumps(told).encode() + b"\n")
            await process.stdin.drain()
        return process

    async def _end_workers(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.wait(self._keepers)


async def _until_dead(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a worker; if cancelled, end it."""
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _environment() -> dict[str, str]:
    """What a worker is given of this process's environment: where Python is, and nothing that could be a secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_BEGINNINGS)
    }


async def close_soon(scheduler_or_client: Any) -> None:
    """Close a scheduler, or a client's connection to one; what takes longer than `CLOSE_S` is left."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(CLOSE_S):
            await scheduler_or_client.close()


def silence() -> None:
    """Switch off the log of `distributed`: we say the same in our own words, and it can show a task's URL."""
    for name in ("distributed", *(name for name in logging.root.manager.loggerDict if name.startswith("distributed."))):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
