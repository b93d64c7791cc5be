"""One step ahead: what comes next is got ready in a thread, while its user is busy with what is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def one_ahead(parts: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same parts in their order, none of which may be None. From the first on, one more is always on its way.

    It pays where a part is read by what leaves the interpreter to others, as Arrow does. What goes wrong in getting a
    part is raised where that part would have come. The end of the block waits for the one that is on its way.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:

        def follow() -> Iterator[T]:
            coming = thread.submit(next, parts, None)
            while (part := coming.result()) is not None:
                coming = thread.submit(next, parts, None)
                yield part

        yield follow()
