"""Python's garbage collector, told when there is little or nothing for it to find."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

MANY = 100_000
"""From this many new objects on, skipping their first collection pays."""


@contextlib.contextmanager
def no_garbage_collector() -> Iterator[None]:
    """Collect nothing in the block, which makes many objects and drops none.

    Looking for garbage among a million of them takes as long as making them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # Allocations are counted even while the collector is disabled.
            if gc.get_count()[0] > MANY and not gc.get_freeze_count():
                # These two move all objects to the oldest generation at once: the first collection of a million young
                # objects would take over a second. It also delays every other collection, so it is done only for many.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def calm_garbage_collector() -> Iterator[None]:
    """Collect less often in the block. Beside thousands of live coroutines that gives 1.5 times the throughput."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def give_back_memory() -> None:
    """Return to the system what Arrow's allocator keeps after a peak: up to half of the process's memory."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
