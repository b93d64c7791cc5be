"""The jobs of a state by their ids, where most of them are stored for good: rows of tables, until somebody asks.

A million records as objects take a gigabyte, and seconds to make. A stored job never changes again, so its row says all
about it: a record is made of it when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from pipeline.ledger.fold import JobRecord

T = TypeVar("T")

ASKED_SINGLY = 2_000
"""After so many questions about single rows of a table, all of its values are taken out at once."""


class _Rows:
    """Rows that are the facts of one record each; `make` makes the record of them."""

    def __init__(self, table: pa.Table, make: Callable[..., JobRecord]) -> None:
        self._table = table
        self._make = make
        self._asked = 0
        self._values: list[tuple[Any, ...]] | None = None

    def record(self, row: int) -> JobRecord:
        self._asked += 1
        if self._values is None and self._asked > ASKED_SINGLY:
            self._values = list(zip(*(column.to_pylist() for column in self._table.columns), strict=True))
        if self._values is not None:
            return self._make(*self._values[row])
        return self._make(*[column[row].as_py() for column in self._table.columns])


class Records(MutableMapping[str, "JobRecord"]):
    """Records by job id, in the order in which the jobs were first reserved."""

    def __init__(self) -> None:
        self.places: dict[str, JobRecord | int] = {}
        """By job id: a record, or the number of a row over all tables, until the record is asked for."""
        self._rows: list[_Rows] = []
        self._firsts: list[int] = []
        """The number of the first row of each table."""
        self._count = 0

    def take_in(
        self,
        jobs: Sequence[str],
        table: pa.Table,
        make: Callable[..., JobRecord],
        late: Sequence[str],
        order: list[int],
    ) -> None:
        """Take in jobs that are stored: of each, the row of `table` with its facts, in the order of `jobs`.

        Args:
            late: the last that came before them, but belong among them.
            order: the order of `[*late, *jobs]`, by their numbers; nothing where it is this one.
        """
        self._firsts.append(self._count)
        self._rows.append(_Rows(table.combine_chunks(), make))
        rows = range(self._count, self._count + len(jobs))
        self._count += len(jobs)
        names, places = [*late, *jobs], [*map(self.places.pop, late), *rows]
        if order:
            names, places = [names[number] for number in order], [places[number] for number in order]
        self.places.update(zip(names, places, strict=True))

    def unsettled(self) -> Iterator[JobRecord]:
        """The records that are objects: all but those of jobs that were found stored and never asked for."""
        return (place for place in list(self.places.values()) if not isinstance(place, int))

    def __getitem__(self, job_id: str) -> JobRecord:
        return self._record(job_id, self.places[job_id])

    def get(self, job_id: str, default: Any = None) -> Any:
        """The record of a job, or `default`; quicker than by way of an exception."""
        place = self.places.get(job_id)
        return default if place is None else self._record(job_id, place)

    def _record(self, job_id: str, place: JobRecord | int) -> JobRecord:
        if not isinstance(place, int):
            return place
        at = bisect_right(self._firsts, place) - 1
        self.places[job_id] = record = self._rows[at].record(place - self._firsts[at])
        return record

    def __setitem__(self, job_id: str, record: JobRecord) -> None:
        self.places[job_id] = record

    def __delitem__(self, job_id: str) -> None:
        del self.places[job_id]

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"Records({len(self)} jobs)"
