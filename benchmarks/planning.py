"""How long a plan takes, and how much memory, by format and by the number of rows.

Each measurement is `kling-batch plan` in a process of its own on one core, start and imports included. The rows have an
id, a prompt of their own, three parameters and a variable. Nothing is deleted between them.

    python -m benchmarks.planning --rows 1000000 --runs 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.csv as csv
import pyarrow.parquet as pq

YAML_SHARE = 10
"""YAML is measured with so many times fewer rows: who has a million has a table."""

PROMPT = "a stoneware mug on a windowsill, rain running down the glass, slow push in, take"


def main() -> None:
    """Measure each format, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"{arguments.runs} runs each, medians (least to most); files in {folder}")
    print(f"{'format':<9}{'rows':>10}{'wall s':>9}{'CPU s':>9}{'ms/row':>9}{'peak MiB':>10}")
    for name, rows, write in (
        ("csv", arguments.rows, _write_csv),
        ("csv", arguments.rows // 10, _write_csv),
        ("parquet", arguments.rows, _write_parquet),
        ("jsonl", arguments.rows, _write_jsonl),
        ("yaml", arguments.rows // YAML_SHARE, _write_yaml),
    ):
        path = folder / f"rows-{rows}.{name}"
        write(path, rows)
        runs = [_plan(path) for _ in range(arguments.runs)]
        wall, cpu, peak = (statistics.median(run[at] for run in runs) for at in range(3))
        spread = f"({min(run[1] for run in runs):.1f} to {max(run[1] for run in runs):.1f})"
        print(f"{name:<9}{rows:>10,}{wall:>9.1f}{cpu:>9.1f}{1000 * cpu / rows:>9.3f}{peak:>10.0f}   {spread}")


def _plan(path: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MiB of one plan, on the first core."""
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "plan", str(path), "--budget-usd", "100"],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]),
    )
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"plan of {path} ended with {status}"
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _rows(rows: int) -> Iterator[tuple[str, str, int, str, str]]:
    for n in range(rows):
        yield f"r{n}", f"{PROMPT} {n}", 10 if n % 3 == 0 else 5, "9:16" if n % 2 else "16:9", f"p{n % 1000}"


NAMES = ("id", "prompt", "duration", "aspect_ratio", "product")


def _write(path: Path, head: str, rows: int, line: Callable[..., str]) -> None:
    with path.open("w") as file:
        file.write(head)
        file.writelines(line(*row) for row in _rows(rows))


def _write_csv(path: Path, rows: int) -> None:
    _write(path, ",".join(NAMES) + "\n", rows, '{},"{}",{},{},{}\n'.format)


def _write_parquet(path: Path, rows: int) -> None:
    table = path.with_suffix(".source")
    _write_csv(table, rows)
    pq.write_table(csv.read_csv(table), path)


def _write_jsonl(path: Path, rows: int) -> None:
    line = '{{"id": "{}", "prompt": "{}", "duration": {}, "aspect_ratio": "{}", "product": "{}"}}\n'
    _write(path, "", rows, line.format)


def _write_yaml(path: Path, rows: int) -> None:
    line = '  - id: {}\n    prompt: "{}"\n    duration: {}\n    aspect_ratio: "{}"\n    product: {}\n'
    _write(path, "rows:\n", rows, line.format)


if __name__ == "__main__":
    main()
