"""The client dies at each instant of the protocol, as the provider sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from score import LONG, Score, in_tier
from wires import At, Client, Wire, command_without_report, trouble_for
from worlds import KILLED, side_by_side, warm

from pipeline.sandbox import INSTANTS

pytestmark = pytest.mark.timeout(0 if LONG else 600)

SEEDS = 50 if LONG else 1
HANDS = 6
"""Trials at a time: each mostly waits for a generation or for the history."""


@dataclass(frozen=True, slots=True)
class Death:
    """One trial: the client dies at the `nth` occurrence of an instant, in each of so many `lives`."""

    instant: str
    nth: int = 1
    lives: int = 1
    api: str = "v2"

    def __str__(self) -> str:
        return f"{self.api} {self.instant} {self.nth * self.lives}"


def deaths() -> Iterator[Death]:
    """Every instant and its first three occurrences, the second not in the quick tier.

    The balance is asked for once a life, so there in as many lives.
    """
    for instant in INSTANTS:
        for nth in in_tier(quick=(1, 3), full=(1, 2, 3), long=(1, 2, 3)):
            yield Death(instant, lives=nth) if instant.startswith("credits") else Death(instant, nth)
            if instant.startswith("submit"):
                yield Death(instant, nth, api="v1")


async def die(score: Score, death: Death, seed: int, folder: Path) -> None:
    """Die, look whether the ledger covers all, live on, look whether all is right."""
    changes = {"provider.api": death.api, "limits.max_in_flight": "2"}
    async with Wire(folder, provider=trouble_for(death.instant) | {"seed": seed}, changes=changes) as wire:
        uncovered: list[AssertionError] = []

        def die_and_look(client: Client) -> None:
            client.end()
            try:
                wire.check_covered()
            except AssertionError as error:
                uncovered.append(error)

        for _ in range(death.lives):
            code, said = await wire.run(At(death.instant, death.nth, die_and_look))
            assert (code == KILLED) == wire.fate_came, f"ended with {code}: {said}"
            score.kills += code == KILLED
            if uncovered:
                raise uncovered[0]
            wire.check_covered()
        score.fired[str(death)] += wire.fate_came
        code, said = await wire.run(target=command_without_report)
        assert code == 0, f"the next run ended with {code}: {said}"
        wire.check_rest()


def test_a_kill_at_any_instant_of_the_protocol_loses_nothing(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """Killed at any instant that the provider sees, all is covered at once, and the next run makes it right."""
    warm()
    score = new_score("kill at each instant of the protocol")
    trials = [(death, seed) for seed in range(1, SEEDS + 1) for death in deaths()]

    def trial(item: tuple[Death, int]) -> None:
        death, seed = item
        with score.trial(f"{death}, seed {seed}"):
            asyncio.run(die(score, death, seed, tmp_path / f"{seed}-{death}".replace(" ", "-")))

    side_by_side(trial, trials, HANDS)
    score.conclude(str(death) for death in deaths())
