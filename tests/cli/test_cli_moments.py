"""When what happened, counted by columns, is what the events themselves say."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.encoding import table_of
from pipeline.ledger.events import Event, EventKind
from pipeline.looking.moments import Moments

KINDS = [EventKind.RESERVED, EventKind.POSTED, EventKind.STORED, EventKind.FAILED, EventKind.VOIDED]
REFUSED = ErrorClass.RATE_LIMITED


@pytest.mark.parametrize("seed", range(30))
def test_moments_are_those_of_the_events(seed: int) -> None:
    """Also where a wall clock went back: the latest events are those behind the last one that is too old."""
    rng = random.Random(seed)
    events = [
        Event(rng.choice(KINDS), n, rng.randint(0, 12), error_class=rng.choice([None, REFUSED.label, "no_reply"]))
        for n in range(1, rng.randint(1, 20))
    ]
    parts = [table_of(events[first : first + 4]) for first in range(0, len(events), 4)]
    moments = Moments(pa.concat_tables(parts) if parts else table_of([]))
    assert moments.last_us == (events[-1].at_us if events else None)
    assert moments.of(EventKind.STORED, EventKind.FAILED) == [
        each.at_us for each in events if each.event in (EventKind.STORED, EventKind.FAILED)
    ]
    since_us = rng.randint(0, 12)
    lately = events[max((n for n, each in enumerate(events, 1) if each.at_us <= since_us), default=0) :]
    found = moments.since(since_us)
    assert found.count(EventKind.RESERVED) == sum(each.event is EventKind.RESERVED for each in lately)
    assert found.refused(REFUSED) == sum(each.error_class == REFUSED.label for each in lately)
