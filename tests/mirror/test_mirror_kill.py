"""SIGKILL of a machine in the middle: another goes on from the bucket, and the bill is that of a calm run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from bucket import NIGHT, machine, run_at
from killed_machine import live_and_die
from object_store import Server
from support import campaign, check_books, check_liability, check_nothing_bought_twice, check_videos, quick_provider
from worlds import end_of, fork

from pipeline.kernel.errors import RunDirectoryError
from pipeline.mirror import holder
from pipeline.mirror.mirror import refresh
from pipeline.runner.choice import run_folder
from pipeline.sandbox import Sandbox

JOBS = 3


async def run_and_die(server: Server, *lived: Any) -> int | None:
    return await end_of(fork(live_and_die, server.account(), *lived))


@pytest.mark.parametrize(("nth", "when"), [(3, "here"), (5, "there")])
async def test_another_machine_goes_on_where_one_has_died(
    server: Server, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, when: str
) -> None:
    made = campaign(tmp_path, JOBS)
    async with Sandbox(quick_provider(seed=nth)) as provider:
        assert await run_and_die(server, provider.url, made.source, tmp_path / "dead", nth, when) == -signal.SIGKILL
        # What is in the bucket at this moment, as whoever looks has it: all that was accepted is covered.
        seen = tmp_path / "seen"
        refresh(seen, NIGHT)
        check_liability(seen, provider.requests())
        config = machine(tmp_path / "other", provider.url)
        with pytest.raises(RunDirectoryError, match=r"is in use: process \d+ .* run again when it has given none for"):
            await run_at(config, made)
        monkeypatch.setattr(holder, "STALE_S", 0.0)
        results = [await run_at(config, made)]
        while results[-1].exit_code != 0:
            assert len(results) < 10, results[-1].summary
            results.append(await run_at(config, made))
        folder = run_folder(config, made, None)
        assert "gave no sign for" in (folder / "run.log").read_text()
        check_books(folder, provider.invoice())
        check_nothing_bought_twice(made, provider.invoice())
        check_videos(folder, provider.requests())
        assert len(provider.invoice()["charges"]) == JOBS


async def test_who_died_goes_on_at_once_on_its_own_disk(server: Server, files: Any, tmp_path: Path) -> None:
    """Its folder's lock is free, so that its name in the bucket is that of a dead process."""
    made = campaign(tmp_path, JOBS)
    async with Sandbox(quick_provider()) as provider:
        assert await run_and_die(server, provider.url, made.source, tmp_path / "disk", 4, "here") == -signal.SIGKILL
        config = machine(tmp_path / "disk", provider.url)
        while (done := await run_at(config, made)).exit_code != 0:
            assert done.exit_code == 5, done.summary
        check_books(run_folder(config, made, None), provider.invoice())
        assert len(provider.invoice()["charges"]) == JOBS
