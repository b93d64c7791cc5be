"""What a rehearsal shows: on the terminal, as JSON, and as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rehearse_doubles import Rehearse

from pipeline.cli import main
from pipeline.cli.rehearse_screen import night_screen, plot
from pipeline.rehearsal import Scenario
from pipeline.rehearsal.chart import clock_time, night_svg, ticks, time_ticks

SVG = "{http://www.w3.org/2000/svg}"

TROUBLED = Scenario(faults={"submit_500": 0.3, "gen_failed": 0.2, "poll_429": 0.2, "file_cut": 0.2, "poll_drop": 0.1})

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("m.csv", "--json")` rehearses in an empty working directory without a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGMIND_API_KEY", raising=False)
    (tmp_path / "m.csv").write_text("prompt\na lamp\na mug\n")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kling-batch", "rehearse", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


def test_the_screen_says_what_it_is_and_fits_into_80_columns(play: Rehearse) -> None:
    """Also where much goes wrong, and the cap stops it."""
    screen = night_screen("spring\x1b[2J", play(15, scenario=TROUBLED, budget__cap_usd="20"))
    lines = screen.split("\n")
    assert lines[0] == "REHEARSAL: no request leaves this machine and no money moves."
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in screen
    assert "exit 3" in screen
    assert "$0.75 of $20.00" in screen


def test_a_plot_fills_its_rows_with_the_largest_value() -> None:
    """Eighths of a row show what is between; nothing at all is an empty plot."""
    assert plot([0, 1, 2, 4], 2) == ["   █", " ▄██"]
    assert plot([0, 0], 1) == ["  "]


def test_the_picture_is_whole_in_itself_and_tells_what_it_is(play: Rehearse) -> None:
    """Well-formed whatever the campaign is called, with three lines, and nothing that is fetched from anywhere."""
    text = night_svg("<a & b>", play(3, budget__cap_usd="4"))
    root = ElementTree.fromstring(text)
    words = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert words[0].startswith("REHEARSAL")
    assert any(word.startswith("<a & b>: 2 stored for $3.50") for word in words)
    assert "the cap" in words
    assert "stopped: cap" in words
    assert len(list(root.iter(f"{SVG}polyline"))) == 3
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text
    assert "url(" not in text


def test_every_point_of_the_picture_is_inside_it(play: Rehearse) -> None:
    """No line leaves its panel, though it goes on until the last moment."""
    root = ElementTree.fromstring(night_svg("a", play(4)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert all(0 < x < width and 0 < y < height for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_axes_are_marked_at_round_numbers() -> None:
    """Whole counts, and times as people say them."""
    assert ticks(43.2, 4) == [0, 20, 40]
    assert ticks(1.1, 4) == [0, 1]
    assert time_ticks(8 * 3600) == [3600.0 * hour for hour in range(9)]
    assert len(time_ticks(90 * 86400)) <= 9
    assert [clock_time(at) for at in (0, 30, 600, 7200, 9000, 5 * 86400)] == [
        "0", "30 s", "10 min", "2 h", "2 h 30", "5 days",
    ]  # fmt: skip


def test_json_has_every_number_and_the_series(command: Command, tmp_path: Path) -> None:
    """With series of one length that end where the numbers do; exit 0, for it was played."""
    code, out, _ = command("m.csv", "--json", "--budget-usd", "2", "--svg", "night.svg")
    told = json.loads(out)
    series = told["series"]
    assert (code, told["rehearsal"], told["exit_code"], told["stopped_by"]) == (0, True, 3, "cap")
    assert len({len(values) for values in series.values()}) == 1
    assert (series["stored"][-1], series["spent_usd"][-1]) == (1, "1.75") == (told["stored"], told["cost_usd"])
    assert told["calls"]["submit"] == told["calls"]["file"] == 1
    assert (tmp_path / "night.svg").read_text().startswith("<svg")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "submit_50=0.1"], "did you mean submit_500?"),
        (["--fault", "submit_500=2"], "must be 0 to 1"),
        (["--sigma", "-1"], "sigma must be a finite number"),
        (["--mean-s", "1e308"], "mean_s must be at most 7,200 in a rehearsal, not 1e+308"),
        (["--set", "polling.expected_s=10000000"], "polling.expected_s must be at most 7,200"),
        (["--svg", "night.png"], "does not end in .svg"),
        (["--svg", "nowhere/night.svg"], "there is no folder nowhere"),
        (["--set", "provider.kind=segmind"], "needs a cap"),
    ],
)
def test_a_mistake_is_told_before_anything_is_played(command: Command, arguments: list[str], words: str) -> None:
    """In one sentence with exit 2."""
    code, out, err = command("m.csv", *arguments)
    assert (code, out) == (2, "")
    assert words in err
