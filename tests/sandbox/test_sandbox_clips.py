"""The videos: real, of the right shape, and each request's own."""

import hashlib
import io
import uuid
from typing import Any

import av
import pytest
from conftest import Start
from PIL import Image

from pipeline.sandbox.clips import own_clip, shared_clip, tiny_clip
from pipeline.sandbox.mp4 import SIZES, boxes, corrupt, mark
from pipeline.sandbox.scene import Scene

ID = "3f2c1a00-1111-4222-8333-944455556666"


def look(data: bytes) -> dict[str, Any]:
    """Decode every frame."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert stream.duration is not None
        return {
            "codec": stream.codec_context.name,
            "format": stream.codec_context.pix_fmt,
            "size": (stream.width, stream.height),
            "seconds": float(stream.duration * stream.time_base),
            "rate": float(stream.average_rate or 0),
            "frames": frames,
        }


def tiles(data: bytes) -> bool:
    found = list(boxes(data))
    return found[-1].end == len(data) and {b"ftyp", b"moov", b"mdat"} <= {box.kind for box in found}


@pytest.mark.parametrize(("aspect", "duration"), [("16:9", 5), ("9:16", 10), ("1:1", 5)])
def test_an_own_clip_is_real_video_of_the_asked_shape(aspect: str, duration: int) -> None:
    """H.264, yuv420p, 24 frames a second, right size, right length to a frame, every frame decodable."""
    clip = own_clip(ID, {"prompt": "A lamp in the rain", "aspect_ratio": aspect, "duration": duration})
    seen = look(clip)
    assert seen == {
        "codec": "h264",
        "format": "yuv420p",
        "size": SIZES[aspect],
        "seconds": pytest.approx(duration, abs=0.05),
        "rate": 24.0,
        "frames": duration * 24,
    }
    assert tiles(clip)


@pytest.mark.parametrize("aspect", list(SIZES))
def test_a_shared_clip_is_small_and_of_full_length(aspect: str) -> None:
    """A shared clip has the size, rate and length of its shape in less than 150 KB."""
    clip = shared_clip(aspect, 10)
    seen = look(clip)
    assert (seen["size"], seen["rate"], seen["frames"]) == (SIZES[aspect], 24.0, 240)
    assert seen["seconds"] == pytest.approx(10, abs=0.05)
    assert len(clip) < 150_000


@pytest.mark.parametrize("aspect", list(SIZES))
@pytest.mark.parametrize("duration", [5, 10])
def test_a_tiny_clip_is_honest_about_size_and_length(aspect: str, duration: int) -> None:
    """Even the benchmark's clip has its shape's picture size and duration, and stays decodable once marked."""
    clip = tiny_clip(aspect, duration) + mark(ID)
    seen = look(clip)
    assert (seen["size"], seen["seconds"]) == (SIZES[aspect], pytest.approx(duration, abs=0.05))
    assert len(clip) < 60_000
    assert tiles(clip)


def test_a_mark_makes_a_file_one_requests_own() -> None:
    """Marked files tile, differ by request in bytes, and mostly in length."""
    base = tiny_clip("1:1", 5)
    files = {base + mark(str(uuid.UUID(int=number << 120))) for number in range(200)}
    assert len(files) == 200
    assert len({len(data) for data in files}) > 50
    assert all(tiles(data) for data in files)


def test_a_corrupt_clip_shows_both_in_structure_and_in_media() -> None:
    """Same length and boxes, but the chunk offsets point outside and the media has flipped bytes."""
    clip = tiny_clip("1:1", 5)
    broken = corrupt(clip)
    assert len(broken) == len(clip)
    assert tiles(broken)
    media = next(box for box in boxes(clip) if box.kind == b"mdat")
    assert clip[media.content : media.end] != broken[media.content : media.end]
    with pytest.raises((av.error.FFmpegError, AssertionError)):
        assert look(broken)["frames"] == 5


def test_replicates_look_different_and_one_request_always_the_same() -> None:
    """The picture depends on the request id as well as on the prompt, and on nothing else."""
    body = {"prompt": "A lamp"}
    other = str(uuid.uuid4())
    first, again, replicate = (next(Scene(name, body).frames(60)) for name in (ID, ID, other))
    assert first == again
    assert first != replicate


@pytest.mark.parametrize(
    "prompt",
    ["", " ", "x" * 5000, "word " * 3000, "ünïcödé 東京 🐼", "\x00\x1b[2J\n\t", "\ud800", "\u202e" * 50],
    ids=["empty", "blank", "long word", "many words", "unicode", "control", "surrogate", "bidi"],
)
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    """No text, however odd, keeps a picture from being made."""
    scene = Scene(ID, {"prompt": prompt, "aspect_ratio": "1:1"})
    assert len(next(scene.frames(60))[0]) == 720 * 720


def test_the_start_image_is_the_picture() -> None:
    """With a start image the frame shows it; with something that is no image the landscape stays."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (250, 20, 20)).save(buffer, "PNG")
    red = next(Scene(ID, {"prompt": "x", "start_image": "http://x/y"}, buffer.getvalue()).frames(60))
    assert red[2][100] > 200  # the red-difference plane of a red picture
    odd = next(Scene(ID, {"prompt": "x"}, b"not an image").frames(60))
    assert odd == next(Scene(ID, {"prompt": "x"}).frames(60))


async def test_own_clips_are_drawn_apart_and_differ(start: Start) -> None:
    """Two identical requests get two different videos; each is COMPLETED only when it can be served."""
    client = await start(clips="own", mean_s=0)
    ids = [await client.accepted("twin"), await client.accepted("twin")]
    seen = set()
    for request_id in ids:
        early = await client.get(f"/files/{request_id}.mp4", key=None)
        if early.status == 404:  # else it is drawn already
            assert (await client.status(request_id)).json["status"] in ("PROCESSING", "COMPLETED")
        await client.completed(request_id)
        video = await client.get(f"/files/{request_id}.mp4", key=None)
        assert look(video.body)["frames"] == 120
        seen.add(hashlib.sha256(video.body).hexdigest())
    assert seen == {item["sha256"] for item in client.sandbox.requests()}
    assert len(seen) == 2
    assert client.sandbox.invoice()["total_microusd"] == 3_500_000


async def test_shared_clips_are_drawn_once_and_marked(start: Start) -> None:
    """A first request of a shape waits for its drawing; every file still has its own hash."""
    client = await start(clips="shared", mean_s=0)
    ids = [await client.accepted(aspect_ratio="1:1") for _ in range(3)]
    for request_id in ids:
        await client.completed(request_id)
    assert len({item["sha256"] for item in client.sandbox.requests()}) == 3
