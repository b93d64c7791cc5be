"""What is to be done with two copies of a ledger, and with the name of a holder. Nothing here asks or acts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum, auto
from typing import Any

import pyarrow as pa

from pipeline.ledger.encoding import in_groups
from pipeline.ledger.merge import COMPARED_AT_ONCE
from pipeline.ledger.segments import SegmentName


class Way(Enum):
    """Which copy goes on from the other."""

    PUSH = auto()
    """The one here: the storage gets what it lacks."""
    PULL = auto()
    """The one in the storage: the disk gets what it lacks."""
    COMPARE = auto()
    """The names do not tell, since one copy was merged: the events must be compared."""
    APART = auto()
    """Neither: both have events that the other has not."""


def way_by_names(here: Collection[SegmentName], there: Collection[SegmentName]) -> Way:
    """Which copy goes on from the other, as far as names of segments tell: each has a checksum of what it holds."""
    if set(there) <= set(here):
        return Way.PUSH
    return Way.PULL if set(here) <= set(there) else Way.COMPARE


def way_by_events(here: Iterable[pa.Table], there: Iterable[pa.Table]) -> Way:
    """Which copy goes on from the other, by all their events, as tables of any size: a part of them at a time."""
    ours = theirs = 0
    for mine, other in itertools.zip_longest(*(in_groups(each, COMPARED_AT_ONCE) for each in (here, there))):
        if mine is not None and other is not None:
            common = min(len(mine), len(other))
            if not mine.slice(0, common).equals(other.slice(0, common)):
                return Way.APART
        ours += 0 if mine is None else len(mine)
        theirs += 0 if other is None else len(other)
    return Way.PUSH if ours >= theirs else Way.PULL


class Hold(Enum):
    """What a holder's name in the storage means."""

    FREE = auto()
    """The holder has given the place up."""
    OURS = auto()
    """The holder was a process of this machine that worked in our folder, and it has died."""
    STALE = auto()
    """Its process has given no sign for too long."""
    HELD = auto()
    """The place is taken."""


def hold_of(
    holder: Mapping[str, Any], ours: Mapping[str, Any], age_s: float, stale_s: float, is_alive: Callable[[Any], bool]
) -> Hold:
    """What a holder's name means to a process that has the lock of its local folder and would write `ours`.

    Args:
        age_s: since its last sign.
        is_alive: whether a process of this machine is alive, by its number. The folder's lock alone does not tell: a
            copy of the folder, on this machine or another, has a lock of its own.
    """
    if holder.get("has_left") is True:
        return Hold.FREE
    if all(holder.get(name) == ours[name] for name in ("state_id", "host", "boot")) and not is_alive(holder.get("pid")):
        return Hold.OURS
    return Hold.STALE if age_s >= stale_s else Hold.HELD
