"""The torture suite's table, and its worlds.

Each scenario counts into its own `Score`; when the session ends, one table tells them all. `make torture` runs the
quick tier alone, `TORTURE=long make torture` the long one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from score import LONG, Score, table

HERE = Path(__file__).parent

_SCORES = pytest.StashKey[list[Score]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SCORES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios are many trials, and machines differ: ten minutes where a test does not say otherwise."""
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(0 if LONG else 600))


@pytest.fixture
def new_score(request: pytest.FixtureRequest) -> Callable[[str], Score]:
    """Make the `Score` of a scenario by its name in the table; it is shown there whatever becomes of the test."""

    def make(scenario: str) -> Score:
        score = Score(scenario)
        request.config.stash[_SCORES].append(score)
        return score

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if scores := config.stash.get(_SCORES, []):
        terminalreporter.section(f"torture, {'long' if LONG else 'quick'} tier")
        for line in table(scores):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    """The process that all lives are forked from goes with the session."""
    yield
    import worlds

    worlds.close_nursery()
