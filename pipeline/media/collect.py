"""Bring one paid video home: the network on the event loop, the disk and the checks in a small pool of threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from pipeline.media.fetch import Connect, Fetcher, Meter, network_errors
from pipeline.media.landing import Deliver, Landing
from pipeline.media.results import Clip, Expectation, FetchFailed, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings

T = TypeVar("T")

BATCH = 2**20
"""Bytes gathered before a thread is asked to write them: a small clip costs one hop, a large one few."""


class _Body(NamedTuple):
    """A body that begins to arrive: its bytes, how many were announced, and the status that came before them."""

    chunks: AsyncIterable[bytes]
    content_length: int | None
    http_status: int | None


class Collector:
    """Downloads, verifies and stores videos. An async context manager; use it within one event loop.

    Each call makes one try and returns a `Clip` or a `Trouble`. It may be cancelled at any time: then the thread that
    works for it is waited for, and either the whole file has its final name or nothing of it is left. Connections that
    `connect` makes are not of the network, so no address is checked. `deliver` brings each video to a second place.
    """

    def __init__(
        self,
        fetch: FetchSettings,
        media: MediaSettings,
        connect: Connect | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._settings = fetch
        self._level = media.verify
        self._deliver = deliver
        self._fetcher = Fetcher(fetch, connect)
        self._pool = ThreadPoolExecutor(media.workers, thread_name_prefix="media")

    async def __aenter__(self) -> Self:
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._fetcher.__aexit__(kind, error, trace)
        finally:
            # Every call waits for its own thread, so the pool is idle by now.
            self._pool.shutdown()

    async def collect(self, url: str, video: Path, poster: Path, expectation: Expectation) -> Clip | Trouble:
        """Download `url` to `video`, and its first picture to `poster` where the level of verification has one.

        Raises:
            MachineError: this machine's disk failed; nothing is left behind.
        """
        return await self._store(self._fetched(url), video, poster, expectation)

    async def keep(
        self,
        chunks: AsyncIterator[bytes],
        content_length: int | None,
        video: Path,
        poster: Path,
        expectation: Expectation,
    ) -> Clip | Trouble:
        """Store a body that is already on its way here, exactly as `collect` does; the caller owns the connection.

        Raises:
            MachineError: this machine's disk failed; nothing is left behind.
        """
        body = _Body(chunks, content_length, None)  # the caller has its status
        return await self._store(contextlib.nullcontext(body), video, poster, expectation)

    @contextlib.asynccontextmanager
    async def _fetched(self, url: str) -> AsyncIterator[_Body]:
        async with self._fetcher.open(url) as response:
            yield _Body(response.content.iter_any(), response.content_length, response.status)

    async def _store(
        self, opening: AbstractAsyncContextManager[_Body], video: Path, poster: Path, expectation: Expectation
    ) -> Clip | Trouble:
        """Open a body, receive all of it within `download_s`, and store what came."""
        status: int | None = None
        with Landing(video, poster, expectation, self._level, self._deliver) as landing:
            try:
                with network_errors(self._settings):
                    async with asyncio.timeout(self._settings.download_s), opening as body:
                        status = body.http_status
                        rest = await self._receive(body.chunks, Meter(self._settings, body.content_length), landing)
            except FetchFailed as failure:
                return failure.as_trouble(status)
            return await self._in_thread(landing, lambda: landing.finish(rest, status))

    async def _receive(self, chunks: AsyncIterable[bytes], meter: Meter, landing: Landing) -> list[bytes]:
        """Read a body to its end, writing whole batches; returns what is not yet written."""
        now = asyncio.get_running_loop().time
        batch: list[bytes] = []
        held = 0
        asked_at = now()
        async for chunk in chunks:
            meter.count(len(chunk), now() - asked_at)
            batch.append(chunk)
            held += len(chunk)
            if held >= BATCH:
                full, batch, held = batch, [], 0
                await self._in_thread(landing, lambda full=full: landing.write(full))  # type: ignore[misc]
            asked_at = now()
        meter.end()
        return batch

    async def _in_thread(self, landing: Landing, work: Callable[[], T]) -> T:
        """Run `work` in the pool; if cancelled, tell the thread and wait until it has let go of the file."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            await asyncio.wait([future])  # which does not cancel the future when it is cancelled itself
        except asyncio.CancelledError:
            landing.abandon()
            await until_done(future)
            raise
        return future.result()


async def until_done(future: asyncio.Future[T]) -> None:
    """Wait for `future` whatever it brings, through any further cancellation: the caller is being cancelled already."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # looked at, so that the loop does not report it as forgotten
