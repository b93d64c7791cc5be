"""The ledger, open for writing: one process under a lock, and group commit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.kernel.files import fsync_folder, hold_lock, make_folder, remove_leftovers
from pipeline.ledger import segments
from pipeline.ledger.ballast import FULL, give_up_ballast, take_ballast
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.columns import shelve
from pipeline.ledger.encoding import Content, encode_content, link, table_of
from pipeline.ledger.events import Event, stamped
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.ledger.lock import LOCK, name_of_this_process, who_holds
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.merge_thread import Merging
from pipeline.ledger.reading import Reader
from pipeline.ledger.segments import SegmentName
from pipeline.ledger.tiers import LARGE

MERGE_ABOVE = 64
"""More segments than this are merged into one when the ledger is opened or closed."""

GATHER_S = 0.02
"""How long a commit that follows right upon another waits for more events. One after a pause never waits."""

UNHURRIED = 2_000
"""How many events share a segment of a ledger that need not be durable."""

SHELVED_AT_ONCE = 4_096
"""How many jobs that a run has stored become rows together."""


class Follower(Protocol):
    """Keeps another copy of a ledger. Every call blocks; what it raises ends the opening, or fails the commit."""

    def open(self) -> None:
        """The lock is held, and nothing is read yet: the folder may still be changed."""

    def follow(self, name: SegmentName) -> None:
        """A segment is durable here. When this returns, it is durable in the copy, and its events may be acted upon."""

    def settle(self) -> None:
        """The last segment was written, and the folder is tidy."""

    def close(self) -> None:
        """Nothing more will be written; the lock is still held."""


class Ledger:
    """The ledger of a run directory, held by this process. Make one with `open_ledger`."""

    def __init__(
        self,
        folder: Path,
        state: State,
        reached: str,
        clock: Clock,
        holder: bytes,
        *,
        durable: bool = True,
        follower: Follower | None = None,
    ) -> None:
        self.state = state
        self._is_durable = durable
        self._follower = follower
        self._folder = folder
        self._holder = holder
        self._clock = clock
        self._reached = reached
        self._pending: list[Event] = []
        self._waiting: list[asyncio.Future[None]] = []
        """Those who wait for the pending events to be durable."""
        self._committing: asyncio.Task[None] | None = None
        self._failure: MachineError | None = None
        self._is_short = False
        self._shelved = state.counts[JobState.STORED]
        """How many jobs were stored when stored ones last became rows."""
        # One thread of its own: a hung DNS look-up in the shared pool must never hold up a commit.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._merging = Merging(folder, self._check_still_ours)

    @property
    def failure(self) -> MachineError | None:
        """Why nothing can be recorded any more, once a commit has failed."""
        return self._failure

    @property
    def is_short(self) -> bool:
        """Whether the disk was found full: what runs is recorded in the ballast's room, and nothing new may begin."""
        return self._is_short

    async def record(self, *events: Event) -> list[Event]:
        """Record events in one commit; when this returns, they survive a power loss. Returns them as recorded.

        They are applied to `state` at once, before the first suspension: whoever looks next sees them. In a ledger that
        need not be durable they are written later, many together.

        Raises:
            ImpossibleMoveError: the events contradict the state.
            MachineError: the disk refused them. Nothing more can be recorded then, so nothing more may be sent.
        """
        if self._failure is not None:
            raise self._failure
        recorded = []
        try:
            for event in events:
                fact = stamped(event, self.state.last_seq + 1, self._clock.now_us())
                self.state.apply(fact)
                self._pending.append(fact)
                recorded.append(fact)
        finally:
            # Also when a later event is impossible: what the state has taken in must reach the disk.
            durable = self._begin_commit() if recorded and self._is_due else None
        if not self._is_durable:
            # Other tasks have their turn here, as they have while a disk is busy.
            await asyncio.sleep(0)
        elif durable is not None:
            await durable
        return recorded

    @property
    def _is_due(self) -> bool:
        return self._is_durable or len(self._pending) >= UNHURRIED

    def _begin_commit(self) -> asyncio.Future[None]:
        """Have the pending events written. The future is the caller's own, and is done when they are durable."""
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        self._waiting.append(durable)
        if self._committing is None:
            self._committing = loop.create_task(self._commit())
        return durable

    async def _commit(self) -> None:
        """Write the pending events, group after group, until none are left."""
        loop = asyncio.get_running_loop()
        busy = False
        try:
            while self._pending:
                if busy:
                    # A commit costs the same for one event as for fifty: under load, let more of them gather.
                    await self._clock.sleep(GATHER_S)
                busy = True
                batch, self._pending = self._pending, []
                waiting, self._waiting = self._waiting, []
                try:
                    await loop.run_in_executor(self._disk, self._write, batch)
                except BaseException as error:  # every failure to write poisons the ledger, whatever its type
                    self._poison(error, waiting)
                    if not isinstance(error, Exception):
                        raise
                    return
                for each in waiting:
                    if not each.done():  # a cancelled one waits no more
                        each.set_result(None)
                self._shelve()
        finally:
            self._committing = None

    def _shelve(self) -> None:
        """Have stored jobs take less memory, once there are many new ones."""
        stored = self.state.counts[JobState.STORED]
        if stored - self._shelved >= SHELVED_AT_ONCE:
            self._shelved = stored
            # If this fails, for want of memory, the commits must go on: others wait for them.
            with contextlib.suppress(Exception):
                shelve(self.state)

    def _write(self, batch: list[Event]) -> None:
        self._check_still_ours()
        after = link(self._reached, batch)
        content = Content(table_of(batch), self._reached, after)
        data = encode_content(content)
        try:
            name = segments.write_segment(self._folder, batch, data)
        except OSError as error:
            if error.errno not in FULL or not give_up_ballast(self._folder):
                raise
            self._is_short = True
            name = segments.write_segment(self._folder, batch, data)
        # Once more: a process that has taken over meanwhile may have read the folder without this segment.
        self._check_still_ours()
        if self._follower is not None:
            self._follower.follow(name)
        self._reached = after
        self._merging.note(name, content)

    def _check_still_ours(self) -> None:
        """A second line behind the lock: a process that gets past it, where locks do not work, overwrites our name.

        It does so before it reads the folder. So every segment written while our name was still in `_lock` is one that
        it has read; a segment written later fails this check and is never acknowledged.
        """
        lock = self._folder / LOCK
        if lock.read_bytes() != self._holder:
            raise OSError(errno.EBUSY, f"the lock does not work here: {who_holds(lock)}")

    def _poison(self, error: BaseException, waiting: list[asyncio.Future[None]]) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        self._failure = (
            error
            if isinstance(error, MachineError)
            else MachineError(
                f"the ledger in {self._folder} could not be written ({reason}). Nothing more was sent; "
                "what is paid is kept for the next run. Cure the disk and run again."
            )
        )
        for each in (*waiting, *self._waiting):
            if not each.done():
                each.set_exception(self._failure)
                each.exception()  # retrieved, so that asyncio does not complain where the waiter is gone

    async def close(self) -> None:
        """Let every commit finish, and leave few segments behind."""
        try:
            if not self._is_durable and self._pending and self._failure is None:
                self._begin_commit()
            while self._committing is not None:
                await asyncio.wait([self._committing])
            if self._failure is None:
                await asyncio.get_running_loop().run_in_executor(self._disk, self._tidy_up)
        finally:
            self.let_go()

    def _tidy_up(self) -> None:
        self._merging.end()
        try:
            _tidy(self._folder)
        except RunDirectoryError:
            # A segment has gone bad. All is recorded, so the run ends well, and the next opening tells of it. But no
            # copy may follow this ledger: what is good there may be all that is left.
            return
        if self._follower is not None:
            self._follower.settle()

    def let_go(self) -> None:
        """Wait for the last write that was begun; after this nothing here touches the folder."""
        self._disk.shutdown(wait=True)
        self._merging.end()


def _tidy(folder: Path) -> None:
    """Merge segments where there are many; a disk that refuses this, or too little memory, costs only tidiness."""
    with contextlib.suppress(OSError, MachineError):
        kept, replaced = segments.list_segments(folder)
        if replaced:
            # Nothing is deleted before what stands for it was read and found equal.
            segments.check_segments(folder, kept)
            segments.check_replaced(folder, kept, replaced)
            segments.remove_segments(folder, replaced)
        if len(kept) > MERGE_ABOVE:
            for group in _groups(kept):
                merge_segments(folder, group, sealed=group[-1] != kept[-1])


def _groups(names: Sequence[SegmentName]) -> list[list[SegmentName]]:
    """Segments that follow each other, in groups that are not too large for one merge. Groups of one are left out."""
    groups: list[list[SegmentName]] = []
    for name in names:
        if groups and name.last - groups[-1][0].first < LARGE:
            groups[-1].append(name)
        else:
            groups.append([name])
    return [group for group in groups if len(group) > 1]


@contextlib.contextmanager
def open_ledger(
    folder: Path,
    clock: Clock | None = None,
    *,
    durable: bool = True,
    follower: Follower | None = None,
    known: Reader | None = None,
) -> Iterator[Ledger]:
    """Take the lock of the ledger in `folder` (made if missing), check and fold what it holds.

    The lock is held for the block. Close the ledger inside it.

    Args:
        durable: whether each event must survive whatever happens; False for a rehearsal, whose ledger is thrown away.
        follower: keeps another copy of it.
        known: a reader that has read and checked it a moment ago: only what is new is read, into its state.

    Raises:
        RunDirectoryError: another process holds it, or it is damaged; says who, or which file.
        MachineError: the disk refused.
    """
    clock = clock or SystemClock()
    try:
        make_folder(folder)
    except OSError as error:
        why = f"{folder} cannot be made: {error.strerror}"
        raise MachineError(f"{why}. Nothing was sent; name a folder that can be written") from None
    lock = folder / LOCK
    name = name_of_this_process(clock.now_us())
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(lock, name.decode()))
        except BlockingIOError:
            raise RunDirectoryError(f"{folder.parent} is in use: {who_holds(lock)}. Nothing was sent.") from None
        except OSError as error:
            raise MachineError(f"{lock} cannot be opened: {error.strerror}") from None
        if follower is not None:
            stack.callback(follower.close)
            follower.open()
        state, reached = _load(folder, known)
        take_ballast(folder)
        ledger = Ledger(folder, state, reached, clock, name, durable=durable, follower=follower)
        try:
            yield ledger
        finally:
            # The lock must not be free while a write is still on its way.
            ledger.let_go()


def _load(folder: Path, known: Reader | None) -> tuple[State, str]:
    """Check and fold what the folder holds, once it is tidy."""
    try:
        # Whoever wrote the newest segment may have died before its name was durable: nothing may follow from it yet.
        fsync_folder(folder)
        remove_leftovers(folder)
        _tidy(folder)
        reader = known or Reader(folder)
        reader.read()
        return reader.state, reader.reached
    except ImpossibleMoveError as error:
        raise RunDirectoryError(f"the ledger in {folder} contradicts itself: {error}. Nothing was sent.") from None
    except OSError as error:
        raise MachineError(f"the ledger in {folder} cannot be read: {error.strerror}. Nothing was sent.") from None
