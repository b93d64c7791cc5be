"""Python's garbage collector, told when there is little or nothing for it to find."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

MANY = 100_000
"""So many objects are worth it to be spared a look."""


@contextlib.contextmanager
def no_garbage_collector() -> Iterator[None]:
    """A million objects are made and none is dropped: looking for garbage among them takes as long as making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            # They are counted also while nobody looks.
            if gc.get_count()[0] > MANY and not gc.get_freeze_count():
                # By this they are old at once: the first look at a million young ones takes more than a second. It puts
                # off every other look as well, so it is not for a few.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def calm_garbage_collector() -> Iterator[None]:
    """Thousands of live coroutines make frequent collections dear: measured, 1.5 times the throughput."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def give_back_memory() -> None:
    """Give the system what the allocator keeps of memory that was much needed once: up to half of all that it has."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
