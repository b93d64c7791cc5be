"""A run directory's copy in object storage, kept up while this process holds both.

Every segment of the ledger is there before its events are acted upon. `holder.py` keeps two machines apart, `copies.py`
has both ledgers say the same, and `run_files.py` brings the other files there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.kernel.errors import KlingBatchError, MachineError, RunDirectoryError
from pipeline.kernel.files import LOCK_PAUSE_S, hold_folder, is_held, make_folder
from pipeline.ledger.lock import LOCK
from pipeline.ledger.segments import SegmentName
from pipeline.mirror.copies import Copies
from pipeline.mirror.holder import Holder
from pipeline.mirror.places import Mirrored, attach, mirrored
from pipeline.mirror.run_files import RunFiles
from pipeline.mirror.storage import Storage

BEAT_S = 20.0
"""How often the holder's name is written anew."""

LOOK_TRIES = round(60.0 / LOCK_PAUSE_S)
"""How often a run tries to begin while somebody looks at its folder, who gives way as soon as they notice it."""

JOIN_S, HUNG_JOIN_S = 60.0, 1.0
"""How long the end waits for upkeep that is under way; and where the storage has fallen silent."""


class Mirror:
    """The copy of one run directory, as the follower of its ledger: held from `open` to `close`.

    `files` brings the other files of the run directory there.
    """

    def __init__(
        self,
        folder: Path,
        of: Mirrored,
        *,
        keep_videos: bool = True,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet.

        `is_left` tells when nobody waits for the run any more: then no call that hangs keeps it.
        """
        self._folder = folder
        self._storage = Storage(of.address, is_left)
        self._holder = Holder(self._storage, of.state_id)
        self.files = RunFiles(folder, self._storage, self._holder, keep_videos=keep_videos)
        self._copies = Copies(folder, self._storage, self._holder, self.files)
        self._over = threading.Event()
        self._upkeep: threading.Thread | None = None

    @property
    def taken_over(self) -> str | None:
        """Whose place was taken, in a sentence; None if nobody's was."""
        return self._holder.taken_over

    def open(self) -> None:
        """Take the place in the storage, and have both copies of the ledger say the same.

        Raises:
            RunDirectoryError: another machine holds it, or neither copy goes on from the other.
            InputError: the address cannot be used.
            MachineError: the storage or the disk refused.
        """
        self._storage.at_first(self._holder.take)
        try:
            with self._looks_over():
                self._storage.at_first(lambda: self._copies.meet(push=True))
        except BaseException:
            self._leave()
            raise
        self._upkeep = threading.Thread(target=self._keep_up, name="mirror", daemon=True)
        self._upkeep.start()

    @contextlib.contextmanager
    def _looks_over(self) -> Iterator[None]:
        """Keep looks out for the block. One that is under way sees that the ledger is held, and gives up."""
        try:
            with hold_folder(self._folder, LOOK_TRIES):
                yield
        except BlockingIOError as error:
            if error.filename != str(self._folder):
                raise
            raise RunDirectoryError(f"{self._folder} is being looked at. Run again. Nothing was sent.") from None

    def follow(self, name: SegmentName) -> None:
        """Bring a new segment there; returns when it stands, while the place was certainly ours.

        Raises:
            MachineError: the storage has refused for too long, or another has taken the place.
        """
        self._copies.bring(name)

    def _keep_up(self) -> None:
        def check() -> None:
            if self._storage.is_left:
                raise MachineError("the run is left, and tidiness with it")

        while not self._over.wait(BEAT_S):
            # Whatever goes wrong is tried again. Before a segment counts, the ledger's thread asks for itself.
            with contextlib.suppress(Exception), self._storage.checked(check):
                self._holder.beat()
                self._copies.sweep()
                self._copies.tidy()
                self._copies.note_head()

    def settle(self) -> None:
        """Follow the merges of the end. Trouble costs nothing but tidiness."""
        if self._storage.objects.is_silent:
            return
        with contextlib.suppress(Exception):
            self._copies.sweep()
            self._copies.tidy()
            self._copies.note_head()

    def close(self) -> None:
        """Give the place up."""
        self._over.set()
        if self._upkeep is not None:
            self._upkeep.join(HUNG_JOIN_S if self._storage.objects.is_silent else JOIN_S)
            self._upkeep = None
            self._leave()

    def _leave(self) -> None:
        """Give the place up, unless the storage does not answer: then our name becomes stale there."""
        if not self._storage.objects.is_silent:
            self._holder.leave()


def mirror_of(folder: Path, *, keep_videos: bool = True, is_left: Callable[[], bool] = lambda: False) -> Mirror | None:
    """The copy of a run directory; None where it is on the disk alone.

    Args:
        is_left: tells when nobody waits for the run any more.

    Raises:
        InputError: its address cannot be used here.
    """
    of = mirrored(folder)
    return Mirror(folder, of, keep_videos=keep_videos, is_left=is_left) if of is not None else None


class _InUse(KlingBatchError):  # noqa: N818 - an outcome
    """A process works here. No retry helps, and nobody is told."""


def refresh(folder: Path, address: str) -> None:
    """Bring the local state of a run directory up to what is in the storage; nothing is written there.

    Nothing happens where the storage has none, or where a process works here: then what is here is the newest.

    Raises:
        RunDirectoryError: the copies contradict each other, or the one in the storage is damaged.
        InputError: the address cannot be used.
        MachineError: the storage or the disk refused.
    """
    mirror = Mirror(folder, mirrored(folder) or Mirrored(address, ""))
    if not mirror._storage.at_first(lambda: mirror._storage.objects.names("ledger")):
        return
    lock = folder / "ledger" / LOCK

    def give_way() -> None:
        if is_held(lock):
            raise _InUse

    try:
        attach(folder, address)
        make_folder(folder / "ledger")
        # Not under the ledger's own lock: no look may keep a run from beginning. What the run does to the folder waits
        # until the look has noticed it, and has let go.
        with (
            contextlib.suppress(BlockingIOError, _InUse),
            hold_folder(folder),
            mirror._storage.checked(give_way),
        ):
            give_way()
            mirror._storage.at_first(lambda: mirror._copies.meet(push=False))
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was sent.") from None
