"""Mistakes made on purpose: each is built into a copy of the pipeline, and a scenario of the suite must find it.

A suite that finds nothing proves something only if it would have found something. Each mistake names the scenario that
catches it; that one runs against the copy until its first violation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mistakes import MISTAKES, STORM, Mistake
from score import Score
from storm import QUICK_SEEDS
from worlds import side_by_side

ROOT = Path(__file__).parents[2]
AT_MOST_S = 900
TRIES = 3
"""How often a scenario may look: where a thread must win a race for a mistake to show, it now and then loses it."""

SEEDS = 60
"""How many worlds of a storm are lived through before a mistake counts as not found."""

PYTEST = ("-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", f"--timeout={AT_MOST_S}")
"""How a scenario is run here: without the comforts that take longest to import."""

pytestmark = [pytest.mark.timeout(2400), pytest.mark.mistakes]


def test_every_mistake_made_on_purpose_is_found(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Whatever part of the protocol is left out, some scenario shows a violation."""
    score = new_score("mistakes made on purpose")

    def trial(mistake: Mistake) -> None:
        with score.trial(mistake.name):
            for attempt in range(TRIES):
                code, said = run_with(mistake, tmp_path / f"{mistake.name.replace(' ', '-')}-{attempt}")
                if code:
                    break
            assert code == 1, f"not found by {' '.join(mistake.scenario)} (exit {code}): {said[-400:]}"
            assert "violations" in said or "AssertionError" in said, f"it broke instead of failing: {said[-400:]}"
            score.fired[mistake.name] += 1

    side_by_side(trial, MISTAKES)
    score.conclude(mistake.name for mistake in MISTAKES)


def run_with(mistake: Mistake, copy: Path) -> tuple[int, str]:
    """Run the scenario of a mistake against a copy of the project that has it; pytest's exit code and words."""
    for name in ("pipeline", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    mistake.make(copy)
    module, chosen = mistake.scenario
    scenario = [f"tests/torture/test_torture_{module}.py", "-k", chosen]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *PYTEST, *scenario],
        cwd=copy,
        env=os.environ
        | {"PYTHONPATH": str(copy), "TORTURE_FIRST": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        | {"TORTURE_SEEDS": f"{mistake.first_seed}-{mistake.first_seed + SEEDS}"},
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_the_quick_storm_would_meet_what_the_storm_finds() -> None:
    """The seed that shows a mistake first is among those of `make test`."""
    assert {mistake.first_seed for mistake in MISTAKES if mistake.scenario == STORM} <= set(QUICK_SEEDS)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_each_mistake_can_still_be_made(mistake: Mistake) -> None:
    """What it changes stands in the code exactly once: when the code moves on, the mistake must move along."""
    for path, old, new in mistake.edits:
        assert (ROOT / path).read_text().count(old) == 1, f"{path} does not hold once: {old}"
        assert old != new
