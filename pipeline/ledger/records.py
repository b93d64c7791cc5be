"""The jobs of a state by their ids, where most of them are stored for good: rows of tables, until somebody asks.

A million records as objects take two gigabytes, and seconds to make. A stored job never changes again, so its row says
all about it: a record is made of it when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from pipeline.ledger.fold import JobRecord

Numbers = npt.NDArray[np.int64]

ASKED_SINGLY = 2_000
"""After so many questions about single rows of a table, all of its values are taken out at once."""


COLUMNS: dict[str, pa.DataType] = {
    "state": pa.string(),
    "attempt": pa.int64(),
    "cost_microusd": pa.int64(),
    "request_id": pa.string(),
    "error_class": pa.string(),
    "error": pa.string(),
    "submitted_us": pa.int64(),
    "posted_us": pa.int64(),
    "ended_us": pa.int64(),
    "path": pa.string(),
    "poster": pa.string(),
    "sha256": pa.string(),
    "bytes": pa.int64(),
    "duration_s": pa.float64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "queue_s": pa.float64(),
    "inference_s": pa.float64(),
}
"""What many records are asked for at once: fields of `JobRecord`, and the type of each. A state is its name."""


class _Rows:
    """Rows that are the facts of one record each; `make` makes the record of them.

    The columns of `table` are in the order of what `make` takes, and named as the record has them; `same` are facts
    that all of them have.
    """

    def __init__(self, table: pa.Table, make: Callable[..., JobRecord], same: Mapping[str, Any]) -> None:
        self.table = table
        self._same = same
        self._make = make
        self._asked = 0
        self._values: list[tuple[Any, ...]] | None = None

    def record(self, row: int) -> JobRecord:
        self._asked += 1
        if self._values is None and self._asked > ASKED_SINGLY:
            self._values = list(zip(*(column.to_pylist() for column in self.table.columns), strict=True))
        if self._values is not None:
            return self._make(*self._values[row])
        return self._make(*[column[row].as_py() for column in self.table.columns])

    def records(self, rows: Numbers) -> Iterator[JobRecord]:
        """The records of many rows, read together."""
        return map(self._make, *(column.to_pylist() for column in _take(self.table, rows).columns))

    def columns(self, names: Sequence[str], rows: Numbers) -> pa.Table:
        """Some of `COLUMNS` of some rows."""
        here = _take(self.table.select([name for name in names if name not in self._same]), rows)
        arrays = [
            _all_the_same(self._same[name], name, len(rows)) if name in self._same else here[name].cast(COLUMNS[name])
            for name in names
        ]
        return pa.Table.from_arrays(arrays, names=list(names))


class Records(MutableMapping[str, "JobRecord"]):
    """Records by job id, in the order in which the jobs were first reserved."""

    def __init__(self) -> None:
        self.places: dict[str, JobRecord | int] = {}
        """By job id: a record, or the number of a row over all tables."""
        self._rows: list[_Rows] = []
        self._firsts: list[int] = []
        """The number of the first row of each table."""
        self._count = 0

    def take_in(
        self,
        jobs: Sequence[str],
        table: pa.Table,
        make: Callable[..., JobRecord],
        same: Mapping[str, Any],
        late: Sequence[str],
        order: list[int],
    ) -> None:
        """Take in jobs that are stored: of each, the row of `table` with its facts, in the order of `jobs`.

        Args:
            same: what all of them have in common, beside what is in `table`.
            late: the last that came before them, but belong among them.
            order: the order of `[*late, *jobs]`, by their numbers; nothing where it is this one.
        """
        rows = self._add(table, make, same)
        names, places = [*late, *jobs], [*map(self.places.pop, late), *rows]
        if order:
            names, places = [names[number] for number in order], [places[number] for number in order]
        self.places.update(zip(names, places, strict=True))

    def shelve(
        self, jobs: Sequence[str], table: pa.Table, make: Callable[..., JobRecord], same: Mapping[str, Any]
    ) -> None:
        """Keep the records of jobs that are here as rows from now on, as `take_in` does; their order stays."""
        self.places.update(zip(jobs, self._add(table, make, same), strict=True))

    def _add(self, table: pa.Table, make: Callable[..., JobRecord], same: Mapping[str, Any]) -> range:
        """The numbers of the rows of a table, over all tables."""
        first = self._count
        self._rows.append(_Rows(table.combine_chunks(), make, same))
        self._firsts.append(first)
        self._count += len(table)
        return range(first, self._count)

    def unsettled(self) -> Iterator[JobRecord]:
        """The records that are objects: all but those of jobs that were found stored."""
        places = list(self.places.values())
        return iter(()) if are_rows(places) else (place for place in places if not isinstance(place, int))

    def __getitem__(self, job_id: str) -> JobRecord:
        return self._record(self.places[job_id])

    def get(self, job_id: str, default: Any = None) -> Any:
        """The record of a job, or `default`; quicker than by way of an exception."""
        place = self.places.get(job_id)
        return default if place is None else self._record(place)

    def _record(self, place: JobRecord | int) -> JobRecord:
        if not isinstance(place, int):
            return place
        at = bisect_right(self._firsts, place) - 1
        return self._rows[at].record(place - self._firsts[at])

    def many(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """The records of these jobs, None without one. Only they are read, and together."""
        places = self.places_of(job_ids)
        found = [None if isinstance(place, int) else place for place in places]
        held = np.array([number for number, place in enumerate(places) if isinstance(place, int)], dtype=np.int64)
        numbers = np.array([place for place in places if isinstance(place, int)], dtype=np.int64)
        for table, rows, where in self._by_table(numbers):
            for number, record in zip(held[where].tolist(), table.records(rows), strict=True):
                found[number] = record
        return found

    def _by_table(self, numbers: Numbers) -> Iterator[tuple[_Rows, Numbers, Numbers]]:
        """The tables that have the rows with these numbers: of each, which rows, and where in `numbers` these are."""
        tables = np.searchsorted(self._firsts, numbers, side="right") - 1
        order = np.argsort(tables, kind="stable")
        touched, firsts = np.unique(tables[order], return_index=True)
        for at, first, last in zip(touched.tolist(), firsts, [*firsts[1:], len(order)], strict=False):
            where = order[first:last]
            yield self._rows[at], numbers[where] - self._firsts[at], where

    def are(self, job_ids: Sequence[str]) -> bool:
        """Whether these are all the jobs, in their order: most often true of a finished run, and seen at a glance."""
        return len(job_ids) == len(self.places) and list(self.places) == list(job_ids)

    def places_of(self, job_ids: Sequence[str]) -> list[JobRecord | int | None]:
        """For each job its record or the number of its row; None without either."""
        return list(self.places.values()) if self.are(job_ids) else list(map(self.places.get, job_ids))

    def of_no_row(self, job_ids: Sequence[str]) -> list[int]:
        """Which of these jobs, by their numbers, were not found stored after a life without any trouble."""
        places = self.places_of(job_ids)
        if are_rows(places):
            return []
        return [number for number, place in enumerate(places) if not isinstance(place, int)]

    def columns(self, names: Sequence[str], job_ids: Sequence[str] | None = None) -> pa.Table:
        """Some of `COLUMNS` of many records at once, without a record being made: a row for each job.

        Args:
            job_ids: the jobs, in the order that is wanted; one without a record is a row of nulls. All without it.
        """
        # At once: beside a live run, jobs are added while this is read.
        places = list(self.places.values()) if job_ids is None else self.places_of(job_ids)
        if are_rows(places):
            numbers, records = np.array(places, dtype=np.int64), []
        else:
            numbers = np.array([each if isinstance(each, int) else -1 for each in places], dtype=np.int64)
            records = [each for each in places if not isinstance(each, int)]
        others = pa.Table.from_arrays([_column(records, name) for name in names], names=list(names))
        rows = np.flatnonzero(numbers >= 0)
        if not len(rows):
            return others
        parts = [(table.columns(names, mine), where) for table, mine, where in self._by_table(numbers[rows])]
        there = np.concatenate([where for _, where in parts])
        wanted = _take(pa.concat_tables([part for part, _ in parts]), np.argsort(there, kind="stable"))
        if not records:
            return wanted
        order = np.empty(len(places), dtype=np.int64)
        order[rows] = np.arange(len(rows))
        order[numbers < 0] = np.arange(len(rows), len(places))
        return _take(pa.concat_tables([wanted, others]), order)

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


def are_rows(places: Sequence[JobRecord | int | None]) -> bool:
    """Whether there is nothing else among them, as in most large ledgers; seen without a look at each by Python."""
    return set(map(type, places)) == {int}


def _column(records: Sequence[JobRecord | None], name: str) -> pa.Array[Any]:
    values = [None if each is None else getattr(each, name) for each in records]
    return pa.array([each and each.name for each in values] if name == "state" else values, COLUMNS[name])


def _all_the_same(value: object, name: str, count: int) -> pa.Array[Any]:
    nowhere = pa.array(np.zeros(count, dtype=np.int64), pa.int64())
    return pa.array([value], COLUMNS[name]).take(nowhere)


def _take(table: pa.Table, numbers: Numbers) -> pa.Table:
    """Rows of a table by their numbers; a stretch of them as it is."""
    first = int(numbers[0])
    if (numbers == np.arange(first, first + len(numbers))).all():
        return table.slice(first, len(numbers))
    return table.take(pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers.data)]))
