"""The workbook, read back by another library than the one that wrote it, and the errors by class."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from openpyxl.utils.escape import unescape
from openpyxl.worksheet.worksheet import Worksheet
from PIL import Image
from report_doubles import event, life, line, run_event, state_of

from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.fold import State
from pipeline.report import workbook
from pipeline.report.classes import NOTHING_TO_DO, errors_by_class
from pipeline.report.lines import Line
from pipeline.report.summary import summarise
from pipeline.report.workbook import write_workbook
from pipeline.report.write import mark_utf8, write_report

HOSTILE = [
    "=1+1",
    "@SUM(A1)",
    "http://evil.example",
    "mailto:x@evil.example",
    "a\x00b\ud800",
    "_x0041_",
    "12",
    "東京 🎬",
]
FAILURE = {"error_class": "generation_failed", "http_status": 422, "detail": "no"}


def stored(job: str, poster: str | None = "posters/a.jpg") -> list[Any]:
    """The life of a stored job with a poster."""
    return [*life("stored", job)[:-1], event("stored", job, poster=poster, path=f"videos/{job}.mp4", bytes=5)]


def write(folder: Path, lines: list[Line], state: State) -> Path:
    return write_workbook(folder, lines, state, summarise(lines, state, cap_microusd=5_000_000, live=False))


def rows_of(sheet: Worksheet) -> list[dict[str, Any]]:
    head, *rows = sheet.iter_rows()
    return [{str(name.value): cell for name, cell in zip(head, row, strict=True)} for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory with a poster, and the same picture outside of it."""
    folder = tmp_path / "run"
    (folder / "posters").mkdir(parents=True)
    for path in (folder / "posters" / "a.jpg", tmp_path / "a.jpg"):
        Image.new("RGB", (640, 360), (200, 90, 30)).save(path)
    return folder


def test_the_results_are_typed_and_no_text_is_more_than_text(folder: Path) -> None:
    """Money is a number of dollars, numbers are numbers, and what looks like a formula, link or number is a string."""
    lines = [line(n, f"j{n}", params={"prompt": text}, variables={"n": n}) for n, text in enumerate(HOSTILE, start=1)]
    state = state_of(*stored("j1"), *life("failed", "j2"))
    book = openpyxl.load_workbook(write(folder, lines, state))
    assert book.sheetnames == ["results", "errors", "summary"]
    rows = rows_of(book["results"])
    shown = [*HOSTILE[:4], "a�b�", *HOSTILE[5:]]
    assert [unescape(row["prompt"].value) for row in rows] == shown
    assert {row["prompt"].data_type for row in rows} == {"s"}
    assert (rows[0]["cost_usd"].value, rows[0]["cost_usd"].number_format) == (1.75, "$#,##0.00####")
    assert (rows[0]["n"].value, rows[0]["duration_s"].value, rows[2]["video"].value) == (1, 5.0, None)
    # As Excel writes it; spreadsheets on other systems turn it round.
    assert rows[0]["video"].hyperlink.target == r"..\videos\j1.mp4"
    assert [row["prompt"].hyperlink for row in rows] == [None] * len(rows)
    assert (book["results"].freeze_panes, book["results"].auto_filter.ref) == ("D2", f"A1:AB{len(rows) + 1}")
    (error,) = rows_of(book["errors"])
    assert (error["error_class"].value, error["attempt"].value) == ("bad_request", 1)
    facts = {row[0].value: row[1].value for row in book["summary"].iter_rows()}
    assert (facts["posted_usd"], facts["stored"], facts["bad_request"]) == (1.75, 1, 1)


def test_every_stored_row_has_its_picture_in_the_size_of_a_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small JPEG that leads to the video; beyond the bound there is none, and the summary says so."""
    lines = [line(n, f"j{n}") for n in range(1, 4)]
    state = state_of(*stored("j1"), *stored("j2"), *stored("j3"))
    monkeypatch.setattr(workbook, "MAX_PICTURES", 2)
    path = write(folder, lines, state)
    with zipfile.ZipFile(path) as parts:
        names = [name for name in parts.namelist() if name.startswith("xl/media/")]
        pictures = [Image.open(io.BytesIO(parts.read(name))) for name in names]
        drawing = parts.read("xl/drawings/drawing1.xml").decode()
        leads_to = parts.read("xl/drawings/_rels/drawing1.xml.rels").decode()
    assert {(each.format, each.size) for each in pictures} == {("JPEG", (112, 63))}
    assert drawing.count("<xdr:pic>") == 2
    assert "../videos/j2.mp4" in leads_to
    notes = [str(cell.value) for cell in openpyxl.load_workbook(path)["summary"]["A"]]
    assert "The first 2 rows have pictures; those of the others are in the folder posters." in notes


def test_a_poster_that_is_none_costs_its_picture_and_nothing_else(folder: Path) -> None:
    """Damaged, missing, outside of the directory, behind a link, or no JPEG."""
    (folder / "posters" / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    Image.new("RGB", (8, 8)).save(folder / "posters" / "png.jpg", "PNG")
    (folder / "posters" / "link.jpg").symlink_to(folder / "posters" / "a.jpg")
    posters = [f"posters/{name}.jpg" for name in ("bad", "png", "link", "none")] + ["../a.jpg", "/etc/passwd", None]
    lines = [line(n, f"j{n}") for n, _ in enumerate(posters)]
    state = state_of(*(each for n, poster in enumerate(posters) for each in stored(f"j{n}", poster)))
    with zipfile.ZipFile(write(folder, lines, state)) as parts:
        assert not [name for name in parts.namelist() if "media" in name]


def test_the_sheets_keep_their_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is cut as Excel counts it, rows beyond the sheet are left out and told, no number is rounded."""
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    variables = {"long": "🎬" * 20_000, "big": 2**60, "odd": float("inf"), "yes": True}
    lines = [line(n, f"j{n}", variables=variables) for n in range(1, 4)]
    book = openpyxl.load_workbook(write(folder, lines, State()))
    rows = rows_of(book["results"])
    assert len(rows) == 2
    assert len(str(rows[0]["long"].value).encode("utf-16-le")) // 2 == 32_767
    assert str(rows[0]["long"].value).endswith("🎬…")
    assert [rows[0][name].value for name in ("big", "odd", "yes")] == [str(2**60), "inf", True]
    notes = [str(cell.value) for cell in book["summary"]["A"]]
    assert "A sheet holds 2 of the 3 rows; results.csv has all of them." in notes


def test_the_same_results_are_the_same_file(folder: Path) -> None:
    """Byte for byte, whenever it is written; nothing else is left in the folder."""
    lines, state = [line(1, "a")], state_of(run_event("run_started"), *stored("a"), run_event("run_ended"))
    first = write(folder, lines, state).read_bytes()
    assert write(folder, lines, state).read_bytes() == first
    assert [path.name for path in (folder / "report").iterdir()] == ["results.xlsx"]
    empty = openpyxl.load_workbook(write(folder, [], State()))
    assert empty["results"].max_row == 1


def test_the_byte_order_mark_comes_on_request_and_once(folder: Path) -> None:
    """Before the header of each CSV file and nowhere else; readers that know UTF-8 see the same table."""
    lines = [line(1, "a", params={"prompt": "東京"})]
    write_report(folder, lines, State(), summarise(lines, State(), cap_microusd=1, live=False))
    plain = (folder / "report" / "results.csv").read_bytes()
    assert plain.startswith(b"row,")
    for _ in range(2):
        mark_utf8(folder)
        assert (folder / "report" / "results.csv").read_bytes() == b"\xef\xbb\xbf" + plain
        assert (folder / "report" / "errors.csv").read_bytes().startswith(b"\xef\xbb\xbfrow,")
    assert pd.read_csv(folder / "report" / "results.csv")["prompt"].tolist() == ["東京"]


def test_errors_are_summed_by_class(folder: Path) -> None:
    """How many attempts of how many jobs, what they cost to the cent, and what to do only where something is left."""
    lines = [line(n, job) for n, job in enumerate("abcdef", start=1)]
    again = [event("reserved", "a", attempt=2), event("submitted", "a", attempt=2), event("posted", "a", attempt=2)]
    state = state_of(
        *(event("reserved", "a"), event("voided", "a", **FAILURE), *again, event("stored", "a", attempt=2)),
        *(event("reserved", "b"), event("voided", "b", **FAILURE)),
        *(*life("in_doubt", "c"), *life("in_doubt", "d"), *life("in_doubt", "e")),
        *life("unfetched", "f"),
    )
    names = ("error_class", "attempts", "jobs", "jobs_open", "billed_usd", "unknown_usd", "not_billed")
    rows = errors_by_class(lines, state)
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("no_reply", 3, 3, 3, "0.00", "5.25", 0),
        ("generation_failed", 2, 2, 1, "0.00", "0.00", 2),
        ("fetch_failed", 1, 1, 1, "1.75", "0.00", 0),
    ]
    assert rows[1]["next"] == ErrorClass.GENERATION_FAILED.advice
    summary = summarise(lines, state, cap_microusd=10_000_000, live=False)
    assert summary["errors_by_class"] == rows
    write_report(folder, lines, state, summary)
    table = pd.read_csv(folder / "report" / "errors-by-class.csv", dtype={"unknown_usd": "string"})
    assert table["unknown_usd"].tolist() == ["5.25", "0.00", "0.00"]
    healed = state_of(event("reserved", "a"), event("voided", "a", **FAILURE), *again, event("stored", "a", attempt=2))
    assert [row["next"] for row in errors_by_class(lines, healed)] == [NOTHING_TO_DO]
