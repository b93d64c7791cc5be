"""Segments: the immutable parquet files of the ledger, and how they prove that they are whole.

A segment's name is `<first seq>-<last seq>-<checksum>.parquet`: the checksum (128 bits of the SHA-256 of the whole
file) stands outside the bytes that it covers. Inside, the metadata link each segment to the one before by a hash over
all events so far, so that a missing, swapped or foreign segment breaks the chain. `_head` names the newest segment, so
that its loss is noticed too; it is written after the segment, so it can lag behind but never lead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.kernel.arrow import whole_numbers
from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.kernel.files import fsync_folder, write_all, write_file
from pipeline.ledger.encoding import (
    GENESIS,
    ROWS_PER_GROUP,
    UNREADABLE,
    Content,
    check_columns,
    decode,
    link,
    open_encoded,
)
from pipeline.ledger.events import Event

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})-([0-9a-f]{32})\.parquet")

HEAD = "_head"
"""In a ledger's folder: the name of its newest segment."""

MANY = 2**12
"""No commit has more events, so a larger segment was merged: its file has each text once, and numbers of texts."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment's file name says: the events it holds, both ends in, and its checksum."""

    first: int
    last: int
    checksum: str

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """A file's name as a segment's; None if it is not one."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    @classmethod
    def of(cls, first: int, last: int, data: bytes) -> SegmentName:
        """The name of a segment with these bytes."""
        return cls(first, last, _checksum(data))

    def fits(self, data: bytes) -> bool:
        """Whether these bytes are the ones that the segment was written with."""
        return _checksum(data) == self.checksum

    def __str__(self) -> str:
        return f"{self.first:012d}-{self.last:012d}-{self.checksum}.parquet"


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def write_segment(folder: Path, events: Sequence[Event], data: bytes) -> SegmentName:
    """Make a segment durable under its final name; the acknowledgement of its events may follow, never precede."""
    name = place(folder, events[0].seq, events[-1].seq, data)
    write_head(folder, name)
    return name


def place(folder: Path, first: int, last: int, data: bytes) -> SegmentName:
    """Write a segment durably under its final name, of which `_head` does not know yet."""
    name = SegmentName.of(first, last, data)
    write_file(folder / str(name), data)
    return name


def write_head(folder: Path, name: SegmentName) -> None:
    """Note the newest segment, in place: names are all of one length, and a new file for each would cost a third more.

    It is not flushed: a head that lags after a power loss, or cannot be read, only notices less.
    """
    path = folder / HEAD
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        path.unlink()
        descriptor = os.open(path, flags | os.O_EXCL, 0o644)
    try:
        write_all(descriptor, head_of(name))
    finally:
        os.close(descriptor)


def head_of(newest: SegmentName) -> bytes:
    """What `_head` holds: the newest name twice. Where a write was torn between two names, the two differ."""
    return f"{newest}\n{newest}\n".encode()


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
            raise damage(folder, entry, "is not a segment of this ledger")
        names.append(name)
    kept, replaced = choose(names)
    expected = 1
    for name in kept:
        if name.first != expected:
            lost = f"events {expected} to {name.first - 1} are missing" if name.first > expected else "it overlaps"
            raise damage(folder, str(name), f"does not follow event {expected - 1}: {lost}")
        expected = name.last + 1
    if head is not None and head not in names:
        noted = f"{HEAD} names it as the newest"
        if head.last >= expected:
            raise damage(folder, str(head), f"is missing, and events with it: {noted}")
        # After a merge the head may name a segment that is gone; but no merged one has the range of what it replaces.
        if any((name.first, name.last) == (head.first, head.last) for name in names):
            raise damage(folder, str(head), f"is missing, and another is in its place: {noted}")
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
        said = _read_file(folder, HEAD).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    name, _, again = said.rstrip("\n").partition("\n")
    return SegmentName.parse(name) if name == again else None


def _read_file(folder: Path, name: str) -> bytes:
    """The bytes of a file. What is no regular file is refused unread: opening a FIFO would wait without end.

    Raises:
        RunDirectoryError: a folder, a device or a link to nothing stands there.
        FileNotFoundError: nothing does.
    """
    path = folder / name
    if os.path.lexists(path) and not path.is_file():
        raise damage(folder, name, "is no file")
    return path.read_bytes()


def remove_segments(folder: Path, names: Iterable[SegmentName]) -> None:
    """Delete segments that a merged one has replaced."""
    for name in names:
        (folder / str(name)).unlink(missing_ok=True)
    fsync_folder(folder)


def read_segments(folder: Path, names: Iterable[SegmentName]) -> list[Event]:
    """Read and check segments from the first on; returns their events.

    Raises:
        RunDirectoryError: a segment is damaged or does not fit the chain; says which.
        MachineError: this machine has too little memory.
        FileNotFoundError: a segment went away since it was listed (a merge beside a reader: list again).
    """
    events: list[Event] = []
    reached = GENESIS
    for name in names:
        more, before, after = _read_segment(folder, name)
        if before != reached:
            raise not_next(folder, name)
        events += more
        reached = after
    return events


def read_tables(folder: Path, names: Iterable[SegmentName], reached: str, points: dict[int, str]) -> Iterator[pa.Table]:
    """Read and check segments in order, the events of each as a table, or as several.

    The columns are those of `SCHEMA`, but that some texts of a large segment are dictionaries, as the file has them:
    there a text may occur twice, or belong to no row.

    Args:
        reached: where the chain stands before the first.
        points: gets where it stands after the last event of each segment, by that event's number.

    Raises:
        RunDirectoryError: one is damaged or does not fit the chain.
        FileNotFoundError: one went away since it was listed.
    """
    for name in names:
        file, before, after = open_segment(folder, name, numbered=name.last - name.first >= MANY)
        first = name.first
        for table in parts_of(folder, name, file, ROWS_PER_GROUP):
            if whole_numbers(table["seq"].slice(0, 1)) != [first]:
                raise other_events(folder, name)
            if before != reached:
                raise not_next(folder, name)
            first += len(table)
            yield table
        if first != name.last + 1:
            raise other_events(folder, name)
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
    """Where the chain stands before and after a segment. Its bytes are held against its name.

    Raises:
        RunDirectoryError: it is damaged.
        FileNotFoundError: it went away since it was listed.
    """
    _, before, after = open_segment(folder, name)
    return before, after


def parts_of(folder: Path, name: SegmentName, file: pq.ParquetFile, rows: int) -> Iterator[pa.Table]:
    """The checked events of a segment, `rows` at a time: a large one need not be in memory as a whole.

    Raises:
        RunDirectoryError: it is damaged.
    """
    try:
        for batch in file.iter_batches(rows, use_threads=False):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            check_columns(table)
            yield table
    except UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def check_replaced(folder: Path, kept: Sequence[SegmentName], replaced: Iterable[SegmentName]) -> None:
    """Hold segments against the merged one that stands for them: each must have the very same events.

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
            raise damage(folder, str(name), "contradicts another segment that holds the same events")


def not_next(folder: Path, name: SegmentName) -> RunDirectoryError:
    """The error of a segment that breaks the chain."""
    what = "does not continue the segment before it: one was swapped or is foreign"
    return damage(folder, str(name), what)


def other_events(folder: Path, name: SegmentName) -> RunDirectoryError:
    """The error of a segment whose name does not tell its events."""
    return damage(folder, str(name), "does not hold the events that its name says")


def _unreadable(folder: Path, name: SegmentName, error: Exception) -> RunDirectoryError | MachineError:
    if isinstance(error, MemoryError):
        # Its bytes are whole. Whoever was told to restore a copy might lose events.
        what = "cannot be read: this machine has too little memory"
        return MachineError(f"{folder / str(name)} {what}. Nothing was sent.")
    return damage(folder, str(name), f"cannot be read ({type(error).__name__})")


def _read_segment(folder: Path, name: SegmentName) -> tuple[list[Event], str, str]:
    content = read_content(folder, name)
    try:
        events = decode(content.table)
    except UNREADABLE as error:
        raise _unreadable(folder, name, error) from None
    if not events or events[0].seq != name.first or events[-1].seq != name.last:
        raise other_events(folder, name)
    return events, content.before, content.after


def read_content(folder: Path, name: SegmentName) -> Content:
    """What a segment holds, its bytes held against its name. Raises as `open_segment`."""
    file, before, after = open_segment(folder, name)
    try:
        return Content(file.read(use_threads=False), before, after)
    except UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def open_segment(folder: Path, name: SegmentName, *, numbered: bool = False) -> tuple[pq.ParquetFile, str, str]:
    """A segment whose bytes were held against its name, and its place in the chain.

    Args:
        numbered: as for `open_encoded`.

    Raises:
        RunDirectoryError: it is damaged.
        FileNotFoundError: it went away since it was listed.
    """
    data = _read_file(folder, str(name))
    if not name.fits(data):
        raise damage(folder, str(name), "is damaged: its bytes do not match the checksum in its name")
    try:
        return open_encoded(data, numbered=numbered)
    except UNREADABLE as error:
        raise _unreadable(folder, name, error) from None


def damage(folder: Path, name: str, what: str) -> RunDirectoryError:
    """The error of a damaged ledger: which file, and `what` it is or does."""
    return RunDirectoryError(
        f"the ledger is damaged: {folder / name} {what}. Nothing was sent. "
        "Restore the folder from a copy; never delete single segments."
    )
