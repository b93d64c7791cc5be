"""How fast this machine is at this moment, beside the machine that the goals are for.

Virtual machines drift: the same work takes twice as long an hour later. These are small pieces of well-known work, of
Python, of Arrow and of hashing, whose times on the other machine are known. The seconds of a benchmark mean little
without them. The work is alike, but not the same code: the ratio says how fast this hour is, and no more.

    python -m benchmarks.yardsticks
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

EVENTS = 1_000_000
RUNS = 5
COLUMNS = ["job_id", "event", "cost"]


def main() -> None:
    """Measure each, and print a table."""
    print(f"{'':<52}{'s here':>8}{'s there':>9}{'ratio':>7}   of {RUNS} runs, medians (least to most)")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    path = Path(tempfile.mkdtemp(prefix="kling-batch-bench-")) / "events.parquet"
    pq.write_table(_events(), path)
    for name, there_s, work in (
        ("a million events read and grouped by Arrow", 0.15, lambda: _group(path)),
        ("the same into lists, and into a dictionary", 0.33, lambda: _fold(path)),
        ("a million sets of parameters to JSON and hashed", 0.73, _hash),
    ):
        times_s = [_time(work) for _ in range(RUNS)]
        here_s = statistics.median(times_s)
        spread = f"({min(times_s):.2f} to {max(times_s):.2f})"
        print(f"{name:<52}{here_s:>8.2f}{there_s:>9.2f}{here_s / there_s:>7.1f}   {spread}", flush=True)


def _time(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _events() -> pa.Table:
    return pa.table(
        {
            "job_id": [f"job-{number // 4:07d}" for number in range(EVENTS)],
            "event": ["reserved", "submitted", "posted", "stored"] * (EVENTS // 4),
            "cost": list(range(EVENTS)),
        }
    )


def _group(path: Path) -> pa.Table:
    return pq.read_table(path, columns=COLUMNS).group_by("job_id").aggregate([("cost", "sum")])


def _fold(path: Path) -> dict[str, tuple[str, int]]:
    table = pq.read_table(path, columns=COLUMNS)
    jobs, events, costs = (table[name].to_pylist() for name in COLUMNS)
    return {job_id: (event, cost) for job_id, event, cost in zip(jobs, events, costs, strict=True)}


def _hash() -> None:
    for number in range(EVENTS):
        parameters = {"prompt": f"a red fox, take {number}", "duration": 5, "cfg_scale": 0.5, "aspect_ratio": "16:9"}
        hashlib.sha256(orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS)).digest()


if __name__ == "__main__":
    main()
