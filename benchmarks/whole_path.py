"""How many jobs a second go the whole way: four calls, four ledger events, a file hashed, checked and flushed.

The client runs on one core, a sandbox process that answers at once on another. Each measurement is a process of its
own, so that memory and CPU are its own; nothing is deleted between them.

    python -m benchmarks.whole_path --jobs 3000 --runs 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEY = "SG_0123456789abcdef"

FLAGS = {
    "provider.kind": "segmind",
    "budget.cap_usd": "10000000",
    "limits.requests_per_minute": "10000000",
    "polling.expected_s": "0.001",
    "polling.min_interval_s": "0.001",
    "polling.max_interval_s": "0.01",
}


def main() -> None:
    """Measure each level of verification, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asyncio.run(_measure(**json.loads(arguments.one)))))
        return
    cores = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"{arguments.jobs} jobs, {arguments.in_flight} in flight, {arguments.runs} runs each; files in {folder}")
    print(f"{'verify':<11}{'jobs/s':>9}{'CPU ms/job':>12}{'peak MiB':>10}   (medians; min to max of jobs/s)")
    for verify in ("container", "frames", "full"):
        runs = [_one(arguments, verify, cores, folder / f"{verify}-{n}") for n in range(arguments.runs)]
        rates = [run["jobs_per_s"] for run in runs]
        cpu = statistics.median(run["cpu_ms_per_job"] for run in runs)
        peak = statistics.median(run["peak_mib"] for run in runs)
        rate = statistics.median(rates)
        print(f"{verify:<11}{rate:>9.0f}{cpu:>12.2f}{peak:>10.0f}   ({min(rates):.0f} to {max(rates):.0f})")


def _one(arguments: argparse.Namespace, verify: str, cores: list[int], folder: Path) -> dict[str, float]:
    """One measurement in its own process, against a fresh provider on the last core."""
    command = [sys.executable, "-m", "pipeline.sandbox", "--clips", "tiny", "--mean-s", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        try:
            os.sched_setaffinity(provider.pid, {cores[-1]})
            assert provider.stdout is not None
            url = provider.stdout.readline().strip()
            asked = {
                "url": url,
                "verify": verify,
                "folder": str(folder),
                "jobs": arguments.jobs,
                "in_flight": arguments.in_flight,
                "core": cores[0],
            }
            measure = [sys.executable, "-m", "benchmarks.whole_path", "--one", json.dumps(asked)]
            done = subprocess.run(measure, capture_output=True, text=True, check=True)
            return dict(json.loads(done.stdout))
        finally:
            provider.terminate()


async def _measure(url: str, verify: str, folder: str, jobs: int, in_flight: int, core: int) -> dict[str, float]:
    from pipeline.config import load_config
    from pipeline.manifest import load_manifest
    from pipeline.runner import run

    os.sched_setaffinity(0, {core})
    manifest = Path(folder).with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps({"prompt": f"a film of {n} lamps"}) + "\n" for n in range(jobs)))
    flags = FLAGS | {f"provider.{name}_url": url for name in ("base", "storage", "history")}
    flags |= {"media.verify": verify, "limits.max_in_flight": str(in_flight)}
    config = load_config(None, flags, [], environment={})
    campaign = load_manifest(manifest)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    result = await run(campaign, config, Path(folder), key=KEY)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    assert result.exit_code == 0, result.summary
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"jobs_per_s": jobs / wall_s, "cpu_ms_per_job": 1000 * cpu_s / jobs, "peak_mib": peak_mib}


if __name__ == "__main__":
    main()
