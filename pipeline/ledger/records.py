"""The jobs of a state by their ids: most of them, stored for good, as rows of tables, and the others as records.

A million records as objects take two gigabytes, and seconds to make. A stored job never changes again, so its row says
all about it, and a record is made of the row when somebody asks.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa

from pipeline.kernel.arrow import Numbers, Texts, are_null, array_of, numbers_of, pc, rows_of, texts_of, values_of
from pipeline.ledger.job import JobRecord

T = TypeVar("T")

ASKED_SINGLY = 2_000
"""After so many questions about single rows of a table, all of its values are converted at once."""


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
"""The fields of `JobRecord` that can be asked of many jobs at once, and the type of each. A state is its name."""


class JobTable:
    """A table with one row for each of many jobs; `make` makes the record of a row.

    The columns of `table` are in the order of the parameters of `make`, and have the names of the record's fields;
    `same` are the facts that are the same for all rows.
    """

    def __init__(self, table: pa.Table, make: Callable[..., JobRecord], same: Mapping[str, Any]) -> None:
        self.table = table.combine_chunks()
        self._same = same
        self._make = make
        self._asked = 0
        self._values: list[tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def texts(self, name: str) -> Texts:
        """A column of texts: `job_id` or `request_id`."""
        return self.table[name]

    @property
    def first_reserved_seqs(self) -> Numbers:
        """The number of the event that each life began with."""
        return numbers_of(self.table["reserved_seq"])

    def record(self, row: int) -> JobRecord:
        """The record of a row."""
        self._asked += 1
        if self._values is None and self._asked > ASKED_SINGLY:
            self._values = list(zip(*(column.to_pylist() for column in self.table.columns), strict=True))
        if self._values is not None:
            return self._make(*self._values[row])
        return self._make(*[column[row].as_py() for column in self.table.columns])

    def records(self, rows: Numbers) -> Iterator[JobRecord]:
        """The records of many rows, read together."""
        return map(self._make, *(column.to_pylist() for column in rows_of(self.table, rows).columns))

    def submitted(self, from_us: int, to_us: int) -> Iterator[tuple[int, str]]:
        """The rows that were submitted between two times, both ends in, each with its request id."""
        times_us = numbers_of(self.table["submitted_us"])
        rows = np.flatnonzero((times_us >= from_us) & (times_us <= to_us))
        return zip(rows.tolist(), values_of(self.table["request_id"].take(array_of(rows))), strict=True)

    def columns(self, names: Sequence[str], rows: Numbers) -> pa.Table:
        """Some of `COLUMNS` of some rows."""
        here = rows_of(self.table.select([name for name in names if name not in self._same]), rows)
        arrays = [
            _all_the_same(self._same[name], name, len(rows)) if name in self._same else here[name].cast(COLUMNS[name])
            for name in names
        ]
        return pa.Table.from_arrays(arrays, names=list(names))


_NOWHERE = -1
_FIRST_RECORD = -2
"""Rows are numbered 0, 1, 2, …; jobs that are records are numbered -2, -3, -4, …."""


class _Kept(NamedTuple):
    """All jobs at one moment, each as a record or as a row. It is replaced as a whole, since other threads read it.

    Rows are numbered over all tables. `firsts` has the number of each table's first row, and at its end the number of
    all rows.
    """

    records: dict[str, JobRecord]
    tables: tuple[JobTable, ...]
    firsts: tuple[int, ...]

    def with_tables(self, more: Sequence[JobTable]) -> _Kept:
        """The same with more rows."""
        more = [table for table in more if len(table)]
        firsts = itertools.accumulate(map(len, more), initial=self.firsts[-1])
        return _Kept(self.records, (*self.tables, *more), (*self.firsts[:-1], *firsts))

    def place(self, number: int) -> tuple[JobTable, int]:
        """The table that has the row of this number, and its place in there."""
        at = bisect_right(self.firsts, number) - 1
        return self.tables[at], number - self.firsts[at]

    def record(self, number: int) -> JobRecord:
        """The record of a row."""
        table, row = self.place(number)
        return table.record(row)

    def text(self, column: str, number: int) -> str:
        """`job_id` or `request_id` of a row, without a record being made."""
        table, row = self.place(number)
        return str(table.table[column][row])

    def by_table(self, numbers: Numbers) -> Iterator[tuple[JobTable, Numbers, Numbers]]:
        """The rows of these numbers, by table: the table, which of its rows, and the places of those in `numbers`."""
        tables = np.searchsorted(self.firsts, numbers, side="right") - 1
        order = np.argsort(tables, kind="stable")
        touched, firsts = np.unique(tables[order], return_index=True)
        for at, first, last in zip(touched.tolist(), firsts, [*firsts[1:], len(order)], strict=False):
            where = order[first:last]
            yield self.tables[at], numbers[where] - self.firsts[at], where

    def in_order(self) -> tuple[Texts, Found]:
        """All jobs in the order in which they were first reserved, and their ids."""
        records = list(self.records.values())
        ids = texts_of([*(table.texts("job_id") for table in self.tables), [each.job_id for each in records]])
        numbers = np.arange(self.firsts[-1] + len(records))
        numbers[self.firsts[-1] :] = _FIRST_RECORD - np.arange(len(records))
        begun = np.array([each.first_reserved_seq for each in records], dtype=np.int64)
        seqs = np.concatenate([*(table.first_reserved_seqs for table in self.tables), begun])
        if not (seqs[1:] > seqs[:-1]).all():
            order = np.argsort(seqs, kind="stable")
            ids, numbers = ids.take(array_of(order)), numbers[order]
        return ids, Found(numbers, records, self)


@dataclass(frozen=True, slots=True)
class Found:
    """Where each of many jobs is kept, in the order in which they were asked for."""

    numbers: Numbers
    """Of each job: the number of its row, from 0, or `_FIRST_RECORD` minus its place in `_records`, or `_NOWHERE`."""
    _records: Sequence[JobRecord]
    _kept: _Kept

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, places: slice | Numbers) -> Found:
        """Some of them, by their places from 0."""
        return Found(self.numbers[places], self._records, self._kept)

    def of_no_row(self) -> Numbers:
        """Which of them, by their places from 0, are no rows."""
        return np.flatnonzero(self.numbers < 0)

    def of_rows(self, value: T) -> list[T | None]:
        """A value for each that is a row, None for others."""
        values = np.full(len(self), None, dtype=object)
        values[self.numbers >= 0] = value
        return cast("list[T | None]", values.tolist())

    def beside_rows(self) -> Iterator[tuple[int, JobRecord]]:
        """Those that are records, each with its place."""
        for place in np.flatnonzero(self.numbers <= _FIRST_RECORD).tolist():
            yield place, self._records[_FIRST_RECORD - self.numbers[place]]

    def records(self) -> list[JobRecord | None]:
        """The record of each, None without one. Rows are read together."""
        found: list[JobRecord | None] = [None] * len(self)
        for place, record in self.beside_rows():
            found[place] = record
        held = np.flatnonzero(self.numbers >= 0)
        for table, rows, where in self._kept.by_table(self.numbers[held]):
            for place, record in zip(held[where].tolist(), table.records(rows), strict=True):
                found[place] = record
        return found

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some of `COLUMNS`, with a row for each job; of nulls for a job that is not known. No row becomes a record."""
        beside, held = self.of_no_row(), np.flatnonzero(self.numbers >= 0)
        records = self[beside].records()
        others = pa.Table.from_arrays([_column(records, name) for name in names], names=list(names))
        if not len(held):
            return others
        parts = [(table.columns(names, rows), where) for table, rows, where in self._kept.by_table(self.numbers[held])]
        there = np.concatenate([where for _, where in parts])
        wanted = rows_of(pa.concat_tables([part for part, _ in parts]), np.argsort(there, kind="stable"))
        if not len(beside):
            return wanted
        order = np.empty(len(self), dtype=np.int64)
        order[held] = np.arange(len(held))
        order[beside] = np.arange(len(held), len(self))
        return rows_of(pa.concat_tables([wanted, others]), order)


class _Hashed(NamedTuple):
    """The hashes of the texts of the first `tables` tables, sorted, and for each the number of its row."""

    tables: int
    hashes: Numbers
    numbers: Numbers


class _Index:
    """Finds the row that has a text in one column.

    It is built, and extended, when somebody asks: most never do. It takes 16 bytes a row, where a dictionary of the
    texts takes 130. Two texts may have the same hash, so the text in the row is compared.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._hashed = _Hashed(0, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def find(self, text: str, kept: _Kept) -> int | None:
        """The number of the row, if there is one."""
        found = self.take_in(kept)
        # `bisect`, not `np.searchsorted`: numpy releases the GIL, and other threads would go first at each look-up.
        hashes, wanted = found.hashes.data, hash(text)
        for at in range(bisect_left(hashes, wanted), len(hashes)):
            if hashes[at] != wanted:
                break
            number = int(found.numbers[at])
            # Another thread may have taken in more rows than `kept` has.
            if number < kept.firsts[-1] and kept.text(self._column, number) == text:
                return number
        return None

    def take_in(self, kept: _Kept) -> _Hashed:
        """Take in all rows of `kept`. Use what is returned: another thread may do this at once, with fewer rows."""
        known = self._hashed
        if known.tables >= len(kept.tables):
            return known
        hashes, numbers = [known.hashes], [known.numbers]
        for table, first in zip(kept.tables[known.tables :], kept.firsts[known.tables :], strict=False):
            hashes.append(np.fromiter(map(hash, values_of(table.texts(self._column))), np.int64, len(table)))
            numbers.append(np.arange(first, first + len(table)))
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        self._hashed = known = _Hashed(len(kept.tables), joined[order], np.concatenate(numbers)[order])
        return known


class Records(MutableMapping[str, JobRecord]):
    """Records by job id, in the order in which the jobs were first reserved."""

    def __init__(self) -> None:
        self._kept = _Kept({}, (), (0,))
        self._by_id, self._by_request = _Index("job_id"), _Index("request_id")

    def take_in(self, tables: Sequence[JobTable]) -> None:
        """Take in rows of stored jobs, none of which is here yet."""
        self._kept = self._kept.with_tables(tables)

    def shelve(self, rows: JobTable) -> None:
        """Keep jobs that are records as rows from now on."""
        gone = set(values_of(rows.texts("job_id")))
        left = {job_id: record for job_id, record in self._kept.records.items() if job_id not in gone}
        self._kept = self._kept._replace(records=left).with_tables([rows])

    def get_ready(self) -> None:
        """Build now what finds a row by its ids: a million take most of a second, which the first to ask would wait."""
        for index in (self._by_id, self._by_request):
            index.take_in(self._kept)

    def unsettled(self) -> Iterator[JobRecord]:
        """The jobs that are records: all but those that are rows, which are stored."""
        return iter(list(self._kept.records.values()))

    def has_rows(self) -> bool:
        """Whether any job is a row."""
        return self._kept.firsts[-1] > 0

    def unsettled_record(self, job_id: str) -> JobRecord | None:
        """The record of a job that is not a row; None if it is one, or is not known."""
        return self._kept.records.get(job_id)

    def texts(self, column: str) -> Texts:
        """A column of texts of all rows: `job_id` or `request_id`."""
        return texts_of(table.texts(column) for table in self._kept.tables)

    def submitted(self, from_us: int, to_us: int, beside: Container[str]) -> Iterator[JobRecord]:
        """The jobs whose latest attempt was submitted between two times of our clock.

        Those without a request id are left out, and those with one that is in `beside`.
        """
        kept = self._kept
        for record in list(kept.records.values()):
            is_named = record.request_id is not None and record.request_id not in beside
            if is_named and record.submitted_us is not None and from_us <= record.submitted_us <= to_us:
                yield record
        for table in kept.tables:
            for row, request_id in table.submitted(from_us, to_us):
                if request_id not in beside:
                    yield table.record(row)

    def owner_of(self, request_id: str) -> str | None:
        """The job that is a row with this request id; None if no row has it."""
        kept = self._kept
        number = self._by_request.find(request_id, kept)
        return None if number is None else kept.text("job_id", number)

    def __getitem__(self, job_id: str) -> JobRecord:
        record = self.get(job_id)
        if record is None:
            raise KeyError(job_id)
        return cast(JobRecord, record)

    def get(self, job_id: str, default: Any = None) -> Any:
        """The record of a job, or `default`; quicker than by way of an exception."""
        kept = self._kept
        record = kept.records.get(job_id)
        if record is not None:
            return record
        number = self._by_id.find(job_id, kept)
        return default if number is None else kept.record(number)

    def __contains__(self, job_id: object) -> bool:
        kept = self._kept
        return job_id in kept.records or (isinstance(job_id, str) and self._by_id.find(job_id, kept) is not None)

    def find(self, job_ids: Collection[str] | Texts | None = None) -> Found:
        """Where these jobs are kept; without `job_ids`, where all jobs are, in their order."""
        if job_ids is not None and not len(self):
            # Nothing is known: the ids of a million planned jobs need not be copied to see that.
            return Found(np.full(len(job_ids), _NOWHERE), (), self._kept)
        ids, all_jobs = self._kept.in_order()
        if job_ids is None:
            return all_jobs
        asked = texts_of([job_ids])
        if asked.equals(ids):
            return all_jobs
        places = pc.index_in(asked, value_set=ids).combine_chunks()
        numbers = np.append(all_jobs.numbers, _NOWHERE)[np.where(are_null(places), -1, numbers_of(places))]
        return Found(numbers, all_jobs._records, all_jobs._kept)

    def beside(self, job_ids: Iterable[str] | Texts) -> list[JobRecord]:
        """The records of all jobs but these, in their order."""
        return cast("list[JobRecord]", self.find_beside(job_ids).records())

    def find_beside(self, job_ids: Iterable[str] | Texts) -> Found:
        """Where all jobs but these are kept, in their order."""
        ids, all_jobs = self._kept.in_order()
        asked = texts_of([job_ids])
        if asked.equals(ids):
            return all_jobs[:0]
        return all_jobs[np.flatnonzero(are_null(pc.index_in(ids, value_set=asked).combine_chunks()))]

    def are(self, job_ids: Iterable[str] | Texts) -> bool:
        """Whether these are all the jobs, in their order, as they mostly are after a finished run. Quick to see."""
        return bool(texts_of([job_ids]).equals(self._kept.in_order()[0]))

    def columns(self, names: Sequence[str], job_ids: Collection[str] | None = None) -> pa.Table:
        """Some of `COLUMNS` of these jobs, or of all (see `Found.columns`)."""
        return self.find(job_ids).columns(names)

    def __setitem__(self, job_id: str, record: JobRecord) -> None:
        self._kept.records[job_id] = record

    def __delitem__(self, job_id: str) -> None:
        del self._kept.records[job_id]

    def __iter__(self) -> Iterator[str]:
        return iter(values_of(self._kept.in_order()[0]))

    def __len__(self) -> int:
        kept = self._kept
        return len(kept.records) + kept.firsts[-1]

    def __repr__(self) -> str:
        return f"Records({len(self)} jobs)"


class RequestIds(Mapping[str, str]):
    """Every request id ever recorded, and the job it belongs to: none may ever belong to two."""

    def __init__(self, jobs: Records) -> None:
        self._jobs = jobs
        self._taken_back: set[str] = set()
        self._noted: dict[str, str] = {}
        """Every request id that is not in a row; while `shelve` runs, an id may be in both."""

    def note(self, request_id: str, job_id: str) -> None:
        """Note whose it is."""
        self._noted[request_id] = job_id

    def take_back(self, request_id: str) -> None:
        """It belongs to nobody any more: a person had named it wrongly."""
        del self._noted[request_id]
        self._taken_back.add(request_id)

    def leave_to_rows(self, request_ids: Iterable[str]) -> None:
        """Forget these: rows have them by now."""
        for request_id in request_ids:
            self._noted.pop(request_id, None)

    @property
    def noted(self) -> Collection[str]:
        """Request ids that are not in rows, or not only there, and those that were taken back."""
        return self._noted.keys() | self._taken_back

    def get(self, request_id: str, default: Any = None) -> Any:
        """The job of a request, or `default`; quicker than by way of an exception."""
        return self._noted.get(request_id) or self._jobs.owner_of(request_id) or default

    def __getitem__(self, request_id: str) -> str:
        owner = self.get(request_id)
        if owner is None:
            raise KeyError(request_id)
        return cast("str", owner)

    def __contains__(self, request_id: object) -> bool:
        return isinstance(request_id, str) and self.get(request_id) is not None

    def __iter__(self) -> Iterator[str]:
        rows = values_of(self._jobs.texts("request_id"))
        return itertools.chain(self._noted, (each for each in rows if each not in self._noted))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _column(records: Sequence[JobRecord | None], name: str) -> pa.Array[Any]:
    values = [None if each is None else getattr(each, name) for each in records]
    return pa.array([each and each.name for each in values] if name == "state" else values, COLUMNS[name])


def _all_the_same(value: object, name: str, count: int) -> pa.Array[Any]:
    nowhere = pa.array(np.zeros(count, dtype=np.int64), pa.int64())
    return pa.array([value], COLUMNS[name]).take(nowhere)
