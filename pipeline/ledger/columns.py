"""The fold of many events at once, by columns: the state that one event after the other makes, in a tenth of the time.

Most jobs have a plain life: reserved, submitted, posted and stored at the first try, without any trouble. What their
events say can be checked and added up for all of them together. Every other event goes through `State.apply`, at its
place in the order, as in a live run. A test holds both ways of folding equal, in what they say and in what they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import Account, JobRecord, JobState, State
from pipeline.ledger.segments import SCHEMA, decode

FEW = 1_000
"""Fewer events than this are quicker taken one by one."""

_PLAIN_LIFE = (EventKind.RESERVED, EventKind.SUBMITTED, EventKind.POSTED, EventKind.STORED)
_RESERVED, _SUBMITTED, _POSTED, _STORED = range(len(_PLAIN_LIFE))

Numbers = npt.NDArray[np.int64]


def fold_table(state: State, table: pa.Table) -> None:
    """Take in the events of a table with the ledger's columns, in their order; they follow what is in `state`.

    Raises:
        ImpossibleMoveError: as `State.apply`. The state is of no use then.
    """
    whole = table.combine_chunks()
    events = _Columns(whole)
    # More text than one array can hold stays in several.
    if len(table) < FEW or any(column.num_chunks != 1 for column in whole.columns) or not events.follow(state.last_seq):
        for event in decode(table):
            state.apply(event)
        return
    plain = events.plain_lives(state)
    others = np.ones(len(table), dtype=bool)
    others[plain.lives] = False
    _fold_beside(state, events, plain, np.flatnonzero(others))


class _Plain(NamedTuple):
    """Jobs with a plain life: the rows of each, and its id."""

    lives: Numbers
    jobs: list[str]


def _fold_beside(state: State, events: _Columns, plain: _Plain, others: Numbers) -> None:
    """Apply the `others` one by one, each to the books as they stood then, and take in the `plain` lives."""
    lives = plain.lives
    quotes = events.numbers("quote_microusd")[lives[:, _RESERVED]]
    costs = events.numbers("cost_microusd")[lives[:, _POSTED]]
    reserved, posted = events.sums(lives[:, _RESERVED], quotes), events.sums(lives[:, _POSTED], costs)
    reserved -= events.sums(lives[:, _POSTED], quotes)
    late: dict[str, int] = {}
    looks: list[tuple[int, int, Account | None]] = [(0, state.skew_us, state.account)]
    added_reserved = added_posted = 0
    single = decode(events.table.take(_array(others)))
    for event, held, spent in zip(single, reserved[others].tolist(), posted[others].tolist(), strict=True):
        state.books.reserved += held - added_reserved
        state.books.posted += spent - added_posted
        added_reserved, added_posted = held, spent
        state.last_seq = event.seq - 1
        known = len(state.jobs)
        state.apply(event)
        if len(state.jobs) > known and event.job_id is not None:
            late[event.job_id] = event.seq
        if event.event is EventKind.ACCOUNT:
            looks.append((event.seq, state.skew_us, state.account))
    state.books.reserved += int(reserved[-1]) - added_reserved
    state.books.posted += int(posted[-1]) - added_posted
    state.last_seq = int(events.numbers("seq")[-1])
    if len(lives):
        _take_in(state, events, plain, looks, late)


def _take_in(
    state: State,
    events: _Columns,
    plain: _Plain,
    looks: list[tuple[int, int, Account | None]],
    late: Mapping[str, int],
) -> None:
    """Add the plain lives to the jobs.

    Args:
        looks: when the account was looked at, by `seq`, and what was known of it from then on.
        late: the jobs that these events began otherwise, and the `seq` with which each was reserved.
    """
    lives, jobs = plain
    seqs = events.numbers("seq")[lives[:, _RESERVED]]
    facts = events.facts(lives, np.searchsorted([seq for seq, *_ in looks], seqs) - 1)
    order = np.argsort(np.concatenate([list(late.values()), seqs]), kind="stable").tolist() if late else []
    state.jobs.take_in(jobs, facts, _maker(looks), _SAME, list(late), order)
    state.counts[JobState.STORED] += len(jobs)
    state.attempts += len(jobs)
    state.largest_bytes = max(state.largest_bytes, int(events.numbers("bytes")[lives[:, _STORED]].max()))


def shelve(state: State) -> None:
    """Keep jobs that a live run has stored after a plain life as rows instead of objects, as `fold_table` does."""
    records = [record for record in state.jobs.unsettled() if _was_plain(record)]
    numbers: dict[tuple[int, Account | None], int] = {}
    looks = [numbers.setdefault((record.skew_us, record.account), len(numbers)) for record in records]
    columns: dict[str, pa.Array[Any]] = {
        fact: pa.array([getattr(record, fact) for record in records], _fact_type(column))
        for fact, (column, _) in _FACTS.items()
    }
    columns["look"] = pa.array(looks, pa.int64())
    make = _maker([(0, skew_us, account) for skew_us, account in numbers])
    state.jobs.shelve([record.job_id for record in records], pa.table(columns), make, _SAME)


def _was_plain(record: JobRecord) -> bool:
    """Whether a row says all of a record: stored at the first try, without any trouble on the way."""
    is_calm = record.error_class is None and record.doubted_us is None and not record.fetch_failures
    return record.state is JobState.STORED and record.attempt == 1 and is_calm


def _fact_type(column: str) -> pa.DataType:
    kind = SCHEMA.field(column).type
    return pa.int64() if pa.types.is_timestamp(kind) else kind


class _Columns:
    """A table's columns as arrays. Lives are four rows of it each, in the order of `_PLAIN_LIFE`."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def follow(self, seq: int) -> bool:
        """Whether these events are the next ones after `seq`, without a gap."""
        return bool((self.numbers("seq") == np.arange(seq + 1, seq + 1 + len(self.table))).all())

    def numbers(self, name: str) -> Numbers:
        """A column of whole numbers. By its memory: Arrow's own way loads pandas."""
        return _numbers(self._column(name))

    def texts(self, name: str, rows: Numbers) -> list[str]:
        """The texts of a column in these rows, none of which is null."""
        return cast(list[str], self._column(name).take(_array(rows)).to_pylist())

    def sums(self, rows: Numbers, amounts: Numbers) -> Numbers:
        """What the amounts in these rows add up to before each row, and after the last."""
        each = np.zeros(len(self.table) + 1, dtype=np.int64)
        each[rows + 1] = amounts
        return np.cumsum(each)

    def plain_lives(self, state: State) -> _Plain:
        """All jobs that begin and end here and went well at once, earlier ones first."""
        codes, names = _encode(self._column("job_id"))
        counts = np.bincount(codes, minlength=len(names))
        firsts = np.cumsum(counts) - counts
        steps = np.arange(len(_PLAIN_LIFE))
        lives: Numbers = np.argsort(codes, kind="stable")[firsts[counts == len(steps), None] + steps]
        kinds, words = _encode(self._column("event"))
        kinds = np.array([_PLAIN_LIFE.index(word) if word in _PLAIN_LIFE else -1 for word in words.to_pylist()])[kinds]
        good = (kinds[lives] == steps).all(axis=1)
        good &= (self.numbers("attempt")[lives] == 1).all(axis=1)
        good &= _is_null(self._column("error_class"))[lives].all(axis=1)
        quotes = self.numbers("quote_microusd")[lives[:, _RESERVED]]
        costs = self.numbers("cost_microusd")[lives[:, _POSTED]]
        good &= (quotes > 0) & (costs >= 0) & (costs <= quotes)
        good &= self._has_own_request(np.flatnonzero(kinds == _SUBMITTED))[lives[:, _SUBMITTED]]
        # Earlier ones first, as the codes are given in the order in which the ids appear.
        return self._claimed(lives[good], state)

    def _has_own_request(self, submitted: Numbers) -> npt.NDArray[np.bool_]:
        """For each row, whether it names a request that no other of the `submitted` names."""
        codes, names = _encode(self._column("request_id").take(_array(submitted)))
        is_name = (_numbers(pc.binary_length(cast(pa.StringArray, names))) > 0) & ~_is_null(names)
        is_own = np.zeros(len(self.table), dtype=bool)
        is_own[submitted] = (np.bincount(codes, minlength=len(names))[codes] == 1) & is_name[codes]
        return is_own

    def _claimed(self, lives: Numbers, state: State) -> _Plain:
        """These lives, whose requests are theirs in `state` from now on.

        None of them where the state knows any of their jobs or requests already: that is impossible, and the table of
        moves, to which all events go then, says which is the first and why.
        """
        jobs, requests = self.texts("job_id", lives[:, _RESERVED]), self.texts("request_id", lives[:, _SUBMITTED])
        if not all(jobs) or not state.jobs.places.keys().isdisjoint(jobs):
            return _Plain(lives[:0], [])
        # Looked up and noted at once: a million dictionary entries are a million misses of the processor's cache.
        owners = list(map(state.request_ids.setdefault, requests, jobs))
        if owners == jobs:
            return _Plain(lives, jobs)
        for request, owner, job_id in zip(requests, owners, jobs, strict=True):
            if owner == job_id:
                del state.request_ids[request]
        return _Plain(lives[:0], [])

    def facts(self, lives: Numbers, looks: Numbers) -> pa.Table:
        """A row for each life with what `_maker` makes a record of."""
        columns = [self._column(name).take(_array(lives[:, step])) for name, step in _FACTS.values()]
        times = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns]
        return pa.Table.from_arrays([*times, _array(looks)], names=[*_FACTS, "look"])

    def _column(self, name: str) -> pa.Array[Any]:
        return cast("pa.Array[Any]", self.table[name].chunk(0))


_FACTS = {
    "job_id": ("job_id", _RESERVED),
    "quote_microusd": ("quote_microusd", _RESERVED),
    "model": ("model", _RESERVED),
    "reserved_us": ("at", _RESERVED),
    "reserved_seq": ("seq", _RESERVED),
    "request_id": ("request_id", _SUBMITTED),
    "submitted_us": ("at", _SUBMITTED),
    "cost_microusd": ("cost_microusd", _POSTED),
    "posted_us": ("at", _POSTED),
    "queue_s": ("queue_s", _POSTED),
    "inference_s": ("inference_s", _POSTED),
    "path": ("path", _STORED),
    "poster": ("poster", _STORED),
    "sha256": ("sha256", _STORED),
    "bytes": ("bytes", _STORED),
    "duration_s": ("duration_s", _STORED),
    "width": ("width", _STORED),
    "height": ("height", _STORED),
    "ended_us": ("at", _STORED),
    "error": ("detail", _STORED),
    "http_status": ("http_status", _STORED),
}
"""What a plain life leaves behind: what a record calls it, the column, and the event that says it."""

_SAME = {"state": JobState.STORED.name, "attempt": 1, "error_class": None}
"""What all plain lives have in common."""


def _maker(looks: list[tuple[int, int, Account | None]]) -> Callable[..., JobRecord]:
    """What makes a record of the values of `_FACTS` and the number of the look at the account before it."""

    def make(
        job_id: str,
        quote_microusd: int,
        model: str | None,
        reserved_us: int,
        reserved_seq: int,
        request_id: str,
        submitted_us: int,
        cost_microusd: int,
        posted_us: int,
        queue_s: float | None,
        inference_s: float | None,
        path: str | None,
        poster: str | None,
        sha256: str | None,
        size: int,
        duration_s: float | None,
        width: int,
        height: int,
        ended_us: int,
        detail: str | None,
        http_status: int,
        look: int,
    ) -> JobRecord:
        _, skew_us, account = looks[look]
        return JobRecord(
            job_id=job_id,
            state=JobState.STORED,
            attempt=1,
            quote_microusd=quote_microusd,
            cost_microusd=cost_microusd,
            model=model,
            request_id=request_id,
            error=detail,
            http_status=http_status,
            first_submitted_us=submitted_us,
            reserved_us=reserved_us,
            reserved_seq=reserved_seq,
            skew_us=skew_us,
            account=account,
            submitted_us=submitted_us,
            posted_us=posted_us,
            ended_us=ended_us,
            path=path,
            poster=poster,
            sha256=sha256,
            bytes=size,
            duration_s=duration_s,
            width=width,
            height=height,
            queue_s=queue_s,
            inference_s=inference_s,
        )

    return make


def _encode(column: pa.Array[Any]) -> tuple[Numbers, pa.Array[Any]]:
    """A number for each value, null included, and the value of each number."""
    encoded = column.dictionary_encode(null_encoding="encode")
    return _numbers(encoded.indices), encoded.dictionary


def _is_null(column: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    is_null: npt.NDArray[np.bool_] = _numbers(pc.cast(pc.is_null(column), pa.int64())) != 0
    return is_null


def _numbers(column: pa.Array[Any]) -> Numbers:
    """The values of a column of whole numbers or times without nulls. By its memory: Arrow's own way loads pandas."""
    width: npt.DTypeLike = np.int64 if column.type.bit_width == 64 else np.int32
    data = column.buffers()[1]
    if data is None:
        return np.zeros(0, dtype=np.int64)
    values = np.frombuffer(memoryview(data), dtype=width)[column.offset : column.offset + len(column)]
    return values.astype(np.int64)


def _array(numbers: Numbers) -> pa.Array[Any]:
    """Numbers as a column."""
    whole = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None, pa.py_buffer(whole.data)])
