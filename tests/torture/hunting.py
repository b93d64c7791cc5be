"""How the torture suite hunts with hypothesis: how long for, and how what it finds comes into the table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from score import LONG, Score, in_tier

PATIENCE = pytest.mark.timeout(0 if LONG else 600)
"""The long tier takes as long as it takes, and a counterexample of the quick one takes long to be made small."""


def hunt(examples: int, *, steps: int = 50) -> settings:
    """Settings for so many examples, or in the quick tier half of them, the same each time.

    In the long tier a hundred times as many, always new ones.

    Times are bounded by the tests themselves, which look at the processor's clock and not at the wall's.
    """
    return settings(
        max_examples=in_tier(quick=examples // 2, full=examples, long=examples * 100),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not LONG,
        print_blob=True,
    )


@contextlib.contextmanager
def hunting(score: Score) -> Iterator[None]:
    """A counterexample is a violation of the scenario; the error that shows it goes on, for it holds the example."""
    try:
        yield
    except BaseException as error:
        score.violations.append(f"{type(error).__name__}: {error}")
        raise
