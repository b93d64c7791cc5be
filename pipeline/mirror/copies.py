"""The two copies of a run directory's ledger, on the disk and in object storage, and how both come to say the same.

Segments come to the storage in order, and a merged segment stands there before what it replaces goes: so whatever the
storage has at any moment is a ledger that covers all that may have been sent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.kernel.errors import KlingBatchError, MachineError, RunDirectoryError
from pipeline.kernel.files import flush_file, make_folder, put_in_place
from pipeline.ledger.encoding import GENESIS, SCHEMA
from pipeline.ledger.segments import (
    HEAD,
    SegmentName,
    check_replaced,
    check_segments,
    choose,
    head_of,
    list_segments,
    read_tables,
    remove_segments,
)
from pipeline.mirror.decide import Way, way_by_events, way_by_names
from pipeline.mirror.holder import Holder
from pipeline.mirror.run_files import RunFiles
from pipeline.mirror.storage import Storage

INCOMING = ".incoming"
"""In a run directory: what was fetched of its ledger, until all of it is proven."""

MEET_TRIES = 5
"""How often the copy there is listed anew where what was listed has gone."""


class _Gone(KlingBatchError):  # noqa: N818 - an outcome
    """A segment went away since it was listed: its run goes on elsewhere, and has merged it. No retry helps."""


class Copies:
    """The ledger of one run directory, here and there.

    Segments are brought there by the ledger's thread, and tidied by the mirror's. `_changing` is held by whoever
    changes the segments in the storage, so that what is listed there and `_there` do not change while they are held
    against each other. `meet` needs no lock: it is over before the mirror's thread begins. Nor does `note_head`: a head
    may lag.
    """

    def __init__(self, folder: Path, storage: Storage, holder: Holder, files: RunFiles) -> None:
        self._folder = folder
        self._ledger = folder / "ledger"
        self._storage = storage
        self._objects = storage.objects
        self._holder = holder
        self._files = files
        self._changing = threading.Lock()
        self._there: set[SegmentName] = set()
        """The segments that this process has found in the storage, or brought there."""
        self._newest: SegmentName | None = None
        """The last segment that was brought there in its turn."""

    def meet(self, *, push: bool) -> None:
        """Have both copies say the same; without `push`, only what the disk lacks is fetched.

        Raises:
            RunDirectoryError: neither copy goes on from the other, or one is damaged.
            MachineError: another has taken the place, or the storage has refused.
        """
        for _ in range(MEET_TRIES):
            with contextlib.suppress(_Gone):
                return self._meet(push=push)
        raise RunDirectoryError(f"{self._storage.address} keeps changing while it is read; try again")

    def _meet(self, *, push: bool) -> None:
        # The head first: beside a live writer it may lag behind the listing, never lead it.
        head = self._objects.read(f"ledger/{HEAD}")
        self._there = _segments(self._objects.names("ledger"))
        there, replaced = choose(self._there)
        if replaced:
            self._hold_together(there, replaced)
        here = self._here(there)
        way = way_by_names(here, there)
        if way in (Way.PULL, Way.COMPARE):
            way = self._pull(here, there, way, head)
        if there and not (self._folder / "jobs.parquet").exists():
            self._storage.at_first(self._files.fetch_rows)
        if push:
            for name in list_segments(self._ledger)[0]:
                if name not in self._there:
                    data = self._whole(name)
                    self._storage.at_first(lambda name=name, data=data: self._bring(name, data))  # type: ignore[misc]
                    self._there.add(name)
                self._newest = name

    def bring(self, name: SegmentName) -> None:
        """Bring a new segment there; returns when it stands, while the place was certainly ours.

        Raises:
            MachineError: the storage has refused for too long, or another has taken the place.
        """
        data = self._whole(name)
        with self._changing:
            self._storage.patiently(lambda: self._bring(name, data), self._holder.check)
            self._there.add(name)
            self._newest = name

    def _bring(self, name: SegmentName, data: bytes) -> None:
        self._holder.be_sure()
        self._objects.write(f"ledger/{name}", data)
        try:
            self._holder.be_sure()
        except MachineError:
            self._take_back(name)
            raise

    def _take_back(self, name: SegmentName) -> None:
        """Remove a segment that came too late: another has taken the place over, and has gone on without it.

        If the new holder has already read this segment, it continues from it and the segment must stay. If it has not,
        its next sweep removes whatever we leave behind.
        """
        with contextlib.suppress(Exception):
            others = _segments(self._objects.names("ledger")) - self._there - {name}
            if any(each.first <= name.last and name.first <= each.last for each in others):
                self._objects.remove(f"ledger/{name}")

    def sweep(self) -> None:
        """Have the storage hold the segments that this process has found there or brought there, and no others.

        A segment that appeared since then and is not ours was written by the previous holder after we had taken over:
        it is removed. A holder that slept long enough may also have removed segments that it had merged: those are
        written again.

        Raises:
            MachineError: another has taken the place, or a segment here is damaged.
        """
        with self._changing:
            listed = _segments(self._objects.names("ledger"))
            # Between the look and what follows from it, nobody else may have taken the place.
            self._holder.beat()
            missing = self._there - listed
            here = missing & _segments(os.listdir(self._ledger))
            for name in here:
                self._objects.write(f"ledger/{name}", self._whole(name))
            lost = missing - here
            for name in listed - self._there:
                # A segment that holds what we cannot write again stays.
                if not any(name.first <= each.first and each.last <= name.last for each in lost):
                    self._objects.remove(f"ledger/{name}")

    def tidy(self) -> None:
        """Follow merges: what was merged here goes there, and then what it replaces goes from there."""
        with self._changing:
            newest = self._newest.last if self._newest is not None else 0
            for name in list_segments(self._ledger)[0]:
                if name not in self._there and name.last <= newest:
                    self._objects.write(f"ledger/{name}", self._whole(name))
                    self._there.add(name)
            for name in choose(self._there)[1]:
                self._objects.remove(f"ledger/{name}")
                self._there.discard(name)

    def note_head(self) -> None:
        """Note the newest segment, as the ledger does on a disk: the head may lag, and never leads."""
        if self._newest is not None:
            self._objects.write(f"ledger/{HEAD}", head_of(self._newest))

    def _whole(self, name: SegmentName) -> bytes:
        """The bytes of a segment here. A damaged one must not take the place of a good one there.

        Raises:
            MachineError: they are not what was written.
        """
        data = (self._ledger / str(name)).read_bytes()
        if not name.fits(data):
            raise MachineError(
                f"{self._ledger / str(name)} does not match the checksum in its name any more: this machine's disk is "
                "faulty. Nothing more was sent."
            )
        return data

    def _here(self, there: list[SegmentName]) -> list[SegmentName]:
        """The segments on the disk. Where a death has left two sets of them, none: then all that is there is fetched.

        Nothing was ever sent on the word of a segment that is not there.

        Raises:
            RunDirectoryError: what is here is damaged, and goes on beyond what is there, if anything is.
        """
        found = _segments(os.listdir(self._ledger))
        is_covered = bool(there) and all(name.last <= there[-1].last for name in found)
        try:
            kept, replaced = list_segments(self._ledger)
        except RunDirectoryError:
            if is_covered:
                return []
            raise
        # No merge makes a segment with the range of one that it replaces.
        ranges = {(name.first, name.last) for name in kept}
        if is_covered and not ranges.isdisjoint((name.first, name.last) for name in replaced):
            return []
        return kept

    def _hold_together(self, there: list[SegmentName], replaced: list[SegmentName]) -> None:
        """Hold what a merge has replaced in the storage against the segment that stands for it there.

        Raises:
            RunDirectoryError: they contradict each other: two machines have written the same events.
        """
        with self._incoming() as incoming:
            whole = [each for each in there if any(each.first <= name.last <= each.last for name in replaced)]
            for name in (*whole, *replaced):
                self._fetch(name, incoming)
            try:
                check_replaced(incoming, there, replaced)
            except RunDirectoryError as damage:
                raise RunDirectoryError(f"the copy in {self._storage.address}: {damage}") from None

    def _pull(self, here: list[SegmentName], there: list[SegmentName], way: Way, head: bytes | None) -> Way:
        """Fetch what the disk lacks, prove that it goes on from what is here, and put it in its place."""
        address = self._storage.address
        with self._incoming() as incoming:
            for name in reversed(there):  # the young ones first: a run that goes on may merge those at any moment
                if name in here:
                    _have_twice(self._ledger / str(name), incoming / str(name))
                else:
                    self._fetch(name, incoming)
            if head is not None:
                (incoming / HEAD).write_bytes(head)
            try:
                found = list_segments(incoming)[0]
                check_segments(incoming, found)
            except RunDirectoryError as damage:
                raise RunDirectoryError(f"the copy in {address}: {damage}") from None
            if way is Way.COMPARE:
                way = way_by_events(_events(self._ledger, here), _events(incoming, found))
            if way is Way.APART:
                raise RunDirectoryError(
                    f"{self._folder} and {address} have both gone on, each without the other: the one in the storage "
                    f"is what counts. Move {self._folder} away to go on from there. Nothing was sent."
                )
            if way is Way.PULL:
                # The rows first: once the segments are here, nobody looks for newer ones.
                self._storage.at_first(self._files.fetch_rows)
                for name in there:  # in order: a death in the middle leaves the beginning of it
                    if name not in here:
                        flush_file(incoming / str(name))
                        put_in_place(incoming / str(name), self._ledger / str(name))
                # What was merged here has other borders, or other bytes, than what another machine has merged.
                self._keep_only(there)
        return way

    def _fetch(self, name: SegmentName, folder: Path) -> None:
        """Fetch a segment. There may be hundreds, so each is tried by itself, and the place is kept meanwhile."""

        def fetch() -> None:
            self._holder.stay()
            try:
                self._objects.fetch(f"ledger/{name}", folder / str(name))
            except FileNotFoundError as error:
                if error.filename is not None:  # of this machine
                    raise
                raise _Gone from None

        self._storage.at_first(fetch)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A folder for what is fetched of the ledger, empty at first and gone at the end."""
        incoming = self._folder / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        make_folder(incoming)
        try:
            yield incoming
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _keep_only(self, names: list[SegmentName]) -> None:
        """Remove all other segments from the disk. The head goes first: it may name one of them."""
        (self._ledger / HEAD).unlink(missing_ok=True)
        remove_segments(self._ledger, _segments(os.listdir(self._ledger)) - set(names))


def _events(folder: Path, names: Iterable[SegmentName]) -> Iterator[pa.Table]:
    """The events of a ledger as tables: millions of them as objects would take gigabytes."""
    return (table.cast(SCHEMA) for table in read_tables(folder, names, GENESIS, {}))


def _have_twice(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without links, or with no more for this file
        shutil.copyfile(path, other)


def _segments(names: Iterable[str]) -> set[SegmentName]:
    return {name for each in names if (name := SegmentName.parse(each.removeprefix("ledger/"))) is not None}
