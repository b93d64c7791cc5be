"""Cancellation where nobody expects it: a task of the pipeline is told to end at the n-th await of a life."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType
from typing import Any

import virtual_time
import worlds
from kill_points import ROOT, die

SANDBOX = ROOT / "sandbox"


def _is_ours(coroutine: object) -> bool:
    """Whether it is code of the pipeline, and not of the provider's double that lives in the same loop."""
    if not isinstance(coroutine, CoroutineType):
        return False
    path = Path(coroutine.cr_code.co_filename)
    return path.is_relative_to(ROOT) and not path.is_relative_to(SANDBOX)


def _awaited(coroutine: object) -> Iterator[object]:
    """A coroutine, what it awaits, and so on inwards."""
    while coroutine is not None:
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None)


@dataclass(frozen=True, slots=True)
class CancelAtAwait:
    """Cancel the task that makes the n-th of all awaits in the pipeline's tasks; a file is told which it was.

    The task that awaits the run itself counts too. If it is cancelled, its process dies as soon as it has cleaned up.
    """

    nth: int
    told: Path

    def arm(self) -> None:
        create_task, awaits = virtual_time.VirtualLoop.create_task, itertools.count(1)

        def create(loop: virtual_time.VirtualLoop, coroutine: Coroutine[Any, Any, Any], **named: Any) -> Any:
            return create_task(loop, _Watched(coroutine, self, awaits), **named)

        virtual_time.VirtualLoop.create_task = create  # type: ignore[method-assign]


class _Watched(Coroutine[Any, Any, Any]):
    """A task's coroutine, of which each await is counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], doom: CancelAtAwait, awaits: Iterator[int]) -> None:
        self._inner = inner
        self._doom = doom
        self._awaits = awaits

    def send(self, value: Any) -> Any:
        return self._count(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._count(lambda: self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._inner.__await__())

    def _count(self, step: Callable[[], Any]) -> Any:
        try:
            waits_for = step()
        except asyncio.CancelledError:
            if getattr(self._inner, "cr_code", None) is worlds._alive.__code__:
                die()
            raise
        if any(map(_is_ours, _awaited(self._inner))) and next(self._awaits) == self._doom.nth:
            task = asyncio.current_task()
            assert task is not None
            self._doom.told.write_text(getattr(self._inner, "__name__", type(self._inner).__name__))
            asyncio.get_running_loop().call_soon(task.cancel)
        return waits_for
