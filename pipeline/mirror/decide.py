"""What is to be done with two copies of a ledger, and with the name of a holder. Nothing here asks or acts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from pipeline.ledger.events import Event
from pipeline.ledger.segments import SegmentName


class Way(Enum):
    """Which copy goes on from the other."""

    PUSH = auto()
    """The one here: the storage gets what it lacks."""
    PULL = auto()
    """The one in the storage: the disk gets what it lacks."""
    COMPARE = auto()
    """The names do not tell, since one of them was merged: their events must be compared."""
    APART = auto()
    """Neither: both have events that the other has not."""


def way_by_names(here: Collection[SegmentName], there: Collection[SegmentName]) -> Way:
    """Which goes on from which, as far as the names of their segments tell: each names what it holds by a checksum."""
    if set(there) <= set(here):
        return Way.PUSH
    return Way.PULL if set(here) <= set(there) else Way.COMPARE


def way_by_events(here: Sequence[Event], there: Sequence[Event]) -> Way:
    """Which goes on from which, by all that they hold."""
    common = min(len(here), len(there))
    if here[:common] != there[:common]:
        return Way.APART
    return Way.PUSH if len(here) >= len(there) else Way.PULL


class Hold(Enum):
    """How a holder's name in the storage is to be taken."""

    OURS = auto()
    """It was left by a process that has died, since it worked in our folder and we hold that folder's lock."""
    STALE = auto()
    """Its process has given no sign for too long."""
    HELD = auto()


def hold_of(holder: Mapping[str, Any], state_id: str, age_s: float, stale_s: float) -> Hold:
    """What a holder's name means to who has the lock of the local folder `state_id`; `age_s` is since its last sign."""
    if holder.get("state_id") == state_id:
        return Hold.OURS
    return Hold.STALE if age_s >= stale_s else Hold.HELD
