"""The torture suite's table, and its worlds.

Each scenario counts into its own `Score`; when the session ends, one table tells them all. `make test` runs
the quick tier, `make torture` the full one, `TORTURE=long make torture` the long one.

Temporary folders are in memory where there is enough of it: thousands of ledgers are written, and no test asks a real
disk to forget anything (a power loss is rebuilt from the calls). `TMPDIR` puts them elsewhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from score import LONG, TIER, Score, table

HERE = Path(__file__).parent

SCORE = "torture score"


MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Scoreboard())
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


class _Scoreboard:
    """Gathers the scores of all tests, whichever process they ran in, and shows them as one table."""

    def __init__(self) -> None:
        self._scores: list[Score] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._scores += [Score.from_plain(value) for name, value in report.user_properties if name == SCORE]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._scores:
            terminalreporter.section(f"torture, {TIER} tier")
            for line in table(sorted(self._scores, key=lambda score: score.scenario)):
                terminalreporter.write_line(line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end they would leave a core idle.

    Scenarios are many trials, and machines differ: ten minutes where a test does not say otherwise.
    """
    items.sort(key=lambda item: item.path.parent.name not in ("torture", "system", "docs"))
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(0 if LONG else 600))


@pytest.fixture
def new_score(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Score]]:
    """Make the `Score` of a scenario by its name in the table; it is shown there whatever becomes of the test."""
    scores: list[Score] = []

    def make(scenario: str) -> Score:
        scores.append(Score(scenario))
        return scores[-1]

    yield make
    for score in scores:
        request.node.user_properties.append((SCORE, score.as_plain()))


@pytest.fixture(autouse=True)
def _decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only here, where it is checked: lives are processes of their own, and read as they always do."""
    from reading import readers_that_remember

    from pipeline.ledger import segments

    for name, reader in readers_that_remember().items():
        monkeypatch.setattr(segments, name, reader)


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    """The process that all lives are forked from goes with the session."""
    yield
    import worlds

    worlds.close_nursery()
