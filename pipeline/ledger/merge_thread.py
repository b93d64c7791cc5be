"""Merges a ledger's older segments while a run goes on, in a thread of its own. No commit waits or fails for it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from pipeline.kernel.files import free_bytes
from pipeline.kernel.garbage import give_back_memory
from pipeline.kernel.logger import LOGGER
from pipeline.ledger import tiers
from pipeline.ledger.encoding import ROWS_PER_GROUP, Content
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.segments import SegmentName
from pipeline.ledger.tiers import Tiers

KNOWN_BYTES = 16 * 2**20
"""Up to so much of what was written is kept in memory until it is merged; the rest is read again."""

SPARE_BYTES = 64 * 2**20
"""What must be free beside a merge: tidiness never takes the room that a commit or a video needs."""


class Merging:
    """The merges of one open ledger, one at a time."""

    def __init__(self, folder: Path, check_still_ours: Callable[[], None]) -> None:
        """`check_still_ours` raises where another process has taken the ledger over."""
        self._folder = folder
        self._check_still_ours = check_still_ours
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-merge")
        self._tiers: Tiers | None = Tiers()
        self._known: dict[SegmentName, Content] = {}
        """The contents of segments that were written here and are not merged yet."""
        self._known_bytes = 0
        self._rest = 0
        """How many segments are waited for after the disk has refused a merge."""
        self._under_way: tuple[Sequence[SegmentName], Future[SegmentName]] | None = None

    def note(self, newest: SegmentName, content: Content) -> None:
        """A segment with this content has become durable: begin a merge if one is due.

        Where the disk refuses one, it is tried again when as many segments again have come. Other trouble ends the
        merges and nothing else: the segments of a merge that failed are still there, and the next opening says what is
        wrong with them.
        """
        if self._tiers is None:
            return
        self._tiers.add(newest)
        self._keep(newest, content)
        self._rest = max(0, self._rest - 1)
        if self._rest or (self._under_way is not None and not self._under_way[1].done()):
            return
        try:
            if self._under_way is not None:
                (group, merged), self._under_way = self._under_way, None
                self._tiers.replace(group, merged.result())
            if group := self._tiers.due():
                self._under_way = group, self._thread.submit(self._merge, group, self._forget(group))
        except OSError:
            # A disk that is full, or a handle too few: for now.
            self._rest = tiers.FAN
        except Exception:  # the events are durable by now: whatever this is, it is no failure to record them
            logging.getLogger(LOGGER).exception("no more segments of the ledger are merged until it is opened again")
            self._tiers = None
            self._known.clear()

    def _keep(self, name: SegmentName, content: Content) -> None:
        if self._known_bytes + content.table.nbytes <= KNOWN_BYTES:
            self._known[name] = content
            self._known_bytes += content.table.nbytes

    def _forget(self, group: Sequence[SegmentName]) -> dict[SegmentName, Content]:
        """What is known of a group; it is no longer kept here."""
        known = {name: self._known.pop(name) for name in group if name in self._known}
        self._known_bytes -= sum(content.table.nbytes for content in known.values())
        return known

    def _merge(self, group: Sequence[SegmentName], known: dict[SegmentName, Content]) -> SegmentName:
        self._check_still_ours()
        size = sum((self._folder / str(name)).stat().st_size for name in group)
        free = free_bytes(self._folder)
        if free is not None and free < size + SPARE_BYTES:
            raise OSError(errno.ENOSPC, "no room to spare for a merge")
        merged = merge_segments(self._folder, group, sealed=True, known=known)
        if merged.last - merged.first > ROWS_PER_GROUP:
            # A merge needs much memory for a second, and the run may go on for hours.
            give_back_memory()
        return merged

    def wait(self) -> None:
        """Return when no merge is under way."""
        if self._under_way is not None:
            wait([self._under_way[1]])

    def end(self) -> None:
        """Begin no more merges, and return when the last is over."""
        self._tiers = None
        self._thread.shutdown(wait=True)
