"""The results as a workbook for a spreadsheet: pictures, money that adds up, filters, and no formula of anybody's."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import xlsxwriter
from PIL import Image, UnidentifiedImageError
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from pipeline.kernel.address import names_below
from pipeline.kernel.clock import EPOCH, to_datetime
from pipeline.kernel.files import discard, make_folder, open_temporary, put_in_place, read_file_below
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.lines import Line

FILE = "results.xlsx"

MAX_ROWS = 1_048_575
"""Rows below the header: a sheet has 1,048,576."""
MAX_COLUMNS = 16_384
MAX_CELL = 32_767
"""Characters of a cell, as Excel counts them: in UTF-16."""
MAX_PICTURES = 2_000
"""The most rows with a picture. Each picture is a file in the workbook that the spreadsheet must draw."""
MAX_LINKS = 60_000
"""A sheet has at most 65,530."""

_PICTURE = (112, 63)
"""Pixels of a picture, at most: what fits into a cell of the column below."""
_PICTURE_COLUMN_PX, _PICTURE_ROW_PX = 120, 68
_MAX_POSTER = 8 * 2**20
_MAX_PIXELS = 50_000_000

_LINE_ENDS = re.compile(r"\r\n?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_MAX_EXACT = 2**53
_MONEY = "$#,##0.00####"
_WIDTHS = {
    "row": 6,
    "replicate": 9,
    "job_id": 30,
    "id": 22,
    "prompt": 60,
    "negative_prompt": 30,
    "video": 34,
    "error": 50,
    "next": 70,
    "message": 60,
}
_WIDTH = 13

Rows = Sequence[Mapping[str, Any]]


def write_workbook(
    folder: Path, lines: Sequence[Line], state: State, summary: Mapping[str, Any], *, live: bool = False
) -> Path:
    """Write `<run directory>/report/results.xlsx`; returns its path.

    Args:
        live: whether a run holds the directory now.

    Raises:
        OSError: the disk refused; the file is then the old one or the new one.
    """
    make_folder(folder / "report")
    descriptor, temporary = open_temporary(folder / "report")
    final = folder / "report" / FILE
    try:
        with os.fdopen(descriptor, "wb") as sink:
            _fill(sink, folder, lines, state, summary, live=live)
            sink.flush()
            os.fsync(sink.fileno())
        put_in_place(temporary, final)
    except BaseException:
        discard(temporary)
        raise
    return final


def _fill(
    sink: io.BufferedWriter,
    folder: Path,
    lines: Sequence[Line],
    state: State,
    summary: Mapping[str, Any],
    *,
    live: bool,
) -> None:
    # Rows are written to the disk one by one, and no text is ever taken for a formula, a link or a number.
    settings = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "nan_inf_to_errors": False,
    }
    book = xlsxwriter.Workbook(sink, settings)
    book.set_properties({"title": "kling-batch results", "created": _made_at(state)})
    desk = _Desk(
        head=book.add_format({"bold": True, "bottom": 1}),
        text=book.add_format({"valign": "top", "text_wrap": True}),
        money=book.add_format({"valign": "top", "num_format": _MONEY}),
        link=book.add_format({"valign": "top", "font_color": "blue", "underline": 1}),
    )
    rows = tables.results(lines, state, live=live)
    _results_sheet(book.add_worksheet("results"), desk, folder, rows, tables.result_columns(lines), state)
    _table_sheet(book.add_worksheet("errors"), desk, tables.errors(lines, state), list(tables.ERROR_COLUMNS))
    by_class = classes.errors_by_class(lines, state)
    _summary_sheet(book.add_worksheet("summary"), desk, summary, by_class, _notes(rows))
    book.close()


@dataclass(frozen=True, slots=True)
class _Desk:
    """The looks of a cell."""

    head: Format
    text: Format
    money: Format
    link: Format


def _made_at(state: State) -> datetime:
    """The time of the last run, so that the same results are the same file."""
    last = state.runs[-1] if state.runs else None
    moment = to_datetime((last.ended_us or last.started_us) if last else 0)
    return max(moment, EPOCH.replace(year=1980)).replace(tzinfo=None)


def _results_sheet(
    sheet: Worksheet, desk: _Desk, folder: Path, rows: Rows, columns: Sequence[str], state: State
) -> None:
    columns = ["poster", *columns][:MAX_COLUMNS]
    _head(sheet, desk, columns, len(rows), frozen=columns.index("id") + 1)
    sheet.set_column_pixels(0, 0, _PICTURE_COLUMN_PX)
    for number, row in enumerate(rows[:MAX_ROWS], start=1):
        record = state.jobs.get(row["job_id"])
        picture = _picture(folder, record.poster if record else None) if number <= MAX_PICTURES else None
        video = _link(row.get("video"))
        if picture is not None:
            sheet.set_row_pixels(number, _PICTURE_ROW_PX)
            options = {"image_data": io.BytesIO(picture), "x_offset": 3, "y_offset": 2, "object_position": 1}
            sheet.insert_image(number, 0, "poster.jpg", options | ({"url": video} if video else {}))
        for column, name in enumerate(columns[1:], start=1):
            if name == "video" and video and number <= MAX_LINKS:
                sheet.write_url(number, column, video, desk.link, string=_fitting(str(row["video"])))
            else:
                _write(sheet, desk, number, column, name, row.get(name))


def _table_sheet(sheet: Worksheet, desk: _Desk, rows: Rows, columns: Sequence[str]) -> None:
    _head(sheet, desk, columns, len(rows))
    for number, row in enumerate(rows[:MAX_ROWS], start=1):
        for column, name in enumerate(columns):
            _write(sheet, desk, number, column, name, row.get(name))


def _summary_sheet(
    sheet: Worksheet, desk: _Desk, summary: Mapping[str, Any], by_class: Rows, notes: Sequence[str]
) -> None:
    sheet.set_column(0, 0, 22)
    sheet.set_column(1, 9, 16)
    facts = [(name, value) for name, value in summary.items() if not isinstance(value, list | dict)]
    for number, (name, value) in enumerate(facts):
        _write(sheet, desk, number, 0, "", name)
        _write(sheet, desk, number, 1, name, value)
    start = len(facts) + 1
    for number, note in enumerate(notes, start=start):
        sheet.write_string(number, 0, note)
    start += len(notes) + 1
    if by_class:
        for column, name in enumerate(classes.COLUMNS):
            sheet.write_string(start, column, name, desk.head)
    for number, row in enumerate(by_class, start=start + 1):
        for column, name in enumerate(classes.COLUMNS):
            _write(sheet, desk, number, column, name, row[name])


def _notes(rows: Rows) -> list[str]:
    """What the workbook leaves out, a sentence each."""
    notes = []
    if len(rows) > MAX_ROWS:
        notes.append(f"A sheet holds {MAX_ROWS:,} of the {len(rows):,} rows; results.csv has all of them.")
    if len(rows) > MAX_PICTURES:
        notes.append(f"The first {MAX_PICTURES:,} rows have pictures; those of the others are in the folder posters.")
    if len(rows) > MAX_LINKS:
        notes.append(f"The first {MAX_LINKS:,} rows have links to their videos.")
    return notes


def _head(sheet: Worksheet, desk: _Desk, columns: Sequence[str], rows: int, frozen: int = 0) -> None:
    sheet.freeze_panes(1, frozen)
    sheet.autofilter(0, 0, min(rows, MAX_ROWS), len(columns) - 1)
    for column, name in enumerate(columns):
        sheet.set_column(column, column, _WIDTHS.get(name, _WIDTH))
        sheet.write_string(0, column, _fitting(name), desk.head)


def _write(sheet: Worksheet, desk: _Desk, row: int, column: int, name: str, value: object) -> None:
    """One cell: numbers as numbers, dollars as money, and every text as nothing but text."""
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value, desk.text)
    elif isinstance(value, int | float) and abs(value) < _MAX_EXACT:  # neither infinite nor rounded
        sheet.write_number(row, column, value, desk.text)
    elif name.endswith("_usd") and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}\.[0-9]{2,6}", value):
        sheet.write_number(row, column, float(value), desk.money)
    else:
        sheet.write_string(row, column, _fitting(str(value)), desk.text)


def _fitting(text: str) -> str:
    """Text that a cell can hold: what is no writing is shown as such, what is too long is cut and says so."""
    clean = _UNPRINTABLE.sub("�", _LINE_ENDS.sub("\n", text))
    units = clean.encode("utf-16-le")
    if len(units) <= 2 * MAX_CELL:
        return clean
    return units[: 2 * (MAX_CELL - 1)].decode("utf-16-le", "ignore") + "…"


def _link(video: str | None) -> str | None:
    """The link to a video from the workbook's folder; None without one, and for a path that is not ours."""
    if not video or not _PLAIN_PATH.fullmatch(video) or names_below(video) is None:
        return None
    return f"external:../{video}"


def _picture(folder: Path, poster: str | None) -> bytes | None:
    """A poster in the size of a cell, as JPEG; None without one that can be read."""
    names = names_below(poster)
    if names is None:
        return None
    with contextlib.suppress(OSError, UnidentifiedImageError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the line below decides
        data = read_file_below(folder, names, _MAX_POSTER)
        if data is None:
            return None
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", _PICTURE)
            image.thumbnail(_PICTURE)
            small = io.BytesIO()
            image.convert("RGB").save(small, "JPEG", quality=80)
            return small.getvalue()
    return None
