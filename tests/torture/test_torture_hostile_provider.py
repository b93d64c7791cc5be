"""A provider that says anything at all: no reply buys twice, leaks the key, or brings a run down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostile_battle import assail
from hostile_provider import PLACES
from hostile_replies import corpus, pairs
from score import LONG, Score
from worlds import fork, side_by_side

BATCH = 12
"""Battles that one life fights: their memory and descriptors are one bill, and a crash hides no more than these."""

BATTLE_S = 30.0
"""Real seconds that one battle may take on average, on a busy machine."""

FEWEST_REPLIES = 120

NewScore = Callable[[str], Score]


def test_no_reply_breaks_a_promise(new_score: NewScore, tmp_path: Path) -> None:
    """Whatever is said, wherever: one submission, money covered, an exit of the contract, nobody else contacted."""
    score = new_score("hostile: replies")
    asked = pairs(all_places=LONG)
    assert len({reply for reply, _ in asked}) >= FEWEST_REPLIES
    batches = [(number, asked[number::step]) for step in (-(-len(asked) // BATCH),) for number in range(step)]

    def battle(numbered: tuple[int, Sequence[tuple[str, str]]]) -> None:
        number, batch = numbered
        folder = tmp_path / f"battles-{number}"
        folder.mkdir()
        life = fork(assail, batch, folder)
        life.join(BATTLE_S * len(batch))
        if life.exitcode is None:
            life.kill()
            life.join()
        told = {(line["reply"], line["place"]): line for line in _told(folder)}
        for reply, place in batch:
            with score.trial(f"{reply} at {place}"):
                _judge(score, told.get((reply, place)), life.exitcode)

    side_by_side(battle, batches)
    score.conclude({reply.family for reply in corpus().values()} | {f"at {place}" for place in PLACES})


def _told(folder: Path) -> list[dict[str, Any]]:
    path = folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _judge(score: Score, line: dict[str, Any] | None, exit_code: int | None) -> None:
    assert line is not None, f"the life that fought it ended with {exit_code} and told nothing"
    assert line["wrong"] is None, line["wrong"]
    assert line["told"], "it was never said"
    score.fired[line["reply"].partition(":")[0]] += line["told"]
    score.fired[f"at {line['place']}"] += line["told"]
