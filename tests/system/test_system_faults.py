"""Two hundred jobs against a provider that goes wrong in every way its contract allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import (
    campaign,
    check_books,
    check_liability,
    check_nothing_bought_twice,
    check_videos,
    durable_state,
    fast_config,
    quick_provider,
    run_until_done,
)

from pipeline.ledger.job import JobState
from pipeline.sandbox import FAULTS, Sandbox

UNLAWFUL = {"submit_500_after"}
"""The provider's contract says that a 500 is not billed: this one breaks it, and no client could tell."""

PHASES = ("submit_", "poll_", "result_", "file_")


@pytest.mark.timeout(300)
async def test_every_fault_at_five_percent_leaves_a_bill_explained_to_the_cent(tmp_path: Path) -> None:
    """200 jobs, every submit, poll, result and file fault at 5 %: nothing bought twice, nothing lost, all explained."""
    faults = {name: 0.05 for name in FAULTS if name.startswith(PHASES) and name not in UNLAWFUL}
    made = campaign(tmp_path, 100, ten_seconds=30, count=2)
    folder = tmp_path / "run"
    settings = quick_provider(faults=faults, file_slow_s=0.2, seed=7)
    async with Sandbox(settings) as provider:
        config = fast_config(provider.url)
        results = await run_until_done(made, config, folder)
        check_liability(folder, provider.requests())
        check_books(folder, provider.invoice())
        check_nothing_bought_twice(made, provider.invoice())
        check_videos(folder, provider.requests())
        fired = provider.state()["faults_fired"]
    assert {name for name in faults if not fired.get(name)} == set(), "a fault that never fires proves nothing"
    state = durable_state(folder)
    assert state.counts[JobState.STORED] + state.counts[JobState.FAILED] == 200
    assert results[-1].summary["in_doubt_usd"] == results[-1].summary["reserved_usd"] == "0.00"
