"""The pace across deaths: a run that is killed again and again makes no more calls a minute than one that lives."""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from score import Score
from worlds import BETWEEN_LIVES_S, KILLED, World, make_world

from pipeline.ledger.fold import RunRecord, State
from pipeline.runner import running
from pipeline.runner.continuity import pace_owed_s
from pipeline.runner.watching import LiveRun

RPM = 60


@dataclass(frozen=True)
class DieAfter:
    """SIGKILL when the life has lasted so many virtual seconds."""

    seconds: float

    def arm(self) -> None:
        keep_house = running._keep_house

        async def doomed(live: LiveRun, **how: Any) -> None:
            dying = asyncio.get_running_loop().call_later(self.seconds, os.kill, os.getpid(), signal.SIGKILL)
            try:
                await keep_house(live, **how)
            finally:
                dying.cancel()

        running._keep_house = doomed


def test_a_crash_loop_makes_no_burst_of_calls(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Killed every five seconds and started again at once: no minute holds more calls than the provider allows."""
    score = new_score("pace across a crash loop")
    changes = {"limits__requests_per_minute": str(RPM), "polling__min_interval_s": "1"}
    # The provider lets everything in, and writes down when it came.
    world = make_world(tmp_path / "world", rows=30, changes=changes, rpm=1_000_000, mean_s=60.0)
    with score.trial("crash loop"):
        for _ in range(24):
            score.kills += world.live([DieAfter(5.0)]) == KILLED
            score.fired["restart"] += 1
            world.now_s -= BETWEEN_LIVES_S  # started again at once
        calls = calls_at(world)
        assert score.kills >= 20
        assert len(calls) > 60, "it went on meanwhile"
        assert busiest_minute(calls) <= RPM
        world.live_on()
        world.check_rest()
        assert busiest_minute(calls_at(world)) <= RPM
    score.conclude(["restart"])


def calls_at(world: World) -> list[float]:
    """When each call with the key came in, by the provider's clock in seconds."""
    records = map(json.loads, (world.folder / "provider" / "journal.jsonl").read_text().splitlines())
    return [record["at"] for record in records if record["k"] == "call"]


def busiest_minute(calls: list[float]) -> int:
    """The most calls in any 60 seconds."""
    return max(bisect.bisect_left(calls, at + 60.0) - first for first, at in enumerate(calls))


@pytest.mark.parametrize(
    ("ended_s_ago", "owed_s"), [(None, 1.2), (0.0, 1.2), (0.5, 0.7), (1.2, 0.0), (3600.0, 0.0), (-5.0, 1.2)]
)
def test_the_first_call_waits_for_what_the_last_run_may_have_made(ended_s_ago: float | None, owed_s: float) -> None:
    """One interval after a kill or a clock that went back, less after a clean end, nothing after a pause."""
    now_us = 1_800_000_000_000_000
    ended_us = None if ended_s_ago is None else now_us - int(ended_s_ago * 1e6)
    state = State(runs=[RunRecord(0, {}, ended_us)])
    assert pace_owed_s(state, 1.2, now_us) == pytest.approx(owed_s)
    assert pace_owed_s(State(), 1.2, now_us) == 0.0
