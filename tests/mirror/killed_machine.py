"""A machine that dies by SIGKILL at its n-th segment: `here` when only its disk has it, `there` when both have."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from bucket import machine, run_at

from pipeline.ledger.segments import SegmentName
from pipeline.manifest import load_manifest
from pipeline.mirror.mirror import Mirror


def kill_at(nth: int, when: str) -> None:
    """Arrange for the process to die at its n-th segment."""
    follow = Mirror.follow
    followed = 0

    def deadly(mirror: Mirror, name: SegmentName) -> None:
        nonlocal followed
        followed += 1
        if followed == nth and when == "here":
            os.kill(os.getpid(), signal.SIGKILL)
        follow(mirror, name)
        if followed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    Mirror.follow = deadly  # type: ignore[method-assign]


def live_and_die(account: Mapping[str, str], url: str, manifest: Path, disk: Path, nth: int, when: str) -> None:
    """The main function of its process."""
    os.environ.update(account)
    kill_at(nth, when)
    asyncio.run(run_at(machine(disk, url), load_manifest(manifest)))
