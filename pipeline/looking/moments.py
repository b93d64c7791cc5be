"""When which events of a ledger were recorded, in columns: a million are counted about as quickly as a few."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from pipeline.kernel.arrow import numbers_of, pc, total, whole_numbers
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.events import EventKind


class Moments:
    """The columns `at`, `event` and `error_class` of events, in their order. Times in microseconds since 1970."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def last_us(self) -> int | None:
        """When the latest event was recorded."""
        return whole_numbers(self._table["at"].slice(len(self._table) - 1))[0] if len(self._table) else None

    def since(self, at_us: int) -> Moments:
        """The events after the last one that was recorded at this time or earlier."""
        earlier = np.flatnonzero(numbers_of(self._table["at"]) <= at_us)
        return Moments(self._table.slice(int(earlier[-1]) + 1 if len(earlier) else 0))

    def of(self, *kinds: EventKind) -> list[int]:
        """When events of these kinds were recorded, in order."""
        are = (pc.equal(self._table["event"], kind.value) for kind in kinds)
        return whole_numbers(self._table["at"].filter(functools.reduce(pc.or_, are)))

    def count(self, kind: EventKind) -> int:
        """How many events are of this kind."""
        return len(self.of(kind))

    def refused(self, error_class: ErrorClass) -> int:
        """How many events have this error class."""
        return int(total(pc.equal(self._table["error_class"], error_class.label)))
