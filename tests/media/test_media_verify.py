"""The levels of verification: what each one catches, and what is damage and what is merely not as asked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from media_doubles import HD, TINY, encode
from PIL import Image

from pipeline.media import Expectation, VerifyLevel, probe
from pipeline.media.results import Damaged
from pipeline.media.verify import Finding, differences, examine

ANY = Expectation(5, None, None)


def look(folder: Path, data: bytes, level: VerifyLevel) -> Finding:
    path = folder / "a:b.part"
    path.write_bytes(data)
    return examine(path, level, lambda: None)


def passes(folder: Path, data: bytes, level: VerifyLevel) -> bool:
    try:
        look(folder, data, level)
    except Damaged:
        return False
    return True


def levels_that_pass(folder: Path, data: bytes) -> list[str]:
    levels: tuple[VerifyLevel, ...] = ("container", "frames", "full")
    return [level for level in levels if passes(folder, data, level)]


def flip(data: bytes, start: int, length: int) -> bytes:
    return data[:start] + bytes(byte ^ 0xFF for byte in data[start : start + length]) + data[start + length :]


def test_a_whole_film_passes_every_level(tmp_path: Path, tiny: bytes, clip_720p: bytes) -> None:
    """And each level finds the same facts."""
    for level in ("container", "frames", "full"):
        assert differences(look(tmp_path, clip_720p, level), HD) is None
        assert differences(look(tmp_path, tiny, level), TINY) is None


def test_broken_pictures_in_the_middle_are_caught_by_full_alone(tmp_path: Path, clip_720p: bytes) -> None:
    """The tables are whole and the first picture is too: only decoding every picture sees it."""
    middle = clip_720p.index(b"mdat") + len(clip_720p) // 2
    assert levels_that_pass(tmp_path, flip(clip_720p, middle, 64)) == ["container", "frames"]


def test_most_single_flipped_bytes_are_caught_by_full(tmp_path: Path) -> None:
    """The decoder's own word about painted-over holes counts, not only its errors."""
    film = encode(tmp_path / "film.mp4", 320, 180, frames=24)
    begin, end = film.index(b"mdat") + 1_000, film.index(b"moov") - 8
    spots = range(begin, end, (end - begin) // 40)
    caught = sum(not passes(tmp_path, flip(film, at, 1), "full") for at in spots)
    assert caught > len(spots) / 2


def test_a_packet_cut_short_is_damage_to_the_probe_alone(tmp_path: Path, tiny_fast: bytes) -> None:
    """The probe does not lean on the container check: FFmpeg hands out a short packet with a mark, not an error."""
    path = tmp_path / "a.mp4"
    path.write_bytes(tiny_fast[:-1])
    with pytest.raises(Damaged, match="packets is broken"):
        probe.probe(path, every_frame=False, checkpoint=lambda: None)


def test_a_broken_first_picture_is_caught_by_frames(tmp_path: Path, clip_720p: bytes) -> None:
    """The container check passes it; decoding the poster does not."""
    begin = clip_720p.index(b"mdat") + 4
    assert levels_that_pass(tmp_path, flip(clip_720p, begin, 4_000)) == ["container"]


def test_media_data_of_zeros_is_caught_by_frames(tmp_path: Path, tiny: bytes) -> None:
    """A hole in a sparse file has the right length and no picture."""
    begin, end = tiny.index(b"mdat") + 4, tiny.index(b"moov") - 4
    assert levels_that_pass(tmp_path, tiny[:begin] + bytes(end - begin) + tiny[end:]) == ["container"]


def test_a_cut_film_passes_no_level(tmp_path: Path, clip_720p: bytes) -> None:
    """The lowest level is part of the higher ones."""
    assert levels_that_pass(tmp_path, clip_720p[:-1]) == []


def test_no_flipped_byte_brings_the_probe_down(tmp_path: Path, tiny: bytes) -> None:
    """Whatever FFmpeg thinks of the bytes becomes a finding or damage."""
    for at in range(0, len(tiny), 11):
        levels_that_pass(tmp_path, flip(tiny, at, 1))


def test_damage_is_told_without_a_path(tmp_path: Path) -> None:
    """FFmpeg's sentence goes in, the place of the temporary file does not."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(Damaged, match="FFmpeg says") as caught:
        probe.probe(path, every_frame=False, checkpoint=lambda: None)
    assert str(tmp_path) not in str(caught.value)


def test_the_poster_is_a_jpeg_of_the_same_shape(tmp_path: Path, clip_720p: bytes) -> None:
    """640 pixels wide, the film's own colours."""
    poster = look(tmp_path, clip_720p, "frames").poster
    assert poster is not None
    with Image.open(io.BytesIO(poster)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (640, 360))
        red, green, blue = picture.convert("RGB").getpixel((600, 20))
        assert abs(red - 180) < 20
        assert abs(green - 60) < 20
        assert abs(blue - 40) < 20


@pytest.mark.parametrize(
    ("size", "poster"),
    [((1280, 720), (640, 360)), ((720, 1280), (360, 640)), ((64, 36), (64, 36)), ((4000, 2), (640, 1))],
)
def test_a_poster_keeps_the_shape_and_is_never_enlarged(size: tuple[int, int], poster: tuple[int, int]) -> None:
    """The long side has at most 640 pixels, the short one at least one."""
    assert probe.poster_size(*size) == poster


def test_another_codec_is_not_damage(tmp_path: Path) -> None:
    """A film that decodes is kept, and its codec is named."""
    data = encode(tmp_path / "m.mp4", 64, 36, frames=3, codec="mpeg4")
    assert differences(look(tmp_path, data, "full"), TINY) == "mpeg4 instead of h264"


def test_verification_can_be_given_up(tmp_path: Path, tiny: bytes) -> None:
    """The checkpoint is asked while packets are read, and what it raises travels."""
    path = tmp_path / "a.mp4"
    path.write_bytes(tiny)

    def give_up() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        examine(path, "full", give_up)


def test_a_file_that_cannot_be_opened_is_this_machines_trouble(tmp_path: Path) -> None:
    """Damage is a word about bytes that were read."""
    with pytest.raises(OSError, match="No such file"):
        examine(tmp_path / "gone.mp4", "frames", lambda: None)
    with pytest.raises(OSError, match="No such file"):
        probe.probe(tmp_path / "gone.mp4", every_frame=False, checkpoint=lambda: None)


@pytest.mark.parametrize(
    ("finding", "asked", "said"),
    [
        (Finding(5.0, 1280, 720), HD, None),
        (Finding(5.3, 1280, 720), HD, None),
        (Finding(4.7, 1280, 720), HD, None),
        (Finding(5.31, 1280, 720), HD, "5.3 s instead of 5 s"),
        (Finding(10.04, 1280, 720), HD, "10.0 s instead of 5 s"),
        (Finding(5.0, 720, 1280), HD, "720x1280 instead of 1280x720"),
        (Finding(10.0, 720, 720), HD, "10.0 s instead of 5 s; 720x720 instead of 1280x720"),
        (Finding(5.0, 720, 1280), ANY, None),
        (Finding(5.0, 720, 1280), Expectation(5, 1280, None), "720x1280 instead of 1280xany"),
        (Finding(None, None, None), HD, None),
        (Finding(5.0, 1280, 720, "hevc"), HD, "hevc instead of h264"),
    ],
)
def test_differences_are_put_into_words(finding: Finding, asked: Expectation, said: str | None) -> None:
    """Only what is known and asked for can differ, and 0.3 s is no difference."""
    assert differences(finding, asked) == said


def test_a_picture_too_large_to_decode_is_damage(tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on pixels reaches the decoder: some bytes of header do not take gigabytes of frame."""
    monkeypatch.setitem(probe._DECODER, "max_pixels", str(64 * 36 - 1))
    assert levels_that_pass(tmp_path, tiny) == ["container"]


def test_metadata_in_another_alphabet_is_no_damage(tmp_path: Path, tiny: bytes) -> None:
    """A tag that is no UTF-8 says nothing about the pictures."""
    at = tiny.index(b"Lavf")
    assert look(tmp_path, tiny[:at] + b"\x92" + tiny[at + 1 :], "full").codec == "h264"


def test_a_codec_that_nobody_knows_is_damage(tmp_path: Path, tiny: bytes) -> None:
    """There is no decoder to ask."""
    assert levels_that_pass(tmp_path, tiny.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")) == ["container"]
