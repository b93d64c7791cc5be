"""What a ledger of many events costs: to write it in group commits, and to open it again.

python -m benchmarks.ledger --events 100000,1000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMIT = 50


def main() -> None:
    """Measure each size in processes of their own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", default="10000,100000,1000000")
    parser.add_argument("--quick", action="store_true", help="write without flushing: only the opening is measured")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, folder, events = arguments.one
        print(json.dumps(MEASURED[what](Path(folder), int(events))))
        return
    root = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"commits of {COMMIT} events; files in {root}")
    print(
        f"{'events':>10}{'written, s':>12}{'most files':>12}{'longest commit, ms':>20}"
        f"{'opened, s':>11}{'CPU s':>8}{'peak MiB':>10}"
    )
    for events in map(int, arguments.events.split(",")):
        folder = root / str(events) / "ledger"
        wrote, opened = _one("fill" if arguments.quick else "write", folder, events), _one("open", folder, events)
        print(
            f"{events:>10}{wrote['wall_s']:>12.1f}{wrote['files']:>12.0f}{wrote['longest_ms']:>20.0f}"
            f"{opened['wall_s']:>11.2f}{opened['cpu_s']:>8.2f}{opened['peak_mib']:>10.0f}",
            flush=True,
        )


def _one(what: str, folder: Path, events: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.ledger", "--one", what, str(folder), str(events)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _fill(folder: Path, events: int) -> dict[str, float]:
    return _write(folder, events, durable=False)


def _write(folder: Path, events: int, *, durable: bool = True) -> dict[str, float]:
    from pipeline.ledger.events import Event, EventKind
    from pipeline.ledger.store import open_ledger

    kinds = (EventKind.RESERVED, EventKind.SUBMITTED, EventKind.POSTED, EventKind.STORED)

    def make(job: int, kind: EventKind) -> Event:
        facts = {
            EventKind.RESERVED: {"quote_microusd": 1_750_000, "model": "kling-2", "request": f'{{"prompt":"{job}"}}'},
            EventKind.SUBMITTED: {"request_id": f"request-{job}"},
            EventKind.POSTED: {"request_id": f"request-{job}", "cost_microusd": 1_750_000},
            EventKind.STORED: {"request_id": f"request-{job}", "path": f"videos/{job}.mp4", "bytes": 65536},
        }
        return Event(event=kind, job_id=f"k1-{job:024x}", attempt=1, **facts[kind])  # type: ignore[arg-type]

    async def write() -> dict[str, float]:
        most, longest_s, began_s = 0, 0.0, time.perf_counter()
        with open_ledger(folder, durable=durable) as ledger:
            for first in range(0, events // len(kinds), COMMIT):
                jobs = range(first, min(first + COMMIT, events // len(kinds)))
                for kind in kinds:
                    commit_s = time.perf_counter()
                    await ledger.record(*(make(job, kind) for job in jobs))
                    longest_s = max(longest_s, time.perf_counter() - commit_s)
                most = max(most, len(os.listdir(folder)))
            wall_s = time.perf_counter() - began_s
            await ledger.close()
        return {"wall_s": wall_s, "files": most, "longest_ms": 1000 * longest_s}

    return asyncio.run(write())


def _open(folder: Path, events: int) -> dict[str, float]:
    from pipeline.__main__ import make_ready

    make_ready()
    from pipeline.ledger.store import open_ledger

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with open_ledger(folder) as ledger:
        assert ledger.state.last_seq == events, ledger.state.last_seq
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": peak_mib}


MEASURED = {"write": _write, "fill": _fill, "open": _open}


if __name__ == "__main__":
    main()
