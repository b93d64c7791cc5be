"""A run directory's copy in object storage, kept up while this process holds both.

Every segment of the ledger is there before its events are acted upon, and segments come in order: whatever is there at
any moment is a ledger that covers all that may have been sent. A merged segment stands before what it replaces goes.

A holder's name in the storage keeps two machines apart. It has to be written anew all the time; whoever could not do so
for long asks before the next segment counts whether it is still its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import orjson

from pipeline.kernel.clock import Clock, SystemClock, iso
from pipeline.kernel.errors import InputError, KlingBatchError, MachineError, RunDirectoryError
from pipeline.kernel.files import flush_file, hold_lock, make_folder, put_in_place, temporary_in
from pipeline.kernel.objects import Objects, UnknownStorage, patiently, reason_of
from pipeline.ledger.job import JobRecord
from pipeline.ledger.lock import LOCK, held_by
from pipeline.ledger.segments import (
    HEAD,
    SegmentName,
    check_replaced,
    check_segments,
    choose,
    head_of,
    list_segments,
    read_segments,
    remove_segments,
)
from pipeline.mirror.decide import Hold, Way, hold_of, way_by_events, way_by_names
from pipeline.mirror.places import Mirrored, attach, mirrored

T = TypeVar("T")

PATIENCE_S = 120.0
"""How long the storage may refuse, in waits between tries, before the run stops."""

FIRST_PATIENCE_S = 2.0
"""The same before anything has begun."""

BEAT_S = 20.0
"""How often the holder's name is written anew."""

STALE_S = 120.0
"""A holder that has given no sign for so long is taken for dead."""

SURE_S = 60.0
"""For so long after a sign of ours nobody can have taken us for dead."""

HOLDER, PROBE = "_holder.json", "_now"

INCOMING = ".incoming"
"""In a run directory: what was fetched of its ledger, until all of it is proven."""

ROWS = ("jobs.parquet", "config.yaml", "manifest.*")
"""What a run keeps of what it was asked for, without which nobody can go on or report."""

ENDS = ("report/*", "run.log")
"""What a run leaves at its end."""


class Mirror:
    """The copy of one run directory. `open` to `close` is the block in which it is held."""

    def __init__(self, folder: Path, of: Mirrored, *, keep_videos: bool = True, clock: Clock | None = None) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet."""
        self.address = of.address
        self.taken_over: str | None = None
        """Whose place was taken, in a sentence."""
        self._folder = folder
        self._ledger = folder / "ledger"
        self._state_id = of.state_id
        self._keep_videos = keep_videos
        self._clock = clock or SystemClock()
        self._objects = _objects(of.address)
        self._there: set[SegmentName] = set()
        self._newest: SegmentName | None = None
        self._changing = threading.Lock()
        """Held by who changes what is in the mirror's ledger."""
        self._token = secrets.token_hex(8)
        self._since = iso(self._clock.now_us())
        self._sure_until_s = 0.0
        self._lost: MachineError | None = None
        self._over = threading.Event()
        self._beating: threading.Thread | None = None

    # --- a ledger's follower ---

    def open(self) -> None:
        """Take the place in the storage, and have both copies of the ledger say the same.

        Raises:
            RunDirectoryError: another machine holds it, or neither copy goes on from the other.
            InputError: the address cannot be used.
            MachineError: the storage or the disk refused.
        """
        self._first(self._take_place)
        try:
            self._first(lambda: self._meet(push=True))
        except BaseException:
            self._leave_place()
            raise
        self._beating = threading.Thread(target=self._keep_place, name="mirror", daemon=True)
        self._beating.start()

    def follow(self, name: SegmentName) -> None:
        """Bring a new segment there; returns when it stands, while the place was certainly ours.

        Raises:
            MachineError: the storage has refused for too long, or another has taken the place.
        """
        data = self._whole(name)

        def bring() -> None:
            self._be_sure()
            self._objects.write(f"ledger/{name}", data)
            try:
                self._be_sure()
            except MachineError:
                self._take_back(name)
                raise

        with self._changing:
            self._patiently(bring)
            self._there.add(name)
            self._newest = name

    def _take_back(self, name: SegmentName) -> None:
        """Remove a segment that came too late, where whoever took the place over has gone on without it.

        It may have found it, too, and then goes on from it. What is left here, its next sign sweeps away.
        """
        with contextlib.suppress(Exception):
            others = _segments(self._objects.names("ledger")) - self._there - {name}
            if any(each.first <= name.last and name.first <= each.last for each in others):
                self._objects.remove(f"ledger/{name}")

    def settle(self) -> None:
        """Follow the merges of the end. Trouble costs nothing but tidiness."""
        with contextlib.suppress(Exception):
            self._sweep()
            self._tidy()
            self._note_head()

    def close(self) -> None:
        """Give the place up."""
        self._over.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None
            self._leave_place()

    # --- what else a run brings there ---

    def deliver(self, video: Path, poster: Path | None, sha256: str, checkpoint: Callable[[], None]) -> None:
        """Bring a verified video and its poster there; returns when both stand.

        Raises:
            MachineError: the storage has refused for too long.
        """
        if poster is not None:
            self._patiently(lambda: self._put(poster), checkpoint)
        self._patiently(lambda: self._put(video, sha256), checkpoint)
        if not self._keep_videos:
            with contextlib.suppress(OSError):
                video.unlink()

    def publish(self, patterns: Iterable[str]) -> None:
        """Bring files of the run directory there, by patterns of names.

        Raises:
            MachineError: the storage has refused for too long.
        """
        for pattern in patterns:
            for path in sorted(self._folder.glob(pattern)):
                if path.is_file() and not path.name.startswith("."):
                    self._patiently(lambda path=path: self._put(path))  # type: ignore[misc]

    def _put(self, path: Path, sha256: str | None = None) -> None:
        self._objects.put(path, path.relative_to(self._folder).as_posix(), sha256)

    def _patiently(self, work: Callable[[], T], checkpoint: Callable[[], None] = lambda: None) -> T:
        def look() -> None:
            checkpoint()
            if self._lost is not None:
                raise self._lost

        return patiently(work, PATIENCE_S, self._trouble, time.sleep, look)

    def _trouble(self, error: Exception) -> MachineError:
        return MachineError(
            f"{self.address} could not be written ({reason_of(error)}). Nothing more was sent; what is paid is kept "
            "for the next run. Run again when the storage can be reached."
        )

    def _first(self, work: Callable[[], T]) -> T:
        """The same before anything has begun, when a person is there to mend it."""
        return patiently(work, FIRST_PATIENCE_S, self._refused, time.sleep)

    def _refused(self, error: Exception) -> KlingBatchError:
        is_asked_wrongly = (
            isinstance(error, (FileNotFoundError, PermissionError)) or "Credentials" in type(error).__name__
        )
        kind = InputError if is_asked_wrongly else MachineError
        return kind(f"{self.address} cannot be used: {reason_of(error)}. Nothing was sent.")

    # --- the place ---

    def _take_place(self) -> None:
        sure_s = self._clock.monotonic_s() + SURE_S
        said = self._objects.read(HOLDER)
        if said is None:
            ours = self._objects.create(HOLDER, self._sign())
        else:
            holder = _holder(said)
            age_s = self._objects.age_s(HOLDER, f"{PROBE}-{self._token}")
            hold = hold_of(holder, self._name(), age_s, STALE_S, _is_alive)
            if hold is Hold.HELD:
                raise RunDirectoryError(
                    f"{self.address} is in use: {held_by(holder)}; its last sign was {age_s:.0f} s ago. If that "
                    f"machine is dead, run again when it has given none for {STALE_S:.0f} s. Nothing was sent."
                )
            ours = self._objects.swap(HOLDER, self._sign(), lambda now: now == said)
            if ours and hold is Hold.STALE:
                self.taken_over = (
                    f"the place of a run that gave no sign for {age_s:.0f} s was taken over: {held_by(holder)}"
                )
        if not ours:
            raise RunDirectoryError(f"{self.address} is in use: another machine has just begun. Nothing was sent.")
        self._sure_until_s = sure_s

    def _keep_place(self) -> None:
        while not self._over.wait(BEAT_S):
            # Whatever this is, it is tried again; a segment that is to count asks for itself.
            with contextlib.suppress(Exception):
                self._beat()
                self._sweep()
                self._tidy()
                self._note_head()

    def _be_sure(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._clock.monotonic_s() > self._sure_until_s:
            self._beat()

    def _beat(self) -> None:
        sure_s = self._clock.monotonic_s() + SURE_S
        if not self._objects.swap(HOLDER, self._sign(), self._is_ours):
            # Two threads of ours may have met: what stands there decides.
            now = self._objects.read(HOLDER)
            if now is None or not self._is_ours(now):
                holder = _holder(now or b"")
                who = held_by(holder) if holder and "has_left" not in holder else "by a run that has ended since"
                self._lost = MachineError(
                    f"{self.address} was taken over, since this run gave no sign for too long: {who}. Nothing more was "
                    "sent; what is paid is in the ledger there."
                )
                raise self._lost
        self._sure_until_s = sure_s

    def _leave_place(self) -> None:
        with contextlib.suppress(Exception):  # then it becomes stale, or is known as ours
            # Not deleted: between a look and that, it could have become another's.
            self._objects.swap(HOLDER, orjson.dumps(self._name() | {"has_left": True}), self._is_ours)

    def _is_ours(self, said: bytes) -> bool:
        return _holder(said).get("token") == self._token

    def _sign(self) -> bytes:
        return orjson.dumps(self._name())

    def _name(self) -> dict[str, object]:
        return {
            "token": self._token,
            "state_id": self._state_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": _boot(),
            "since": self._since,
            "at": iso(self._clock.now_us()),
        }

    # --- the two copies ---

    def _meet(self, *, push: bool) -> None:
        """Have both copies say the same; without `push`, only what the disk lacks is fetched."""
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
            self._fetch_rows()
        if push:
            for name in list_segments(self._ledger)[0]:
                if name not in self._there:
                    self._objects.write(f"ledger/{name}", self._whole(name))
                    self._there.add(name)
                self._newest = name

    def _here(self, there: list[SegmentName]) -> list[SegmentName]:
        """The segments on the disk; none where a death has left two sets of them: then all that is there is fetched.

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

    def _keep_only(self, names: list[SegmentName]) -> None:
        """Remove all other segments from the disk, and the note of which was the newest of them first."""
        (self._ledger / HEAD).unlink(missing_ok=True)
        remove_segments(self._ledger, _segments(os.listdir(self._ledger)) - set(names))

    def _hold_together(self, there: list[SegmentName], replaced: list[SegmentName]) -> None:
        """Hold what a merge has replaced in the storage against what stands for it there.

        Raises:
            RunDirectoryError: they contradict each other: two machines have written the same events.
        """
        with self._incoming() as incoming:
            whole = [each for each in there if any(each.first <= name.last <= each.last for name in replaced)]
            for name in (*whole, *replaced):
                self._objects.fetch(f"ledger/{name}", incoming / str(name))
            try:
                check_replaced(incoming, there, replaced)
            except RunDirectoryError as damage:
                raise RunDirectoryError(f"the copy in {self.address}: {damage}") from None

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

    def _pull(self, here: list[SegmentName], there: list[SegmentName], way: Way, head: bytes | None) -> Way:
        """Fetch what the disk lacks, prove that it goes on from what is here, and put it in its place."""
        with self._incoming() as incoming:
            for name in there:
                if name in here:
                    os.link(self._ledger / str(name), incoming / str(name))
                else:
                    self._objects.fetch(f"ledger/{name}", incoming / str(name))
            if head is not None:
                (incoming / HEAD).write_bytes(head)
            ours = read_segments(self._ledger, here) if way is Way.COMPARE else []
            try:
                found = list_segments(incoming)[0]
                if way is Way.COMPARE:
                    way = way_by_events(ours, read_segments(incoming, found))
                else:
                    check_segments(incoming, found)
            except RunDirectoryError as damage:
                raise RunDirectoryError(f"the copy in {self.address}: {damage}") from None
            if way is Way.APART:
                raise RunDirectoryError(
                    f"{self._folder} and {self.address} have both gone on, each without the other: the one in the "
                    f"storage is what counts. Move {self._folder} away to go on from there. Nothing was sent."
                )
            if way is Way.PULL:
                # The rows first: once the segments are here, nobody looks for newer ones.
                self._fetch_rows()
                for name in there:  # in order: a death in the middle leaves the beginning of it
                    if name not in here:
                        flush_file(incoming / str(name))
                        put_in_place(incoming / str(name), self._ledger / str(name))
                # What was merged here has other borders, or other bytes, than what another machine has merged.
                self._keep_only(there)
        return way

    def _fetch_rows(self) -> None:
        for name in self._objects.names():
            if "/" not in name and any(Path(name).match(pattern) for pattern in ROWS):
                self.fetch(name, self._folder / name)

    def fetch(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Bring an object to the disk, whole or not at all; and not if it is not what a checksum says."""
        make_folder(path.parent)
        temporary = temporary_in(path.parent)
        try:
            self._objects.fetch(name, temporary)
            with temporary.open("rb") as file:
                if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return
            flush_file(temporary)
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def bring_back(self, records: Iterable[JobRecord]) -> None:
        """Fetch the videos, and the posters, that are stored and not on the disk. One that is not as it was is left.

        Raises:
            InputError: the storage cannot be used.
            MachineError: it has refused, or the disk.
        """
        for record in records:
            if record.path is None or (self._folder / record.path).exists():
                continue
            self._first(lambda record=record: self._bring_back(record))  # type: ignore[misc]

    def _bring_back(self, record: JobRecord) -> None:
        assert record.path is not None
        video = self._folder / record.path
        for path, sha256 in ((self._folder / "posters" / f"{video.stem}.jpg", None), (video, record.sha256)):
            name = path.relative_to(self._folder).as_posix()
            with contextlib.suppress(FileNotFoundError):
                self.fetch(name, path, sha256)

    def _sweep(self) -> None:
        """Have what is there be what this process has brought or found.

        What came since, and not from here, came too late, from who held the place before; who slept for long enough may
        even have removed what it had merged.
        """
        with self._changing:
            listed = _segments(self._objects.names("ledger"))
            # Between the look and what follows from it, nobody else may have taken the place.
            self._beat()
            missing = self._there - listed
            here = missing & _segments(os.listdir(self._ledger))
            for name in here:
                self._objects.write(f"ledger/{name}", self._whole(name))
            lost = missing - here
            for name in listed - self._there:
                if not any(name.first <= each.first and each.last <= name.last for each in lost):
                    self._objects.remove(f"ledger/{name}")

    def _whole(self, name: SegmentName) -> bytes:
        """The bytes of a segment here. One that is not as it was written must not take the place of what is good.

        Raises:
            MachineError: it is not.
        """
        data = (self._ledger / str(name)).read_bytes()
        if not name.fits(data):
            raise MachineError(f"{self._ledger / str(name)} is not as it was written: the disk is not to be trusted")
        return data

    def _tidy(self) -> None:
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

    def _note_head(self) -> None:
        """Note the newest segment, as the ledger does on a disk: it may lag, and never leads."""
        if self._newest is not None:
            self._objects.write(f"ledger/{HEAD}", head_of(self._newest))


def mirror_of(folder: Path, *, keep_videos: bool = True) -> Mirror | None:
    """The copy of a run directory; None where it is on the disk alone.

    Raises:
        InputError: its address cannot be used here.
    """
    of = mirrored(folder)
    return Mirror(folder, of, keep_videos=keep_videos) if of is not None else None


def refresh(folder: Path, address: str) -> None:
    """Bring the local state of a run directory up to what is in the storage; nothing is written there.

    Nothing happens where the storage has none, or where a process works here: then what is here is the newest.

    Raises:
        RunDirectoryError: the copies contradict each other, or the one in the storage is damaged.
        InputError: the address cannot be used.
        MachineError: the storage or the disk refused.
    """
    found = mirrored(folder)
    mirror = Mirror(folder, found or Mirrored(address, ""))
    if not mirror._first(lambda: mirror._objects.names("ledger")):
        return
    try:
        attach(folder, address)
        make_folder(folder / "ledger")
        with contextlib.suppress(BlockingIOError), hold_lock(folder / "ledger" / LOCK, ""):
            mirror._first(lambda: mirror._meet(push=False))
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was sent.") from None


def _objects(address: str) -> Objects:
    try:
        return Objects(address)
    except UnknownStorage as what:
        raise InputError(f"{address[:80]!r} {what}. Nothing was sent.") from None


def _segments(names: Iterable[str]) -> set[SegmentName]:
    return {name for each in names if (name := SegmentName.parse(each.removeprefix("ledger/"))) is not None}


def _holder(said: bytes) -> dict[str, object]:
    try:
        holder = orjson.loads(said)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _boot() -> str:
    """What tells this machine from its clones, and from itself before it was started anew; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_alive(pid: object) -> bool:
    """Whether another process of this machine has this number."""
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
