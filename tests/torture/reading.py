"""Checks read the same ledgers again and again: what a segment holds need be found out once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.ledger.events import Event
from pipeline.ledger.segments import SegmentName, _read_file

Read = tuple[list[Event], str, str]


def decoded_once(decode: Callable[[Path, SegmentName], Read]) -> Callable[[Path, SegmentName], Read]:
    """`segments._read_segment` as it is, but for bytes that it has read under that name before: they are known."""
    known: dict[tuple[SegmentName, bytes], Read] = {}

    def read(folder: Path, name: SegmentName) -> Read:
        key = (name, _read_file(folder, str(name)))
        if key not in known:
            known[key] = decode(folder, name)
        return known[key]

    return read
