"""SIGKILL at each ledger append: the durable ledger covers all that was accepted, and a restart costs nothing twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from killed_client import live_and_die
from support import (
    campaign,
    check_bodies,
    check_books,
    check_liability,
    check_nothing_bought_twice,
    check_videos,
    fast_config,
    image_campaign,
    quick_provider,
    run_until_done,
)
from worlds import end_of, fork

from pipeline.ledger.reading import read_events
from pipeline.sandbox import Sandbox

JOBS = 5
BILL_MICROUSD = 2 * 3_500_000 + 3 * 1_750_000


async def _run_and_die(url: str, made: Path, folder: Path, nth: int, when: str) -> int | None:
    return await end_of(fork(live_and_die, url, made, folder, nth, when))


async def _trial(tmp_path: Path, nth: int, when: str) -> bool:
    """One life and its resurrection; False if the run was over before its n-th append."""
    made = campaign(tmp_path, JOBS, ten_seconds=2)
    folder = tmp_path / f"{nth}-{when}"
    async with Sandbox(quick_provider(seed=nth)) as provider:
        died = await _run_and_die(provider.url, made.source, folder, nth, when)
        check_liability(folder, provider.requests())
        await run_until_done(made, fast_config(provider.url), folder)
        check_liability(folder, provider.requests())
        check_books(folder, provider.invoice())
        check_nothing_bought_twice(made, provider.invoice())
        check_videos(folder, provider.requests())
        assert provider.invoice()["total_microusd"] == BILL_MICROUSD, "the bill of an undisturbed run"
        calls = provider.state()["calls"]
        await run_until_done(made, fast_config(provider.url), folder)
        assert provider.state()["calls"] == calls, "a finished directory sends nothing"
    assert died in (0, -signal.SIGKILL)
    return died != 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_at_any_ledger_append_loses_nothing_and_pays_nothing_twice(tmp_path: Path, when: str) -> None:
    """Whichever append the process dies at, the ledger covers the exposure, and the resumed run has the usual bill."""
    kills = 0
    while await _trial(tmp_path, kills + 1, when):
        kills += 1
    assert kills >= 4 + JOBS, f"only {kills} appends: too few to speak of each"


async def test_what_was_reserved_when_the_process_died_is_said_to_be_in_doubt_first(tmp_path: Path) -> None:
    """After a kill behind the reservation, the next run's first event about the job is that it is in doubt."""
    made = campaign(tmp_path, 1)
    folder = tmp_path / "run"
    async with Sandbox(quick_provider()) as provider:
        assert await _run_and_die(provider.url, made.source, folder, 3, "after") == -signal.SIGKILL
        story = [event.event.value for event in read_events(folder / "ledger")]
        assert story == ["run_started", "account", "reserved"]
        await run_until_done(made, fast_config(provider.url), folder)
    story = [event.event.value for event in read_events(folder / "ledger")]
    assert story[:5] == ["run_started", "account", "reserved", "run_started", "in_doubt"]
    assert story[-1] == "run_ended"
    assert story.count("posted") == story.count("stored") == 1


async def test_a_kill_around_an_upload_costs_another_upload_at_most(tmp_path: Path) -> None:
    """Dead with the image uploaded and not yet recorded, then dead with it recorded and nothing reserved."""
    made, folder = image_campaign(tmp_path, 1, 1), tmp_path / "run"
    async with Sandbox(quick_provider()) as provider:
        for uploads, when in enumerate(("before", "after"), 1):
            assert await _run_and_die(provider.url, made.source, folder, 3, when) == -signal.SIGKILL
            assert provider.state()["calls"]["upload"] == uploads
            assert "submit_v2" not in provider.state()["calls"]
        assert [event.event.value for event in read_events(folder / "ledger")][-1] == "uploaded"
        await run_until_done(made, fast_config(provider.url), folder)
        assert provider.state()["calls"]["upload"] == 2
        check_liability(folder, provider.requests())
        check_books(folder, provider.invoice())
        check_bodies(folder, provider.requests())
        assert provider.invoice()["total_microusd"] == 2 * 1_750_000
