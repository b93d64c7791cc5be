"""run.log: one JSON line for each thing that happened, in the ledger's words."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import traceback
from pathlib import Path
from typing import Any

import orjson

from pipeline.kernel.clock import iso
from pipeline.ledger.events import Event

LOGGER = "kling_batch"


class RunLog(logging.Handler):
    """Appends to run.log: events as they become durable, and what the engine logs besides.

    The log explains, it does not prove: it is not flushed to the disk, and a disk that refuses it stops nothing.
    """

    def __init__(self, path: Path, *secrets: str) -> None:
        super().__init__()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o644)
        # As it stands in JSON, where a quote or a backslash is written as two characters.
        self._secrets = [orjson.dumps(secret).decode()[1:-1] for secret in secrets if secret]

    def event(self, event: Event) -> None:
        """Note an event that has become durable."""
        facts = {
            name: value
            for name in ("seq", "job_id", "attempt", "request_id", "error_class", "http_status", "detail", "path")
            if (value := getattr(event, name))
        }
        for name in ("quote_microusd", "cost_microusd"):
            if getattr(event, name):
                facts[name] = getattr(event, name)
        self._write({"at": iso(event.at_us), "event": event.event.value, **facts})

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"at": iso(int(record.created * 1e6)), "event": "log", "message": record.getMessage()}
        if job_id := getattr(record, "job_id", None):
            facts["job_id"] = job_id
        if record.exc_info and record.exc_info[1] is not None:
            # Frames only: the text of a stranger's exception may hold anything, the key included.
            facts["where"] = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(record.exc_info[2])]
            facts["error"] = type(record.exc_info[1]).__name__
        self._write(facts)

    def _write(self, facts: dict[str, Any]) -> None:
        text = _json(facts)
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        try:
            os.write(self._descriptor, text.encode() + b"\n")
        except OSError:
            return

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        super().close()


def _json(facts: dict[str, Any]) -> str:
    """The facts on one line. A stranger's text may hold half a character, which is no reason to stop anything."""
    try:
        return orjson.dumps(facts).decode()
    except TypeError:
        return json.dumps(facts, default=str)
