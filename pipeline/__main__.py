"""`kling-batch`, and `python -m pipeline`: a process of our own, made ready before anything heavy is imported."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from typing import NoReturn

from pipeline import cli

_M_ARENA_MAX = -8
"""Of `malloc.h`."""


def main() -> NoReturn:
    """Run the command and exit with its code."""
    make_ready()
    try:
        cli.main()
    finally:
        # All goes with the process: nobody need look for garbage in it, half a second among a million jobs.
        gc.freeze()


def make_ready() -> None:
    """Make this process a small one, with all of its streams."""
    # In their order, so that each takes the number of the one that is missing, and no file of a run ever does.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lasts
    # Arrow's own pool keeps what it was given back: a fifth of the memory of whoever reads a large ledger.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _keep_to_one_heap()
    sys.meta_path.insert(0, _WithoutPandas())


def _keep_to_one_heap() -> None:
    """Have all threads take memory from one heap: each one's own keeps what it has freed from all others.

    Only the C library of GNU has several, and only it can be told. A run of a hundred thousand takes a fifth less.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class _WithoutPandas:
    """Arrow loads pandas to see that a list is no data frame: 33 MiB and a third of a second. No verb makes one."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Say of pandas that it is not there, and nothing of other modules."""
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


if __name__ == "__main__":
    main()
