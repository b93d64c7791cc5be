"""Checks read the same ledgers again and again: what a segment holds need be found out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import segments
from pipeline.ledger.segments import SegmentName

T = TypeVar("T")


def readers_that_remember() -> dict[str, Callable[..., Any]]:
    """The readers of segments by their names, as they are, but for bytes that were read under that name before."""
    return {
        **{name: _once(getattr(segments, name)) for name in ("read_content", "_read_segment", "open_segment")},
        "parts_of": _parts_once(segments.parts_of),
    }


def _once(read: Callable[..., T]) -> Callable[..., T]:
    known: dict[tuple[Any, ...], T] = {}

    def once(folder: Path, name: SegmentName, **asked: Any) -> T:
        key = (name, segments._read_file(folder, str(name)), *asked.items())
        if key not in known:
            known[key] = read(folder, name, **asked)
        return known[key]

    return once


def _parts_once(
    parts: Callable[[Path, SegmentName, pq.ParquetFile, int], Iterator[pa.Table]],
) -> Callable[[Path, SegmentName, pq.ParquetFile, int], Iterator[pa.Table]]:
    """The parts of a file that was opened once: it stays, so that no other can be taken for it."""
    known: dict[tuple[int, int], tuple[pq.ParquetFile, list[pa.Table]]] = {}

    def once(folder: Path, name: SegmentName, file: pq.ParquetFile, rows: int) -> Iterator[pa.Table]:
        if (id(file), rows) not in known:
            known[id(file), rows] = file, list(parts(folder, name, file, rows))
        return iter(known[id(file), rows][1])

    return once
