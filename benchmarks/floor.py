"""The composite floor: the least that the promise of a durable job costs with the same libraries.

For each job: an intent made durable, the POST, the submission made durable, status, result, a file hashed, flushed and
renamed, and the end made durable. Bare aiohttp; events of all jobs that wait share one parquet segment, flushed before
anyone goes on. No plan, no limits, no checks, no faults, no report: what a run adds to this is the product.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq

Event = tuple[str, str, str]
COLUMNS = ("job_id", "kind", "detail")


class GroupCommit:
    """Events become durable together: one segment for all that wait while the last one was written."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._folder, self._pool = folder, pool
        self._waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._number = 0

    async def record(self, event: Event) -> None:
        """Return when the event is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, done))
        self._wake.set()
        await done

    async def write(self) -> None:
        """Write segment after segment, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            self._number += 1
            path = self._folder / f"{self._number:09}.parquet"
            await loop.run_in_executor(self._pool, _write_segment, path, [event for event, _ in batch])
            for _, done in batch:
                done.set_result(None)


def _write_segment(path: Path, events: list[Event]) -> None:
    table = pa.table(dict(zip(COLUMNS, map(list, zip(*events, strict=True)), strict=True)))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    _write_durable(path, sink.getvalue())
    _flush_folder(path.parent)


def _write_durable(path: Path, data: bytes | pa.Buffer) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    part.rename(path)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _land(path: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    _write_durable(path, data)
    _flush_folder(path.parent)
    return digest


async def work(url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """Make `jobs` clips, `in_flight` at a time, each with its three durable events."""
    videos, segments = folder / "videos", folder / "ledger"
    videos.mkdir(parents=True)
    segments.mkdir()
    gc.set_threshold(50_000, 50, 100)
    loop = asyncio.get_running_loop()
    disk, ledger_disk = ThreadPoolExecutor(2), ThreadPoolExecutor(1)
    ledger = GroupCommit(segments, ledger_disk)
    writer = asyncio.create_task(ledger.write())
    numbers = iter(range(jobs))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def get(address: str) -> bytes:
            async with session.get(address) as response:
                return await response.read()

        async def worker() -> None:
            for number in numbers:
                job = f"job-{number}"
                await ledger.record((job, "intent", ""))
                body = {"prompt": f"a film of {number} lamps", "duration": 5}
                async with session.post(f"{url}/v2/kling-2", json=body) as response:
                    request = (await response.json())["request_id"]
                await ledger.record((job, "submitted", request))
                json.loads(await get(f"{url}/v2/requests/{request}/status"))
                result = json.loads(await get(f"{url}/v2/requests/{request}"))
                data = await get(result["output"])
                digest = await loop.run_in_executor(disk, _land, videos / f"{job}.mp4", data)
                await ledger.record((job, "done", digest))

        await asyncio.gather(*(worker() for _ in range(in_flight)))
    writer.cancel()
    disk.shutdown()
    ledger_disk.shutdown()
