"""Reading one part ahead: a thread makes the next part while its user works on this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def one_ahead(parts: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same parts in their order, none of which may be None. While one is used, the next one is being made.

    This pays where the making of a part releases the interpreter's lock, as reading by Arrow does. An error in making a
    part is raised where that part would have come. The end of the block waits for the part that is being made.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:

        def follow() -> Iterator[T]:
            coming = thread.submit(next, parts, None)
            while (part := coming.result()) is not None:
                coming = thread.submit(next, parts, None)
                yield part

        yield follow()
