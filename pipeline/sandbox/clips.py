"""What a clip of each kind is made of, and the settings it is encoded with. No state, no process."""

from typing import Any, Final

from pipeline.sandbox.mp4 import FPS, SIZES, encode
from pipeline.sandbox.scene import Scene

_OWN_FRAMES: Final = 60
_LOOP_S: Final = 5


def own_clip(request_id: str, body: dict[str, Any], image: bytes | None = None) -> bytes:
    """A request's own picture, 5 or 10 seconds at 24 frames a second."""
    try:
        scene = Scene(request_id, body, image)
    except Exception:  # a prompt that cannot be drawn is still a prompt that was paid for
        scene = Scene(request_id, {**body, "prompt": ""}, words=False)
    return encode(
        scene.frames(_OWN_FRAMES, hold=FPS * _LOOP_S // _OWN_FRAMES),
        scene.width,
        scene.height,
        loops=body.get("duration", _LOOP_S) // _LOOP_S,
        options={"preset": "ultrafast", "crf": "25"},
    )


def shared_clip(aspect: str, duration: int) -> bytes:
    """One clip for all requests of a shape: full length and size, few bytes."""
    body = {"prompt": f"Sandbox clip {aspect}", "aspect_ratio": aspect, "duration": duration}
    scene = Scene("00000000", body)
    return encode(
        scene.frames(10, hold=FPS * _LOOP_S // 10),
        scene.width,
        scene.height,
        loops=duration // _LOOP_S,
        options={"preset": "veryfast", "crf": "34"},
    )


def tiny_clip(aspect: str, duration: int) -> bytes:
    """The smallest honest clip of a shape: its size and its duration, one grey frame a second."""
    width, height = SIZES[aspect]
    luma, chroma = bytes([60]) * (width * height), bytes([128]) * (width * height // 4)
    return encode([(luma, chroma, chroma)], width, height, loops=duration, rate=1, options={"preset": "ultrafast"})
