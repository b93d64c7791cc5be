"""Lines and states by hand: what a manifest asked for and what the ledger says became of it."""

from __future__ import annotations

from typing import Any

from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.report.lines import Line

NOON_US = 1_750_000_000_000_000
QUOTE = 1_750_000

LIVES: dict[str, tuple[str, ...]] = {
    "pending": (),
    "reserved": ("reserved",),
    "running": ("reserved", "submitted"),
    "in_doubt": ("reserved", "in_doubt"),
    "unfetched": ("reserved", "submitted", "posted", "fetch_failed"),
    "stored": ("reserved", "submitted", "posted", "stored"),
    "failed": ("reserved", "voided", "failed"),
}
"""How a job comes to each status."""

_FACTS: dict[str, dict[str, Any]] = {
    "reserved": {"quote_microusd": QUOTE, "request": "{}", "model": "kling-2"},
    "in_doubt": {"error_class": "no_reply", "detail": "silence"},
    "voided": {"error_class": "bad_request", "http_status": 400, "detail": "cfg_scale is out of range"},
    "posted": {"cost_microusd": QUOTE, "url": "https://x.segmind.com/v.mp4", "queue_s": 1.5, "inference_s": 300.25},
    "fetch_failed": {"error_class": "fetch_failed", "http_status": 404, "detail": "not there"},
    "stored": {"path": "videos/v.mp4", "sha256": "0" * 64, "bytes": 5, "duration_s": 5.0, "width": 1280, "height": 720},
    "failed": {"error_class": "bad_request", "detail": "given up"},
}


def event(kind: str, job: str = "a", attempt: int = 1, **facts: Any) -> Event:
    """An event with the facts that its kind asks for, save those given."""
    usual = {"request_id": f"req-{job}-{attempt}"} if kind == "submitted" else _FACTS.get(kind, {})
    return Event(event=EventKind(kind), job_id=job, attempt=attempt, **{**usual, **facts})


def run_event(kind: str, detail: str = "{}") -> Event:
    """The start or the end of a run."""
    return Event(event=EventKind(kind), detail=detail)


def life(status: str, job: str) -> list[Event]:
    """The events that bring a job to a status."""
    return [event(kind, job) for kind in LIVES[status]]


def state_of(*events: Event) -> State:
    """The fold of events, a millisecond apart."""
    return fold(each._replace(seq=seq, at_us=NOON_US + seq * 1_000) for seq, each in enumerate(events, start=1))


def line(row: int, job: str, **facts: Any) -> Line:
    """A line of a manifest; `variables` and `params` as given."""
    params = {
        "prompt": f"a film of {job}",
        "negative_prompt": "",
        "cfg_scale": 0.5,
        "duration": 5,
        "aspect_ratio": "16:9",
        **facts.pop("params", {}),
    }
    usual = {"id": f"row-{row}", "replicate": 1, "model": "kling-2", "variables": {}}
    return Line(row=row, job_id=job, params=params, **{**usual, **facts})
