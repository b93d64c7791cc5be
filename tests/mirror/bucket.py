"""What the tests of the mirror share: runs whose directory is in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import fast_config, run_once

from pipeline.config import Config
from pipeline.manifest import Campaign
from pipeline.mirror.mirror import refresh
from pipeline.mirror.places import attach
from pipeline.runner.choice import run_folder
from pipeline.runner.ending import RunResult

BUCKET = "films-of-lamps"
RUNS = f"s3://{BUCKET}/runs"
NIGHT = f"{RUNS}/campaign"


def machine(folder: Path, url: str, **changes: str) -> Config:
    """The configuration of a machine whose disk is `folder`, for the provider at `url`."""
    return fast_config(url, output__dir=RUNS, output__local_dir=str(folder), **changes)


async def run_at(config: Config, made: Campaign, **options: Any) -> RunResult:
    """One run, as the command line would do it, of a directory in the bucket."""
    folder = run_folder(config, made, None)
    refresh(folder, NIGHT)
    attach(folder, NIGHT)
    return await run_once(made, config, folder, **options)


def contents(files: Any, root: str = NIGHT) -> dict[str, bytes]:
    root = root.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}
