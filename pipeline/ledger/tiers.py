"""Which segments of a ledger that is being written are to be merged, so that there are never many. Plain counting.

Each commit adds one segment to the lowest tier. When a tier has `FAN` segments they become one of the next: an event is
rewritten once a tier, and a million commits make four tiers. A segment that has become large stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger.segments import SegmentName

FAN = 64
"""So many segments of a tier become one of the next."""

LARGE = 1_000_000
"""Events. What would hold more is not merged while a run goes on: a merge is read into memory as a whole."""


class Tiers:
    """The segments that were written since the ledger was opened, by tier; older ones are left to the next opening."""

    def __init__(self) -> None:
        self._tiers: list[list[SegmentName]] = [[]]

    def add(self, name: SegmentName) -> None:
        """Take note of a new segment, the newest of all."""
        self._tiers[0].append(name)

    def due(self) -> Sequence[SegmentName]:
        """Segments that follow each other and are to be merged now; none if nothing is. Never the newest of all."""
        for tier, names in enumerate(self._tiers):
            group = names[:FAN]
            is_full = len(names) > FAN if tier == 0 else len(names) >= FAN
            if is_full and group[-1].last - group[0].first < LARGE:
                return group
        return ()

    def replace(self, group: Sequence[SegmentName], merged: SegmentName) -> None:
        """Take note that `group`, which was due, has become one segment of the next tier."""
        tier = next(number for number, names in enumerate(self._tiers) if names[: len(group)] == list(group))
        del self._tiers[tier][: len(group)]
        if tier + 1 == len(self._tiers):
            self._tiers.append([])
        self._tiers[tier + 1].append(merged)
