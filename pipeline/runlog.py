"""run.log: one JSON line for each thing that happened, in the ledger's words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from pipeline.kernel.clock import iso
from pipeline.ledger.events import Event


class RunLog(logging.Handler):
    """Appends to run.log: events as they become durable, and what the engine logs besides.

    The log explains, it does not prove: it is not flushed to the disk, and a disk that refuses it stops nothing.
    """

    def __init__(self, path: Path, *secrets: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o644)
        # Only now that the file is open: the logging module remembers each handler, and closes it at exit.
        super().__init__()
        self._secrets = secrets
        self._lines: deque[bytes] = deque()
        """Lines to be written. In an event loop, the events of one commit are written together."""

    def event(self, event: Event) -> None:
        """Note an event that has become durable."""
        self._lines.append(self._line(in_ledger_words(event)))
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._flush()

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"at": iso(int(record.created * 1e6)), "event": "log", "message": record.getMessage()}
        if job_id := getattr(record, "job_id", None):
            facts["job_id"] = job_id
        if record.exc_info and record.exc_info[1] is not None:
            # Frames only: the text of a stranger's exception may hold anything, the key included.
            facts["where"] = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])]
            facts["error"] = type(record.exc_info[1]).__name__
        self._lines.append(self._line(facts))
        self._flush()

    def _line(self, facts: dict[str, Any]) -> bytes:
        return one_line(facts, *self._secrets).encode() + b"\n"

    def _flush(self) -> None:
        lines = []
        with contextlib.suppress(IndexError):  # another thread may log at the same time
            while True:
                lines.append(self._lines.popleft())
        if lines:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, b"".join(lines))

    def close(self) -> None:
        self._flush()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        super().close()


def in_ledger_words(event: Event) -> dict[str, Any]:
    """An event in the ledger's words, without what does not apply to it."""
    names = ("seq", "job_id", "attempt", "request_id", "error_class", "http_status", "detail", "path")
    money = ("quote_microusd", "cost_microusd")
    facts = {name: value for name in (*names, *money) if (value := getattr(event, name))}
    return {"at": iso(event.at_us), "event": event.event.value, **facts}


def one_line(facts: Mapping[str, Any], *secrets: str) -> str:
    """Facts as JSON on one line, with the secrets replaced; an empty secret is ignored."""
    text = _json(facts)
    for secret in filter(None, secrets):
        # As it stands in JSON, where a quote or a backslash is written as two characters.
        text = text.replace(orjson.dumps(secret).decode()[1:-1], "[key]")
    return text


def _json(facts: Mapping[str, Any]) -> str:
    """The facts on one line. A stranger's text may hold half of a surrogate pair, which orjson refuses."""
    try:
        return orjson.dumps(facts).decode()
    except TypeError:
        return json.dumps(facts, default=str)
