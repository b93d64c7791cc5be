"""A client that kills itself with SIGKILL at its n-th ledger append, `before` or `after` the segment is durable."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from support import fast_config, run_once

from pipeline.ledger import segments
from pipeline.manifest import load_manifest


def kill_at(nth: int, when: str) -> None:
    """Arrange for the process to die at its n-th append."""
    write_segment = segments.write_segment
    appends = 0

    def deadly(*arguments: Any) -> Any:
        nonlocal appends
        appends += 1
        if appends == nth and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        written = write_segment(*arguments)
        if appends == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    segments.write_segment = deadly


def live_and_die(url: str, manifest: Path, folder: Path, nth: int, when: str) -> None:
    """The main function of its process."""
    kill_at(nth, when)
    asyncio.run(run_once(load_manifest(manifest), fast_config(url), folder))
