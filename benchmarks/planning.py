"""How long a plan takes, and how much memory, by format and by the number of rows.

Each measurement is `kling-batch plan` in a process of its own, start and imports included. The rows have an
id, a prompt of their own, three parameters and a variable. Nothing is deleted between them.

    python -m benchmarks.planning --rows 1000000 --runs 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.csv as csv
import pyarrow.parquet as pq

from benchmarks.commands import Costs, measure_command

YAML_SHARE = 10
"""YAML is measured with this many times fewer rows: a million rows come as a table."""

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
        runs = [measure_command("plan", str(path), "--budget-usd", "100") for _ in range(arguments.runs)]
        median = Costs(*map(statistics.median, zip(*runs, strict=True)))
        spread = f"({min(run.cpu_s for run in runs):.1f} to {max(run.cpu_s for run in runs):.1f})"
        ms_per_row = 1000 * median.cpu_s / rows
        print(
            f"{name:<9}{rows:>10,}{median.wall_s:>9.1f}{median.cpu_s:>9.1f}{ms_per_row:>9.3f}{median.peak_mib:>10.0f}"
            f"   {spread}",
            flush=True,
        )


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
