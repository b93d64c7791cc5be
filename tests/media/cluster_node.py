"""A scheduler or a worker of a foreign Dask cluster, as a process; says its address when it is there.

python cluster_node.py scheduler
python cluster_node.py worker tcp://127.0.0.1:4711
"""

from __future__ import annotations

import asyncio
import sys

import dask

dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []})

from distributed import Scheduler, Worker  # noqa: E402 - told before it is loaded


async def main(kind: str, *arguments: str) -> None:
    host = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    node = Scheduler(port=0, dashboard=False, **host) if kind == "scheduler" else Worker(*arguments, nthreads=2, **host)
    async with node:
        print(node.address, flush=True)
        await node.finished()


asyncio.run(main(*sys.argv[1:]))
