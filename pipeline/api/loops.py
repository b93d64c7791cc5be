"""Where an event loop may already be running: in a notebook, and in a program that is itself asynchronous."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def is_in_loop() -> bool:
    """Whether an event loop is running in this thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_own_loop(work: Callable[[], T]) -> T:
    """Do what runs a loop of its own; in a thread, where this one has a loop that is running."""
    if not is_in_loop():
        return work()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
