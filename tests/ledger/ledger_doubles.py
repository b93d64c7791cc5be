"""Events, ledgers and a second, naive account of what may happen and what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pipeline.ledger.encoding import GENESIS, encode, encode_merged, link, table_of
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.ledger.reading import Reader
from pipeline.ledger.segments import SegmentName, write_segment
from pipeline.ledger.store import GATHER_S, open_ledger

QUOTE = 1_750_000
NOON_US = 1_750_000_000_000_000

# The states and the moves as the design tells them, said a second time and in other words than in the code.
MOVES = """
planned   reserved      reserved
voided    reserved      reserved
reserved  submitted     submitted
reserved  in_doubt      in_doubt
reserved  voided        voided
in_doubt  submitted     submitted
in_doubt  voided        voided
submitted in_doubt      in_doubt
submitted voided        voided
submitted posted        posted
posted    fetch_failed  posted
posted    stored        stored
voided    failed        failed
failed    retry_granted voided
"""
AFTER = {(before, event): after for before, event, after in map(str.split, MOVES.strip().splitlines())}
STATES = sorted({state for state, _ in AFTER} | set(AFTER.values()))
JOB_EVENTS = sorted({event for _, event in AFTER})

LIVES: dict[str, tuple[str, ...]] = {
    "planned": (),
    "reserved": ("reserved",),
    "in_doubt": ("reserved", "in_doubt"),
    "submitted": ("reserved", "submitted"),
    "posted": ("reserved", "submitted", "posted"),
    "stored": ("reserved", "submitted", "posted", "stored"),
    "voided": ("reserved", "voided"),
    "failed": ("reserved", "voided", "failed"),
}
"""How a job may come to each state."""


class HandClock:
    """A wall clock that shows what it is told to, and then a little more with every look."""

    def __init__(self, now_us: int = NOON_US, step_us: int = 1_000) -> None:
        self.at_us, self.step_us = now_us, step_us

    def now_us(self) -> int:
        self.at_us += self.step_us
        return self.at_us

    def monotonic_s(self) -> float:
        raise AssertionError("nothing in the ledger measures durations")

    async def sleep(self, seconds: float) -> None:
        assert seconds == GATHER_S, "the ledger waits for company under load, and for nothing else"
        await asyncio.sleep(0)


def event(kind: str, job: str = "a", attempt: int = 1, **facts: Any) -> Event:
    """An event with the facts that its kind asks for, save those given."""
    usual: dict[str, dict[str, Any]] = {
        "reserved": {"quote_microusd": QUOTE, "request": '{"prompt":"a"}', "model": "kling-2"},
        "submitted": {"request_id": f"req-{job}-{attempt}"},
        "in_doubt": {"error_class": "no_reply", "detail": "silence"},
        "voided": {"error_class": "server_error", "http_status": 500},
        "posted": {"cost_microusd": QUOTE, "url": "https://example.com/v.mp4", "queue_s": 1.5, "inference_s": 300.25},
        "fetch_failed": {"error_class": "fetch_failed"},
        "stored": {"path": "videos/a.mp4", "sha256": "0" * 64, "bytes": 5, "duration_s": 5.04, "width": 1280},
        "failed": {"error_class": "server_error"},
    }
    return Event(event=EventKind(kind), job_id=job, attempt=attempt, **{**usual.get(kind, {}), **facts})


def numbered(events: Iterable[Event], first: int = 1) -> list[Event]:
    """`events` as a ledger would record them."""
    return [each._replace(seq=seq, at_us=NOON_US + seq * 1_000) for seq, each in enumerate(events, start=first)]


def life(state: str, job: str = "a") -> list[Event]:
    """The events that bring a job to `state`."""
    return [event(kind, job) for kind in LIVES[state]]


def write_ledger(folder: Path, groups: Iterable[Sequence[Event]], clock: HandClock | None = None) -> list[Event]:
    """Record each group in one commit, in a ledger that is opened and closed; returns the events as recorded."""
    recorded: list[Event] = []

    async def write() -> None:
        with open_ledger(folder, clock or HandClock()) as ledger:
            for group in groups:
                recorded.extend(await ledger.record(*group))
            await ledger.close()

    asyncio.run(write())
    return recorded


def read_state(folder: Path) -> State:
    """What the ledger in `folder` says, as a reader finds it that has never seen it."""
    reader = Reader(folder)
    reader.read()
    return reader.state


def segment_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


def segment_names(folder: Path) -> list[SegmentName]:
    names = [SegmentName.parse(path.name) for path in segment_paths(folder)]
    return [name for name in names if name is not None]


def forge(folder: Path, events: Sequence[Event], before: str = GENESIS) -> Path:
    """Put a segment into the folder behind the ledger's back, whole in itself."""
    head = folder / "_head"
    kept = head.read_bytes() if head.exists() else None
    name = write_segment(folder, events, encode(events, before, link(before, events)))
    head.unlink()
    if kept is not None:
        head.write_bytes(kept)
    return folder / str(name)


def packed(events: Sequence[Event], before: str, after: str) -> bytes:
    """The bytes of a merged segment with these events."""
    return encode_merged([table_of(events)], len(events), before, after)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is neither the lock nor temporary."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name != "_lock" and not path.name.endswith(".part")
    }


@dataclasses.dataclass
class NaiveJob:
    """A job by its history alone."""

    state: str = "planned"
    attempt: int = 0
    quote: int = 0
    cost: int = 0
    request_id: str | None = None

    @property
    def liability(self) -> int:
        match self.state:
            case "planned" | "voided" | "failed":
                return 0
            case "posted" | "stored":
                return self.cost
            case _:
                return self.quote

    def take(self, happened: Event) -> None:
        self.state = AFTER[self.state, happened.event.value]
        self.attempt = happened.attempt
        match happened.event.value:
            case "reserved":
                self.quote, self.request_id = happened.quote_microusd, None
            case "submitted":
                self.request_id = happened.request_id
            case "posted":
                self.cost = happened.cost_microusd


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 10), st.integers(1, 5_000_000)), min_size=1, max_size=40
)


def legal(steps: Iterable[tuple[str, int, int]]) -> list[Event]:
    """Any list of steps as a history that could really be."""
    jobs: dict[str, NaiveJob] = {}
    history = []
    for name, choice, amount in steps:
        job = jobs.setdefault(name, NaiveJob())
        options = [happened for state, happened in AFTER if state == job.state]
        if not options:
            continue
        kind = options[choice % len(options)]
        attempt = job.attempt + (kind == "reserved")
        facts: dict[str, Any] = {}
        if kind == "reserved":
            facts["quote_microusd"] = amount
        elif kind == "posted":
            facts["cost_microusd"] = amount
        elif kind == "submitted" and job.request_id:
            facts["request_id"] = job.request_id
        history.append(event(kind, name, attempt, **facts))
        job.take(history[-1])
    return history


def state_of(events: Iterable[Event]) -> State:
    return fold(numbered(events))
