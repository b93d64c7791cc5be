"""A run directory in object storage, by the real S3 protocol: what is there is what a run on a disk has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from bucket import NIGHT, contents, machine, run_at
from support import campaign, check_books, check_videos, durable_state, quick_provider, run_once

from pipeline.kernel.clock import SystemClock
from pipeline.mirror import holder
from pipeline.mirror.run_files import RunFiles
from pipeline.runner.choice import run_folder
from pipeline.runner.watching import LiveRun, Watcher
from pipeline.sandbox import Sandbox
from pipeline.settling import _resolve

JOBS = 4


async def test_what_is_in_the_bucket_is_what_the_run_has_on_its_disk(files: Any, tmp_path: Path) -> None:
    made = campaign(tmp_path, JOBS)
    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "disk", provider.url, media__verify="frames")
        done = await run_at(config, made)
        assert (done.exit_code, done.summary["stored"]) == (0, JOBS)
        folder = run_folder(config, made, None)
        check_books(folder, provider.invoice())
        check_videos(folder, provider.requests())
    assert folder == tmp_path / "disk/s3/films-of-lamps/runs/campaign"
    there = contents(files)
    assert json.loads(there.pop("_holder.json"))["has_left"]
    kept = ("ledger/0", "ledger/_head", "videos/", "posters/", "report/", "jobs", "manifest", "config", "run.log")
    here = {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()).startswith(kept)
    }
    assert len([name for name in here if name.startswith("videos/")]) == JOBS
    assert there == here
    video = next(iter(folder.glob("videos/*")))
    said = files.metadata(f"{NIGHT.removeprefix('s3://')}/videos/{video.name}")
    assert len(said["sha256"]) == 64


async def test_another_machine_goes_on_from_the_bucket_and_pays_nothing_twice(files: Any, tmp_path: Path) -> None:
    made = campaign(tmp_path, JOBS)
    async with Sandbox(quick_provider()) as provider:
        first, second = (machine(tmp_path / name, provider.url) for name in ("one", "two"))
        assert (await run_at(first, made, limit=2)).exit_code == 3
        done = await run_at(second, made)
        assert (done.exit_code, done.summary["stored"]) == (0, JOBS)
        check_books(run_folder(second, made, None), provider.invoice())
        assert len(provider.invoice()["charges"]) == JOBS
        # And back: the first machine's copy is behind, and is brought up to date.
        again = await run_at(first, made)
        assert (again.exit_code, again.summary["stored"]) == (0, JOBS)
        assert len(provider.invoice()["charges"]) == JOBS


async def test_a_ledger_that_was_emptied_here_comes_back_from_the_bucket(files: Any, tmp_path: Path) -> None:
    """Its report tells of attempts, for which a folder on the disk alone is refused. It is named by its path here."""
    made = campaign(tmp_path, JOBS)
    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "one", provider.url)
        assert (await run_at(config, made)).exit_code == 0
        folder = run_folder(config, made, None)
        for path in (folder / "ledger").iterdir():
            path.unlink()
        again = await run_once(made, config, folder)
        assert (again.exit_code, again.summary["stored"]) == (0, JOBS)
        assert len(provider.invoice()["charges"]) == JOBS


async def test_a_persons_word_reaches_the_bucket_while_its_place_is_held(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report follows the ledger, and never lands upon that of a run that has begun since."""
    made = campaign(tmp_path, 1)
    async with Sandbox(quick_provider(faults={"submit_504_before": 1.0})) as provider:
        config = machine(tmp_path / "one", provider.url, in_doubt__wait_s="0.1")
        assert (await run_at(config, made)).exit_code == 5
    folder = run_folder(config, made, None)
    real, left = RunFiles.publish, list[bool]()

    def publish(self: RunFiles, patterns: Iterable[str]) -> None:
        left.append("has_left" in json.loads(contents(files)["_holder.json"]))
        real(self, patterns)

    monkeypatch.setattr(RunFiles, "publish", publish)
    (job,) = durable_state(folder).jobs
    await _resolve(folder, job, None, None, SystemClock())
    assert left == [False]
    said = json.loads(contents(files)["report/summary.json"])
    assert (said["in_doubt"], said["in_doubt_usd"], said["running"]) == (0, "0.00", 0)
    assert said["finished_at"] is not None
    assert json.loads(contents(files)["_holder.json"])["has_left"]


async def test_whoever_takes_the_place_of_a_silent_machine_says_so(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To whoever watches, when the run begins, and in its log."""
    opened: list[LiveRun] = []

    class Sees(Watcher):
        def started(self, live: LiveRun) -> None:
            opened.append(live)

    monkeypatch.setattr(holder, "STALE_S", 0.0)
    made = campaign(tmp_path, 1)
    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "two", provider.url)
        sign = {"token": "t", "state_id": "other", "pid": 7, "host": "box", "since": "2026-06-01T22:00:00Z", "at": ""}
        files.pipe_file(f"{NIGHT}/_holder.json", json.dumps(sign).encode())
        assert (await run_at(config, made, watcher=Sees())).exit_code == 0
        (notice,) = opened[0].notices
        assert re.fullmatch(
            r"the place of a run that gave no sign for \d+ s was taken over: process 7 on box .*", notice
        )
        assert notice in (run_folder(config, made, None) / "run.log").read_text()
        assert (await run_at(config, made, watcher=Sees())).exit_code == 0
    assert opened[1].notices == ()
