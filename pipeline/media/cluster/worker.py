"""A worker process on this machine: `python -m pipeline.media.cluster.worker`, as `local` starts it.

A line of JSON on its standard input says where the scheduler is and has the certificate, so that no secret shows among
the arguments of processes. When that input ends, the process that started the worker is dead, and it ends at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any

LOOPBACK = "127.0.0.1"

SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.http.routes": [],
    "distributed.scheduler.http.routes": [],
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""What neither scheduler nor workers need here: no profiles, and no pages of their own."""


def main() -> None:
    """Work until the input ends, or the scheduler does."""
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(_work(told))


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1024):
        pass
    os._exit(0)  # its files are temporary, and what it was doing is done again by the next run


async def _work(told: dict[str, Any]) -> None:
    import dask

    dask.config.set(SETTINGS)
    from distributed import Security, Worker

    worker = Worker(
        told["address"],
        nthreads=told["downloads"],
        name=told["name"],
        security=Security(**told["security"]),
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        local_directory=told["scratch"],
        memory_limit=0,
        death_timeout=told["death_timeout_s"],
    )
    async with worker:
        await worker.finished()


if __name__ == "__main__":
    main()
