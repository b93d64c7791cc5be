"""The storm: every fault of the provider at once, kills and wrong clocks, a world for each seed.

`TORTURE_SEEDS=1000-1999` chooses the seeds; a seed that fails is named, and one alone is `TORTURE_SEEDS=7`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cap_wall import CapWall
from honesty import check_honesty, micro
from score import LONG, Score, in_tier
from storm import PLENTY, QUICK_SEEDS, STORM_FAULTS, seeds, usd, weather
from support import check_nothing_bought_twice, check_videos, durable_state
from troubles import last_moment_s, what_happened
from worlds import BETWEEN_LIVES_S, KILLED, World, side_by_side

from pipeline.ledger.job import JobState

CHOSEN = os.environ.get("TORTURE_SEEDS", "")
SEEDS = (
    seeds(CHOSEN) if CHOSEN else in_tier(quick=QUICK_SEEDS, full=sorted({*range(60), *QUICK_SEEDS}), long=range(5_000))
)

LONGEST_LIFE_S = 600.0

pytestmark = pytest.mark.timeout(0 if LONG else 1800)

HAPPENS = ("kill", "wrong clock", "clock set", "suspend", "lying Date", "left in doubt")


def test_the_storm(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Whatever faults, kills, caps and clocks a night has, all is bought once, kept, explained and under the cap.

    A clock that was wrong while an answer was lost can make it impossible to say what became of that attempt: such a
    world may stay in doubt (exit 5) for a person to resolve. What is in doubt may have been billed once and never
    twice, the ledger covers it, and everything else in that world is as it must be anywhere.
    """
    score = new_score("storm of faults, kills and clocks")

    def trial(seed: int) -> None:
        with score.trial(f"TORTURE_SEEDS={seed}"):
            live_through(seed, tmp_path / f"seed-{seed}", score)

    side_by_side(trial, SEEDS)
    score.conclude(() if CHOSEN else (*STORM_FAULTS, *HAPPENS))


def live_through(seed: int, folder: Path, score: Score) -> None:
    """One seed: its lives, each checked at its end, then lives in fair weather until nothing is left to do."""
    storm = weather(seed)
    world = storm.world(folder)
    wall = CapWall(world)
    note = folder / "happened"
    try:
        for life in storm.lives:
            world.changes |= {"budget__cap_usd": usd(life.cap_microusd), "provider__api": life.api}
            code = world.live([life.doom(note)], at_most_s=LONGEST_LIFE_S, faults=storm.faults)
            if code == KILLED:
                score.kills += 1
                # The ledger's moments are those of a clock that may be wrong: only the killer knows the true one.
                world.now_s = last_moment_s(note) + BETWEEN_LIVES_S
                wall.check_exposure()
            else:
                check_honesty(world)
            wall.check(life.cap_microusd)
            if code in (0, 1):
                break
        world.changes["budget__cap_usd"] = PLENTY
        if code not in (0, 1):
            code = live_to_rest(world, may_stay_in_doubt=storm.has_clock_trouble)
        check_honesty(world)
        wall.check(micro(world.result["summary"]["cap_usd"]))
        if code == 5:
            score.fired["left in doubt"] += 1
            check_doubtful_rest(world, wall)
        else:
            world.check_rest()
    finally:
        score.fired.update(what_happened(note))
        score.fired.update(world.look()[2]["faults_fired"])
    if seed % 5 == 0:
        check_no_more_is_sent(world)


def live_to_rest(world: World, *, may_stay_in_doubt: bool) -> int:
    """Live on in fair weather until nothing is left to do, but for doubt where it may stay; the last exit code."""
    if not may_stay_in_doubt:
        return world.live_on(at_most_s=LONGEST_LIFE_S)
    for _ in range(12):
        code = world.live_on(until=(0, 1, 5), at_most_s=LONGEST_LIFE_S)
        if not (world.result["summary"]["running"] or world.result["summary"]["unfetched"]):
            return code
    raise AssertionError(f"still not at rest: {world.result['summary']}")


def check_no_more_is_sent(world: World) -> None:
    """Another life finds nothing to do and submits nothing."""
    before = world.look()[2]["submissions"]
    assert world.live() == world.result["exit_code"]
    assert world.look()[2]["submissions"] == before


def check_doubtful_rest(world: World, wall: CapWall) -> None:
    """At rest with doubt that only a person can resolve: all but the doubt is right, and the doubt is covered."""
    requests, invoice, _ = world.look()
    wall.check_exposure()
    check_nothing_bought_twice(world.campaign, invoice)
    check_videos(world.run_folder, requests)
    state = durable_state(world.run_folder)
    counts = {where: number for where, number in state.counts.items() if number}
    assert counts.keys() <= {JobState.STORED, JobState.FAILED, JobState.IN_DOUBT}, counts
    known = [charge for charge in invoice["charges"] if charge["request_id"] in state.request_ids]
    assert state.books.posted == sum(charge["cost_microusd"] for charge in known)
