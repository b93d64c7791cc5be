"""Some pictures of a video, spread over its length and made small: what a contact sheet shows.

Import this module only where pictures are wanted: it loads FFmpeg and the imaging library.
"""

from __future__ import annotations

from pathlib import Path

from av.video.frame import VideoFrame
from PIL.Image import Image

from pipeline.media.probe import opened

MOST_FRAMES = 2_000
"""Pictures that are decoded at most, however long the file says it is."""


def spread_frames(path: Path, count: int, box: tuple[int, int], length_s: float) -> list[Image]:
    """Up to `count` pictures of the video at `path`, in the middle of as many equal parts of `length_s` seconds.

    Each is scaled to fit `box` (width, height) in pixels and keeps its shape.

    Raises:
        Damaged: it cannot be read as a video.
        OSError: this machine cannot read the file.
    """
    wanted_s = [(number + 0.5) / count * length_s for number in range(count)]
    pictures: list[Image] = []
    with opened(path) as (container, stream):
        last: VideoFrame | None = None
        for number, frame in enumerate(container.decode(stream)):
            if len(pictures) == count or number == MOST_FRAMES:
                break
            last = frame
            if frame.time is None or frame.time >= wanted_s[len(pictures)]:
                pictures.append(_small(frame, box))
        if last is not None and len(pictures) < count:
            pictures.append(_small(last, box))  # it is shorter than it says
    return pictures


def _small(frame: VideoFrame, box: tuple[int, int]) -> Image:
    scale = min(1.0, box[0] / frame.width, box[1] / frame.height)
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    picture: Image = small.to_image()  # type: ignore[no-untyped-call]
    return picture
