"""The container check: is this, from its first byte to its last, the MP4 file that its own tables describe?

Pure Python over a `read` function: the headers of the boxes, and `moov` as a whole (bounded), are all that is read.
A file cut anywhere fails, because its boxes no longer tile it or its sample tables point beyond it; flipped bytes in
the middle of the pictures do not, which is what decoding is for.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.media.results import Damaged

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: those bytes of the file, fewer only at its end."""

MAX_BOXES = 1_000
"""Boxes in one parent. A real file has a dozen."""
MAX_MOOV = 8 * 2**20
"""Bytes of tables that are read at once: a real clip has some kilobytes, and this is hours of video."""
MAX_SAMPLES = MAX_MOOV // 4
"""Pictures and pieces of sound: as many as such a table can list one by one. FFmpeg takes some 40 bytes for each, and a
few bytes can say that there are billions."""
_HAVE_FRAGMENTS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf"})
"""Boxes in which FFmpeg finds the boxes of a fragment, also where they do not belong."""

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_HEADER = struct.Struct(">I4s")


class Box(NamedTuple):
    """One box: its type, and where its payload begins and ends."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the container says of its video: seconds and pixels, None where it says nothing."""

    duration_s: float | None
    width: int | None
    height: int | None


def walk(read: Read, size: int) -> Facts:
    """Check a file of `size` bytes and return what it says of itself.

    Raises:
        Damaged: it is not a whole MP4 file with at least one picture.
    """
    boxes = _top_level(read, size)
    moov = _one_moov(boxes)
    mdats = [box for box in boxes if box.kind == b"mdat"]
    if not mdats:
        raise Damaged("it has no mdat box")
    if moov.end - moov.start > MAX_MOOV:
        raise Damaged("its moov box is too large")
    data = _exactly(read, moov.start, moov.end - moov.start)
    return _check_movie(data, _Extents(mdats), _fragments(read, boxes))


def _fragments(read: Read, boxes: list[Box]) -> list[bytes]:
    """The tables of what follows in fragments."""
    if any(box.kind in (b"traf", b"trun") for box in boxes):
        raise Damaged("a part of a fragment stands by itself")
    found = [box for box in boxes if box.kind == b"moof"]
    if sum(box.end - box.start for box in found) > MAX_MOOV:
        raise Damaged("its moof boxes are too large")
    return [_exactly(read, box.start, box.end - box.start) for box in found]


def _top_level(read: Read, size: int) -> list[Box]:
    if size == 0:
        raise Damaged("it is empty")
    boxes: list[Box] = []
    at = 0
    while at < size:
        header = _exactly(read, at, min(16, size - at))
        if not boxes and header[4:8] != b"ftyp":
            raise Damaged(_what_else(header))
        if len(boxes) == MAX_BOXES:
            raise Damaged("it has too many boxes")
        box = _parse_header(header, 0, at, size, may_be_open=True)
        boxes.append(box)
        at = box.end
    return boxes


def _exactly(read: Read, offset: int, length: int) -> bytes:
    data = read(offset, length)
    if len(data) != length:
        raise Damaged("it became shorter while it was read")
    return data


def _what_else(header: bytes) -> str:
    if header.lstrip()[:1] in (b"<", b"{"):
        return "it is text (a web page or a message), not a video"
    return "it does not begin as an MP4 file"


def _parse_header(data: bytes, offset: int, at: int, limit: int, *, may_be_open: bool) -> Box:
    """The box at `at`, in a parent that ends at `limit`; its first bytes stand at `offset` in `data`."""
    if limit - at < 8:
        raise Damaged("it ends within a box header")
    size, kind = _HEADER.unpack_from(data, offset)
    start = at + 8
    if size == 1:
        if limit - at < 16:
            raise Damaged("it ends within a box header")
        (size,) = _U64.unpack_from(data, offset + 8)
        start = at + 16
    elif size == 0 and may_be_open:
        size = limit - at
    end = at + size
    if end < start:
        raise Damaged(f"its box {_name(kind)} is smaller than its own header")
    if end > limit:
        raise Damaged(f"its box {_name(kind)} goes {end - limit} bytes beyond the end")
    return Box(kind, start, end)


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace") if kind.isalnum() else kind.hex()


def _one_moov(boxes: list[Box]) -> Box:
    found = [box for box in boxes if box.kind == b"moov"]
    if len(found) != 1:
        raise Damaged("it has no moov box" if not found else "it has more than one moov box")
    return found[0]


def _children(data: bytes, parent: Box) -> Iterator[Box]:
    """The boxes within `parent`, which must tile it, `data` being the payload of moov."""
    at, count = parent.start, 0
    while at < parent.end:
        count += 1
        if count > MAX_BOXES:
            raise Damaged("it has too many boxes")
        box = _parse_header(data, at, at, parent.end, may_be_open=False)
        yield box
        at = box.end


def _child_map(data: bytes, parent: Box) -> dict[bytes, Box]:
    """The first child of each type."""
    found: dict[bytes, Box] = {}
    for box in _children(data, parent):
        found.setdefault(box.kind, box)
    return found


def _find(data: bytes, parent: Box, *path: bytes) -> Box | None:
    box: Box | None = parent
    for kind in path:
        if box is None:
            return None
        box = _child_map(data, box).get(kind)
    return box


def _check_movie(data: bytes, extents: _Extents, fragments: list[bytes]) -> Facts:
    moov = Box(b"moov", 0, len(data))
    duration = width = height = None
    pictures = 0
    samples = sum(map(_samples_of_fragment, (data, *fragments)))
    for box in _children(data, moov):
        if box.kind == b"mvhd":
            duration = _movie_duration(data, box)
        elif box.kind == b"trak":
            track = _check_track(data, box, extents)
            samples += track.samples
            if track.is_video and not pictures:
                pictures, width, height = track.samples, track.width, track.height
    if samples > MAX_SAMPLES:
        raise Damaged("it has too many pictures, or pieces of sound")
    if not pictures and not fragments:
        raise Damaged("it has no picture")
    return Facts(duration, width, height)


def _samples_of_fragment(data: bytes) -> int:
    parents, samples = [Box(b"moof", 0, len(data))], 0
    while parents:
        for box in _children(data, parents.pop()):
            if box.kind == b"trun":
                _need(box, 8)
                samples += _U32.unpack_from(data, box.start + 4)[0]
            elif box.kind in _HAVE_FRAGMENTS:
                parents.append(box)
    return samples


def _movie_duration(data: bytes, box: Box) -> float | None:
    """Seconds, or None where the header leaves it open."""
    fields = ">IQ" if data[box.start : box.start + 1] == b"\x01" else ">II"
    offset = 20 if fields == ">IQ" else 12
    _need(box, offset + struct.calcsize(fields))
    timescale, duration = struct.unpack_from(fields, data, box.start + offset)
    unknown = duration == (2**64 - 1 if fields == ">IQ" else 2**32 - 1)
    return None if unknown or not timescale or not duration else duration / timescale


def _need(box: Box, length: int) -> None:
    if box.end - box.start < length:
        raise Damaged(f"its box {_name(box.kind)} is too short")


class _Track(NamedTuple):
    is_video: bool
    samples: int
    width: int | None
    height: int | None


def _check_track(data: bytes, trak: Box, extents: _Extents) -> _Track:
    parts = _child_map(data, trak)
    media = _child_map(data, parts[b"mdia"]) if b"mdia" in parts else {}
    handler = media.get(b"hdlr")
    is_video = handler is not None and data[handler.start + 8 : handler.start + 12] == b"vide"
    width, height = _track_size(data, parts[b"tkhd"]) if b"tkhd" in parts else (None, None)
    table = _find(data, media[b"minf"], b"stbl") if b"minf" in media else None
    samples = 0 if table is None else _check_samples(data, _child_map(data, table), extents)
    return _Track(is_video, samples, width, height)


def _track_size(data: bytes, box: Box) -> tuple[int | None, int | None]:
    """Pixels: the two 16.16 numbers at the end of the header."""
    _need(box, 84)
    width, height = struct.unpack_from(">II", data, box.end - 8)
    return (width >> 16) or None, (height >> 16) or None


def _check_samples(data: bytes, table: dict[bytes, Box], extents: _Extents) -> int:
    """Every chunk, with all its samples, lies within an mdat. Returns the number of samples."""
    chunks = _chunk_offsets(data, table)
    if b"stsz" not in table:
        # The compact form is never written by encoders of our kind: check the beginnings at least.
        if chunks and b"stz2" not in table:
            raise Damaged("it has no table of sample sizes")
        for chunk in chunks:
            extents.check(chunk, 1)
        return _compact_count(data, table[b"stz2"]) if b"stz2" in table else 0
    sizes = _SampleSizes(data, table[b"stsz"])
    position = 0
    for chunk, count in zip(chunks, _samples_per_chunk(data, table, len(chunks)), strict=True):
        extents.check(chunk, sizes.total(position, position + count))
        position += count
    if position != sizes.count:
        raise Damaged("its sample tables disagree")
    return sizes.count


def _compact_count(data: bytes, box: Box) -> int:
    _need(box, 12)
    count: int = _U32.unpack_from(data, box.start + 8)[0]
    return count


def _chunk_offsets(data: bytes, table: dict[bytes, Box]) -> Sequence[int]:
    if b"stco" in table:
        return _numbers(data, table[b"stco"], 4, "I")
    if b"co64" in table:
        return _numbers(data, table[b"co64"], 4, "Q")
    return ()


def _numbers(data: bytes, box: Box, count_at: int, code: str, per_entry: int = 1) -> array[int]:
    """The big-endian numbers of a table whose count stands `count_at` bytes into the box."""
    _need(box, count_at + 4)
    (count,) = _U32.unpack_from(data, box.start + count_at)
    begin = box.start + count_at + 4
    numbers = array(code)
    end = begin + count * per_entry * numbers.itemsize
    if end > box.end:
        raise Damaged(f"its table {_name(box.kind)} is cut short")
    numbers.frombytes(data[begin:end])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


class _SampleSizes:
    """The sizes of a track's samples: one for all, or one each."""

    def __init__(self, data: bytes, box: Box) -> None:
        _need(box, 12)
        self._each: int
        self.count: int
        self._each, self.count = struct.unpack_from(">II", data, box.start + 4)
        self._sizes = array("I") if self._each else _numbers(data, box, 8, "I")

    def total(self, first: int, end: int) -> int:
        """The bytes of the samples from `first` up to `end`."""
        if end > self.count:
            raise Damaged("its sample tables disagree")
        return self._each * (end - first) if self._each else sum(self._sizes[first:end])


def _samples_per_chunk(data: bytes, table: dict[bytes, Box], chunks: int) -> Iterator[int]:
    """How many samples each chunk holds, from the runs of the stsc table."""
    if not chunks:
        return
    if b"stsc" not in table:
        raise Damaged("it has no table of chunks")
    runs = _numbers(data, table[b"stsc"], 4, "I", per_entry=3)
    firsts = list(runs[0::3])
    if not firsts or firsts[0] != 1:
        raise Damaged("its table of chunks does not begin at the first")
    for first, following, count in zip(firsts, [*firsts[1:], chunks + 1], runs[1::3], strict=True):
        if not first < following <= chunks + 1:
            raise Damaged("its table of chunks is out of order")
        for _ in range(first, following):
            yield count


class _Extents:
    """Where the media bytes are: the payloads of the mdat boxes, in file order."""

    def __init__(self, mdats: list[Box]) -> None:
        self._starts = [box.start for box in mdats]
        self._ends = [box.end for box in mdats]

    def check(self, start: int, length: int) -> None:
        """The bytes from `start` on lie within one of them."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or start + length > self._ends[index]:
            raise Damaged("its tables point outside its media data")
