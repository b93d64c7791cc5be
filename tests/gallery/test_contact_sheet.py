"""Contact sheets show every stored clip once, on as many sheets as it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from report_doubles import event, life, line, state_of

from pipeline.ledger.events import Event
from pipeline.ledger.fold import State
from pipeline.media.frames import spread_frames
from pipeline.media.results import Damaged
from pipeline.report import contact_sheet
from pipeline.report.contact_sheet import CAPTION, FRAME, GAP, MARGIN, STRIP, write_contact_sheets
from pipeline.sandbox.mp4 import encode

GREY = (60, 60, 60)


def clip(path: Path, shades: list[int], width: int = 320, height: int = 180) -> Path:
    """A video of one second for each shade, in grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chroma = bytes([128]) * (width * height // 4)
    frames = [(bytes([shade]) * (width * height), chroma, chroma) for shade in shades]
    path.write_bytes(encode(frames, width, height, rate=1, loops=1, options={"preset": "ultrafast"}))
    return path


def stored(job: str, path: str, duration_s: float = 4.0) -> list[Event]:
    return [*life("stored", job)[:-1], event("stored", job, path=path, duration_s=duration_s)]


def shade(picture: Image.Image, x: int, y: int) -> int:
    value = picture.convert("L").getpixel((x, y))
    assert isinstance(value, int)
    return value


def test_frames_are_spread_over_the_clip(tmp_path: Path) -> None:
    """Four of eight seconds: the second, fourth, sixth and eighth, small and in their shape."""
    path = clip(tmp_path / "v.mp4", [20, 40, 70, 100, 130, 160, 190, 220])
    frames = spread_frames(path, 4, (160, 160), 8.0)
    assert [frame.size for frame in frames] == [(160, 90)] * 4
    seen = [shade(frame, 80, 45) for frame in frames]
    # Video has its black at 16 and its white at 235.
    assert [round(16 + each * 219 / 255, -1) for each in seen] == [40, 100, 160, 220]


def test_a_clip_shorter_than_it_says_ends_with_its_last_frame(tmp_path: Path) -> None:
    """No more pictures than there are, and no failure."""
    assert len(spread_frames(clip(tmp_path / "v.mp4", [20, 200]), 4, (64, 64), 40.0)) == 1
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(Damaged):
        spread_frames(tmp_path / "no.mp4", 4, (64, 64), 5.0)


def test_every_stored_clip_is_on_a_sheet(tmp_path: Path) -> None:
    """Its frames stand where its place is; what is not stored, or shares a job, has no place; a lost file says so."""
    clip(tmp_path / "videos" / "a.mp4", [60, 60, 60, 60])
    clip(tmp_path / "videos" / "tall.mp4", [200, 200, 200, 200], 180, 320)
    events = [*stored("a", "videos/a.mp4"), *stored("t", "videos/tall.mp4"), *stored("gone", "videos/gone.mp4")]
    lines = [line(1, "a"), line(2, "a"), line(3, "t"), line(4, "gone"), line(5, "f")]
    assert write_contact_sheets(tmp_path, lines, state_of(*events, *life("failed", "f"))) == ["contact-sheet.jpg"]
    sheet = Image.open(tmp_path / "report" / "contact-sheet.jpg")
    heights = (180 + CAPTION + 3 * GAP, FRAME[1] // 2 + CAPTION + 3 * GAP)
    assert sheet.size == (3 * MARGIN + 2 * STRIP, 2 * MARGIN + sum(heights))
    second = MARGIN + STRIP + MARGIN
    assert abs(shade(sheet, MARGIN + 3 * (FRAME[0] + GAP) + 20, MARGIN + CAPTION + 20) - 51) < 6
    assert abs(shade(sheet, second + 20, MARGIN + CAPTION + 150) - 214) < 6
    lost = MARGIN + heights[0] + CAPTION
    assert abs(shade(sheet, MARGIN + STRIP - 20, lost + 20) - 225) < 6


def test_many_clips_take_many_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many a sheet, and no more sheets than the bound; those of an earlier time go, other files stay."""
    monkeypatch.setattr(contact_sheet, "CLIPS_A_SHEET", 2)
    events = [each for n in range(5) for each in stored(f"j{n}", f"videos/{n}.mp4")]
    lines = [line(n + 1, f"j{n}", variables={"mood": f"mood {n}", "w": "x" * 900 + str(n)}) for n in range(5)]
    names = ["contact-sheet.jpg", "contact-sheet-2.jpg", "contact-sheet-3.jpg"]
    assert write_contact_sheets(tmp_path, lines, state_of(*events)) == names
    (tmp_path / "report" / "contact-sheet-mine.jpg").write_bytes(b"mine")
    monkeypatch.setattr(contact_sheet, "MOST_SHEETS", 1)
    assert write_contact_sheets(tmp_path, lines, state_of(*events)) == names[:1]
    left = {path.name for path in (tmp_path / "report").iterdir()}
    assert left == {"contact-sheet.jpg", "contact-sheet-mine.jpg"}
    assert write_contact_sheets(tmp_path, lines, State()) == []
