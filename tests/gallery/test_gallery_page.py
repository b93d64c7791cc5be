"""What a page knows: every cent, every line and every reason, and no more than it can carry."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from gallery_doubles import CAP, every_fate, facts_of, many, page
from report_doubles import NOON_US, QUOTE, event, life, line, run_event, state_of

from pipeline.ledger.fold import State, fold
from pipeline.report import gallery
from pipeline.report.charts import MOST_BARS, MOST_POINTS, generation_times, money_over_time

TEMPLATES = Path(gallery.__file__).parent


def test_the_money_of_a_page_is_the_ledgers() -> None:
    """Whole micro-dollars: posted, in doubt, reserved and cap of the summary, and the lines add up to them."""
    lines, state = every_fate()
    facts = facts_of(page(lines, state, live=True))
    none = {"above_quotes": 0, "no_longer_asked": 0}
    assert facts["money"] == none | {"posted": 2 * QUOTE, "reserved": QUOTE, "in_doubt": QUOTE, "cap": CAP}
    assert sum(facts["lines"]["micro"]) == facts["series"]["micro"][-1] == state.books.posted
    assert sum(facts["lines"]["held"]) == 2 * QUOTE
    assert facts["counts"] == dict.fromkeys(("stored", "failed", "in_doubt", "unfetched", "running", "pending"), 1)


def test_lines_that_share_a_job_are_billed_once() -> None:
    """The first has the cost, the other says that it shares."""
    facts = facts_of(page([line(1, "a"), line(2, "a")], state_of(*life("stored", "a"))))
    assert (facts["lines"]["micro"], facts["lines"]["shares"]) == ([QUOTE, 0], [0, 1])


def test_what_is_not_well_says_why_and_what_to_do() -> None:
    """Failed, in doubt, unfetched, cut off and never started: each has its class, its sentence and its advice."""
    lines, state = every_fate()
    facts = facts_of(page(lines, state))
    columns = facts["lines"]
    said = {
        lines[index].id: [columns[name]["v"][columns[name]["i"][index]] for name in ("class", "says", "advice")]
        for index in range(len(lines))
    }
    assert said["failed"][:2] == ["bad_request", "cfg_scale is out of range"]
    assert said["in_doubt"][0] == "no_reply"
    assert "the provider's history settles it" in said["in_doubt"][2]
    assert said["unfetched"][:2] == ["fetch_failed", "not there"]
    assert said["running"][2] == "It was at the provider when the run ended. Run again to collect it."
    assert said["pending"] == [None, "Not started yet.", None]
    assert said["stored"] == [None, None, None]
    assert [(each["status"], each["class"], each["jobs"], each["micro"]) for each in facts["trouble"]] == [
        ("failed", "bad_request", 1, 0),
        ("in_doubt", "no_reply", 1, QUOTE),
        ("unfetched", "fetch_failed", 1, QUOTE),
        ("running", None, 1, QUOTE),
    ]
    reserved = facts_of(page([line(1, "a")], state_of(*life("reserved", "a"))))
    assert [(each["status"], each["class"]) for each in reserved["trouble"]] == [("in_doubt", "interrupted")]


def test_a_job_that_was_not_started_says_what_stopped_the_run() -> None:
    """The cap, the clock or the limit, in the run's own sentence."""
    ended = run_event("run_ended", '{"message": "the cap of $5.00 leaves $0.25", "stopped_by": "cap"}')
    facts = facts_of(page([line(1, "a")], state_of(run_event("run_started"), ended)))
    assert facts["lines"]["says"]["v"] == ["Not started: the cap of $5.00 leaves $0.25"]


def test_the_policy_allows_this_script_and_this_style_alone() -> None:
    """Their hashes are those of what stands in the page, and nothing may come from elsewhere."""
    written = page(*every_fate()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', written)
    assert policy is not None
    for tag, directive in (("<style>", "style-src"), ("<script>", "script-src")):
        content = written.split(tag)[1].split("</")[0] if tag == "<style>" else written.rsplit(tag, 1)[1]
        text = content.removesuffix("</script>\n</body>\n</html>\n")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    assert not re.search(r"unsafe|https?:|data:|\*", policy[1])


def test_the_script_makes_no_markup_of_data() -> None:
    """None of the doors by which a text becomes markup or code is in it, and nothing that would end its element."""
    script = (TEMPLATES / "gallery.js").read_text()
    doors = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc|DOMParser|</|<!--"
    assert not re.search(doors, script)
    assert not re.search(r"@import|url\(", (TEMPLATES / "gallery.css").read_text())


HOSTILE = "</script><script>alert(1)</script><!--\u2028\u2029 a\ud800\x00\u202e @SCRIPT@ @DATA@"


def test_no_text_ends_the_data_or_fills_a_slot() -> None:
    """Whatever a manifest or provider says, the data stays one element of JSON, and the text comes back whole."""
    state = state_of(
        event("reserved"), event("voided", error_class="bad_request", detail=HOSTILE.replace("\ud800", ""))
    )
    given = [line(1, "a", id="x", params={"prompt": HOSTILE}, variables={HOSTILE: HOSTILE})]
    written = page(given, state, HOSTILE)
    assert written.count(b"</script>") == 2
    assert not re.search("[\u2028\u2029\u202e\x00]", written.decode())
    facts = facts_of(written)
    shown = {each["name"]: each["v"] for each in facts["fields"]}
    clean = "</script><script>alert(1)</script><!--�� a?�� @SCRIPT@ @DATA@"
    assert (facts["name"], shown["prompt"], shown[clean]) == (clean, [clean], [clean])
    assert facts["lines"]["says"]["v"] == [clean.replace("?", "")]


def test_addresses_lead_to_files_beside_the_page_only() -> None:
    """A path of the ledger is an address relative to the page, whatever characters it has."""
    stored = event("stored", "a", path='videos/a b?#%"<.mp4', poster="posters/é.jpg")
    state = state_of(*life("stored", "a")[:-1], stored)
    facts = facts_of(page([line(1, "a")], state))
    assert facts["lines"]["video"] == ["../videos/a%20b%3F%23%25%22%3C.mp4"]
    assert facts["lines"]["poster"] == ["../posters/%C3%A9.jpg"]


def test_values_of_all_kinds_are_shown_as_text() -> None:
    """A number of any size, a truth, nothing at all: as in results.csv; 1 and true are two values."""
    values = [10**30, True, None, 0.5, 1, "東京"]
    lines = [line(row, f"j{row}", variables={"v": value}) for row, value in enumerate(values)]
    field = next(each for each in facts_of(page(lines, State()))["fields"] if each["name"] == "v")
    assert [field["v"][index] for index in field["i"]] == [str(10**30), "true", None, "0.5", "1", "東京"]


def test_of_too_many_lines_those_with_something_to_show_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos and failures come before what was never started; the order stays, and the counts are of all."""
    monkeypatch.setattr(gallery, "MOST_LINES", 3)
    lines = [line(row, f"j{row}") for row in range(1, 7)]
    state = state_of(*life("failed", "j2"), *life("stored", "j5"))
    facts = facts_of(page(lines, state))
    assert facts["lines"]["row"] == [1, 2, 5]
    assert (facts["total"], facts["jobs"], facts["counts"]["pending"]) == (6, 6, 4)


def test_long_texts_and_many_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text ends in `…`, more briefly where all of them would be too much; the parameters are among the columns."""
    lines = [line(row, f"j{row}", variables={f"v{n}": "x" * 3_000 for n in range(100)}) for row in range(2)]
    fields = facts_of(page(lines, State()))["fields"]
    assert len(fields) == gallery.MOST_FIELDS
    assert {"prompt", "aspect_ratio"} <= {each["name"] for each in fields}
    assert {len(each["v"][0]) for each in fields if each["name"].startswith("v")} == {1_000}
    monkeypatch.setattr(gallery, "MOST_CHARACTERS", 20_000)
    fields = facts_of(page(lines, State()))["fields"]
    assert {each["v"][0] for each in fields if each["name"] == "v1"} == {"x" * 199 + "…"}


def test_ten_thousand_lines_are_a_few_megabytes() -> None:
    """What is said many times is written once: a line with a prompt of its own takes less than 400 bytes."""
    assert len(page(*many(1_100))) - len(page(*many(100))) < 400 * 1_000


def test_the_line_of_the_money_ends_at_the_bill() -> None:
    """However many points are left out; it never falls, and pauses between runs are cut out."""
    events = [run_event("run_started"), *(each for n in range(1_000) for each in life("stored", f"j{n}"))]
    first = state_of(*events, run_event("run_ended"))
    series = money_over_time(first, None)
    assert len(series["at_s"]) <= MOST_POINTS + 1
    assert (series["micro"][-1], series["stored"][-1]) == (1_000 * QUOTE, 1_000)
    assert series["micro"] == sorted(series["micro"])
    assert series["at_s"] == sorted(series["at_s"])
    later = [run_event("run_started"), *life("stored", "late"), run_event("run_ended")]
    moved = [each._replace(at_us=NOON_US + 3_600_000_000 + n * 1_000_000) for n, each in enumerate(later)]
    plain = [each._replace(at_us=NOON_US + n * 1_000) for n, each in enumerate([*events, run_event("run_ended")])]
    both = money_over_time(fold(each._replace(seq=n) for n, each in enumerate([*plain, *moved], start=1)), None)
    assert both["breaks_s"] == [4.0]
    assert both["at_s"][-1] == 9.0
    assert both["micro"][-1] == 1_001 * QUOTE


def test_a_run_that_is_live_or_was_killed_has_a_line_too() -> None:
    """A live one goes up to the present, a killed one to the last that is known of it."""
    state = state_of(run_event("run_started"), *life("stored", "a"))
    assert money_over_time(state, NOON_US + 60_000_000)["at_s"][-1] == 60.0
    assert money_over_time(state, None)["micro"][-1] == QUOTE
    assert money_over_time(State(), None) == {"at_s": [0.0], "micro": [0], "stored": [0], "breaks_s": []}


def test_every_generation_is_in_a_bar() -> None:
    """Few bars of round width, from the shortest to the longest; what no generation takes is left out."""
    took = [100.0 + n * 7 for n in range(60)] + [1e300, -5.0]
    events = []
    for n, seconds in enumerate(took):
        reserved, submitted, posted, stored = life("stored", f"j{n}")
        events += [reserved, submitted, posted._replace(inference_s=seconds), stored]
    times = generation_times(state_of(*events))
    assert times is not None
    assert sum(times["counts"]) == 60
    assert len(times["counts"]) <= MOST_BARS + 1
    assert (times["from_s"], times["step_s"], times["least_s"], times["most_s"]) == (100, 20, 100.0, 513.0)
    assert generation_times(State()) is None
