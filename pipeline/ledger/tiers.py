"""Which segments of a ledger that is being written are to be merged, so that there are never many. Plain counting.

Each commit adds one segment to the lowest tier. When a tier has `FAN` segments they become one of the next: an event is
rewritten once a tier, and a million commits make four tiers. A segment that has become large moves up as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger.segments import SegmentName

FAN = 64
"""How many segments of a tier become one of the next."""

LARGE = 2**17
"""The most events that a merge puts together, so that it takes a second or less beside a run that goes on. A ledger of
ten million jobs has some three hundred such segments."""


class Tiers:
    """The segments that were written since the ledger was opened, by tier; older ones are left to the next opening."""

    def __init__(self) -> None:
        self._tiers: list[list[SegmentName]] = [[]]

    def add(self, name: SegmentName) -> None:
        """Take note of a new segment, the newest of all."""
        self._tiers[0].append(name)

    def due(self) -> Sequence[SegmentName]:
        """Segments that follow each other and are to be merged now, if any; never the newest of all."""
        for tier, names in enumerate(self._tiers):
            while len(names) > FAN or (tier and len(names) == FAN):
                group = [name for name in names[:FAN] if name.last - names[0].first < LARGE] or names[:1]
                if len(group) > 1:
                    return group
                self.replace(group, group[0])
        return ()

    def replace(self, group: Sequence[SegmentName], merged: SegmentName) -> None:
        """Take note that `group`, which was due, has become one segment of the next tier."""
        tier = next(number for number, names in enumerate(self._tiers) if names[: len(group)] == list(group))
        del self._tiers[tier][: len(group)]
        if tier + 1 == len(self._tiers):
            self._tiers.append([])
        self._tiers[tier + 1].append(merged)
