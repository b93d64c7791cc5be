"""An event loop whose clock jumps to the next timer as soon as nothing is left to do: five minutes in no time.

Real sockets and real threads work in it: time stands still while a socket is ready or a thread is busy. Without either
the same program takes the same steps at the same times, always.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

SMALLEST_STEP_S = 1e-6
"""The least that a turn of the loop takes: a timer that is due but for a rounding error must not spin for ever."""

TURNS_BETWEEN_LOOKS = 64
"""A loop without threads asks the system for events once in this many turns."""

STARTED_US = 1_800_000_000_000_000
"""What the wall clock shows when a virtual loop begins."""


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0) if self.loop.looks_outside() else []
        if ready or timeout == 0:
            self.loop.now_s += SMALLEST_STEP_S
            return ready
        if timeout is None or self.loop.busy_threads:
            return super().select(0.05)
        self.loop.now_s += max(timeout, SMALLEST_STEP_S)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. Without `threads`, work that is meant for a thread is done at once, by the loop itself."""

    def __init__(self, *, threads: bool = True) -> None:
        self._threads = threads
        self._turns = 0
        self.now_s = 0.0
        self.busy_threads = 0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        if not self._threads:
            return self._done_at_once(func, *args)
        self.busy_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def looks_outside(self) -> bool:
        """Whether to ask the system if something is ready. Without threads only a signal can be, and it may wait."""
        self._turns += 1
        return self._threads or self._turns % TURNS_BETWEEN_LOOKS == 0

    def _done_at_once(self, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self.busy_threads -= 1


class VirtualClock:
    """The clock of the running virtual loop, which shows `started_us` when the loop begins.

    `wall_offset_s` lets a test set the wall clock wrong.
    """

    def __init__(self, started_us: int = STARTED_US) -> None:
        self.started_us = started_us
        self.wall_offset_s = 0.0

    def now_us(self) -> int:
        return self.started_us + int((asyncio.get_running_loop().time() + self.wall_offset_s) * 1e6)

    def wall_s(self) -> float:
        """The same as seconds, as a sandbox wants it."""
        return self.now_us() / 1e6

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def run_virtually(main: Coroutine[Any, Any, T], *, threads: bool = True) -> T:
    """Run a coroutine in virtual time; see `VirtualLoop`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(threads=threads)) as runner:
        return runner.run(main)
