"""Which stored videos are not on the disk any more: the ledger cannot know that somebody has deleted one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.kernel.arrow import Numbers, pc
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.mirror.places import FILE as MIRROR

VIDEOS = "videos"

STEP = 65_536
"""So many paths become Python's texts at a time."""


def missing_videos(folder: Path, state: State) -> list[str]:
    """The paths of the stored videos of a run directory that are not there, in the order in which they were begun.

    None where the directory is kept in object storage, which has them, and none where the disk does not say.
    """
    if not state.counts[JobState.STORED]:
        return []
    stored = state.jobs.columns(("state", "path"))
    paths = stored["path"].filter(pc.equal(stored["state"], JobState.STORED.name))
    # Listed after the state was read: what a run stores meanwhile has its name before it counts.
    try:
        if (folder / MIRROR).exists():
            return []
        with os.scandir(folder / VIDEOS) as entries:
            there = _marks(f"{VIDEOS}/{entry.name}" for entry in entries)
    except FileNotFoundError:
        there = _marks([])
    except OSError:
        return []
    marks = _marks(path for start in range(0, len(paths), STEP) for path in paths.slice(start, STEP).to_pylist())
    gone = paths.filter(pa.array(np.isin(marks, _not_among(there, marks))))
    # A path that leads elsewhere is no work of ours, and is not looked for.
    return [path for path in gone.to_pylist() if path and path.startswith(f"{VIDEOS}/")]


def _marks(names: Iterable[str | None]) -> Numbers:
    """A number for each name: a tenth of the memory of a million names, and no two are likely to be alike."""
    return np.fromiter(map(hash, names), np.int64)


def _not_among(there: Numbers, marks: Numbers) -> Numbers:
    """The marks that are not there. Both in order first: looked for in disorder, a million take ten times as long."""
    there, marks = np.sort(there), np.sort(marks)
    is_absent = np.searchsorted(there, marks, "left") == np.searchsorted(there, marks, "right")
    return np.compress(is_absent, marks)
