"""What the command line refuses at once, and says at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`kling("plan", "m.csv")` in an empty working directory with a manifest and a file; code and streams."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_text("prompt\na lamp\na mug\n")
    (tmp_path / "afile").write_text("")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kling-batch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


FOR_HERE = "leave it out for outputs/<name>, or use -o . for the current folder"


@pytest.mark.parametrize("verb", ["plan", "rehearse"])
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("afile", "afile is a file, not a folder: name another run directory (-o)"),
        ("afile/below", "afile is a file, not a folder: name another run directory (-o)"),
        ("/", "/ is the root of the disk: name a folder for the run (-o)"),
        ("//", "// is the root of the disk: name a folder for the run (-o)"),
        ("loop", "loop is a link that leads nowhere: name another run directory (-o)"),
        ("nowhere/below", "nowhere is a link that leads nowhere: name another run directory (-o)"),
        ("", f"-o is empty (an unset shell variable?); {FOR_HERE}"),
    ],
)
def test_what_can_be_no_run_directory_is_refused(kling: Command, verb: str, out: str, said: str) -> None:
    """With a remedy. What a plan is refused for, a run is refused for; it is not tried where it could write."""
    for name in ("loop", "nowhere"):
        Path(name).symlink_to("loop" if name == "loop" else "gone")
    assert kling(verb, "m.csv", "-o", out) == (2, "", f"kling-batch: {said}. Nothing was sent.\n")
    assert sorted(path.name for path in Path().iterdir()) == ["afile", "loop", "m.csv", "nowhere"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rpm", "9999999999"), "must be at most 1,000,000,000, not 9999999999"),
        (("-j", "99999999999999999999"), "must be at most 1,000,000, not 99999999999999999999"),
        (("--rpm", "1e9"), "'1e9' is not a plain number: write it in digits, like 50 or 0.5"),
    ],
)
def test_a_number_out_of_bounds_is_told_its_bound(kling: Command, flags: tuple[str, str], said: str) -> None:
    """However long it is; one that is written in another way is told how."""
    code, _, told = kling("plan", "m.csv", *flags)
    assert (code, said in told) == (2, True), told


def test_a_spread_that_no_night_has_is_refused(kling: Command) -> None:
    assert kling("rehearse", "m.csv", "--sigma", "1e9") == (
        2, "", "kling-batch: sigma must be at most 3 in a rehearsal, not 1e+09; 0.3 is the usual\n",
    )  # fmt: skip


def test_the_version_is_told(kling: Command) -> None:
    """As every command tells it."""
    from importlib.metadata import version

    assert kling("--version") == (0, f"kling-batch {version('kling-batch')}\n", "")


def test_a_sandbox_says_which_path_is_in_its_way(kling: Command) -> None:
    """The reason alone would not say where."""
    assert kling("sandbox", "--state-dir", "afile") == (
        2, "", "kling-batch: the sandbox cannot be served: afile: File exists\n",
    )  # fmt: skip


def test_the_canary_is_named_as_its_videos_are(kling: Command, tmp_path: Path) -> None:
    """The rows of a sweep share their id, and are told apart by what follows it."""
    sweep = "matrix:\n  cfg_scale: [0.3, 0.6, 0.9]\nrows:\n  - {id: a, prompt: a mug}\n"
    (tmp_path / "s.yaml").write_text(sweep)
    code, told, _ = kling("plan", "s.yaml", "--canary", "2")
    named = told.partition("Canary: 2 jobs first (")[2].partition(")")[0].split(", ")
    assert (code, len(set(named)), {name[:4] for name in named}) == (0, 2, {"a-1-"})


def test_a_rehearsal_says_what_was_there_before(kling: Command) -> None:
    """So that what it spends and what it leaves add up to the cap."""
    quick = ("--set", "provider.time_scale=10000", "--set", "polling.expected_s=10", "--budget-usd", "9")
    assert kling("run", "m.csv", "-o", "night", *quick)[0] == 0
    code, told, _ = kling("rehearse", "m.csv", "-o", "night", *quick)
    lines = [" ".join(line.split()) for line in told.split("\n")]
    assert (code, {"stored before 2 jobs", "posted before $3.50, by all runs here"} <= set(lines)) == (0, True)
    assert "left under the cap $5.50 of $9.00" in lines
    assert "stored before" not in kling("rehearse", "m.csv", "-o", "other", *quick)[1]


def test_a_folder_that_the_machine_refuses_is_6_and_says_what_to_do(kling: Command) -> None:
    """In `/proc` nobody can make one. Whether anything was sent is the first question, so the sentence answers it."""
    code, _, said = kling("run", "m.csv", "-o", "/proc/none", "--budget-usd", "9")
    assert (code, "Nothing was sent; name a folder that can be written" in said) == (6, True)


def test_what_nobody_foresaw_is_6_and_never_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 says that a run has finished: what watches it would not start it again. The traceback is for a report."""

    def defect(*_asked: object, **_more: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("pipeline.api.prepare", defect)
    monkeypatch.setattr(sys, "argv", ["kling-batch", "run", "m.csv"])
    with pytest.raises(SystemExit) as ended:
        main()
    *trace, said = capsys.readouterr().err.splitlines()
    assert (ended.value.code, trace[-1]) == (6, "RuntimeError: can't start new thread")
    assert said.startswith("kling-batch: a defect in kling-batch, or this machine lacks something (RuntimeError, see")
