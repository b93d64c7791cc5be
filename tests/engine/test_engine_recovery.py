"""What a run takes up first of what the last one left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.engine.recovery import recover
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State

QUOTE = 1_750_000
HOUR_US = 3_600_000_000
NOON_US = 1_800_000_000_000_000


def state_of(*accepted: tuple[str, int, bool]) -> State:
    """Jobs that were accepted: the name of each, after how many hours, and whether it is paid."""
    state = State()

    def note(kind: EventKind, at_us: int, job_id: str, **facts: Any) -> None:
        state.apply(Event(kind, seq=state.last_seq + 1, at_us=at_us, job_id=job_id, attempt=1, **facts))

    for job_id, hours, is_paid in accepted:
        at_us = NOON_US + hours * HOUR_US
        note(EventKind.RESERVED, at_us, job_id, quote_microusd=QUOTE, request="{}", model="kling-2")
        note(EventKind.SUBMITTED, at_us, job_id, request_id=f"request-{job_id}")
        if is_paid:
            note(EventKind.POSTED, at_us, job_id, cost_microusd=MicroUsd(QUOTE))
    return state


async def test_the_nearest_to_its_expiry_is_taken_up_first() -> None:
    """A record is kept an hour and a file a week: not the order in which they were begun decides."""
    day = 24
    state = state_of(("paid today", 6 * day, True), ("runs", 6 * day + 1, False), ("paid a week ago", 0, True))
    state_of_one = state_of(("b", 1, False), ("a", 0, False))
    for ledger, expected in ((state, ["runs", "paid a week ago", "paid today"]), (state_of_one, ["a", "b"])):
        taken: list[str] = []
        dispatcher = SimpleNamespace(
            jobs={},
            witness=SimpleNamespace(inherit=list),
            take_up=lambda record, taken=taken: taken.append(record.job_id),
        )
        await recover(SimpleNamespace(ledger=SimpleNamespace(state=ledger)), dispatcher)  # type: ignore[arg-type]
        assert taken == expected
