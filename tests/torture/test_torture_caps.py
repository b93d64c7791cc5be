"""Cap fights: caps a micro-dollar from a whole number of quotes, raised and lowered, while prices drift."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cap_wall import CapWall
from honesty import check_honesty, micro
from score import LONG, Score, in_tier
from storm import PRICES, cap_near, usd
from support import durable_state
from worlds import KILLED, World, make_world, side_by_side

from pipeline.ledger.job import JobState

FIGHTS = in_tier(quick=(0, 1, 2, 4, 5, 6, 8, 10, 12, 14, 18), full=range(20), long=range(5_000))
"""Those of the quick tier are chosen: all that a fight is about happens in two of them or more."""

FAULTS = {"gen_failed": 0.15, "submit_500": 0.1, "submit_504_after": 0.08, "submit_drop_before": 0.08}

DRIFTS = (0.8, 1.0, 1.0, 1.01, 1.5, 2.0)
"""What a provider's prices may have become by the next life, as a share of those that the configuration knows."""

pytestmark = pytest.mark.timeout(0 if LONG else 1800)


def test_cap_fights(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """At each accept all that was accepted fits under the cap, and no cap is left unused while a quote fits into it.

    Where the provider charges more than it lists, what was in flight when that came out may pass the cap by as much;
    nothing that was reserved afterwards may.
    """
    score = new_score("cap fights")

    def trial(seed: int) -> None:
        with score.trial(f"fight {seed}"):
            fight(seed, tmp_path / f"fight-{seed}", score)

    side_by_side(trial, FIGHTS)
    score.conclude([*FAULTS, "cap reached", "cap lowered", "price risen", "cap passed by surprise"])


def fight(seed: int, folder: Path, score: Score) -> None:
    """One campaign through lives of ever other caps and prices; every second one (in the long tier each) to its end."""
    rng = random.Random(f"fight {seed}")
    durations = [rng.choice([5, 5, 10]) for _ in range(rng.randint(4, 9))]
    world = make_world(folder, seed=seed, history_lag_s=rng.choice([0.0, 30.0]))
    world.changes |= {"polling__min_interval_s": "6", "limits__max_in_flight": rng.choice(["1", "3", "60"])}
    lines = [{"id": f"row-{n}", "prompt": f"film {n}", "duration": duration} for n, duration in enumerate(durations)]
    world.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = sum(PRICES[duration] for duration in durations)
    wall = CapWall(world)
    last = 0
    for _ in range(2):
        cap, drift = cap_near(rng, int(whole * rng.uniform(0.1, 1.1))), rng.choice(DRIFTS)
        score.fired["cap lowered"] += cap < last
        score.fired["price risen"] += drift > 1
        world.changes["budget__cap_usd"] = usd(cap)
        prices = {duration: int(price * drift) for duration, price in PRICES.items()}
        assert world.live(at_most_s=600.0, faults=FAULTS, prices_microusd=prices) != KILLED
        check_honesty(world)
        wall.check(cap)
        score.fired["cap reached"] += check_nothing_fits(world)
        last = cap
    score.fired["cap passed by surprise"] += wall.excess > 0
    if seed % 2 and not LONG:
        return
    world.changes["budget__cap_usd"] = usd(3 * whole)
    world.live_on(at_most_s=600.0)
    wall.check(3 * whole)
    check_honesty(world)
    world.check_rest()
    score.fired.update(world.look()[2]["faults_fired"])


def check_nothing_fits(world: World) -> bool:
    """If the cap has stopped this life, no job that is left would have fitted under it; whether it has."""
    summary = world.result["summary"]
    if summary["stopped_by"] != "cap":
        return False
    state = durable_state(world.run_folder)
    left = [
        job
        for job in world.campaign.jobs
        if job.job_id not in state.jobs or state.jobs[job.job_id].state is JobState.VOIDED
    ]
    cheapest = min(state.books.quote(PRICES[int(job.params["duration"])], job.price_key) for job in left)
    assert micro(summary["free_usd"]) < cheapest, f"{summary['free_usd']} is free, and a job costs {cheapest}"
    return True
