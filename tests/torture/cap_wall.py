"""The cap, held against the provider's own journal: what was accepted and not failed, at every single accept."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from support import check_liability
from worlds import World, check_final_names

from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.reading import read_events
from pipeline.provider.values import fingerprint


def accepted(world: World) -> list[dict[str, Any]]:
    """Every submission that the provider has accepted, in that order, as its journal has it."""
    journal = world.folder / "provider" / "journal.jsonl"
    records = (json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    return [record for record in records if record["k"] == "gen"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """An attempt as the ledger has it: the event that it began with, and its quote."""

    seq: int
    quote: int


@dataclass(slots=True)
class _Book:
    """What the ledger says of each request that has a name, and of the attempts that have none yet, by their bodies."""

    named: dict[str, _Asked] = field(default_factory=dict)
    posted_seq: dict[str, int] = field(default_factory=dict)
    unnamed: dict[bytes, list[_Asked]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, events: Iterable[Event]) -> _Book:
        book = cls()
        latest: dict[str, tuple[_Asked, bytes]] = {}
        names: dict[str, str] = {}
        for event in events:
            job = event.job_id or ""
            match event.event:
                case EventKind.RESERVED:
                    asked = _Asked(event.seq, event.quote_microusd)
                    latest[job] = asked, fingerprint(event.request) or b""
                    book.unnamed[latest[job][1]].append(asked)
                case EventKind.SUBMITTED if event.request_id not in book.named:
                    asked, body = latest[job]
                    book.unnamed[body].remove(asked)
                    names[job] = event.request_id or ""
                    book.named[names[job]] = asked
                case EventKind.POSTED:
                    book.posted_seq[names[job]] = event.seq
        return book

    def asked(self, request_id: str, body: dict[str, Any]) -> _Asked:
        """The attempt that a request came from; of several that it may have come from, the earliest and cheapest."""
        if request_id in self.named:
            return self.named[request_id]
        possible = self.unnamed[fingerprint(body) or b""]
        assert possible, f"request {request_id} was accepted, and the ledger never meant to send it"
        return _Asked(min(asked.seq for asked in possible), min(asked.quote for asked in possible))


@dataclass(slots=True)
class CapWall:
    """One world's cap, checked life by life: call `check` after each."""

    world: World
    highest: float = 0.0
    """The highest exposure seen at any accept, as a share of the cap then."""
    excess: int = 0
    """The most, in micro-dollars, by which charges above their quote have passed a cap: the documented exception."""
    _seen: int = 0

    def check(self, cap: int) -> None:
        """What this life, whose cap was `cap` micro-dollars, had accepted: at each accept all of it fitted.

        A charge above its quote counts as its quote until the ledger has learned of it: an attempt that was reserved
        after that must leave room for it.
        """
        requests = accepted(self.world)
        events = self._events()
        book = _Book.read(events)
        for index in range(self._seen, len(requests)):
            newest = requests[index]
            asked = book.asked(newest["id"], newest["body"])
            exposed = [request for request in requests[: index + 1] if not _has_failed(request, newest["accepted_at"])]
            exposure = sum(request["cost_microusd"] for request in exposed)
            surprise = sum(
                max(0, request["cost_microusd"] - book.asked(request["id"], request["body"]).quote)
                for request in exposed
                if book.posted_seq.get(request["id"], math.inf) > asked.seq
            )
            self.highest = max(self.highest, exposure / cap)
            self.excess = max(self.excess, exposure - cap)
            assert exposure - surprise <= cap, (
                f"accept {index}: exposed to {exposure}, of it {surprise} by surprise, under a cap of {cap}"
            )
        self._seen = len(requests)
        self._check_ledger(events, cap)

    def check_exposure(self) -> None:
        """`World.check_exposure`, in a world that charges above its quotes: what nobody could know is not held due."""
        requests, _, _ = self.world.look()
        book = _Book.read(self._events())
        due = []
        for request in requests:
            quote = book.asked(request["request_id"], request["body"]).quote
            is_known = request["request_id"] in book.posted_seq
            due.append(request if is_known else request | {"cost_microusd": min(quote, request["cost_microusd"])})
        if due:
            check_liability(self.world.run_folder, due)
        check_final_names(self.world.run_folder, requests)

    def _events(self) -> list[Event]:
        ledger = self.world.run_folder / "ledger"
        return read_events(ledger) if ledger.is_dir() else []

    def _check_ledger(self, events: Iterable[Event], cap: int) -> None:
        """The ledger says under which cap each of its runs was, and no reservation of it passed that.

        Nor was anything reserved at less than what had been charged for the like before.
        """
        state, said = State(), cap
        charged: Counter[int] = Counter()
        for event in events:
            state.apply(event)
            if event.event is EventKind.RUN_STARTED:
                said = state.runs[-1].facts["cap_microusd"]
            if event.event is EventKind.RESERVED:
                assert state.books.committed <= said, f"event {event.seq} passes the cap of {said}"
                duration = _duration(event.request)
                assert event.quote_microusd >= charged[duration], (
                    f"event {event.seq}: {duration} s at less than charged"
                )
            if event.event is EventKind.POSTED:
                duration = _duration(state.jobs[event.job_id or ""].request)
                charged[duration] = max(charged[duration], event.cost_microusd)
        assert said == cap, f"the ledger says that the last cap was {said}, not {cap}"


def _duration(request: str | None) -> int:
    return int(json.loads(request or "{}")["duration"])


def _has_failed(request: dict[str, Any], now_s: float) -> bool:
    ends_s: float = request["accepted_at"] + request["queue_s"] + request["inference_s"]
    return request["error"] is not None and ends_s <= now_s
