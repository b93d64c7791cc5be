"""Outages: whatever is out, and however long, nothing is lost, nothing is bought twice, and nobody is hammered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cap_wall import CapWall
from honesty import check_honesty
from outage import Outage, calls_by_minute
from score import LONG, Score
from storm import PLENTY
from worlds import World, make_world, side_by_side

MINUTE_S = 60.0
HOUR_S = 3600.0

RPM = 50

NIGHT = {
    "limits__requests_per_minute": str(RPM),
    "limits__max_in_flight": "40",
    "polling__expected_s": "317",
    "polling__min_interval_s": "2",
    "polling__max_interval_s": "30",
    "retry__base_delay_s": "2",
    "retry__max_delay_s": "120",
    "timeouts__submit_s": "60",
    "timeouts__read_s": "60",
    "timeouts__download_s": "600",
    "in_doubt__settle_after_s": "1800",
    "in_doubt__wait_s": "4000",
}
"""The limits of a live run; only doubt is settled sooner and waited for longer, so that a world needs fewer lives."""

TOTAL_WORLDS = 10 if LONG else 2
PARTIAL_WORLDS = 10 if LONG else 1
"""For each outage, so many that begin at another moment."""

pytestmark = pytest.mark.timeout(0 if LONG else 1800)

Trial = tuple[str, int, float, float, float]
"""What is out, the seed, from when, for how long, and the share of its calls that is hit."""

TOTAL = [
    (kind, seed, 4.0 + 97.0 * seed, 10 * MINUTE_S, 1.0)
    for kind in ("nothing listens", "everything")
    for seed in range(TOTAL_WORLDS)
]
PARTIAL = [
    *(("everything", seed, 0.0, 8 * HOUR_S, 0.5) for seed in range(PARTIAL_WORLDS)),
    *(("polls", seed, 10.0 + 200.0 * seed, HOUR_S / 2, 1.0) for seed in range(PARTIAL_WORLDS)),
    *(("history", seed, 200.0 * seed, 2 * HOUR_S, 1.0) for seed in range(PARTIAL_WORLDS)),
]


def test_outages_lose_nothing(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Half of all calls for a night, all polls for half an hour or the whole history for two: every video comes, once.

    Some answers are lost besides, so that the history is needed while it is out.
    """
    score = new_score("outages")

    def trial(of: Trial) -> None:
        kind, seed, *_ = of
        with score.trial(f"{kind} {seed}"):
            live_through(of, tmp_path / f"{kind}-{seed}", score, faults={"submit_504_after": 0.3, "gen_failed": 0.1})

    side_by_side(trial, PARTIAL)
    score.conclude(["everything", "polls", "history", "submit_504_after"])


def test_a_total_outage_is_not_hammered(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Ten minutes without any answer: in the last three at most a tenth of the allowed calls is made, and all is well.

    A run that finds nobody to talk to for ten minutes may end and say so (exit 6); the next one goes on.
    """
    score = new_score("outage: total, and not hammered")

    def trial(of: Trial) -> None:
        kind, seed, *_ = of
        with score.trial(f"{kind} {seed}"):
            calls = live_through(of, tmp_path / f"{kind}-{seed}", score, faults={})
            assert max(calls[minute] for minute in (7, 8, 9)) <= RPM / 10, f"calls a minute: {sorted(calls.items())}"

    side_by_side(trial, TOTAL)
    score.conclude(["everything", "nothing listens"])


def live_through(of: Trial, folder: Path, score: Score, faults: dict[str, float]) -> dict[int, int]:
    """A night with this outage and those after it; returns the calls in each minute of the outage."""
    kind, seed, from_s, lasts_s, share = of
    world: World = make_world(folder, rows=12, changes=NIGHT, seed=seed, mean_s=317.0, hang_s=90.0, history_lag_s=60.0)
    outage = Outage(folder / "calls", kind, from_s, from_s + lasts_s, share, seed)
    wall = CapWall(world)
    code = world.live([outage], at_most_s=600.0, faults=faults)
    check_honesty(world)
    calls = calls_by_minute(outage)
    score.fired[kind] += calls.total()
    assert code in ((0, 1, 5, 6) if share == 1.0 else (0, 1, 5)), code
    wall.check(int(PLENTY) * 1_000_000)
    world.live_on(at_most_s=600.0)
    check_honesty(world)
    world.check_rest()
    score.fired.update(world.look()[2]["faults_fired"])
    return calls
