"""What it costs to come back: `run`, `status`, `report` and `export` in a directory whose jobs are all stored.

Each command is a process of its own, start and imports included; `plan` of the same manifest stands beside
them, as a run expands it too. The directory is written by the real ledger, four events a job, and merged by it as
beside a run. Only `export` opens the videos, which are a few bytes each. Nothing is deleted between the commands.

    python -m benchmarks.resuming --rows 1000,100000,1000000
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.commands import Costs, measure_command
from pipeline.jobs import Job
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.store import open_ledger
from pipeline.manifest import load_manifest

COMMIT = 2_000
"""Events that are recorded at once."""
FEW_ROWS = 1_000
"""Up to so many rows a command takes little more than its start, which is short enough to be measured often."""
RUNS_OF_FEW = 9


def main() -> None:
    """Write a directory of each size, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,100000,1000000")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        manifest, directory = map(Path, arguments.prepare)
        jobs = [entry.job for entry in load_manifest(manifest).entries]
        asyncio.run(_store(directory, jobs))
        (directory / "videos").mkdir()
        for job in jobs:
            (directory / "videos" / f"{job.stem}.mp4").write_bytes(_video(job))
        return
    root = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"one run each, up to {FEW_ROWS:,} rows {RUNS_OF_FEW} in turns and medians; files in {root}")
    print(f"{'command':<9}{'rows':>10}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'ms more a row':>15}")
    before: dict[str, tuple[int, float]] = {}
    for rows in map(int, arguments.rows.split(",")):
        for name, (wall_s, cpu_s, peak_mib) in _measure(root / str(rows), rows).items():
            slope = ""
            if name in before:
                fewer, less_s = before[name]
                slope = f"{1000 * (cpu_s - less_s) / (rows - fewer):.4f}"
            before[name] = rows, cpu_s
            print(f"{name:<9}{rows:>10,}{wall_s:>9.2f}{cpu_s:>9.2f}{peak_mib:>10.0f}{slope:>15}", flush=True)


def _measure(folder: Path, rows: int) -> dict[str, Costs]:
    folder.mkdir()
    manifest, directory = folder / "rows.csv", folder / "run"
    lines = (f'r{n},"a stoneware mug on a windowsill, slow push in, take {n}"\n' for n in range(rows))
    manifest.write_text("id,prompt\n" + "".join(lines))
    # In a process of its own: a child's peak memory begins with its parent's.
    prepare = [sys.executable, "-m", "benchmarks.resuming", "--prepare", str(manifest), str(directory)]
    subprocess.run(prepare, check=True)
    run = ["run", str(manifest), "-o", str(directory), "--budget-usd", "100000000"]
    measure_command(*run)  # the first writes down whose directory this is
    commands = {
        "plan": ["plan", str(manifest), "--budget-usd", "100000000"],
        "run": run,
        "status": ["status", str(directory)],
        "report": ["report", str(directory)],
    }
    if rows <= FEW_ROWS:
        commands = {"--help": ["--help"]} | commands
    exported = ["export", str(directory), "--format", "parquet", "--to", str(folder / "exported")]
    turns = [
        {name: measure_command(*words) for name, words in commands.items()}
        for _ in range(RUNS_OF_FEW if rows <= FEW_ROWS else 1)
    ]
    costs = {
        name: Costs(*map(statistics.median, zip(*(turn[name] for turn in turns), strict=True))) for name in commands
    }
    return costs | {"export": measure_command(*exported)}


def _video(job: Job) -> bytes:
    return f"the video of {job.job_id}".encode()


async def _store(directory: Path, jobs: list[Job]) -> None:
    """Record a whole life for each job, as a run does."""
    with open_ledger(directory / "ledger") as ledger:
        for first in range(0, len(jobs), COMMIT // 4):
            lives = map(_life, jobs[first : first + COMMIT // 4])
            await ledger.record(*itertools.chain.from_iterable(lives))
        await ledger.close()


def _life(job: Job) -> list[Event]:
    """The four events of a job without any trouble."""
    name, request_id = job.job_id, f"request-{job.job_id}"
    url = f"https://segmind-inference-io.example/{request_id}/output.mp4?signature=0123456789abcdef"
    reserved = Event(event=EventKind.RESERVED, job_id=name, attempt=1, quote_microusd=1_750_000, model=job.model)
    later = {"job_id": name, "attempt": 1, "request_id": request_id}
    return [
        reserved._replace(request=job.body.decode(), path=f"videos/{job.stem}.mp4"),
        Event(event=EventKind.SUBMITTED, **later),
        Event(event=EventKind.POSTED, cost_microusd=1_750_000, url=url, queue_s=1.5, inference_s=315.5, **later),
        Event(
            event=EventKind.STORED,
            path=f"videos/{job.stem}.mp4",
            sha256=hashlib.sha256(_video(job)).hexdigest(),
            bytes=len(_video(job)),
            duration_s=5.0,
            width=1280,
            height=720,
            **later,
        ),
    ]


if __name__ == "__main__":
    main()
