"""Segments: the immutable parquet files of the ledger, and how they prove that they are whole.

A segment's name is `<first seq>-<last seq>-<checksum>.parquet`: the checksum (128 bits of the SHA-256 of the whole
file) stands outside the bytes that it covers. Inside, the metadata link each segment to the one before by a hash over
all events so far, so that a missing, swapped or foreign segment breaks the chain. `_head` names the newest segment, so
that its loss is noticed too; it is written after the segment, so it can lag behind but never lead.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.kernel.errors import RunDirectoryError
from pipeline.kernel.files import discard, fsync_folder, open_temporary, put_in_place, write_all
from pipeline.ledger.events import COLUMNS, FIELD_OF_COLUMN, Event, EventKind

_TYPES = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "string": pa.string(),
    "double": pa.float64(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}
SCHEMA = pa.schema([pa.field(name, _TYPES[kind]) for name, kind in COLUMNS.items()])
_REPEATED: Any = [name for name in COLUMNS if name not in {"seq", "at", "request", "url", "path", "poster", "sha256"}]
"""Columns in which the same is said again and again. With a dictionary the others would be larger, and slower."""
_NUMBERED = ["job_id", "event", "request_id", "error_class", "model"]
"""Columns of texts that whoever reads many events wants as numbers of different texts, as the file has them."""
_NUMBERED_SCHEMA = pa.schema(
    [field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in _NUMBERED else field for field in SCHEMA]
)
_in_columns = itemgetter(*(Event._fields.index(name) for name in FIELD_OF_COLUMN.values()))
"""An event's values in the order of the columns."""
_FEW_VALUES = frozenset({"event", "error_class", "model"})
_NEVER_NULL = tuple(name for name, kind in COLUMNS.items() if name == "event" or kind not in ("string", "double"))

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})-([0-9a-f]{32})\.parquet")
_METADATA_KEY = b"kling-batch.chain"
_UNREADABLE = (pa.ArrowException, KeyError, ValueError, TypeError, OSError)
"""All that reading a file's bytes as a segment can raise."""
_HEAD = "_head"
MANY = 2**12
"""More events than one commit has, so that the segment was merged: its texts stand there once, with numbers."""
ROWS_PER_GROUP = 2**16
"""Events in a row group of a merged segment: whoever asks for one job passes over the groups that do not have it."""

COMPARED_AT_ONCE = 2**13
"""So many rows of a merged segment are held against those of the old ones together."""

GENESIS = "0" * 64
"""What the first segment links to."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment's file name says: the events it holds, both ends in, and its checksum."""

    first: int
    last: int
    checksum: str

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    def __str__(self) -> str:
        return f"{self.first:012d}-{self.last:012d}-{self.checksum}.parquet"


def link(before: str, events: Sequence[Event]) -> str:
    """The chain's hash after `events`, when it was `before` in front of them."""
    return hashlib.sha256(before.encode() + orjson.dumps(list(map(_in_columns, events)))).hexdigest()


def table_of(events: Sequence[Event]) -> pa.Table:
    """Events as a table with the columns of every segment."""
    columns = zip(*map(_in_columns, events), strict=True) if events else [()] * len(SCHEMA)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class Content:
    """What a segment holds: its events as a table, and its place in the chain."""

    table: pa.Table
    before: str
    after: str


def encode(events: Sequence[Event], before: str, after: str, *, compress: bool = False) -> bytes:
    """The parquet bytes of a segment whose place in the chain is between `before` and `after`."""
    return encode_content(Content(table_of(events), before, after), compress=compress)


def encode_content(content: Content, *, compress: bool = False) -> bytes:
    """A segment's bytes: plain and quick for a commit; compact, and quick to ask about one job, once merged."""
    table, ends = content.table, (content.before, content.after)
    return _encode([table], table.schema, len(table), ends, compress=compress)


def _encode(
    tables: Iterable[pa.Table], schema: pa.Schema, rows: int, ends: tuple[str, str], *, compress: bool
) -> bytes:
    """Tables that have this schema and so many rows together, each in row groups of its own."""
    before, after = ends
    chain = orjson.dumps({"version": 1, "before": before, "after": after})
    # As large as a group has rows: by itself it would be made for a million jobs, and take a megabyte.
    bloom = {"job_id": {"ndv": min(rows, ROWS_PER_GROUP), "fpp": 0.01}}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata({_METADATA_KEY: chain}),
        compression="zstd" if compress else "none",
        use_dictionary=_REPEATED if compress else False,
        write_statistics=compress,
        bloom_filter_options=bloom if compress else None,
        write_page_checksum=True,
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            del table  # it must not be there beside the next
    return sink.getvalue().to_pybytes()


def write_segment(folder: Path, events: Sequence[Event], data: bytes) -> SegmentName:
    """Make a segment durable under its final name; the acknowledgement of its events may follow, never precede."""
    name = _place(folder, events[0].seq, events[-1].seq, data)
    _write_head(folder, name)
    return name


def _place(folder: Path, first: int, last: int, data: bytes) -> SegmentName:
    name = SegmentName(first, last, hashlib.sha256(data).hexdigest()[:32])
    descriptor, temporary = open_temporary(folder)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        put_in_place(temporary, folder / str(name))
    except BaseException:
        discard(temporary)
        raise
    return name


def _write_head(folder: Path, name: SegmentName) -> None:
    """Note the newest segment, in place: names are all of one length, and a new file for each would cost a third more.

    Not flushed: a head that lags after a power loss, or cannot be read, only notices less. The name stands there twice,
    so that one that was torn between two names is not taken for the name of a segment that never was.
    """
    path = folder / _HEAD
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        path.unlink()
        descriptor = os.open(path, flags | os.O_EXCL, 0o644)
    try:
        write_all(descriptor, f"{name}\n{name}\n".encode())
    finally:
        os.close(descriptor)


def list_segments(folder: Path) -> tuple[list[SegmentName], list[SegmentName]]:
    """The segments that make up the ledger, in order, and those that a merged one has replaced.

    Raises:
        RunDirectoryError: a file that is no segment, a gap, or an overlap that no merge explains.
    """
    # The head first: beside a live writer it may lag behind the listing, never lead it.
    head = _read_head(folder)
    names = []
    for entry in os.listdir(folder):
        if entry.startswith((".", "_")):
            continue
        name = SegmentName.parse(entry)
        if name is None:
            raise _damage(folder, entry, "is not a segment of this ledger")
        names.append(name)
    kept, replaced = choose(names)
    expected = 1
    for name in kept:
        if name.first != expected:
            lost = f"events {expected} to {name.first - 1} are missing" if name.first > expected else "it overlaps"
            raise _damage(folder, str(name), f"does not follow event {expected - 1}: {lost}")
        expected = name.last + 1
    if head is not None and head not in names:
        noted = f"{_HEAD} names it as the newest"
        if head.last >= expected:
            raise _damage(folder, str(head), f"is missing, and events with it: {noted}")
        # A merge may leave the head behind, but what it makes never has the range of what it replaces.
        if any((name.first, name.last) == (head.first, head.last) for name in names):
            raise _damage(folder, str(head), f"is missing, and another is in its place: {noted}")
    return kept, replaced


def choose(names: Iterable[SegmentName]) -> tuple[list[SegmentName], list[SegmentName]]:
    """The segments that make up a ledger, in order, and those that a merged one among them has replaced."""
    kept: list[SegmentName] = []
    replaced: list[SegmentName] = []
    for name in sorted(names, key=lambda name: (name.first, -name.last)):
        if kept and name.last <= kept[-1].last:
            replaced.append(name)
        else:
            kept.append(name)
    return kept, replaced


def _read_head(folder: Path) -> SegmentName | None:
    """The newest segment as far as it was noted; None where no note survived."""
    try:
        said = _read_file(folder, _HEAD).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    name, _, again = said.rstrip("\n").partition("\n")
    return SegmentName.parse(name) if name == again else None


def _read_file(folder: Path, name: str) -> bytes:
    """The bytes of a file. What is none is refused unread: a FIFO would be waited for without end.

    Raises:
        RunDirectoryError: a folder, a device or a link to nothing stands there.
        FileNotFoundError: nothing does.
    """
    path = folder / name
    if os.path.lexists(path) and not path.is_file():
        raise _damage(folder, name, "is no file")
    return path.read_bytes()


def read_segments(folder: Path, names: Iterable[SegmentName]) -> tuple[list[Event], str]:
    """Read and check segments in order; returns their events and the hash that the chain has reached.

    Raises:
        RunDirectoryError: a segment is damaged or does not fit the chain; says which.
        FileNotFoundError: a segment went away since it was listed (a merge beside a reader: list again).
    """
    events: list[Event] = []
    reached = GENESIS
    for name in names:
        more, before, after = _read_segment(folder, name)
        if before != reached:
            raise _not_next(folder, name)
        events += more
        reached = after
    return events, reached


def read_tables(folder: Path, names: Iterable[SegmentName], reached: str, points: dict[int, str]) -> Iterator[pa.Table]:
    """Read and check segments in order, the events of each as a table, or as several.

    Its columns are those of `SCHEMA`, but that some of a large segment's texts may be dictionaries. These are as the
    file has them: a text may be there twice, or stand for no row.

    Args:
        reached: where the chain stands before the first.
        points: told where it stands after the last event of each.

    Raises:
        RunDirectoryError: one is damaged or does not fit the chain.
        FileNotFoundError: one went away since it was listed.
    """
    for name in names:
        file, before, after = _open(folder, name, numbered=name.last - name.first >= MANY)
        first = name.first
        for table in _parts(folder, name, file, ROWS_PER_GROUP):
            if _whole_numbers(table["seq"].slice(0, 1).combine_chunks()) != [first]:
                raise _other_events(folder, name)
            if before != reached:
                raise _not_next(folder, name)
            first += len(table)
            yield table
        if first != name.last + 1:
            raise _other_events(folder, name)
        points[name.last] = reached = after


def check_segments(folder: Path, names: Iterable[SegmentName]) -> None:
    """Read and check segments from the first on, a part at a time: the events of a large ledger take gigabytes.

    Raises:
        RunDirectoryError: one is damaged or does not fit the chain.
        FileNotFoundError: one went away since it was listed.
    """
    for _ in read_tables(folder, names, GENESIS, {}):
        pass


def ends_of(folder: Path, name: SegmentName) -> tuple[str, str]:
    """Where the chain stands before and after a segment, whose bytes are held against its name.

    Raises:
        RunDirectoryError: it is damaged.
        FileNotFoundError: it went away since it was listed.
    """
    _, before, after = _open(folder, name)
    return before, after


def _parts(folder: Path, name: SegmentName, file: pq.ParquetFile, rows: int) -> Iterator[pa.Table]:
    """The checked events of a segment, so many at a time: a large one need not be in memory as a whole."""
    try:
        for batch in file.iter_batches(rows, use_threads=False):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            _check_columns(table)
            yield table
    except _UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def check_replaced(folder: Path, kept: Sequence[SegmentName], replaced: Iterable[SegmentName]) -> None:
    """Hold segments that a merged one stands for against it: each must have the very same events.

    Raises:
        RunDirectoryError: one is damaged, or contradicts it.
        FileNotFoundError: one went away since it was listed.
    """
    merged: SegmentName | None = None
    events: list[Event] = []
    for name in replaced:
        whole = next(each for each in kept if each.first <= name.first and name.last <= each.last)
        if whole != merged:
            merged, (events, _, _) = whole, _read_segment(folder, whole)
        mine, _, _ = _read_segment(folder, name)
        if link(GENESIS, mine) != link(GENESIS, events[name.first - whole.first : name.last - whole.first + 1]):
            raise _damage(folder, str(name), "contradicts another segment that holds the same events")


def _not_next(folder: Path, name: SegmentName) -> RunDirectoryError:
    what = "does not continue the segment before it: one was swapped or is foreign"
    return _damage(folder, str(name), what)


def _other_events(folder: Path, name: SegmentName) -> RunDirectoryError:
    return _damage(folder, str(name), "does not hold the events that its name says")


def _unreadable(folder: Path, name: SegmentName, error: Exception) -> RunDirectoryError:
    return _damage(folder, str(name), f"cannot be read ({type(error).__name__})")


def _read_segment(folder: Path, name: SegmentName) -> tuple[list[Event], str, str]:
    content = _read_content(folder, name)
    try:
        events = decode(content.table)
    except _UNREADABLE as error:
        raise _unreadable(folder, name, error) from None
    if not events or events[0].seq != name.first or events[-1].seq != name.last:
        raise _other_events(folder, name)
    return events, content.before, content.after


def _read_content(folder: Path, name: SegmentName) -> Content:
    """What a segment holds, its bytes held against its name."""
    file, before, after = _open(folder, name)
    try:
        return Content(file.read(use_threads=False), before, after)
    except _UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def _open(folder: Path, name: SegmentName, *, numbered: bool = False) -> tuple[pq.ParquetFile, str, str]:
    """A segment whose bytes were held against its name, and its place in the chain.

    Args:
        numbered: whether some texts are read as dictionaries, which is quick where the file has them so.
    """
    data = _read_file(folder, str(name))
    if hashlib.sha256(data).hexdigest()[:32] != name.checksum:
        raise _damage(folder, str(name), "is damaged: its bytes do not match the checksum in its name")
    try:
        # Neither page checksums nor threads that read ahead: it is in memory, and proven whole.
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        if numbered:
            if not file.schema_arrow.equals(SCHEMA):
                raise ValueError("its columns are not those of a ledger")
            file = pq.ParquetFile(
                pa.BufferReader(data), metadata=file.metadata, pre_buffer=False, read_dictionary=_NUMBERED
            )
        chain = orjson.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
        return file, str(chain["before"]), str(chain["after"])
    except _UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def _check_columns(table: pa.Table) -> None:
    if not table.schema.equals(SCHEMA) and not table.schema.equals(_NUMBERED_SCHEMA):
        raise ValueError("its columns are not those of a ledger")
    if any(table[name].null_count for name in _NEVER_NULL):
        raise ValueError("something is missing in them")
    table.validate(full=True)
    for kind in pc.unique(table["event"]).to_pylist():
        EventKind(str(kind))


def decode(table: pa.Table) -> list[Event]:
    """The events of a table.

    Raises:
        ValueError: they are none of a ledger's.
    """
    _check_columns(table)
    table = table.cast(SCHEMA)
    columns = {
        FIELD_OF_COLUMN[name]: _shared(column) if name in _FEW_VALUES else _values(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    kinds = {str(kind): EventKind(str(kind)) for kind in set(columns["event"])}
    columns["event"] = [kinds[str(kind)] for kind in columns["event"]]
    return list(map(Event._make, zip(*(columns[name] for name in Event._fields), strict=True)))


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values. Most of them are whole numbers, or nothing at all: both are quick."""
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        return _whole_numbers(column.combine_chunks())
    return list(column.to_pylist())


def _shared(column: pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values where few are different: each stands in memory once."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    return [values[index] for index in _whole_numbers(encoded.indices)]


def _whole_numbers(array: pa.Array[Any]) -> list[int]:
    """The values of an array without nulls, by its memory: Arrow's own way loads pandas."""
    data = array.buffers()[1]
    if data is None:
        return []
    numbers = memoryview(data).cast("q" if pa.types.is_int64(array.type) else "i")
    return numbers[array.offset : array.offset + len(array)].tolist()


def _damage(folder: Path, name: str, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"the ledger is damaged: {folder / name} {what}. Nothing was sent. "
        "Restore the folder from a copy; never delete single segments."
    )


def merge_segments(
    folder: Path,
    names: Sequence[SegmentName],
    *,
    sealed: bool = False,
    known: Mapping[SegmentName, Content] | None = None,
) -> SegmentName:
    """Replace segments that follow each other by one with the same events and the same place in the chain.

    A kill at any point leaves either the old ones, or both (then the merged one counts), or the merged one. The old
    ones go only when the merged one was read back and holds what they hold.

    Args:
        sealed: whether newer segments follow: then another may be written meanwhile, and the head names one of those.
        known: what some of them hold, as this process has written it: reading them back costs as much as all the rest.
    """
    group = _Group(folder, names, known or {})
    merged = _place(folder, names[0].first, names[-1].last, group.encode())
    if not sealed:
        _write_head(folder, merged)
    try:
        if not group.is_in(merged):
            raise _damage(folder, str(merged), "is not what was written")
    except _OldDamageError:
        # It was whole a moment ago, when it was merged: what stands for it by now may be all that is left.
        raise
    except RunDirectoryError as damage:
        remove_segments(folder, [merged] if merged not in names else [])
        raise OSError(errno.EIO, "a merged segment did not keep its bytes") from damage
    remove_segments(folder, [name for name in names if name != merged])
    return merged


class _OldDamageError(RunDirectoryError):
    """One of the segments that are to become one is damaged."""


@dataclass(frozen=True)
class _Group:
    """Segments that are to become one, and what is `known` of some of them."""

    folder: Path
    names: Sequence[SegmentName]
    known: Mapping[SegmentName, Content]

    @cached_property
    def ends(self) -> tuple[str, str]:
        """Where the chain stands before and after them."""
        first, last = (self.known.get(name) for name in (self.names[0], self.names[-1]))
        before = first.before if first else ends_of(self.folder, self.names[0])[0]
        return before, last.after if last else ends_of(self.folder, self.names[-1])[1]

    def encode(self) -> bytes:
        """The bytes of a segment that stands for them."""
        rows = self.names[-1].last - self.names[0].first + 1
        return _encode(_in_groups(self._tables(), ROWS_PER_GROUP), SCHEMA, rows, self.ends, compress=True)

    def is_in(self, name: SegmentName) -> bool:
        """Whether a segment holds what they hold, in the same place."""
        file, *ends = _open(self.folder, name)
        merged = _parts(self.folder, name, file, COMPARED_AT_ONCE)
        pairs = itertools.zip_longest(*(_in_groups(each, COMPARED_AT_ONCE) for each in (merged, self._tables())))
        are_same = all(mine is not None and theirs is not None and mine.equals(theirs) for mine, theirs in pairs)
        return are_same and (*ends,) == self.ends

    def _tables(self) -> Iterator[pa.Table]:
        """The events of each; they must follow each other."""
        reached = None
        try:
            for name in self.names:
                content = self.known.get(name) or _read_content(self.folder, name)
                if not content.table.schema.equals(SCHEMA):
                    raise _damage(self.folder, str(name), "cannot be read (its columns are not those of a ledger)")
                if content.table["seq"].to_pylist() != list(range(name.first, name.last + 1)):
                    raise _other_events(self.folder, name)
                if reached not in (None, content.before):
                    raise _not_next(self.folder, name)
                reached = content.after
                yield content.table.replace_schema_metadata(None)
        except RunDirectoryError as error:
            raise _OldDamageError(str(error)) from None


def _in_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, so many at a time: those of a large merge together would be a run's peak."""
    gathered: list[pa.Table] = []
    missing = rows
    for table in tables:
        while len(table) >= missing:
            group = [*gathered, table.slice(0, missing)]
            table, gathered, missing = table.slice(missing), [], rows
            yield pa.concat_tables(group)
        gathered.append(table)
        missing -= len(table)
    if missing < rows:
        yield pa.concat_tables(gathered)


def remove_segments(folder: Path, names: Iterable[SegmentName]) -> None:
    """Delete segments that a merged one has replaced."""
    for name in names:
        (folder / str(name)).unlink(missing_ok=True)
    fsync_folder(folder)
