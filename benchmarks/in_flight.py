"""What a job in flight takes of memory: many are submitted, and none ever ends.

The memory of the process is read when the run is open and nothing is sent, and again when all jobs wait. Each number of
jobs has a process of its own, against a provider in another. The first jobs fill what is bounded, such as what the
ledger keeps to merge, so what one more job takes is the difference between two numbers of jobs. The memory of a process
includes what the allocator keeps; `--objects` counts the living objects of Python alone, after a garbage collection.

    python -m benchmarks.in_flight --jobs 100,1000,3000
    python -m benchmarks.in_flight --jobs 1000,3000 --objects
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks.whole_path import FLAGS, KEY

if TYPE_CHECKING:
    from pipeline.runner.watching import LiveRun

CALLS_PER_MINUTE = 12_000


def main() -> None:
    """Measure each number of jobs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="100,500,1000", help="numbers of jobs, the smallest first")
    parser.add_argument("--objects", action="store_true", help="count Python's objects instead of the process's memory")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        url, folder, jobs = arguments.one
        asyncio.run(_fill(url, Path(folder), int(jobs), _traced_kib if arguments.objects else _resident_kib))
    root = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"files in {root}")
    print(f"{'in flight':>10}{'open, MiB':>11}{'all wait, MiB':>15}{'KiB a job':>11}{'KiB one more':>14}")
    fewer, fewer_kib = 0, 0
    for jobs in map(int, arguments.jobs.split(",")):
        open_kib, all_kib = _one(root / str(jobs), jobs, ["--objects"] if arguments.objects else [])
        grown_kib = all_kib - open_kib
        one_more_kib = (grown_kib - fewer_kib) / (jobs - fewer)
        print(
            f"{jobs:>10,}{open_kib / 1024:>11.0f}{all_kib / 1024:>15.0f}{grown_kib / jobs:>11.1f}{one_more_kib:>14.1f}",
            flush=True,
        )
        fewer, fewer_kib = jobs, grown_kib


def _one(folder: Path, jobs: int, how: list[str]) -> tuple[int, int]:
    command = [sys.executable, "-m", "benchmarks.provider", "--waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        try:
            assert provider.stdout is not None
            url = provider.stdout.readline().strip()
            command = [sys.executable, "-m", "benchmarks.in_flight", *how, "--one", url, str(folder), str(jobs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            before_kib, after_kib = json.loads(done.stdout)
            return before_kib, after_kib
        finally:
            provider.terminate()


async def _fill(url: str, folder: Path, jobs: int, memory_kib: Callable[[], int]) -> NoReturn:
    """Print the memory before anything is sent, and once all jobs wait."""
    from pipeline.__main__ import make_ready

    make_ready()
    from pipeline.config import load_config
    from pipeline.engine import room
    from pipeline.ledger.job import JobState
    from pipeline.manifest import load_manifest
    from pipeline.runner.running import run
    from pipeline.runner.watching import Watcher

    class Observer(Watcher):
        live: LiveRun
        before_kib = 0

        def started(self, live: LiveRun) -> None:
            self.live = live
            self.before_kib = memory_kib()

    room.UNKNOWN_VIDEO_BYTES = 1  # no video comes: it needs no room on the disk
    manifest = folder.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps({"prompt": f"a film of {n} lamps"}) + "\n" for n in range(jobs)))
    flags = FLAGS | {f"provider.{name}_url": url for name in ("base", "storage", "history")}
    flags |= {"limits.max_in_flight": str(jobs), "limits.requests_per_minute": str(CALLS_PER_MINUTE)}
    flags |= {
        "limits.adaptive": "false",
        "polling.expected_s": "317",
        "polling.min_interval_s": "5",
        "polling.max_interval_s": "60",
    }
    config, observer = load_config(None, flags, [], environment={}), Observer()
    running = asyncio.create_task(run(load_manifest(manifest), config, folder, key=KEY, watcher=observer))
    while not observer.before_kib or observer.live.context.ledger.state.counts[JobState.SUBMITTED] < jobs:
        assert not running.done(), running.result().summary
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    print(json.dumps([observer.before_kib, memory_kib()]), flush=True)
    os._exit(0)  # a run that is asked to end would wait for what it has paid


def _traced_kib() -> int:
    """What the Python objects take that were made since the first call, which returns the little that tracing takes."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    gc.collect()
    return max(1, tracemalloc.get_traced_memory()[0] // 1024)


def _resident_kib() -> int:
    text = Path("/proc/self/statm").read_text().split()
    return int(text[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    main()
