"""How many jobs a second go the whole way, as a ratio to the composite floor that is measured in the same run.

The client runs on one core, a provider that answers at once on another. Each measurement is a process of its own, so
that memory and CPU are its own; floor and product take turns, so that both see the same hour of the machine. Nothing is
deleted between them: files just deleted make later ones slow.

    python -m benchmarks.whole_path --jobs 3000 --runs 3
    python -m benchmarks.whole_path --sizes 1000,10000,100000     memory and CPU as jobs grow in number
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

from benchmarks.commands import users_environment

KEY = "SG_0123456789abcdef"
LEVELS = ("container", "frames", "full")
PEERS = ("sdk", "scrapy")

FLAGS = {
    "provider.kind": "segmind",
    "budget.cap_usd": "10000000",
    "limits.requests_per_minute": "10000000",
    "polling.expected_s": "0.001",
    "polling.min_interval_s": "0.001",
    "polling.max_interval_s": "0.01",
}

Measured = dict[str, float]


def main() -> None:
    """Measure floor and product in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--clip-kib", type=int, default=64)
    parser.add_argument("--levels", default=",".join(LEVELS), help="levels of media.verify to measure")
    parser.add_argument("--sizes", help="numbers of jobs, each measured once at `container`, instead of the levels")
    parser.add_argument("--peers", type=Path, help="the Python that has the packages of benchmarks/peers.py")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    folder = Path(tempfile.mkdtemp(prefix="kling-batch-bench-"))
    print(f"{arguments.in_flight} in flight, clips of {arguments.clip_kib} KiB; files in {folder}")
    if arguments.sizes:
        _table_of_sizes(arguments, folder)
    else:
        _table_of_levels(arguments, folder)


def _table_of_levels(arguments: argparse.Namespace, folder: Path) -> None:
    names = ("floor", *arguments.levels.split(","), *(PEERS if arguments.peers else ()))
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(arguments.runs):
        for name in names:
            runs[name].append(_one(arguments, name, arguments.jobs, folder / f"{name}-{number}"))
    print(f"{arguments.jobs} jobs, {arguments.runs} runs each in turns; medians, least to most of jobs/s")
    print(f"{'':<11}{'jobs/s':>8}{'to floor':>10}{'CPU ms/job':>12}{'to floor':>10}{'peak MiB':>10}")
    floor_rate, floor_cpu = _median(runs["floor"], "jobs_per_s"), _median(runs["floor"], "cpu_ms_per_job")
    for name in names:
        rates = [run["jobs_per_s"] for run in runs[name]]
        rate, cpu, peak = (_median(runs[name], key) for key in ("jobs_per_s", "cpu_ms_per_job", "peak_mib"))
        spread = f"   ({min(rates):.0f} to {max(rates):.0f})"
        print(
            f"{name:<11}{rate:>8.0f}{rate / floor_rate:>10.2f}{cpu:>12.2f}{cpu / floor_cpu:>10.2f}{peak:>10.0f}{spread}"
        )


def _table_of_sizes(arguments: argparse.Namespace, folder: Path) -> None:
    print(
        f"{'jobs':>8}{'floor jobs/s':>14}{'jobs/s':>8}{'to floor':>10}{'CPU ms/job':>12}{'peak MiB':>10}"
        f"{'floor MiB':>11}"
    )
    for jobs in map(int, arguments.sizes.split(",")):
        floor = _one(arguments, "floor", jobs, folder / f"floor-{jobs}")
        ours = _one(arguments, "container", jobs, folder / f"container-{jobs}")
        ratio = ours["jobs_per_s"] / floor["jobs_per_s"]
        print(
            f"{jobs:>8}{floor['jobs_per_s']:>14.0f}{ours['jobs_per_s']:>8.0f}{ratio:>10.2f}"
            f"{ours['cpu_ms_per_job']:>12.2f}{ours['peak_mib']:>10.0f}{floor['peak_mib']:>11.0f}",
            flush=True,
        )


def _median(runs: list[Measured], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _one(arguments: argparse.Namespace, name: str, jobs: int, folder: Path) -> Measured:
    """One measurement in its own process on the first core, against a fresh provider on the last."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.provider", "--clip-kib", str(arguments.clip_kib)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as provider:
        try:
            os.sched_setaffinity(provider.pid, {cores[-1]})
            assert provider.stdout is not None
            asked = {
                "name": name,
                "url": provider.stdout.readline().strip(),
                "folder": str(folder),
                "jobs": jobs,
                "in_flight": arguments.in_flight,
                "core": cores[0],
            }
            command = [sys.executable, "-m", "benchmarks.whole_path", "--one", json.dumps(asked)]
            if name in PEERS:
                command = [str(arguments.peers), "benchmarks/peers.py", name, json.dumps(asked)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=users_environment())
            return dict(json.loads(done.stdout))
        finally:
            provider.terminate()


def measure(name: str, url: str, folder: str, jobs: int, in_flight: int, core: int) -> Measured:
    """Measure one floor or one product in this process. Planning and the report count in; imports do not."""
    os.sched_setaffinity(0, {core})
    if name == "floor":
        from benchmarks.floor import work

        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        asyncio.run(work(url, Path(folder), jobs, in_flight))
    else:
        from pipeline.__main__ import make_ready

        make_ready()
        import pipeline.runner.running  # noqa: F401

        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        asyncio.run(_product(name, url, Path(folder), jobs, in_flight))
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"jobs_per_s": jobs / wall_s, "cpu_ms_per_job": 1000 * cpu_s / jobs, "peak_mib": peak_mib}


async def _product(verify: str, url: str, folder: Path, jobs: int, in_flight: int) -> None:
    from pipeline.config import load_config
    from pipeline.manifest import load_manifest
    from pipeline.runner.running import run

    manifest = folder.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps({"prompt": f"a film of {n} lamps"}) + "\n" for n in range(jobs)))
    flags = FLAGS | {f"provider.{name}_url": url for name in ("base", "storage", "history")}
    flags |= {"media.verify": verify, "limits.max_in_flight": str(in_flight)}
    config = load_config(None, flags, [], environment={})
    result = await run(load_manifest(manifest), config, folder, key=KEY)
    assert result.exit_code == 0, result.summary


if __name__ == "__main__":
    main()
