"""Folding many events at once, by columns: the same state as folding them one by one, in a tenth of the time.

Most jobs have a plain life: reserved, submitted, posted and stored at the first try, without any trouble. The events of
all plain lives are checked and added up together. Every other event goes through `State.apply`, at its place in the
order, as in a live run, while the state does not know the plain lives yet: these join it at the end, and only if no job
id and no request id is there twice. Nothing may follow `stored`, so a plain life can only be contradicted by a second
use of its job id or request id. A test holds both ways of folding equal, in what they say and in what they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.kernel.arrow import Numbers, are_null, array_of, numbers_of, pc, texts_of, values_of
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.budget import Books, ImpossibleMoveError
from pipeline.ledger.distinct import are_distinct
from pipeline.ledger.encoding import SCHEMA, decode
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import Account, JobRecord, JobState
from pipeline.ledger.records import JobTable

FEW = 1_000
"""Fewer events than this are folded one by one, which is quicker then."""

_PLAIN_LIFE = (EventKind.RESERVED, EventKind.SUBMITTED, EventKind.POSTED, EventKind.STORED)
_RESERVED, _SUBMITTED, _POSTED, _STORED = range(len(_PLAIN_LIFE))


def fold_tables(state: State, tables: Iterable[pa.Table]) -> None:
    """Take in the events of tables with the ledger's columns, in their order; they follow what is in `state`.

    Raises:
        ImpossibleMoveError: they cannot be true, or contradict the state, which is of no use then. Fold them by
            `fold_singly` to learn which event is the first that cannot be true, and why.
    """
    lives: list[JobTable] = []
    for table in tables:
        _fold_table(state, table, lives)
    if lives:
        _check_once(state, lives)
        state.jobs.take_in(lives)


def _check_once(state: State, lives: Sequence[JobTable]) -> None:
    """Refuse plain lives if a job id or a request id is there twice among them, or is known already."""
    settled = state.jobs.has_rows()
    for name, known, beside in (
        ("job_id", state.jobs, [record.job_id for record in state.jobs.unsettled()]),
        ("request_id", state.request_ids, state.request_ids.noted),
    ):
        found = texts_of(each.texts(name) for each in lives)
        together = texts_of([found, beside])
        if not are_distinct(together) or (settled and any(each in known for each in found.to_pylist())):
            raise ImpossibleMoveError(f"a {name} has two lives")


def fold_singly(state: State, tables: Iterable[pa.Table]) -> None:
    """The same as `fold_tables`, one event after the other.

    Raises:
        ImpossibleMoveError: as `State.apply`.
    """
    for table in tables:
        for event in decode(table):
            state.apply(event)


def _fold_table(state: State, table: pa.Table, lives: list[JobTable]) -> None:
    """Take in the events of a table, all but the plain lives, which join the others in `lives`."""
    whole = table.combine_chunks()
    events = _Columns(whole)
    # A column with more text than one array can hold stays in several.
    if len(table) < FEW or any(column.num_chunks != 1 for column in whole.columns) or not events.follow(state.last_seq):
        fold_singly(state, [table])
        return
    plain = events.plain_lives()
    others = np.ones(len(table), dtype=bool)
    others[plain] = False
    looks = _fold_beside(state, events, plain, np.flatnonzero(others))
    if len(plain):
        lives.append(_rows_of(state, events, plain, looks))


def _fold_beside(state: State, events: _Columns, lives: Numbers, others: Numbers) -> list[_Look]:
    """Apply the `others` one by one, each to the books as they stood then, and add the money of the plain lives.

    Returns the looks at the account: what was known of it from which event on.
    """
    quotes = events.numbers("quote_microusd")[lives[:, _RESERVED]]
    costs = events.numbers("cost_microusd")[lives[:, _POSTED]]
    reserved, posted = events.sums(lives[:, _RESERVED], quotes), events.sums(lives[:, _POSTED], costs)
    reserved -= events.sums(lives[:, _POSTED], quotes)
    looks = [_Look(0, state.skew_us, state.account)]
    added_reserved = added_posted = 0
    single = decode(events.table.take(array_of(others)))
    for event, held, spent in zip(single, reserved[others].tolist(), posted[others].tolist(), strict=True):
        _add(state.books, held - added_reserved, spent - added_posted)
        added_reserved, added_posted = held, spent
        state.last_seq = event.seq - 1
        state.apply(event)
        if event.event is EventKind.ACCOUNT:
            looks.append(_Look(event.seq, state.skew_us, state.account))
    _add(state.books, int(reserved[-1]) - added_reserved, int(posted[-1]) - added_posted)
    state.last_seq = int(events.numbers("seq")[-1])
    return looks


def _add(books: Books, reserved: int, posted: int) -> None:
    """Move the sums of the books by these amounts, in micro-dollars; what is reserved may fall."""
    books.reserved = MicroUsd(books.reserved + reserved)
    books.posted = MicroUsd(books.posted + posted)


class _Look(NamedTuple):
    """A look at the account: its event, how far the provider's clock was ahead of ours, and what the account held."""

    seq: int
    skew_us: int
    account: Account | None


def _rows_of(state: State, events: _Columns, lives: Numbers, looks: Sequence[_Look]) -> JobTable:
    """Make rows of the plain lives, and count them in the state."""
    seqs = events.numbers("seq")[lives[:, _RESERVED]]
    facts = events.facts(lives, np.searchsorted([look.seq for look in looks], seqs) - 1)
    state.counts[JobState.STORED] += len(lives)
    state.attempts += len(lives)
    state.largest_bytes = max(state.largest_bytes, int(events.numbers("bytes")[lives[:, _STORED]].max()))
    return JobTable(facts, _maker(looks), _SAME)


def shelve(state: State) -> None:
    """Keep jobs that a live run has stored after a plain life as rows instead of objects, as `fold_tables` does."""
    records = [record for record in state.jobs.unsettled() if _was_plain(record)]
    numbers: dict[tuple[int, Account | None], int] = {}
    looks = [numbers.setdefault((record.skew_us, record.account), len(numbers)) for record in records]
    columns: dict[str, pa.Array[Any]] = {
        fact: pa.array([getattr(record, fact) for record in records], _fact_type(column))
        for fact, (column, _) in _FACTS.items()
    }
    columns["look"] = pa.array(looks, pa.int64())
    make = _maker([_Look(0, skew_us, account) for skew_us, account in numbers])
    rows = JobTable(pa.table(columns), make, _SAME)
    state.jobs.shelve(rows)
    # Only now: whoever reads in another thread finds each request id in one place at least.
    state.request_ids.leave_to_rows(values_of(rows.texts("request_id")))


def _was_plain(record: JobRecord) -> bool:
    """Whether a row says all of a record: stored at the first try, without any trouble on the way."""
    is_calm = record.error_class is None and record.doubted_us is None and not record.fetch_failures
    return record.state is JobState.STORED and record.attempt == 1 and is_calm


def _fact_type(column: str) -> pa.DataType:
    kind = SCHEMA.field(column).type
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _as_fact(column: pa.Array[Any]) -> pa.Array[Any]:
    if isinstance(column, pa.DictionaryArray):
        return column.dictionary_decode()
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


class _Columns:
    """A table's columns as arrays. Lives are four rows of it each, in the order of `_PLAIN_LIFE`."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def follow(self, seq: int) -> bool:
        """Whether these events are the next ones after `seq`, without a gap."""
        return bool((self.numbers("seq") == np.arange(seq + 1, seq + 1 + len(self.table))).all())

    def numbers(self, name: str) -> Numbers:
        """A column of whole numbers."""
        return numbers_of(self._column(name))

    def sums(self, rows: Numbers, amounts: Numbers) -> Numbers:
        """The sum of the `amounts` in these rows before each row of the table, and after the last."""
        each = np.zeros(len(self.table) + 1, dtype=np.int64)
        each[rows + 1] = amounts
        return np.cumsum(each)

    def plain_lives(self) -> Numbers:
        """The lives of all jobs that begin and end in this table without trouble, in the order in which they began."""
        codes, names = _encode(self._column("job_id"))
        counts = np.bincount(codes, minlength=len(names))
        firsts = np.cumsum(counts) - counts
        steps = np.arange(len(_PLAIN_LIFE))
        lives = np.argsort(codes, kind="stable")[firsts[counts == len(steps), None] + steps]
        kinds, words = _encode(self._column("event"))
        kinds = np.array([_PLAIN_LIFE.index(word) if word in _PLAIN_LIFE else -1 for word in words.to_pylist()])[kinds]
        good = (kinds[lives] == steps).all(axis=1)
        good &= (self.numbers("attempt")[lives] == 1).all(axis=1)
        good &= are_null(self._column("error_class"))[lives].all(axis=1)
        quotes = self.numbers("quote_microusd")[lives[:, _RESERVED]]
        costs = self.numbers("cost_microusd")[lives[:, _POSTED]]
        good &= (quotes > 0) & (costs >= 0) & (costs <= quotes)
        good &= self._has_own_request(np.flatnonzero(kinds == _SUBMITTED))[lives[:, _SUBMITTED]]
        good &= _is_name(names)[codes[lives[:, _RESERVED]]]
        plain: Numbers = lives[good]
        return plain[np.argsort(plain[:, _RESERVED], kind="stable")]

    def _has_own_request(self, submitted: Numbers) -> npt.NDArray[np.bool_]:
        """For each row, whether it names a request that no other of the `submitted` names."""
        codes, names = _encode(self._column("request_id").take(array_of(submitted)))
        is_name = _is_name(names)
        is_own = np.zeros(len(self.table), dtype=bool)
        is_own[submitted] = (np.bincount(codes, minlength=len(names))[codes] == 1) & is_name[codes]
        return is_own

    def facts(self, lives: Numbers, looks: Numbers) -> pa.Table:
        """A row for each life with what `_maker` makes a record of."""
        columns = [self._column(name).take(array_of(lives[:, step])) for name, step in _FACTS.values()]
        return pa.Table.from_arrays([*map(_as_fact, columns), array_of(looks)], names=[*_FACTS, "look"])

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
"""The facts of a plain life: the field of a record, and from which column of which event it comes."""

_SAME = {"state": JobState.STORED.name, "attempt": 1, "error_class": None}
"""What all plain lives have in common."""


def _maker(looks: Sequence[_Look]) -> Callable[..., JobRecord]:
    """What makes a record from the values of `_FACTS` and the number of the last look at the account before it."""

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
            first_began_us=reserved_us + skew_us,
            reserved_us=reserved_us,
            first_reserved_seq=reserved_seq,
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
    """A number for each value, null included, and the value of each number.

    Where a column is a dictionary already, a value may have two numbers. Then a job's events may be split over two
    numbers: either they no longer look like a plain life and are folded one by one, or they look like two plain lives,
    and `_check_once` refuses those.
    """
    if isinstance(column, pa.DictionaryArray):
        codes = numbers_of(column.indices.fill_null(len(column.dictionary)))
        return codes, pa.concat_arrays([column.dictionary, pa.nulls(1, pa.string())])
    encoded = column.dictionary_encode(null_encoding="encode")
    return numbers_of(encoded.indices), encoded.dictionary


def _is_name(column: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    """For each text whether it is there and not empty."""
    return (numbers_of(pc.binary_length(column)) > 0) & ~are_null(column)
