"""H.264 in MP4: encoding a loop of frames, marking a file as one request's own, and breaking it."""

import io
import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import av

FPS: Final = 24
SIZES: Final = {"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (720, 720)}
_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_BT601: Final = 6
_LIMITED_RANGE: Final = 1

Planes = tuple[bytes, bytes, bytes]
"""A picture as yuv420p: luma, then the two chroma planes of half the width and height."""


def encode(
    frames: Iterable[Planes], width: int, height: int, *, loops: int, rate: int = FPS, options: dict[str, str]
) -> bytes:
    """Encode the frames once and play them `loops` times over; the same packets serve every loop.

    One closed group of pictures without B-frames, so a loop begins with a key frame and needs nothing
    from the loop before it.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context: Any = stream.codec_context
        context.colorspace, context.color_range, context.thread_count = _BT601, _LIMITED_RANGE, 1
        stream.options = {"x264-params": "keyint=100000:scenecut=0:bframes=0:log-level=error", **options}
        packets = [packet for frame in _video_frames(frames, width, height) for packet in stream.encode(frame)]
        packets += stream.encode(None)
        count = len(packets)
        # The encoder does not know the frames' durations, and the last one ends the film.
        parts = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for number in range(count * loops):
            data, key = parts[number % count]
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, context.time_base
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.is_keyframe = key
            container.mux_one(packet)
    return buffer.getvalue()


def _video_frames(frames: Iterable[Planes], width: int, height: int) -> Iterator[Any]:
    for number, planes in enumerate(frames):
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, data in zip(frame.planes, planes, strict=True):
            plane.update(_padded(data, len(data) // plane.height, plane.line_size))
        frame.pts = number
        yield frame


def _padded(data: bytes, width: int, line_size: int) -> bytes:
    if width == line_size:
        return data
    gap = bytes(line_size - width)
    return b"".join(data[at : at + width] + gap for at in range(0, len(data), width))


@dataclass(frozen=True, slots=True)
class Box:
    """One MP4 box: its type, where it starts, where its content starts and where it ends, bytes."""

    kind: bytes
    start: int
    content: int
    end: int


def boxes(data: bytes | bytearray, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes that tile `data[start:end]`."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        yield Box(kind, start, content, start + size)
        start += size


def mark(request_id: str) -> bytes:
    """A box to append to a shared clip: the file becomes this request's own, in bytes and in length."""
    name = uuid.UUID(request_id).bytes
    payload = name + b"sandbox clip" + bytes(name[0])
    return struct.pack(">I4s", 8 + len(payload), b"uuid") + payload


def corrupt(data: bytes) -> bytes:
    """Flip bytes in the middle of the media and point the chunk offsets beyond the file; same length."""
    broken = bytearray(data)
    for box in boxes(data):
        if box.kind == b"mdat":
            middle = (box.content + box.end) // 2
            for at in range(middle, min(middle + 64, box.end)):
                broken[at] ^= 0xA5
    for box in _find(data, b"stco", 0, len(data)):
        (count,) = struct.unpack_from(">I", data, box.content + 4)
        for index in range(count):
            at = box.content + 8 + 4 * index
            (offset,) = struct.unpack_from(">I", data, at)
            struct.pack_into(">I", broken, at, (offset + len(data)) % 2**32)
    return bytes(broken)


def _find(data: bytes, kind: bytes, start: int, end: int) -> Iterator[Box]:
    for box in boxes(data, start, end):
        if box.kind == kind:
            yield box
        elif box.kind in _CONTAINERS:
            yield from _find(data, kind, box.content, box.end)
