"""Reading a ledger, checked and folded: by the holder of its lock, or beside a live writer without disturbing it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from pipeline.kernel.ahead import one_ahead
from pipeline.kernel.arrow import values_of
from pipeline.kernel.errors import RunDirectoryError
from pipeline.kernel.garbage import give_back_memory, no_garbage_collector
from pipeline.ledger import segments
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.columns import fold_singly, fold_tables
from pipeline.ledger.encoding import GENESIS, SCHEMA
from pipeline.ledger.events import Event
from pipeline.ledger.fold import State
from pipeline.ledger.segments import MANY, SegmentName

T = TypeVar("T")

READ_TRIES = 5
"""How often a reader looks again where a live writer changes the folder under its eyes."""

FOLDED_AT_ONCE = 2**16
"""Events that are folded together."""

_KINDS = pa.dictionary(pa.int8(), pa.string())
"""How kinds of events are kept where there are millions: each word once, and a byte for each event."""
_MOMENTS = pa.schema([SCHEMA.field("at"), pa.field("event", _KINDS), SCHEMA.field("error_class")])


def _in_batches(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same events in tables of up to `FOLDED_AT_ONCE`: larger ones take more memory, smaller ones more time."""
    gathered: list[pa.Table] = []
    for table in tables:
        # Texts of a large segment are dictionaries of its own: to join those of two takes as long as to make them.
        if gathered and (sum(map(len, gathered), len(table)) > FOLDED_AT_ONCE or table.schema != gathered[0].schema):
            yield pa.concat_tables(gathered)
            gathered = []
        gathered.append(table)
    if gathered:
        yield pa.concat_tables(gathered)


def read_events(folder: Path) -> list[Event]:
    """All events of the ledger in `folder`, read beside a live writer without disturbing it.

    Raises:
        RunDirectoryError: there is no ledger, or it is damaged.
        MachineError: this machine has too little memory.
    """

    def read(kept: list[SegmentName], replaced: list[SegmentName]) -> list[Event]:
        events = segments.read_segments(folder, kept)
        segments.check_replaced(folder, kept, replaced)
        return events

    return _beside_a_writer(folder, read)


def read_table(folder: Path) -> pa.Table:
    """As `read_events`, as one table with the columns of `SCHEMA`: a fifth of the time, a third of the memory."""

    def read(kept: list[SegmentName], replaced: list[SegmentName]) -> pa.Table:
        tables = [table.cast(SCHEMA) for table in segments.read_tables(folder, kept, GENESIS, {})]
        segments.check_replaced(folder, kept, replaced)
        return pa.concat_tables([SCHEMA.empty_table(), *tables])

    return _beside_a_writer(folder, read)


def each_request(folder: Path, take: Callable[[str, str], None]) -> None:
    """Hand over the id of the job and the body of each submission, in order, a part of the ledger at a time.

    Beside a live writer the reading may begin anew, and hand over some of them again.

    Raises:
        RunDirectoryError: there is no ledger, or it is damaged.
        MachineError: this machine has too little memory.
    """

    def read(kept: list[SegmentName], replaced: list[SegmentName]) -> None:
        for table in segments.read_tables(folder, kept, GENESIS, {}):
            sent = table.select(["job_id", "request"]).drop_null()
            for job_id, request in zip(values_of(sent["job_id"]), values_of(sent["request"]), strict=True):
                take(job_id, request)
        segments.check_replaced(folder, kept, replaced)

    _beside_a_writer(folder, read)


def _beside_a_writer(folder: Path, read: Callable[[list[SegmentName], list[SegmentName]], T]) -> T:
    """Read the segments that make up a ledger; `replaced` are those that a merged one among them stands for.

    Raises:
        RunDirectoryError: there is no ledger, or it is damaged.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder.parent} holds no ledger: it is not a run directory")
    damage = RunDirectoryError(f"{folder} keeps changing while it is read; try again")
    for _ in range(READ_TRIES):
        names = sorted(os.listdir(folder))
        try:
            with no_garbage_collector():
                return read(*segments.list_segments(folder))
        except FileNotFoundError:
            continue  # a merge replaced segments between the listing and the reading
        except RunDirectoryError as error:
            # A listing beside a writer is not of one instant and may miss a name, so damage is believed only where the
            # folder did not change meanwhile.
            if names == sorted(os.listdir(folder)):
                raise
            damage = error
    raise damage


def _moments_of(table: pa.Table) -> pa.Table:
    at = SCHEMA.get_field_index("event")
    encoded = table.set_column(at, "event", table["event"].dictionary_encode().cast(_KINDS))
    return encoded.select(_MOMENTS.names).cast(_MOMENTS)


def _noting_moments(tables: Iterable[pa.Table], moments: list[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, while the moments of each are added to `moments`."""
    for table in tables:
        moments.append(_moments_of(table))
        yield table


class Reader:
    """Reads a ledger again and again beside a live writer: what was read and checked once is not read again.

    `state` is what its events say. `moments` are the columns `at`, `event` and `error_class` of all events, if somebody
    asked for them.
    """

    def __init__(self, folder: Path, *, moments: bool = False) -> None:
        self._folder = folder
        self._notes_moments = moments
        self._forget()

    def _forget(self) -> None:
        self.state = State()
        self.moments = pa.Table.from_batches([], _MOMENTS)
        self._names: set[SegmentName] = set()
        self._points = {0: GENESIS}
        """Where the chain stood after the last event of each segment that was read."""

    def read(self) -> None:
        """Take in what was recorded since the last time.

        Raises:
            RunDirectoryError: there is no ledger, or it is damaged.
            MachineError: this machine has too little memory.
            ImpossibleMoveError: it contradicts itself.
        """
        try:
            _beside_a_writer(self._folder, self._read_on)
        except BaseException:
            self._forget()
            raise

    @property
    def reached(self) -> str:
        """Where the chain stands after the last event."""
        return self._points[self.state.last_seq]

    def _read_on(self, kept: list[SegmentName], replaced: list[SegmentName]) -> None:
        known = 0
        while known < len(kept) and self._is_known(kept[known]):
            known += 1
        if (kept[known - 1].last if known else 0) != self.state.last_seq:
            # A merged segment holds events that were read and others that were not.
            self._forget()
            known = 0
        if not known:
            segments.check_replaced(self._folder, kept, replaced)
        large = max((number for number, name in enumerate(kept, 1) if name.last - name.first >= MANY), default=0)
        try:
            if large > known:
                # These take long. Young ones may be merged away meanwhile: then only what follows is read anew.
                self._fold(kept[:large], known, fold_tables)
                known, self._names = large, set(kept[:large])
            self._fold(kept, known, fold_tables)
        except ImpossibleMoveError:
            # Once more, one by one: the error then names the first event that cannot be true.
            self._forget()
            self._fold(kept, 0, fold_singly)
        self._names = set(kept)

    def _fold(
        self, kept: Sequence[SegmentName], known: int, take_in: Callable[[State, Iterable[pa.Table]], None]
    ) -> None:
        """Take in the segments after the first `known` ones."""
        begun = self.state.last_seq
        points = {last: self._points[last] for last in (0, *(name.last for name in kept[:known]))}
        moments = [self.moments]
        tables = _in_batches(segments.read_tables(self._folder, kept[known:], points[begun], points))
        are_many = bool(kept) and kept[-1].last - begun > FOLDED_AT_ONCE
        with one_ahead(tables) if are_many else contextlib.nullcontext(tables) as coming:
            take_in(self.state, _noting_moments(coming, moments) if self._notes_moments else coming)
        self.moments = pa.concat_tables(moments)
        self._points = points
        if are_many:
            # After few events this would take longer than they did.
            give_back_memory()

    def _is_known(self, name: SegmentName) -> bool:
        """Whether the events of a segment were read: from itself, or from the segments that were merged into it."""
        if name in self._names:
            return True
        ends = self._points.get(name.first - 1), self._points.get(name.last)
        # Equal hashes of the chain mean equal events. An equal range does not: it may be a file of another ledger.
        return None not in ends and segments.ends_of(self._folder, name) == ends
