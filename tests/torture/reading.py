"""Checks read the same ledgers again and again: what a segment holds need be found out once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.ledger import segments
from pipeline.ledger.segments import SegmentName

T = TypeVar("T")


def decoded_once(read: Callable[[Path, SegmentName], T]) -> Callable[[Path, SegmentName], T]:
    """A reader of segments as it is, but for bytes that it has read under that name before: they are known."""
    known: dict[tuple[SegmentName, bytes], T] = {}

    def once(folder: Path, name: SegmentName) -> T:
        key = (name, segments._read_file(folder, str(name)))
        if key not in known:
            known[key] = read(folder, name)
        return known[key]

    return once
