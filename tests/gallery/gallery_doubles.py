"""Pages by hand: lives that end in every way, in as many lines as wanted, and the page that shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report_doubles import LIVES, event, life, line, run_event, state_of

from pipeline.ledger.fold import State
from pipeline.report.gallery import gallery_page
from pipeline.report.lines import Line
from pipeline.report.summary import summarise
from pipeline.report.tables import errors

CAP = 1_000_000_000_000
MOODS = ("cozy", "bold", "calm", "bright", "dark")


def page(
    lines: Sequence[Line], state: State, name: str = "night", *, live: bool = False, cap: int = CAP, now_us: int = 0
) -> bytes:
    """The gallery of these lines."""
    summary = summarise(lines, state, cap_microusd=cap, live=live, now_us=now_us or None)
    return gallery_page(name, lines, state, summary, errors(lines, state), live=live)


def facts_of(written: bytes) -> dict[str, Any]:
    """What a page knows."""
    found = re.search(rb'<script id="data" type="application/json">(.*?)</script>', written, re.DOTALL)
    assert found is not None
    facts: dict[str, Any] = json.loads(found[1])
    return facts


def every_fate() -> tuple[list[Line], State]:
    """A line for every status, in a mood of its own."""
    fates = [fate for fate in LIVES if fate != "reserved"]
    lines = [
        line(row, fate, id=fate, variables={"mood": MOODS[row % 5], "shape": "round" if row % 2 else "square"})
        for row, fate in enumerate(fates, start=1)
    ]
    return lines, state_of(run_event("run_started"), *(each for fate in fates for each in life(fate, fate)))


def many(count: int) -> tuple[list[Line], State]:
    """Thousands of lines: of 50 one has failed, of 13 one is pending, the others are stored."""
    lines, events = [], []
    for row in range(count):
        job, name = f"k1-{row:024x}", f"row-{row}-1-{row:08x}"
        lines.append(
            line(
                row + 1,
                job,
                id=f"row-{row}",
                variables={"mood": MOODS[row % 5], "product": f"product {row % 31}"},
                params={"prompt": f"A slow dolly-in on product number {row} in a {MOODS[row % 5]} mood"},
            )
        )
        fate = "failed" if row % 50 == 0 else "pending" if row % 13 == 0 else "stored"
        for kind in LIVES[fate]:
            facts = {"path": f"videos/{name}.mp4", "poster": f"posters/{name}.jpg"} if kind == "stored" else {}
            events.append(event(kind, job, **facts))
    return lines, state_of(*events)


def write_page(folder: Path, written: bytes) -> str:
    """Lay a page where reports lie; returns its address."""
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    (report / "index.html").write_bytes(written)
    return (report / "index.html").as_uri()
