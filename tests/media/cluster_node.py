"""A scheduler or a worker of a foreign Dask cluster, as a process; says its address when it is there.

python cluster_node.py scheduler
python cluster_node.py worker tcp://127.0.0.1:4711
python cluster_node.py astray tcp://127.0.0.1:4711   a worker that sees another folder under the same path
python cluster_node.py mute tcp://127.0.0.1:4711     a worker that stands still as soon as it is asked something
"""

from __future__ import annotations

import asyncio
import sys
import time

import dask

dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []})

from distributed import Scheduler, Worker  # noqa: E402 - told before it is loaded

from pipeline.kernel.files import discard  # noqa: E402
from pipeline.media import Clip  # noqa: E402
from pipeline.media.cluster import task  # noqa: E402

download = task.download


async def to_another_folder(order: task.Order) -> task.Brought:
    """What it says of it is true, and nothing of it is where the run looks."""
    brought = await download(order)
    if isinstance(brought.outcome, Clip):
        discard(brought.outcome.path)
    return brought


def misbehave(kind: str) -> None:
    if kind == "astray":
        task.sees = lambda _path: False
        task.download = to_another_folder
    elif kind == "mute":
        task.sees = lambda _path: time.sleep(3600)


async def main(kind: str, *arguments: str) -> None:
    host = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    misbehave(kind)
    node = Scheduler(port=0, dashboard=False, **host) if kind == "scheduler" else Worker(*arguments, nthreads=2, **host)
    async with node:
        print(node.address, flush=True)
        await node.finished()


asyncio.run(main(*sys.argv[1:]))
