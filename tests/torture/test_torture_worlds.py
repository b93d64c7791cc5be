"""The torture suite's own ground: a life ends as it should, a killed one is seen to die, and the checks can fail."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from score import Score
from worlds import KILLED, make_world

from pipeline.ledger import segments


@dataclass(frozen=True)
class DieAtAppend:
    """SIGKILL right after the n-th segment is durable."""

    nth: int

    def arm(self) -> None:
        write_segment = segments.write_segment
        count = 0

        def deadly(*arguments: Any) -> Any:
            nonlocal count
            written = write_segment(*arguments)
            count += 1
            if count == self.nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return written

        segments.write_segment = deadly


def test_a_life_without_doom_ends_well(tmp_path: Path) -> None:
    """Three videos, the usual bill, and the second life does nothing."""
    world = make_world(tmp_path / "world")
    assert world.live() == 0
    world.check_exposure()
    world.check_rest()
    _, invoice, before = world.look()
    assert invoice["total_usd"] == "7.00"
    assert world.live() == 0
    assert world.look()[2]["submissions"] == before["submissions"] == 3


def test_a_killed_life_is_seen_to_die_and_another_goes_on(tmp_path: Path) -> None:
    """SIGKILL after the second append: covered at once, and right in the end."""
    world = make_world(tmp_path / "world")
    assert world.live([DieAtAppend(2)]) == KILLED
    world.check_exposure()
    assert world.live_on() == 0
    world.check_rest()


def test_the_checks_can_fail(tmp_path: Path) -> None:
    """A ledger that is gone, a bill that grew, a video that was changed: each is a violation."""
    world = make_world(tmp_path / "world")
    world.live()
    video = next((world.run_folder / "videos").iterdir())
    whole = video.read_bytes()
    video.write_bytes(whole[:-1])
    with pytest.raises(AssertionError):
        world.check_exposure()
    video.write_bytes(whole)
    journal = world.folder / "provider" / "journal.jsonl"
    sold = next(line for line in journal.read_text().splitlines() if json.loads(line)["k"] == "gen")
    again = json.loads(sold) | {"id": "0" * 8 + json.loads(sold)["id"][8:], "ordinal": 99}
    with journal.open("a") as file:
        file.write(json.dumps(again) + "\n")
    with pytest.raises(AssertionError):
        world.check_rest()
    with pytest.raises(AssertionError):
        world.check_exposure()


def test_a_scenario_in_which_nothing_fires_fails() -> None:
    """No trial, a violation, or a fault that never fired: each fails the scenario."""
    score = Score("none")
    with pytest.raises(AssertionError, match="no trial"):
        score.conclude()
    with score.trial("one"):
        pass
    score.conclude()
    with pytest.raises(AssertionError, match="never fired"):
        score.conclude(["kill"])
    with score.trial("two"):
        raise ValueError("broken")
    with pytest.raises(AssertionError, match="two: broken"):
        score.conclude()
