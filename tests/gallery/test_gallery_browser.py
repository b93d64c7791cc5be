"""The gallery in a real browser, opened from the disk as a person would do it in the morning."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from gallery_doubles import every_fate, many, page, write_page
from injections import PAYLOADS, READERS
from playwright.sync_api import Browser, Page, expect
from report_doubles import event, life, line, run_event, state_of

from pipeline.ledger.fold import State

Open = Callable[..., Page]
PATIENCE = 400
"""Looks at a condition, 25 ms apart, before it is given up."""
MISSING = "net::ERR_FILE_NOT_FOUND"
OURS = ("file:", "about:blank")
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What the browser complained of, and every call to anywhere but the disk."""
    return []


@pytest.fixture(scope="module")
def desk(chromium: Browser, complaints: list[str]) -> Page:
    """One page of a usual size, in which the tests follow each other."""
    return listened(chromium.new_page(viewport={"width": 1280, "height": 900}), complaints)


def listened(opened: Page, complaints: list[str]) -> Page:
    def hear(text: str) -> None:
        if not (MISSING in text and "/spring/" not in opened.url):  # pages by hand have no files beside them
            complaints.append(text)

    opened.on("console", lambda message: hear(message.text))
    opened.on("pageerror", lambda error: hear(str(error)))
    opened.on("request", lambda call: None if call.url.startswith(OURS) else hear(call.url))
    return opened


@pytest.fixture
def browse(chromium: Browser, desk: Page, complaints: list[str]) -> Iterator[Open]:
    """`browse(address)`: the page, which must be without a complaint of the browser, and without a call to anywhere.

    With settings, that of a reader who has his own: `viewport`, `color_scheme`, `reduced_motion`.
    """
    complaints.clear()
    own: list[Page] = []

    def go(address: str, **settings: Any) -> Page:
        if settings:
            own.append(listened(chromium.new_page(**settings), complaints))
        opened = own[-1] if settings else desk
        opened.goto("about:blank")  # else another hash were no other page
        opened.goto(address)
        return opened

    yield go
    for opened in own:
        opened.close()
    assert complaints == []


@pytest.fixture
def made(run_folder: Path) -> str:
    """The address of a real run's gallery."""
    return (run_folder / "report" / "index.html").as_uri()


@pytest.fixture
def fates(tmp_path: Path) -> str:
    """The address of a page with a line for every status."""
    return write_page(tmp_path, page(*every_fate()))


def until(opened: Page, condition: str, patience: int = PATIENCE) -> None:
    """Wait until it holds. Playwright's own wait evaluates text inside the page, which the policy forbids."""
    for _ in range(patience):
        if opened.evaluate(condition):
            return
        opened.wait_for_timeout(25)
    pytest.fail(f"this never came to hold: {condition}")


def texts(opened: Page, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in opened.locator(selector).all_text_contents()]


def result(opened: Page) -> str:
    return opened.locator(".result").inner_text()


def test_it_opens_from_the_disk_and_shows_what_there_is(browse: Open, made: str) -> None:
    """Every poster is there, and the money, the counts and the name are the run's."""
    opened = browse(made)
    assert opened.title() == "spring"
    until(opened, "[...document.images].length == 8 && [...document.images].every(i => i.naturalWidth > 0)")
    assert texts(opened, ".big") == ["$17.50 of a cap of $40.00", "8 of 8 videos stored"]
    assert result(opened) == "8 clips · $17.50 posted"
    assert texts(opened, ".card .cost") == ["$1.75"] * 6 + ["$3.50"] * 2
    assert texts(opened, ".card .words")[0] == "mug · cozy · 5 s · 16:9"
    assert texts(opened, ".card .words")[-1] == "take 2 · 10 s · 9:16"


def test_a_click_plays_the_clip_where_it_is(browse: Open, made: str) -> None:
    """It goes on playing, one at a time, and Escape brings the poster back."""
    opened = browse(made)
    opened.locator(".card .face").nth(1).click()
    until(opened, "document.querySelector('.frame video').currentTime > 0.2")
    assert opened.locator(".card").nth(1).locator("video").count() == 1
    opened.locator(".card .face").first.click()
    until(opened, "document.querySelector('.card video').currentTime > 0.1")
    assert opened.locator(".card video").count() == 1
    opened.keyboard.press("Escape")
    assert opened.locator(".card video").count() == 0
    assert opened.locator(".card .face img").count() == 8


def test_filters_search_and_the_address(browse: Open, made: str) -> None:
    """A value, a tag, words, one column; the sums follow, and the address brings it all back."""
    opened = browse(made)
    opened.locator("[data-name='is.v.mood']").select_option(label="bold  (2)")
    assert result(opened) == "2 of 8 clips · $3.50 posted"
    opened.locator("[data-name='is.v.tags']").select_option(label="none  (2)")
    assert "Nothing fits" in opened.locator(".empty").inner_text()
    opened.get_by_role("button", name="Clear filters").click()
    assert result(opened) == "8 clips · $17.50 posted"
    for typed, fitting in (("LAMP cozy", 1), ("mood:bold", 2), ('"film of a mug"', 3), ("9:16", 2), ("no such", 0)):
        opened.locator("#search").fill(typed)
        assert opened.locator(".card").count() == fitting, typed
    opened.locator("#search").fill("mug")
    opened.locator("[data-name='group']").select_option("v.mood")
    opened.locator("[data-name='sort']").select_option("newest")
    opened.reload()
    assert opened.locator("#search").input_value() == "mug"
    assert texts(opened, "#view h2") == ["cozy 1 clip · $1.75", "bold 1 clip · $1.75", "calm 1 clip · $1.75"]


def test_the_grid_adds_up(browse: Open, made: str, run_folder: Path) -> None:
    """The two axes of the sweep are taken at first; every cell has its posters and its cost; a click leads to it."""
    opened = browse(f"{made}#view=grid")
    assert texts(opened, "thead th") == ["mug", "lamp", "none"]
    assert texts(opened, "tbody th") == ["cozy", "bold", "calm", "none"]
    cells = texts(opened, "tbody td .money")
    assert cells == ["$1.75 · 1 clip"] * 6 + ["$7.00 · 2 clips"]
    with (run_folder / "report" / "results.csv").open(newline="") as file:
        bill = sum(Decimal(row["cost_usd"]) for row in csv.DictReader(file))
    assert sum(Decimal(cell.split()[0][1:]) for cell in cells) == bill
    opened.locator("[data-name='rows']").select_option("v.tags")
    opened.locator("[data-name='columns']").select_option("v.duration")
    assert texts(opened, "tbody td .money") == ["$10.50 · 6 clips"] * 2 + ["$7.00 · 2 clips"]
    assert opened.locator("tbody tr").first.locator("td .thumb").count() == 4
    opened.locator("tbody td .money").last.click()
    assert result(opened) == "2 of 8 clips · $7.00 posted"


def test_compared_clips_play_in_step(browse: Open, made: str) -> None:
    """One button and one scrubber for all; the shorter one waits at its end; no fifth is taken."""
    opened = browse(made)
    for number in (0, 1, 6, 7):
        opened.locator(".card").nth(number).focus()
        opened.keyboard.press("c")
    opened.locator(".card").nth(2).focus()
    opened.keyboard.press("c")
    assert opened.locator("#said").inner_text() == "No more than 4 clips are compared at once."
    opened.keyboard.press("Shift+C")
    until(opened, "[...document.querySelectorAll('.panes video')].every(v => v.readyState >= 2)")
    times = "[...document.querySelectorAll('.panes video')].map(v => v.currentTime)"
    opened.locator("#step").click()
    until(opened, f"{times}.every(t => t > 0.3)")
    opened.evaluate("document.querySelector('.panes video').currentTime = 3")
    # Soon: when the longest begins anew, all do.
    until(opened, f"{times}.every((t, _, all) => Math.abs(t - all[3]) < 0.15)", patience=60)
    opened.evaluate("document.querySelector('.panes video').currentTime = 3; byId('step').click()")
    until(opened, f"{times}.every((t, _, all) => Math.abs(t - all[3]) < 0.02)")
    assert opened.evaluate("[...document.querySelectorAll('.panes video')].every(v => v.paused)")
    opened.locator(".scrub").fill("3.5")
    assert {round(at, 1) for at in opened.evaluate(times)} == {3.5}
    opened.locator(".scrub").fill("8")
    assert [round(at, 1) for at in opened.evaluate(times)] == [5.0, 5.0, 8.0, 8.0]
    opened.keyboard.press("Escape")
    assert opened.locator("dialog[open]").count() == 0


def test_the_keyboard_is_enough(browse: Open, made: str) -> None:
    """Arrows go, Enter and Space play and pause, `/` searches, `i` tells all, `?` helps, Escape goes back."""
    opened = browse(made)
    press = opened.keyboard.press
    active = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    press("ArrowRight")
    press("ArrowRight")
    assert opened.evaluate(active) == 1
    press("ArrowDown")
    below = opened.evaluate(active)
    assert below > 2
    press("ArrowUp")
    assert opened.evaluate(active) < below
    press("ArrowLeft")
    press("Enter")
    until(opened, "document.querySelector('.frame video')?.currentTime > 0.05")
    press(" ")
    assert opened.evaluate("document.querySelector('.frame video').paused")
    press("Escape")
    press("i")
    expect(opened.locator("#details")).to_be_visible()
    assert "A cozy film of a mug" in opened.locator("#details").inner_text()
    press("ArrowRight")
    assert "A bold film of a mug" in opened.locator("#details").inner_text()
    press("Escape")
    press("?")
    expect(opened.locator("#help")).to_be_visible()
    press("Escape")
    press("2")
    assert opened.locator(".grid").count() == 1
    press("/")
    opened.keyboard.type("hero?")
    assert opened.locator("#search").input_value() == "hero?"
    press("Escape")
    assert opened.evaluate("document.activeElement === document.body")


def test_all_that_can_be_reached_has_a_name(browse: Open, made: str) -> None:
    """Buttons, fields and pictures speak for themselves, and what has the focus is outlined."""
    opened = browse(made)
    nameless = """[...document.querySelectorAll('button, input, select, article')].filter(e =>
        !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length"""
    assert opened.evaluate(nameless) == 0
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "face"


@pytest.mark.parametrize("view", ["wall", "grid", "numbers"])
def test_a_phone_needs_no_sideways_scroll(browse: Open, fates: str, view: str) -> None:
    """At 360 pixels everything is within the width, the filters too."""
    opened = browse(f"{fates}#view={view}", viewport=PHONE)
    assert not opened.locator("#filters").is_visible()
    opened.locator("#more").click()
    assert opened.locator("#filters").is_visible()
    assert opened.evaluate("document.documentElement.scrollWidth") == 360


def test_dark_is_dark_and_light_is_light(browse: Open, fates: str) -> None:
    """The page follows the reader's system, and its texts can be told from its paper."""
    for scheme, order in (("light", 1), ("dark", -1)):
        opened = browse(fates, color_scheme=scheme)
        paper, ink = (
            sum(map(int, re.findall(r"\d+", opened.evaluate(f"getComputedStyle(document.body).{name}"))[:3]))
            for name in ("backgroundColor", "color")
        )
        assert (paper - ink) * order > 500


def test_nothing_moves_for_those_who_asked_for_calm(browse: Open, fates: str) -> None:
    """With reduced motion there is no transition."""
    moving = browse(fates).evaluate("getComputedStyle(document.querySelector('.glyph')).transitionDuration")
    opened = browse(fates, reduced_motion="reduce")
    calm = opened.evaluate("getComputedStyle(document.querySelector('.glyph')).transitionDuration")
    assert (moving, calm) == ("0.15s", "0s")


def test_what_has_no_video_says_why(browse: Open, fates: str) -> None:
    """Failed, in doubt, unfetched and pending stand in the wall and in the grid with class and sentence."""
    opened = browse(fates)
    for fate, said in (
        ("failed", "failed bad_request cfg_scale is out of range"),
        ("in_doubt", "in doubt no_reply silence"),
        ("unfetched", "paid, not yet on disk fetch_failed not there"),
        ("pending", "pending Not started yet."),
    ):
        assert texts(opened, f".card.{fate} .face")[0].replace("cfg", " cfg").replace("  ", " ").startswith(said[:9])
        assert all(word in texts(opened, f".card.{fate} .face")[0] for word in said.split())
    chip = opened.locator(".chip.failed")
    chip.click()
    assert (opened.locator(".card").count(), chip.get_attribute("aria-pressed")) == (1, "true")
    opened.locator(".card .caption").click()
    assert "Correct the row and run again." in opened.locator("#details").inner_text()
    opened.keyboard.press("Escape")
    opened.keyboard.press("2")
    assert texts(opened, "td .note") == ["1 failed: bad_request"]
    opened.keyboard.press("3")
    assert len(texts(opened, ".numbers .trouble")) == 4


def test_the_numbers_are_drawn(browse: Open, fates: str) -> None:
    """Money, videos and generation times, each as a picture that says its outcome in words."""
    opened = browse(f"{fates}#view=numbers")
    said = [opened.locator(".chart svg").nth(number).get_attribute("aria-label") for number in range(3)]
    assert [str(text).split(" after")[0] for text in said[:2]] == ["$3.50 posted", "1 stored"]
    assert said[2] == "Generations took 300.2 to 300.2 s, half of them no more than 300.2 s"
    assert opened.locator(".chart .bar").count() == 1


def test_hostile_texts_stay_texts(browse: Open, tmp_path: Path) -> None:
    """As id, prompt, variable, its name, error and name of the directory: nothing runs, nothing is made of it."""
    lines, events = [], []
    for row, text in enumerate(PAYLOADS):
        job = f"j{row}"
        lines.append(line(row + 1, job, id=text, params={"prompt": text}, variables={"v": text, text[:60]: "x"}))
        said = text.encode("utf-8", "replace").decode()
        events += [event("reserved", job), event("voided", job, error_class=said[:60], detail=said)]
    ours = "[...document.querySelectorAll('script, img, svg, iframe, object, embed, link, base, a')].map(e => e.id)"
    opened = browse(write_page(tmp_path, page(lines, state_of(*events), PAYLOADS[-1] + "<img src=x>")))
    assert opened.evaluate(ours) == ["", "data", ""], "the link to the clips and two scripts"
    assert opened.locator(".card").count() == 60
    for view in ("grid", "numbers"):
        opened.evaluate(f"change({{ view: '{view}' }})")
        assert set(opened.evaluate("[...document.querySelectorAll('script, img, iframe')].map(e => e.id)")) == {
            "data",
            "",
        }
    for text in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>"):
        opened.evaluate(f"openDetails({PAYLOADS.index(text)})")
        assert opened.locator("#details h2").inner_text().strip() == text
        assert opened.locator("#details dd", has_text=text).count() >= 3
    assert len(READERS) > 20


def test_ten_thousand_clips_stay_usable(browse: Open, tmp_path: Path) -> None:
    """A page of them is in the document at a time, in every view; filters and keys reach all."""
    opened = browse(write_page(tmp_path, page(*many(10_000))) + "#status=pending")
    size = "document.getElementsByTagName('*').length"
    assert result(opened).startswith("754 of 10,000 lines, none with a video")
    opened.get_by_role("button", name="Clear filters").click()
    assert opened.locator(".card").count() == 60
    assert opened.evaluate(size) < 2_500
    assert opened.locator(".pager span").inner_text() == "Page 1 of 167"
    opened.locator(".card").last.focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator(".pager span").inner_text() == "Page 2 of 167"
    assert opened.evaluate("document.activeElement.dataset.index") == "60"
    opened.locator("#search").fill("row-9999")
    assert opened.locator(".card").count() == 1
    opened.evaluate("change({ q: '', view: 'grid', rows: 'v.product', columns: 'v.mood' })")
    assert opened.locator("tbody td").count() == 31 * 5
    assert opened.evaluate(size) < 6_000
    assert opened.evaluate("poster(1).loading") == "lazy"


def test_the_top_says_what_kind_of_run_it_is(browse: Open, tmp_path: Path) -> None:
    """A sandbox, one that is still going on and as of when, one that was cut off, one that stopped, one of nothing."""
    begun = run_event("run_started", '{"provider": "sandbox"}')
    ended = run_event("run_ended", '{"exit_code": 3, "stopped_by": "limit", "message": "the limit is reached: 1 job"}')
    given = [line(1, "a"), line(2, "b")]

    def notices(written: bytes) -> str:
        return " | ".join(texts(browse(write_page(tmp_path, written)), "#head .notice"))

    alive = notices(page(given, state_of(begun), live=True, now_us=1_750_000_060_000_000))
    assert "Sandbox run: no money moved." in alive
    assert "The run is still going on. This is how it stood on 15 Jun 2025" in alive
    assert "was cut off before its end" in notices(page(given, state_of(begun)))
    assert "The run stopped: the limit is reached: 1 job." in notices(page(given, state_of(begun, ended)))
    assert notices(page([], State())) == ""


def test_too_many_lines_are_told(browse: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says how many it holds, and that the money is that of all."""
    monkeypatch.setattr("pipeline.report.gallery.MOST_LINES", 2)
    lines = [line(row, f"j{row}") for row in range(1, 5)]
    written = page(lines, state_of(*life("stored", "j3"), *life("stored", "j4"), *life("stored", "j1")))
    opened = browse(write_page(tmp_path, written))
    assert "This page holds 2 of 4 lines" in texts(opened, "#head .notice")[0]
    assert texts(opened, ".big")[0].startswith("$5.25")


def test_without_posters_the_first_frames_are_shown(browse: Open, run_folder: Path) -> None:
    """A run that verifies containers only has no posters: the clips in view show their first picture instead."""
    video = next((run_folder / "videos").iterdir()).name
    stored = event("stored", "a", path=f"videos/{video}")
    written = page([line(1, "a")], state_of(*life("stored", "a")[:-1], stored))
    (run_folder / "report" / "bare.html").write_bytes(written)
    opened = browse((run_folder / "report" / "bare.html").as_uri())
    until(opened, "document.querySelector('video.poster').readyState >= 1")


def test_a_charge_above_its_quote_is_told_of_its_clip(browse: Open, tmp_path: Path) -> None:
    """The clip says what was charged and what was quoted; what is for rows that are gone is told beside the sum."""
    dear = [*life("stored", "a")[:2], event("posted", "a", cost_microusd=3_500_000), event("stored", "a")]
    state = state_of(*dear, *life("stored", "b"), *life("stored", "gone"))
    opened = browse(write_page(tmp_path, page([line(1, "a"), line(2, "b")], state)))
    opened.locator(".card .caption").first.click()
    assert "charged $3.50, quoted $1.75" in opened.locator("#details").inner_text()
    opened.keyboard.press("ArrowRight")
    assert "quoted" not in opened.locator("#details").inner_text()
    assert texts(opened, ".tile .note") == [
        "$1.75 of it was charged above the quotes.",
        "$1.75 of it is for jobs that the manifest no longer asks for.",
    ]


def test_what_a_trouble_says_is_not_said_of_those_that_say_otherwise(browse: Open, tmp_path: Path) -> None:
    """The box quotes what most of them say, and counts the others."""
    events = []
    for job, said in (("a", "cfg_scale is 2"), ("b", "Unsupported"), ("c", "Unsupported")):
        refused = {"error_class": "bad_request", "http_status": 400, "detail": said}
        events += [event("reserved", job), event("voided", job, **refused), event("failed", job, **refused)]
    written = page([line(row, job) for row, job in enumerate("abc", start=1)], state_of(*events))
    opened = browse(write_page(tmp_path, written))
    assert texts(opened, "#head .says") == ["“Unsupported” and 1 that says otherwise"]


def test_a_line_without_a_video_is_no_clip(browse: Open, fates: str) -> None:
    """The wall, its groups and the cells of the grid count lines, and how many of them have a video."""
    opened = browse(fates)
    assert result(opened).startswith("6 lines, 1 with a video · ")
    opened.locator(".chip.failed").click()
    assert result(opened).startswith("1 of 6 lines, none with a video · ")
    opened.evaluate("change({ statuses: [], group: 'v.shape' })")
    assert {text.split(" · ")[0] for text in texts(opened, "#view h2 small")} == {
        "3 lines, 1 with a video",
        "3 lines, none with a video",
    }
    opened.evaluate("change({ view: 'grid', rows: 'v.shape', columns: 'status' })")
    assert {text.split(" · ")[1] for text in texts(opened, "tbody td .money")} == {
        "1 clip",
        "1 line, none with a video",
    }


def test_a_value_from_right_to_left_moves_no_other(browse: Open, tmp_path: Path) -> None:
    """In a caption the values stand in their order, each by itself."""
    lines = [
        line(row, f"j{row}", params={"duration": length}, variables={"mood": "cozy", "word": word})
        for row, length, word in ((1, 5, "שקט"), (2, 10, "רעש"))
    ]
    opened = browse(write_page(tmp_path, page(lines, State())))
    assert texts(opened, ".card .words")[0] == "שקט · 5 s"
    places = opened.evaluate(
        "[...document.querySelector('.card .words').querySelectorAll('bdi')].map(e => e.getBoundingClientRect().x)"
    )
    assert len(places) == 2
    assert places == sorted(places)


def test_the_tab_key_alone_reaches_the_clips(browse: Open, made: str) -> None:
    """The first card is on its way from the beginning, and then the one that was last looked at, and no other."""
    reachable = "[...document.querySelectorAll('.card')].map((e, i) => e.tabIndex === 0 ? i : -1).filter(i => i >= 0)"
    opened = browse(made)
    assert opened.evaluate(reachable) == [0]
    assert opened.evaluate("document.activeElement === document.body")
    opened.locator("#filters select").last.focus()
    for _ in range(4):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.matches('.card')"):
            break
    assert opened.evaluate("document.activeElement.dataset.index") == "0"
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate(reachable) == [1]
