"""What scripts read of a run while it goes on: one JSON object a line, on standard output, as each thing happens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from pipeline import Event, LiveRun, Watcher
from pipeline.api import event_facts, json_line
from pipeline.cli import INTERRUPTED
from pipeline.cli.outlet import LEAVING_SILENCE_S, Outlet
from pipeline.cli.screen import safe_json
from pipeline.kernel.clock import SystemClock, iso

MOST_WAITING = 100_000
"""At most this many lines wait for a slow reader; further events are left out, and a line says how many."""

LONGEST_SILENCE_S = 60.0
"""How long the end of a run waits for a reader that takes nothing: a script may be busy with what it has read."""


class EventLines(Watcher):
    """Prints a run's events, in the ledger's words and with the id of the row, and last of all its summary.

    A reader that is slow, that stops or that goes away never holds up the run. What a full disk does not take is left
    out like what no reader takes.
    """

    def __init__(self, *secrets: str, events: bool = True) -> None:
        self._secrets = secrets
        self._shown = events
        self._row_ids: dict[str, str] = {}
        self._outlet = Outlet(sys.stdout, encoding="utf-8", of_lost=self._of_lost, silence_s=LONGEST_SILENCE_S)
        self._left_out = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The run is over and its lock is free: from here on a slow reader may take its time, but not a silent one.
        if kind is not None:
            self._outlet.silence_s = LEAVING_SILENCE_S
        self._outlet.end()

    def started(self, live: LiveRun) -> None:
        keys = live.lines.keys
        # From the last row to the first, so that a job of several rows is named after the first of them.
        self._row_ids = dict(zip(reversed(keys.job_ids), reversed(keys.ids), strict=True))
        for notice in live.notices:
            self.notice(notice)

    def notice(self, message: str) -> None:
        if self._shown:
            self._tell(self._now("notice") | {"message": message})

    def event(self, event: Event) -> None:
        if not self._shown:
            return
        if self._outlet.pieces >= MOST_WAITING:
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
        if summary.get("exit_code") == INTERRUPTED:
            self._outlet.silence_s = LEAVING_SILENCE_S
        self._tell({**self._now("summary"), **summary})

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._outlet.put(self._of_lost(self._left_out), worth=self._left_out)
            self._left_out = 0

    def _of_lost(self, events: int) -> str:
        return self._line(self._now("left_out") | {"events": events})

    def _now(self, event: str) -> dict[str, Any]:
        return {"event": event, "at": iso(SystemClock().now_us())}

    def _tell(self, facts: Mapping[str, Any]) -> None:
        self._outlet.put(self._line(facts))

    def _line(self, facts: Mapping[str, Any]) -> str:
        return f"{safe_json(json_line(facts, *self._secrets))}\n"
