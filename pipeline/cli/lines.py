"""What scripts read of a run while it goes on: one JSON object a line, on standard output, as each thing happens."""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from pipeline import Event, LiveRun, Watcher
from pipeline.api import event_facts, json_line
from pipeline.cli.screen import safe_json
from pipeline.kernel.clock import SystemClock, iso
from pipeline.kernel.files import write_all

MOST_WAITING = 100_000
"""At most this many lines wait for a slow reader; further events are left out, and a line says how many."""


class EventLines(Watcher):
    """Prints a run's events, in the ledger's words and with the id of the row, and last of all its summary.

    A thread of its own writes: a reader that is slow, that stops or that goes away never holds up the run.
    """

    def __init__(self, *secrets: str, events: bool = True) -> None:
        self._secrets = secrets
        self._shown = events
        self._row_ids: dict[str, str] = {}
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._left_out = 0
        self._writer = threading.Thread(target=self._write_all, name="event lines", daemon=True)

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The run is over and its lock is free: from here on a slow reader may take its time.
        self._waiting.put(None)
        self._writer.join()

    def started(self, live: LiveRun) -> None:
        keys = live.lines.keys
        # From the last row to the first, so that a job of several rows is named after the first of them.
        self._row_ids = dict(zip(reversed(keys.job_ids), reversed(keys.ids), strict=True))
        for notice in live.notices if self._shown else ():
            self._tell(self._now("notice") | {"message": notice})

    def event(self, event: Event) -> None:
        if not self._shown:
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self._left_out += 1
            return
        self._tell_left_out()
        facts = event_facts(event)
        if event.job_id is not None:
            facts["id"] = self._row_ids.get(event.job_id)
        self._tell(facts)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """The last line: the content of summary.json."""
        self._tell_left_out()
        self._tell({**self._now("summary"), **summary})

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._tell(self._now("left_out") | {"events": self._left_out})
            self._left_out = 0

    def _now(self, event: str) -> dict[str, Any]:
        return {"event": event, "at": iso(SystemClock().now_us())}

    def _tell(self, facts: Mapping[str, Any]) -> None:
        self._waiting.put(safe_json(json_line(facts, *self._secrets)))

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            print_line(line)


def print_line(line: str) -> None:
    """Print a line at once, past every buffer. A reader who has gone away is no trouble."""
    try:
        write_all(sys.stdout.fileno(), f"{line}\n".encode())
    except io.UnsupportedOperation:
        print(line, flush=True)  # noqa: T201 - standard output is no file where the command is embedded
    except (OSError, ValueError):
        return
