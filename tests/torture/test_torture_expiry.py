"""Expiry: a machine is dead while records (an hour) and files (a week) expire, or the provider is out across both."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from honesty import check_honesty
from outage import Outage
from score import LONG, Score
from support import check_books, check_liability, check_nothing_bought_twice, check_videos
from troubles import DAY_S, HOUR_S, Kill, Trouble, Troubles, unheard
from worlds import KILLED, World, make_world, side_by_side

ROWS = 5

pytestmark = pytest.mark.timeout(0 if LONG else 1800)

DEATHS = [
    ("submit_accepted", 1), ("submit_accepted", ROWS), ("result_reply_sent", 2), ("file_done", 2),
]  # fmt: skip
"""When the machine dies: before the answer, with all of them running, with some paid, with some on disk."""

GAPS_S = {"record expired": 2 * HOUR_S, "record expired, outage": 2 * HOUR_S, "file expired": 8 * DAY_S,
          "file expired, outage": 8 * DAY_S}  # fmt: skip

OUTAGE_S = 1.5 * HOUR_S


def test_what_expires_is_collected_or_told(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """A record that is gone costs nothing, a file that is gone is named with a sentence: neither is bought again."""
    score = new_score("expiry of records and files")
    deaths = [(what, nth) for what, _ in DEATHS for nth in range(1, ROWS + 1)] if LONG else DEATHS

    def trial(of: tuple[str, tuple[str, int]]) -> None:
        gap, death = of
        name = f"{gap}, died at {death[0]} {death[1]}"
        with score.trial(name):
            die_and_come_back(gap, death, tmp_path / name.replace(" ", "-"), score)

    side_by_side(trial, itertools.product(GAPS_S, dict.fromkeys(deaths)))
    score.conclude(["kill", *GAPS_S, "unfetched"])


def die_and_come_back(gap: str, death: tuple[str, int], folder: Path, score: Score) -> None:
    """A life that dies, a long silence, and lives until nothing more can be done."""
    world = make_world(folder, rows=ROWS, on_event=unheard)
    note = folder / "happened"
    assert world.live([Troubles(note, troubles=(Trouble(*death, Kill()),))], at_most_s=600.0) == KILLED
    score.kills += 1
    score.fired.update({"kill": 1, gap: 1})
    world.check_exposure()
    accepted_before = {request["request_id"] for request in world.look()[0]}
    world.now_s += GAPS_S[gap]
    if gap.endswith("outage"):
        world.live([Outage(folder / "calls", "polls and history", 0.0, OUTAGE_S)], at_most_s=600.0)
        check_honesty(world)
    code = world.live_on(until=(0, 5), at_most_s=600.0)
    check_honesty(world)
    if gap.startswith("record"):
        assert code == 0
        world.check_rest()
    else:
        check_all_told(world, accepted_before, score)
    submissions = world.look()[2]["submissions"]
    assert submissions == ROWS, f"{submissions} submissions for {ROWS} rows"
    if death[0] == "file_done":
        world.live(at_most_s=600.0)
    assert world.look()[2]["submissions"] == submissions


def check_all_told(world: World, old: set[str], score: Score) -> None:
    """What was made and never fetched is booked, reported as unfetched with a sentence, and makes exit 5."""
    requests, invoice, _ = world.look()
    check_liability(world.run_folder, requests)
    check_books(world.run_folder, invoice)
    check_nothing_bought_twice(world.campaign, invoice)
    check_videos(world.run_folder, requests)
    with (world.run_folder / "report" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    lost = [line for line in lines if line["status"] == "unfetched"]
    assert {line["status"] for line in lines} <= {"stored", "unfetched"}
    assert {line["request_id"] for line in lost} <= old
    assert all(line["error"] for line in lost), "no sentence says why"
    assert world.result["summary"]["unfetched"] == len(lost)
    assert world.result["exit_code"] == (5 if lost else 0)
    score.fired["unfetched"] += len(lost)
