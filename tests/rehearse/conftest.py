"""A campaign and its configuration, to be rehearsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rehearse_doubles import MIDNIGHT_US, Rehearse, live_config
from support import campaign

from pipeline.rehearsal import Night, Scenario, rehearse
from pipeline.runner.choice import RunOptions
from pipeline.runner.watching import Watcher


@pytest.fixture
def play(tmp_path: Path) -> Rehearse:
    """`play(rows, faults={...}, budget__cap_usd="20")`: a rehearsal of a live run; the same each time."""

    def played(
        rows: int,
        *,
        scenario: Scenario | None = None,
        options: RunOptions | None = None,
        watcher: Watcher | None = None,
        real: Path | None = None,
        **changes: str,
    ) -> Night:
        return rehearse(
            campaign(tmp_path, rows),
            live_config(**changes),
            real or tmp_path / "real",
            scenario=scenario or Scenario(),
            options=options,
            watcher=watcher,
            started_us=MIDNIGHT_US,
        )

    return played
