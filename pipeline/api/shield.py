"""What stands between a run and whoever watches it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import ParamSpec

from pipeline.kernel.logger import LOGGER
from pipeline.ledger.events import Event
from pipeline.runner.watching import LiveRun, Watcher

P = ParamSpec("P")


class Shielded(Watcher):
    """A watcher that cannot harm the run: one that raises an exception is told no more, and the run goes on.

    The traceback goes to standard error, since it is of the caller's own code, and its frames to run.log.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._has_failed = False

    def started(self, live: LiveRun) -> None:
        self._tell(self._watcher.started, live)

    def notice(self, message: str) -> None:
        self._tell(self._watcher.notice, message)

    def event(self, event: Event) -> None:
        self._tell(self._watcher.event, event)

    def ended(self) -> None:
        self._tell(self._watcher.ended)

    def _tell(self, method: Callable[P, None], *facts: P.args, **named: P.kwargs) -> None:
        if self._has_failed:
            return
        try:
            method(*facts, **named)
        except Exception:
            self._has_failed = True
            traceback.print_exc()
            logging.getLogger(LOGGER).exception("the watcher failed and is told no more")
