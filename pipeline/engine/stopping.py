"""Why a run ends early, and its two stages.

*Stopping*: nothing new starts, and what runs is carried to its end. *Leaving*: nobody waits for the provider any more,
and what runs is left to the next run. Neither cancels bookkeeping: a worker notices at its next wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class StopReason(Enum):
    """What stopped a run: the word in `stopped_by`, and the exit code."""

    ACCOUNT = ("account", 4)
    INTERRUPTED = ("interrupted", 130)
    MACHINE = ("machine", 6)
    CAP = ("cap", 3)
    DEADLINE = ("deadline", 3)
    LIMIT = ("limit", 3)
    FAILURE_RATE = ("failure_rate", 3)
    CANARY = ("canary", 3)
    CREDITS = ("credits", 3)

    def __init__(self, word: str, exit_code: int) -> None:
        self.word = word
        self.exit_code = exit_code


_GRAVITY = [4, 130, 6, 5, 3, 1, 0]
"""Exit codes, the gravest first: where several hold, the first of them is given."""


def gravest(exit_codes: list[int]) -> int:
    """The exit code to give when all of these hold."""
    return min(exit_codes, key=_GRAVITY.index, default=0)


class LeavingError(Exception):
    """The run is being left: whoever waits stops waiting and keeps what is recorded."""


class Stopping:
    """Whether and why the run is ending. The first reason is the one that is told, unless a graver one follows."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.message = ""
        self.changed = asyncio.Event()
        """Set whenever the dispatcher should look again."""
        self._leaving = asyncio.Event()
        self._interrupted = False
        self._waiting: dict[asyncio.Task[Any], float] = {}
        """The tasks at a wait that may be abandoned, and how many seconds each may still take then."""
        self._starting: set[asyncio.Task[Any]] = set()
        """The tasks at a wait that has no purpose once nothing new may start."""

    @property
    def is_stopping(self) -> bool:
        """Nothing new may start."""
        return self.reason is not None

    @property
    def is_leaving(self) -> bool:
        """Nobody waits any more."""
        return self._leaving.is_set()

    @property
    def is_urgent(self) -> bool:
        """Stopped by a person, the account or the machine: only what runs is finished, nothing is waited for."""
        return self.reason is not None and self.reason.exit_code != 3

    def stop(self, reason: StopReason, message: str) -> None:
        """Start nothing more."""
        if self.reason is None or _GRAVITY.index(reason.exit_code) < _GRAVITY.index(self.reason.exit_code):
            self.reason = reason
            self.message = message
        self.changed.set()
        # Each task is cancelled only once: on a second cancel, `uncancel() == 0` no longer holds, and the task would
        # take it for a cancel from outside.
        while self._starting:
            task = self._starting.pop()
            # The task whose own answer caused this stop is not cancelled: it goes on and checks `is_stopping` itself.
            if not _is_this(task):
                task.cancel()

    def leave(self, reason: StopReason, message: str) -> None:
        """Wait for nothing more."""
        self.stop(reason, message)
        if self._leaving.is_set():
            return  # each task is cancelled only once, as in `stop`
        if self.reason is reason:
            self.message = message  # what makes a run be left says more than what had stopped it
        self._leaving.set()
        # A cancel reaches only tasks that stand at a wait which may be abandoned, never one that keeps books.
        for task, grace_s in self._waiting.items():
            if grace_s:
                task.get_loop().call_later(grace_s, self._abandon, task)
            else:
                task.cancel()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        if task in self._waiting:  # still at the same wait: no task begins another one while the run is being left
            task.cancel()

    def interrupt(self) -> None:
        """A person's signal: the first stops, the second leaves."""
        if self._interrupted:
            self.leave(StopReason.INTERRUPTED, "interrupted twice: what runs is left to the next run")
        else:
            self._interrupted = True
            self.stop(StopReason.INTERRUPTED, "interrupted: nothing new starts, what runs is finished")

    async def unless_stopping(self, waiting: Awaitable[T]) -> T:
        """Await something that has no purpose once nothing new may start.

        Raises:
            LeavingError: the run is stopping; what was awaited is cancelled.
        """
        task = asyncio.current_task()
        assert task is not None
        if self.is_stopping:
            if asyncio.iscoroutine(waiting):
                waiting.close()
            raise LeavingError
        self._starting.add(task)
        try:
            return await waiting
        except asyncio.CancelledError:
            if task not in self._starting and task.uncancel() == 0:
                raise LeavingError from None
            raise
        finally:
            self._starting.discard(task)

    async def unless_leaving(self, waiting: Awaitable[T], grace_s: float = 0.0) -> T:
        """Await something that may safely be abandoned, such as a wait or a free question.

        Args:
            grace_s: how long it may still take when the run is being left, where its outcome should not be lost.

        Raises:
            LeavingError: the run is being left; what was awaited is cancelled.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._leaving.is_set():
            if asyncio.iscoroutine(waiting):
                waiting.close()
            raise LeavingError
        self._waiting[task] = grace_s
        try:
            return await waiting
        except asyncio.CancelledError:
            if self._leaving.is_set() and task.uncancel() == 0:
                raise LeavingError from None
            raise
        finally:
            del self._waiting[task]


def _is_this(task: asyncio.Task[Any]) -> bool:
    """Whether `task` is the one that runs now. In a signal's handler or in another thread, none is."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
