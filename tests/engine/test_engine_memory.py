"""What a job takes that is in flight: thousands of them wait at once, each between two questions."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from nights import AtStart, Night, now_s, play
from support import campaign, durable_state

from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.job import JobState
from pipeline.runner.watching import LiveRun

MOST_BYTES = 1_150
"""Of the engine's own, the request's body and the frame in which its job waits included."""


def engine_bytes() -> int:
    gc.collect()
    own = tracemalloc.Filter(inclusive=True, filename_pattern="*/pipeline/engine/*")
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([own]).traces)


def test_a_job_that_waits_for_its_generation_takes_little_and_leaves_at_once(tmp_path: Path) -> None:
    """A hundred more of them take little more; when the run is left, no time passes, and the next run knows them."""
    lives: list[LiveRun] = []
    bytes_at: dict[int, int] = {}
    left_s: list[float] = []

    def started(live: LiveRun) -> None:
        lives.append(live)
        tracemalloc.start()

    def look(event: Event) -> None:
        if event.event is not EventKind.SUBMITTED:
            return
        context = lives[0].context
        submitted = context.ledger.state.counts[JobState.SUBMITTED]
        if submitted in (20, 120):
            bytes_at[submitted] = engine_bytes()
        if submitted == 120:
            asyncio.get_running_loop().call_later(5, leave)

    def leave() -> None:
        left_s.append(now_s())
        for _ in range(2):
            lives[0].context.stopping.interrupt()

    async def main() -> None:
        async with Night(tmp_path) as night:
            config = night.config(limits__requests_per_minute="1200", limits__max_in_flight="120")
            result = await night.run(campaign(tmp_path, 120), config, AtStart(started, look))
            assert result.exit_code == 130
            assert now_s() - left_s[0] < 1
            assert durable_state(night.folder).counts[JobState.SUBMITTED] == 120

    try:
        play(main())
    finally:
        tracemalloc.stop()
    assert (bytes_at[120] - bytes_at[20]) / 100 <= MOST_BYTES, bytes_at


def test_between_two_reports_a_run_holds_no_table_of_its_lines(tmp_path: Path) -> None:
    """It takes a fifth of a kilobyte a line, and is made again in a tenth of a second for a hundred thousand."""
    lives: list[LiveRun] = []
    held: list[bool] = []
    reports: list[bool] = []

    def look(event: Event) -> None:
        if event.event is EventKind.STORED:
            reports.append((lives[0].context.folder / "report" / "results.csv").exists())
            held.append("table" in vars(lives[0].lines))

    async def main() -> None:
        async with Night(tmp_path) as night:
            result = await night.run(campaign(tmp_path, 12), night.config(), AtStart(lives.append, look))
            assert result.exit_code == 0

    play(main())
    assert any(reports), "a live report was written before the last job was stored"
    assert not any(held)
