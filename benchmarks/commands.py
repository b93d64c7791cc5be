"""What a command costs: a process of its own, start and imports included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple


class Costs(NamedTuple):
    """What a process took until its end."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def users_environment() -> dict[str, str]:
    """This environment, in which Python compiles each module once and not at every start, as users have it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure_command(*arguments: str) -> Costs:
    """Run `kling-batch` with these arguments, on all cores that there are."""
    started_s = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=users_environment(),
    )
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"{' '.join(arguments)} ended with {status}"
    return Costs(time.monotonic() - started_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
