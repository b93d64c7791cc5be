"""Where an event loop may already be running: in a notebook, and in a program that is itself asynchronous."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Unawaited(ThreadPoolExecutor):
    """Does each piece of work in a thread of its own, which the end of neither loop nor process waits for.

    A look-up of a name cannot be broken off: where the resolver hangs, it would keep whoever wants to leave.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, for work that awaits all that must be done: what it has left behind is not waited for."""
    import asyncio

    runner = asyncio.Runner()
    try:
        runner.get_loop().set_default_executor(_Unawaited())
        return runner.run(work)
    finally:
        # Closing starts a thread, whether or not it has work: where none can be had, all is done nevertheless.
        with contextlib.suppress(RuntimeError):
            runner.close()


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
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
