"""The facts that the ledger records: one frozen event each, one row of the parquet each.

`COLUMNS` is the schema of every segment from the first day on. A column that does not apply to an event is null for
text and floats, and 0 for integers, so that pandas reads the integers as integers.
"""

from __future__ import annotations

from enum import StrEnum
from operator import itemgetter
from typing import Any, NamedTuple


class EventKind(StrEnum):
    """What happened, in the order of a run in which all goes well."""

    RUN_STARTED = "run_started"
    ACCOUNT = "account"
    UPLOADED = "uploaded"
    RESERVED = "reserved"
    IN_DOUBT = "in_doubt"
    SUBMITTED = "submitted"
    VOIDED = "voided"
    POSTED = "posted"
    FETCH_FAILED = "fetch_failed"
    STORED = "stored"
    FAILED = "failed"
    RETRY_GRANTED = "retry_granted"
    RUN_ENDED = "run_ended"


RUN_EVENTS = frozenset({EventKind.RUN_STARTED, EventKind.ACCOUNT, EventKind.UPLOADED, EventKind.RUN_ENDED})
"""Events of a run as a whole: they name no job."""


class Event(NamedTuple):
    """One fact. `seq` and `at_us` are given by the ledger when it is recorded.

    Units: `at_us` microseconds since 1970 in UTC; money in micro-dollars; `bytes` of the video; `duration_s`,
    `queue_s`, `inference_s` seconds; `width`, `height` pixels. `request` is the body as sent (JSON), on `reserved`.
    `path` and `poster` are relative to the run directory; `path` on `reserved` is where the
    video shall go. `detail` is a sentence, or JSON on the events of a run. On `uploaded`, `sha256`, `bytes`, `path` and
    `url` are those of a start image: its hash, its size, the name of its file, and where the provider keeps it.

    It is a tuple because millions are made when a ledger is read; give the values by name.
    """

    event: EventKind
    seq: int = 0
    at_us: int = 0
    job_id: str | None = None
    attempt: int = 0
    request_id: str | None = None
    quote_microusd: int = 0
    cost_microusd: int = 0
    request: str | None = None
    error_class: str | None = None
    detail: str | None = None
    http_status: int = 0
    model: str | None = None
    url: str | None = None
    path: str | None = None
    poster: str | None = None
    sha256: str | None = None
    bytes: int = 0
    duration_s: float | None = None
    width: int = 0
    height: int = 0
    queue_s: float | None = None
    inference_s: float | None = None


SAID_BILLED = "said that it was billed"
"""In the `detail` of `submitted`: a person, and not the provider, has named the request."""


COLUMNS: dict[str, str] = {
    "seq": "int64",
    "at": "timestamp[us, UTC]",
    "job_id": "string",
    "attempt": "int32",
    "event": "string",
    "request_id": "string",
    "quote_microusd": "int64",
    "cost_microusd": "int64",
    "request": "string",
    "error_class": "string",
    "detail": "string",
    "http_status": "int32",
    "model": "string",
    "url": "string",
    "path": "string",
    "poster": "string",
    "sha256": "string",
    "bytes": "int64",
    "duration_s": "double",
    "width": "int32",
    "height": "int32",
    "queue_s": "double",
    "inference_s": "double",
}
"""Name and type of every column, in the order of the file."""

FIELD_OF_COLUMN = {column: "at_us" if column == "at" else column for column in COLUMNS}
"""The field of `Event` that a column holds."""

_TEXTS = tuple(name for name, kind in COLUMNS.items() if kind == "string" and name != "event")
_texts = itemgetter(*map(Event._fields.index, _TEXTS))


def stamped(event: Event, seq: int, at_us: int) -> Event:
    """`event` with its number and its time, and every text fit for UTF-8."""
    return _mended(Event(event.event, seq, at_us, *event[3:]))


def _mended(event: Event) -> Event:
    """Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    changed: dict[str, Any] = {}
    for name, text in zip(_TEXTS, _texts(event), strict=True):
        if text is not None and not text.isascii():
            changed[name] = text.encode("utf-8", "replace").decode()
    return event._replace(**changed) if changed else event
