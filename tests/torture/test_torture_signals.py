"""One, two or three polite signals at each instant of the protocol, to the real command line."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from score import LONG, Score
from wires import At, Client, Wire, command_without_report, trouble_for
from worlds import side_by_side, warm

from pipeline.ledger.reading import read_events
from pipeline.sandbox import INSTANTS

pytestmark = pytest.mark.timeout(0 if LONG else 600)

POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
SECOND_STOP_S = 3.0
HANDS = 4

PATIENT = {
    "limits.max_in_flight": "2",
    "timeouts.submit_s": "60",
    "timeouts.read_s": "60",
    "timeouts.download_s": "60",
}
"""No time-out helps a run to its end: if it is over soon, then because it was left."""


@dataclass(frozen=True, slots=True)
class Volley:
    """One trial: these signals at the first occurrence of an instant, each as soon as the one before was taken."""

    instant: str
    signals: tuple[signal.Signals, ...]

    def __str__(self) -> str:
        return f"{self.instant} {' '.join(number.name for number in self.signals)}"


def volleys() -> Iterator[Volley]:
    """Every instant: one signal, and two or three; each combination in its turn, or in the long tier all of them."""
    turns = [itertools.cycle(itertools.product(POLITE, repeat=number)) for number in (1, 2, 3)]
    for place, instant in enumerate(INSTANTS):
        for number in (1, 2, 3):
            if LONG:
                yield from (Volley(instant, signals) for signals in itertools.product(POLITE, repeat=number))
            elif number != 2 + place % 2:
                yield Volley(instant, next(turns[number - 1]))


async def interrupt(score: Score, volley: Volley, folder: Path) -> None:
    """Interrupt a run and see how it ends, then run again."""
    waits: list[float] = []

    def fire(client: Client) -> None:
        for number in volley.signals:
            client.signal(number)
            score.fired[number.name] += 1
        if len(volley.signals) > 1:
            # The hardest case for whoever wants to leave: from here on the provider does not say a word.
            waits.append(client.over_in_s())

    async with Wire(folder, provider=trouble_for(volley.instant), changes=PATIENT) as wire:
        code, said = await wire.run(At(volley.instant, 1, fire))
        assert wire.fate_came, f"never came to {volley.instant}"
        score.fired[f"{len(volley.signals)} at {volley.instant}"] += 1
        wire.check_covered()
        assert code == INTERRUPTED, f"ended with {code}: {said}"
        assert "Traceback" not in said, said
        stored = sum(event.event.value == "stored" for event in read_events(wire.run_folder / "ledger"))
        how = "Everything is stored." if stored == wire.rows else "\n  kling-batch run "
        assert how in said, f"does not say how to go on: {said}"
        assert not waits or waits[0] <= SECOND_STOP_S, f"over only {waits[0]:.1f} s after the last signal"
        check_told(wire.run_folder)
        code, said = await wire.run(target=command_without_report)
        assert code == 0, f"the next run ended with {code}: {said}"
        wire.check_rest()


def check_told(folder: Path) -> None:
    """The ledger and the report say that the run was interrupted."""
    ended = read_events(folder / "ledger")[-1]
    assert ended.event.value == "run_ended"
    assert json.loads(ended.detail or "")["stopped_by"] == "interrupted"
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert (summary["exit_code"], summary["stopped_by"]) == (INTERRUPTED, "interrupted")
    assert (folder / "report" / "results.csv").exists()


def test_signals_at_any_instant_end_a_run_in_good_order(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """Exit 130, the command to go on if there is one, no traceback, all reports; the second stops within 3 s."""
    warm()
    score = new_score("signals at each instant")
    trials = list(volleys())

    def trial(volley: Volley) -> None:
        with score.trial(str(volley)):
            asyncio.run(interrupt(score, volley, tmp_path / str(volley).replace(" ", "-")))

    side_by_side(trial, trials, HANDS)
    score.conclude([*(f"{len(each.signals)} at {each.instant}" for each in trials), *(each.name for each in POLITE)])
