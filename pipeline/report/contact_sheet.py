"""Contact sheets: some frames of every stored clip on a few large pictures, to be printed, sent or flicked through.

One sheet is in memory at a time, so a thousand clips need no more of it than ten.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.kernel.files import make_folder, write_file
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.media.frames import spread_frames
from pipeline.media.results import Damaged
from pipeline.report.lines import Line

FRAMES = 4
STRIPS_A_ROW = 2
ROWS = 12
CLIPS_A_SHEET = STRIPS_A_ROW * ROWS
MOST_SHEETS = 500
"""Sheets that are written at most: 12,000 clips."""

FRAME = (240, 180)
"""The most that one frame takes, in pixels."""
MARGIN, GAP, CAPTION = 48, 6, 52
STRIP = FRAMES * FRAME[0] + (FRAMES - 1) * GAP
QUALITY = 85

PAPER, INK, QUIET, EMPTY = "#faf9f7", "#1c1e22", "#62676f", "#e4e1da"
_NAME = re.compile(r"contact-sheet(-\d+)?\.jpg")
_NO_WORDS = {"prompt", "negative_prompt", "start_image"}


def write_contact_sheets(folder: Path, lines: Sequence[Line], state: State) -> list[str]:
    """Write `report/contact-sheet.jpg`, and `contact-sheet-2.jpg` and so on where one is not enough.

    Sheets of an earlier time that are not written again are removed. A clip whose file is gone or damaged has its
    caption and says so.

    Returns:
        The names of the sheets, in order; none where nothing is stored.

    Raises:
        OSError: the disk refused; each sheet is then either the old one or the new one.
    """
    report = folder / "report"
    make_folder(report)
    names = []
    for number, clips in enumerate(_sheets(lines, state), start=1):
        names.append("contact-sheet.jpg" if number == 1 else f"contact-sheet-{number}.jpg")
        write_file(report / names[-1], _sheet(folder, clips))
    for path in report.iterdir():
        if _NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()
    return names


def _sheets(lines: Sequence[Line], state: State) -> Iterator[list[tuple[str, str, JobRecord]]]:
    clips = list(_clips(lines, state))[: MOST_SHEETS * CLIPS_A_SHEET]
    for start in range(0, len(clips), CLIPS_A_SHEET):
        yield clips[start : start + CLIPS_A_SHEET]


def _clips(lines: Sequence[Line], state: State) -> Iterator[tuple[str, str, JobRecord]]:
    """Every stored job once, with its title and what tells it from the others."""
    telling = _telling(lines)
    seen: set[str] = set()
    for line in lines:
        record = state.jobs.get(line.job_id)
        if record is None or record.state is not JobState.STORED or line.job_id in seen:
            continue
        seen.add(line.job_id)
        values = (line.params.get(name, line.variables.get(name)) for name in telling)
        words = [f"take {line.replicate}"] if line.replicate > 1 else []
        words += [str(value) for value in values if value not in (None, "")]
        yield line.id, " · ".join(words), record


def _telling(lines: Sequence[Line]) -> list[str]:
    """The variables and parameters that are not the same in every line."""
    values: dict[str, set[str]] = {}
    for line in lines:
        for name, value in {**line.variables, **line.params}.items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, different in values.items() if len(different) > 1 and name not in _NO_WORDS]


def _sheet(folder: Path, clips: Sequence[tuple[str, str, JobRecord]]) -> bytes:
    strips = [(title, words, record, _frames(folder, record)) for title, words, record in clips]
    rows = [strips[start : start + STRIPS_A_ROW] for start in range(0, len(strips), STRIPS_A_ROW)]
    heights = [max(_height(frames) for *_, frames in row) + CAPTION + GAP * 3 for row in rows]
    size = (2 * MARGIN + STRIPS_A_ROW * STRIP + (STRIPS_A_ROW - 1) * MARGIN, 2 * MARGIN + sum(heights))
    sheet = Image.new("RGB", size, PAPER)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for number, (title, words, record, frames) in enumerate(row):
            _draw_strip(sheet, (MARGIN + number * (STRIP + MARGIN), top), title, words, record, frames)
        top += height
    jpeg = io.BytesIO()
    sheet.save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue()


def _frames(folder: Path, record: JobRecord) -> list[Image.Image]:
    """The frames of a clip; none if its file is gone or damaged."""
    try:
        return spread_frames(folder / (record.path or ""), FRAMES, FRAME, record.duration_s or 0.0)
    except (Damaged, OSError):
        return []


def _height(frames: Sequence[Image.Image]) -> int:
    return max((frame.height for frame in frames), default=FRAME[1] // 2)


def _draw_strip(
    sheet: Image.Image, at: tuple[int, int], title: str, words: str, record: JobRecord, frames: Sequence[Image.Image]
) -> None:
    pen, (left, top) = ImageDraw.Draw(sheet), at
    cost = f"${format_usd(record.cost_microusd)}"
    large, small = ImageFont.load_default(19), ImageFont.load_default(16)
    pen.text((left + STRIP, top), cost, QUIET, large, anchor="ra")
    pen.text((left, top), _fitting(pen, title, large, STRIP - 140), INK, large)
    pen.text((left, top + 25), _fitting(pen, words, small, STRIP), QUIET, small)
    top += CAPTION
    if not frames:
        pen.rectangle((left, top, left + STRIP, top + _height(frames)), EMPTY)
        pen.text((left + 20, top + 30), f"{record.path} cannot be read", QUIET, small)
    for number, frame in enumerate(frames):
        sheet.paste(frame, (left + number * (frame.width + GAP), top))


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: int) -> str:
    """The text on one line that is no wider than `room` pixels."""
    line = "".join(character if character.isprintable() else " " for character in text[:400])
    if pen.textlength(line, font) <= room:
        return line
    while line and pen.textlength(f"{line}…", font) > room:
        line = line[:-1]
    return f"{line.rstrip()}…"
