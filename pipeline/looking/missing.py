"""Which stored videos are not on the disk any more: the ledger cannot know that somebody has deleted one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.mirror.places import FILE as MIRROR

pc: Any = pyarrow.compute
"""Its types do not say what it takes beside arrays."""

VIDEOS = "videos"


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
        names = os.listdir(folder / VIDEOS)
    except FileNotFoundError:
        names = []
    except OSError:
        return []
    # Bytes that are no text become half characters, which no array takes.
    there = pa.array(filter(str.isascii, names), pa.string())
    there = pc.binary_join_element_wise(VIDEOS, there, "/")
    gone = paths.filter(pc.invert(pc.is_in(paths, value_set=there)))
    # A path that leads elsewhere is no work of ours, and is not looked for.
    return [path for path in gone.to_pylist() if path and path.startswith(f"{VIDEOS}/")]
