"""The look inside: PyAV reads every packet, decodes what is asked for, and the first picture becomes the poster.

Import this module only where verification needs it: it loads FFmpeg and the imaging library.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL.Image import Image

from pipeline.media.results import Damaged

POSTER_LONG_SIDE = 640
"""Pixels of the poster's longer side; a smaller picture is not enlarged."""
POSTER_QUALITY = 82

_DECODER = {
    "max_pixels": str(8_192 * 4_608),  # a header of some bytes must not ask for gigabytes of frame
}
_MACHINE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EACCES, errno.EIO})


@dataclass(frozen=True, slots=True)
class Probe:
    """What the streams say: codec name, seconds (None where they do not tell), pixels, and the poster as JPEG."""

    codec: str
    duration_s: float | None
    width: int
    height: int
    poster: bytes


def probe(path: Path, *, every_frame: bool, checkpoint: Callable[[], None]) -> Probe:
    """Read the whole file at `path` once; decode its first picture, or `every_frame`.

    `checkpoint` is called between packets and may raise to give up.

    Raises:
        Damaged: a packet or a picture cannot be read.
        OSError: this machine cannot read the file.
    """
    first: VideoFrame | None = None
    span = _Span()
    with opened(path) as (container, stream):
        for packet in container.demux():
            checkpoint()
            if packet.is_corrupt:
                raise Damaged("one of its packets is broken")
            if packet.stream_index != stream.index:
                continue
            span.add(packet)
            if every_frame or first is None:
                first = _decode(packet, first)
        if first is None:
            raise Damaged("no picture of it decodes")
        return Probe(
            codec=stream.codec_context.name,
            duration_s=span.seconds(stream.time_base) or _declared_seconds(stream),
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            poster=_poster(first),
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file at `path` and its first stream of pictures, for the block; what its decoder may ask for is bounded.

    Raises:
        Damaged: it cannot be read as a video, or what the block reads of it cannot.
        OSError: this machine cannot read the file.
    """
    try:
        # The prefix keeps a colon in a path from being read as a protocol. Metadata that is not UTF-8 is no damage.
        with av.open(f"file:{path.absolute()}", format="mp4", metadata_errors="replace") as container:
            if not container.streams.video:
                raise Damaged("it has no video stream")
            stream = container.streams.video[0]
            _set_up(stream.codec_context)
            yield container, stream
    except av.FFmpegError as error:
        if error.errno in _MACHINE_ERRNOS:
            raise OSError(error.errno, error.strerror) from None
        raise Damaged(f"FFmpeg says: {error.strerror or type(error).__name__}") from None


def _set_up(decoder: VideoCodecContext | None) -> None:
    """Bound what a decoder may ask for.

    Raises:
        Damaged: there is none for what is in the file.
    """
    if decoder is None:
        raise Damaged("its codec is unknown")
    decoder.options = _DECODER
    # The pool has threads enough, and a decoder with threads of its own reports errors late.
    decoder.thread_count = 1


def _decode(packet: Packet[Any], first: VideoFrame | None) -> VideoFrame | None:
    """Decode `packet`; returns the very first picture, which is `first` once there is one."""
    for frame in packet.decode():
        # The decoder paints over a hole and marks the picture. Its option to stop at errors finds no more than that.
        if frame.is_corrupt:
            raise Damaged("one of its pictures does not decode")
        first = first or frame
    return first


class _Span:
    """The time that packets cover, in their stream's units."""

    def __init__(self) -> None:
        self._begin: int | None = None
        self._end = 0

    def add(self, packet: Packet[Any]) -> None:
        if packet.pts is None:
            return
        self._begin = packet.pts if self._begin is None else min(self._begin, packet.pts)
        self._end = max(self._end, packet.pts + (packet.duration or 0))

    def seconds(self, unit: Fraction | None) -> float | None:
        if self._begin is None or unit is None:
            return None
        return float((self._end - self._begin) * unit)


def _declared_seconds(stream: VideoStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def poster_size(width: int, height: int) -> tuple[int, int]:
    """The poster's pixels for a picture of `width` by `height`: same shape, long side at most `POSTER_LONG_SIDE`."""
    scale = min(1.0, POSTER_LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _poster(frame: VideoFrame) -> bytes:
    width, height = poster_size(frame.width, frame.height)
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    jpeg = io.BytesIO()
    picture: Image = small.to_image()  # type: ignore[no-untyped-call]
    picture.save(jpeg, "JPEG", quality=POSTER_QUALITY)
    return jpeg.getvalue()
