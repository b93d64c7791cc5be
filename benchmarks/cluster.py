"""What a Dask cluster on this machine costs and brings: the whole path at `frames`, by threads or by worker processes.

Every measurement is a process of its own, in turns, on all cores; the provider, which answers at once, shares them.

    python -m benchmarks.cluster --jobs 1000 --runs 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.whole_path import FLAGS, KEY, Measured

WAYS = {
    "2 threads": {"media.workers": "2"},
    "dask, 1 worker": {"media.executor": "dask", "media.workers": "1"},
    "dask, 2 workers": {"media.executor": "dask", "media.workers": "2"},
}


def main() -> None:
    """Measure each way in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--level", default="frames", help="the level of media.verify")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.level, arguments.jobs)))
        return
    folder = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    runs: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(arguments.runs):
        for way in WAYS:
            runs[way].append(_one(way, folder / f"{number}-{way}", arguments.level, arguments.jobs))
    print(f"{arguments.jobs} jobs at {arguments.level}, {arguments.runs} runs each in turns; medians (least to most)")
    print(f"{'':<17}{'jobs/s':>8}{'CPU ms/job, run':>17}{'workers':>9}{'start and end s':>17}")
    for way, made in runs.items():
        rate, cpu, theirs, around = (
            statistics.median(each[key] for each in made)
            for key in ("jobs_per_s", "cpu_ms_per_job", "workers_ms_per_job", "around_s")
        )
        rates = [each["jobs_per_s"] for each in made]
        print(
            f"{way:<17}{rate:>8.0f}{cpu:>17.1f}{theirs:>9.1f}{around:>17.1f}   ({min(rates):.0f} to {max(rates):.0f})"
        )


def _one(way: str, folder: Path, level: str, jobs: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.provider", "--clip-kib", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        try:
            assert provider.stdout is not None
            url = provider.stdout.readline().strip()
            options = ["--level", level, "--jobs", str(jobs), "--one", way, str(folder), url]
            command = [sys.executable, "-m", "benchmarks.cluster", *options]
            return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
        finally:
            provider.terminate()


def measure(way: str, folder: str, url: str, level: str, jobs: int) -> Measured:
    """Measure one way in this process.

    Rate and CPU of the run are those of the jobs alone; what starting and ending take is told apart. The CPU of workers
    is that of their whole lives.
    """
    from pipeline.config import load_config
    from pipeline.manifest import load_manifest
    from pipeline.runner.running import run
    from pipeline.runner.watching import LiveRun, Watcher

    class Times(Watcher):
        began_s = ended_s = began_cpu_s = ended_cpu_s = 0.0

        def started(self, _live: LiveRun) -> None:
            self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()

        def ended(self) -> None:
            self.ended_s, self.ended_cpu_s = time.perf_counter(), time.process_time()

    manifest = Path(folder).with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps({"prompt": f"a film of {n} lamps"}) + "\n" for n in range(jobs)))
    flags = FLAGS | {f"provider.{name}_url": url for name in ("base", "storage", "history")} | WAYS[way]
    flags |= {"media.verify": level, "limits.max_in_flight": "100"}
    config, campaign, times = load_config(None, flags, [], environment={}), load_manifest(manifest), Times()
    began_s = time.perf_counter()
    result = asyncio.run(run(campaign, config, Path(folder), key=KEY, watcher=times))
    wall_s = time.perf_counter() - began_s
    assert result.exit_code == 0, result.summary
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    made_s = times.ended_s - times.began_s
    return {
        "jobs_per_s": jobs / made_s,
        "cpu_ms_per_job": 1000 * (times.ended_cpu_s - times.began_cpu_s) / jobs,
        "workers_ms_per_job": 1000 * (theirs.ru_utime + theirs.ru_stime) / jobs,
        "around_s": wall_s - made_s,
    }


if __name__ == "__main__":
    main()
