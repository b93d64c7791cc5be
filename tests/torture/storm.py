"""The weather of one seed: a campaign, a provider with its faults and delays, and what befalls each life. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score import LONG
from troubles import DAY_S, EVENTS, HOUR_S, YEAR_S, Kill, SetClock, Suspend, Trouble, Troubles, unheard
from worlds import World, make_world

from pipeline.sandbox.faults import FAULTS

BROKEN_WORD = frozenset({"submit_500_after"})
"""Faults by which the provider breaks its contract: no client can keep the promise then, and the design says so."""

STORM_FAULTS = tuple(name for name in FAULTS if name not in BROKEN_WORD and not name.startswith("upload_"))
"""All that can befall its rows: none of them starts from a file."""

ACCOUNT_STOPS = ("submit_401", "submit_403", "submit_404", "submit_406_credits", "submit_410")
"""Each ends a run: more than a few of them, and nothing else would ever be seen."""

QUICK_SEEDS = (
    *(1, 2, 3, 6, 8, 10, 11, 24, 35, 48, 54, 56, 58, 70, 72, 73, 75, 85, 92, 100, 102, 105, 109, 111, 127, 132, 133),
    *(137, 142, 148),
)
"""Of the quick tier, chosen among the first 150: each fault fires in three of them or more, and a kill in twelve.

Those are among them that show first what the storm finds of the mistakes made on purpose.
"""

PLENTY = "10000"

PRICES = {5: 1_750_000, 10: 3_500_000}

STEPS_S = (HOUR_S, -HOUR_S, 3 * DAY_S, 10 * YEAR_S, -10 * YEAR_S)
"""By how much a wall clock is wrong: daylight saving done by hand, a wrong date, a battery that is empty."""


@dataclass(frozen=True, slots=True)
class LifeWeather:
    """One life: its cap, its interface, and its troubles."""

    cap_microusd: int
    api: str
    wrong_s: float
    date_lie_s: float
    troubles: tuple[Trouble, ...]

    def doom(self, note: Path) -> Troubles:
        return Troubles(note, wrong_s=self.wrong_s, date_lie_s=self.date_lie_s, troubles=self.troubles)


@dataclass(frozen=True, slots=True)
class Weather:
    """All of one seed."""

    lines: tuple[dict[str, Any], ...]
    provider: dict[str, Any]
    faults: dict[str, float]
    lives: tuple[LifeWeather, ...]

    @property
    def has_clock_trouble(self) -> bool:
        """Whether any clock of these lives is not what it seems."""
        return any(
            life.wrong_s or life.date_lie_s or any(not isinstance(trouble.act, Kill) for trouble in life.troubles)
            for life in self.lives
        )

    def world(self, folder: Path) -> World:
        """The world before its first life."""
        world = make_world(folder, changes={"polling__min_interval_s": "6", "in_doubt__wait_s": "400"}, **self.provider)
        world.manifest.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return world


def weather(seed: int) -> Weather:
    """Everything that a seed decides."""
    rng = random.Random(f"storm {seed}")
    lines = _lines(rng, _how_many_rows(seed, rng))
    whole = sum(PRICES[line["duration"]] * line.get("count", 1) for line in lines)
    provider = {
        "seed": seed,
        "charge_at": rng.choice(["accept", "complete"]),
        "history_lag_s": rng.choice([0.0, rng.uniform(0, 60), rng.uniform(60, 290)]),
        "history_repeats": rng.choice([1, 2]),
        "v1_body": rng.choice(["video", "json"]),
        "fault_limit": dict.fromkeys(ACCOUNT_STOPS, 1),
    }
    if rng.random() < 0.5:
        provider["on_event"] = unheard
    lives = _lives(rng, whole)
    return Weather(tuple(lines), provider, _rates(rng), lives)


def _how_many_rows(seed: int, rng: random.Random) -> int:
    """200 in the long tier; in the quick one mostly few, for a life costs more than its rows."""
    few = rng.choice([5, 5, 8, 8, 10, 12, 20, 40])
    return 200 if LONG or seed % 25 == 24 else few


def _lines(rng: random.Random, rows: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for number in range(rows):
        line: dict[str, Any] = {"id": f"row-{number}", "prompt": f"a film of {number} lamps"}
        line["duration"] = rng.choice([5, 5, 5, 10])
        if rng.random() < 0.1:
            line["count"] = rng.choice([2, 3])
        lines.append(line)
    return lines


def _rates(rng: random.Random) -> dict[str, float]:
    """A few faults often, the rest seldom: at 20 % each no night would ever end."""
    rates = {name: rng.choice([0.0, 0.002, 0.006, 0.015]) for name in STORM_FAULTS}
    rates |= {name: rng.uniform(0.03, 0.20) for name in rng.sample(STORM_FAULTS, 8)}
    # What nobody says is booked at its quote, and the ledger says so: one above its quote could not be known.
    rates |= dict.fromkeys(rng.choice([("cost_above_quote",), ("cost_missing", "cost_garbage")]), 0.0)
    return rates | {name: rng.choice([0.0, 0.0, 0.0, 0.05]) for name in ACCOUNT_STOPS}


def _lives(rng: random.Random, whole: int) -> tuple[LifeWeather, ...]:
    apis = rng.choice([["v2"], ["v2"], ["v1"], ["v1", "v2"]])
    clocks = rng.choice(["right", "right", "wrong", "stepping", "backwards", "suspended", "lying"])
    kills = rng.choice([0, 1, 2, 3, 4] if LONG else [0, 0, 1, 1, 1, 1, 2, 4])
    tight = rng.random() < 0.4
    caps = [cap_near(rng, int(whole * rng.uniform(0.1, 0.8))) if tight else 10_000_000_000 for _ in range(kills + 1)]
    lives = []
    for number, cap in enumerate(sorted(caps)):
        troubles = _clock_troubles(rng, clocks)
        if number < kills:
            troubles.append(Trouble(*_instant(rng), Kill()))
        lives.append(
            LifeWeather(
                cap_microusd=cap,
                api=rng.choice(apis),
                wrong_s=rng.choice([0.0, *STEPS_S]) if clocks == "wrong" else 0.0,
                date_lie_s=rng.choice(STEPS_S) if clocks == "lying" and rng.random() < 0.7 else 0.0,
                troubles=tuple(troubles),
            )
        )
    return tuple(lives)


def cap_near(rng: random.Random, amount: int) -> int:
    """A cap of a whole number of the cheapest quotes, or one micro-dollar off: where a wall is thinnest."""
    return max(1, amount // PRICES[5]) * PRICES[5] + rng.choice([-1, 0, 1])


def _clock_troubles(rng: random.Random, clocks: str) -> list[Trouble]:
    match clocks:
        case "stepping":
            return [Trouble(*_instant(rng), SetClock(rng.choice(STEPS_S))) for _ in range(rng.choice([1, 2]))]
        case "backwards":
            return [Trouble("second", 10.0 * nth, SetClock(-60.0 * nth)) for nth in range(1, 30)]
        case "suspended":
            return [Trouble(*_instant(rng), Suspend(2 * HOUR_S)) for _ in range(rng.choice([1, 2]))]
    return []


def _instant(rng: random.Random) -> tuple[str, float]:
    """An append, an instant of the protocol, or a moment: mostly early, for a life may end before a late one."""
    kind = rng.choice(["append", "event", "second"])
    if kind == "second":
        return "second", rng.uniform(0.0, 90.0)
    nth = int(rng.expovariate(1 / 12)) + 1
    return (rng.choice(EVENTS) if kind == "event" else "append"), nth


def usd(microusd: int) -> str:
    """Micro-dollars as a configuration wants them."""
    return f"{microusd // 1_000_000}.{microusd % 1_000_000:06d}"


def seeds(chosen: str) -> range:
    """The seeds of `7` or `1000-1999`."""
    first, _, last = chosen.partition("-")
    return range(int(first), int(last or first) + 1)
