"""How near the dispatcher comes to the ideal, in virtual time: minutes lost, and calls spent on knowing what ended.

Each line is a rehearsal of a whole run by the real engine, against a provider that counts calls in a strict sliding
minute. Generation times are lognormal, mean 317 s, sigma 0.3, learned on the way. Beside the makespan stand

- the ideal: list scheduling of the very same generation times in the same order, knowing each only as it ends, where
  asking is free and a generation is known to be finished at once;
- the bound, where polls are counted: the ideal, each generation longer by the least mean delay that any schedule of
  polls has for the calls that starts and results leave; and never less than the time for three calls a job.

The delay is that from the end of a generation until it is known, beside the least one for as many polls.

    python -m benchmarks.dispatch --jobs 100,1000
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import tempfile
import time
from pathlib import Path

from benchmarks.frontier import least_delay_s
from pipeline.config import load_config
from pipeline.ledger.events import Event, EventKind
from pipeline.manifest import load_manifest
from pipeline.rehearsal.night import Scenario, rehearse
from pipeline.runner.watching import LiveRun, Watcher

MEAN_S, SIGMA = 317.0, 0.3


def main() -> None:
    """Rehearse every case, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default="100,1000,10000")
    parser.add_argument("--in-flight", default="50,500")
    parser.add_argument("--rpm", default="5,50,120")
    parser.add_argument("--unknown", action="store_true", help="only the cases of limits that nobody knows")
    arguments = parser.parse_args()
    print(
        f"{'jobs':>6}{'slots':>7}{'RPM':>6}  {'polls':<8}{'hours':>8}{'ideal':>8}{'ratio':>8}{'bound':>8}{'ratio':>8}"
        f"{'polls/job':>11}{'delay s':>9}{'best s':>8}{'ratio':>7}{'429s':>6}{'took s':>8}"
    )
    cases = itertools.product(
        *(map(int, text.split(",")) for text in (arguments.jobs, arguments.in_flight, arguments.rpm))
    )
    for jobs, slots, rpm in () if arguments.unknown else cases:
        for counted in (True, False):
            _print(jobs, slots, rpm, counted)
    print("limits that nobody knows: 50 calls a minute, then 40 in flight; and each as it is with the limit known")
    _print(1000, 100, 120, True, {"rpm": 50})
    _print(1000, 100, 50, True)
    _print(1000, 100, 120, True, {"max_in_flight": 40})
    _print(1000, 40, 120, True)


class _Times(Watcher):
    """The generation times of a run in the order of their submission, and how late each end was known."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._submitted_s: dict[str, float] = {}
        self._known_s: dict[str, float] = {}
        self._took_s: dict[str, float] = {}

    def started(self, live: LiveRun) -> None:
        slots, clock, release = live.context.slots, live.context.clock, live.context.slots.release

        def noted(job_id: str) -> None:
            """A slot is given up the first time when the end of its generation is known."""
            self._known_s.setdefault(job_id, clock.monotonic_s())
            release(job_id)

        slots.release = noted  # type: ignore[method-assign]
        self._clock = clock

    def event(self, event: Event) -> None:
        job_id = event.job_id or ""
        if event.event is EventKind.SUBMITTED:
            self._order.append(job_id)
            self._submitted_s[job_id] = self._clock.monotonic_s()
            self._known_s.pop(job_id, None)  # of an attempt that was refused
        elif event.event is EventKind.POSTED:
            self._took_s[job_id] = (event.queue_s or 0.0) + (event.inference_s or 0.0)

    @property
    def late_s(self) -> list[float]:
        return [self._known_s[job] - self._submitted_s[job] - took_s for job, took_s in self._took_s.items()]

    @property
    def took_s(self) -> list[float]:
        return [self._took_s[job_id] for job_id in self._order]


def _print(jobs: int, slots: int, rpm: int, counted: bool, provider: dict[str, int] | None = None) -> None:
    times, began = _Times(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kling-batch-bench-") as name:
        manifest = Path(name) / "jobs.jsonl"
        manifest.write_text("".join(json.dumps({"id": f"r{n}", "prompt": f"lamp {n}"}) + "\n" for n in range(jobs)))
        config = load_config(
            None,
            {"budget.cap_usd": "1000000", "limits.requests_per_minute": str(rpm), "limits.max_in_flight": str(slots)},
            [f"limits.count_polls={str(counted).lower()}"],
            environment={},
        )
        scenario = Scenario(seed=1, mean_s=MEAN_S, sigma=SIGMA, provider=provider or {})
        night = rehearse(load_manifest(manifest), config, Path(name) / "none", scenario=scenario, watcher=times)
    assert night.stored == jobs, night.result.message
    true_rpm, true_slots = (provider or {}).get("rpm", rpm), (provider or {}).get("max_in_flight", slots)
    took_s = night.makespan_s
    ideal_s = schedule_s(times.took_s, true_slots, true_rpm)
    bound_s = bound_of(times.took_s, true_slots, true_rpm) if counted else ideal_s
    polls, late_s = night.calls["poll"] / jobs, sum(times.late_s) / jobs
    best_s = least_delay_s(polls, MEAN_S, SIGMA)
    print(
        f"{jobs:>6,}{slots:>7}{rpm:>6}  {'counted' if counted else 'free':<8}"
        f"{took_s / 3600:>8.3f}{ideal_s / 3600:>8.3f}"
        f"{took_s / ideal_s:>8.3f}{bound_s / 3600:>8.3f}{took_s / bound_s:>8.3f}"
        f"{polls:>11.1f}{late_s:>9.1f}{best_s:>8.1f}{late_s / best_s:>7.2f}{night.rate_limited:>6}"
        f"{time.monotonic() - began:>8.1f}",
        flush=True,
    )


def schedule_s(took_s: list[float], slots: int, rpm: float) -> float:
    """The makespan of list scheduling: a job starts when a slot is free and a place in the pace has come."""
    busy: list[float] = []
    start_s = end_s = 0.0
    for number, length_s in enumerate(took_s):
        start_s = max(start_s + (60 / rpm if number else 0.0), heapq.heappop(busy) if len(busy) == slots else 0.0)
        heapq.heappush(busy, start_s + length_s)
        end_s = max(end_s, start_s + length_s)
    return end_s


def bound_of(took_s: list[float], slots: int, rpm: float) -> float:
    """A makespan in seconds that no schedule of starts, polls and results betters by much."""
    jobs, delay_s, makespan_s = len(took_s), 0.0, 0.0
    for _ in range(50):
        makespan_s = max(schedule_s([length_s + delay_s for length_s in took_s], slots, rpm), 3 * jobs * 60 / rpm)
        delay_s = (delay_s + least_delay_s((makespan_s * rpm / 60 - 2 * jobs) / jobs, MEAN_S, SIGMA)) / 2
    return makespan_s


if __name__ == "__main__":
    main()
