"""What the tests of the mirror share: runs whose directory is in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import fast_config, run_once

from pipeline.config import Config
from pipeline.ledger.encoding import GENESIS, encode, encode_merged, link, table_of
from pipeline.ledger.reading import read_events
from pipeline.ledger.segments import SegmentName, write_segment
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


def merged_apart(folder: Path, first: int, last: int, *, compress: bool = True) -> None:
    """Have one segment of these events in a ledger, as a merge at other borders or by another Arrow makes it."""
    ledger = folder / "ledger"
    events, points = read_events(ledger), [GENESIS]
    for event in events:
        points.append(link(points[-1], [event]))
    for path in list(ledger.glob("0*.parquet")):
        name = SegmentName.parse(path.name)
        if name is not None and first <= name.first and name.last <= last:
            path.unlink()
    mine = events[first - 1 : last]
    ends = points[first - 1], points[last]
    write_segment(ledger, mine, encode_merged([table_of(mine)], len(mine), *ends) if compress else encode(mine, *ends))


def contents(files: Any, root: str = NIGHT) -> dict[str, bytes]:
    root = root.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}
