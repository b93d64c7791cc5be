"""What a scenario of the torture suite comes to: trials, kills, faults that fired, violations. One row of the table."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

TIERS = ("quick", "full", "long")
TIER = os.environ.get("TORTURE") or "quick"
"""`make test` runs the quick tier, `make torture` the full one, with more of what is drawn. All enumerate the same."""
if TIER not in TIERS:
    raise ValueError(f"TORTURE={TIER}: a tier is one of {', '.join(TIERS)}")

LONG = TIER == "long"
"""By hand: every opcode instead of every line, thousands of seeds instead of tens."""


def in_tier(*, quick: T, full: T, long: T) -> T:
    """What this session's tier has."""
    return {"quick": quick, "full": full, "long": long}[TIER]


FIRST = os.environ.get("TORTURE_FIRST") == "1"
"""End at the first violation: for whoever only wants to know whether there is one."""

SHOWN = 5
"""Violations told of one scenario: the first few say what is wrong, the rest repeat it."""


@dataclass(slots=True)
class Score:
    """The count of one scenario. A violation does not end it: all of them are told together by `conclude`."""

    scenario: str
    trials: int = 0
    kills: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    """How often each named fault was seen to fire."""
    violations: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def trial(self, label: str) -> Iterator[None]:
        """One trial: whatever fails in the block is a violation of the scenario, named by `label`."""
        self.trials += 1
        try:
            yield
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())[:600] or type(error).__name__
            self.violations.append(f"{label}: {said} ({where.name}:{where.lineno})")
            if FIRST:
                raise

    def as_plain(self) -> list[Any]:
        """The score as a test's process can hand it to the one that reports."""
        return [self.scenario, self.trials, self.kills, dict(self.fired), self.violations]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Score:
        scenario, trials, kills, fired, violations = plain
        return cls(scenario, trials, kills, Counter(fired), violations)

    def conclude(self, must_fire: Iterable[str] = ()) -> None:
        """Fail if anything was violated, or if a fault that the scenario is about never fired: that proves nothing."""
        silent = sorted(name for name in must_fire if not self.fired[name])
        told = "\n  ".join(self.violations[:SHOWN])
        assert not self.violations, f"{len(self.violations)} violations in {self.trials} trials:\n  {told}"
        assert self.trials, "no trial was made: nothing is proven"
        # Whoever wants the first violation alone may leave out most of the trials.
        assert FIRST or not silent, f"never fired, so nothing is proven about them: {', '.join(silent)}"


def table(scores: Iterable[Score]) -> list[str]:
    """The suite's table, a line for each scenario."""
    rows = [("scenario", "trials", "kills", "faults fired", "violations")]
    for score in scores:
        fired = f"{score.fired.total():,} of {len(score.fired)} kinds" if score.fired else "-"
        violations = str(len(score.violations))
        rows.append(
            (score.scenario, f"{score.trials:,}", f"{score.kills:,}" if score.kills else "-", fired, violations)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines
