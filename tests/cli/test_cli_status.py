"""`status` as people and scripts meet it: beside a live run, at rest, of all runs, again and again; without a trace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command
from looking_doubles import NOW_US, Story, held, rough_night

from pipeline import open_run
from pipeline.cli import status as verb
from pipeline.kernel.clock import SystemClock
from pipeline.ledger import segments
from pipeline.ledger.encoding import GENESIS, encode, link
from pipeline.ledger.merge import merge_segments
from pipeline.looking import view

LIVE = """\
SANDBOX: no money moves; the videos are drawn on this machine.
outputs/night: running for 15 min (process 4711)

  jobs                           money
     3   stored                  posted      $7.00
     1   failed                  reserved    $3.50
     1   in doubt                in doubt    $1.75
     2   running                 free        $7.75
     1   paid, not yet on disk   cap        $20.00
     1   pending

  in flight   2 of at most 4, the oldest for 3 min (6 min is usual)
  calls       1 submission and 1 result in the last minute, of at most 60 calls; polls are not recorded
  stored      12 an hour since this run began
  time left   about 6 min, until HOUR

  next to expire                        age   what expires in                known as
  scene-3          in doubt            14 min   record 46 min, video 7.0 days   JOB/1
  scene-6          running              3 min   record 57 min, video 7.0 days   req-6-1
  scene-7          running               10 s   record 60 min, video 7.0 days   -
  scene-5          paid, not on disk    9 min   video 7.0 days                  req-5-1

Trouble so far: 1 bad_request, 1 no_reply, 1 fetch_failed. What is not counted as failed above is tried again
or settled.
  15 s ago   scene-5   fetch_failed   the body broke off�[2J before its end
  14 min ago   scene-3   no_reply       no answer came within 60 s
  15 min ago   scene-2   bad_request    cfg_scale is out of range
"""


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command is called at the same moment."""
    monkeypatch.setattr(SystemClock, "now_us", lambda _clock: NOW_US)
    monkeypatch.setenv("COLUMNS", "110")


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A run directory in the middle of a rough night."""
    return rough_night(tmp_path / "outputs" / "night").write()


def words(text: str) -> list[list[str]]:
    """The words of each line: columns may be of any width."""
    return [line.split() for line in text.splitlines()]


def test_a_live_run_on_one_screen(command: Command, night: Path) -> None:
    """Jobs, money, what is in flight, the pace, the rate, the time left, what expires, what went wrong."""
    with held(night):
        shown = command("status", "outputs/night")
    assert shown.code == 0
    hour = shown.out.split("until ")[1][:5]
    plain = re.sub("k1-[0-9a-f]{24}", "JOB", shown.out.replace(hour, "HOUR"))
    assert words(plain) == words(LIVE)
    assert max(map(len, shown.out.splitlines())) <= 110


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_no_number(
    command: Command, night: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """No line is wider, and what is said in sentences is on as many lines as it needs."""
    monkeypatch.setenv("COLUMNS", str(width))
    with held(night):
        shown = command("status", "outputs/night").out
    lines = shown.splitlines()[1:]
    assert max(map(len, lines)) <= width
    flowing = " ".join(shown.split())
    for told in (
        "(6 min is usual)",
        "of at most 60 calls; polls are not recorded",
        "about 6 min, until",
        "(process 4711)",
    ):
        assert told in flowing


def test_everything_is_there_for_scripts(command: Command, night: Path) -> None:
    """All keys of the summary, and besides what the screen shows, in numbers."""
    with held(night):
        told = json.loads(command("status", "outputs/night", "--json").out)
    assert (told["jobs"], told["stored"], told["failed"], told["in_doubt"], told["running"]) == (9, 3, 1, 1, 2)
    assert (told["state"], told["held_by"]["pid"]) == ("running", 4711)
    assert told["in_flight"] == {"now": 2, "max": 4, "oldest_age_s": 189.0, "usual_s": pytest.approx(333, abs=15)}
    assert told["pace"] == {
        "requests_per_minute": 60.0, "submissions": 1, "results": 1, "rate_limited": 0, "polls": None
    }  # fmt: skip
    assert told["stored_per_hour"] == {"last_hour": None, "this_run": 12.0}
    assert 300 < told["eta_s"] < 700
    assert [(each["id"], each["what"]) for each in told["next_expiries"]] == [
        ("scene-3", "record"), ("scene-6", "record"), ("scene-7", "record"), ("scene-5", "file")
    ]  # fmt: skip
    first = told["last_errors"][0]
    assert (first["id"], first["error_class"], first["age_s"], first["billed"]) == (
        "scene-5",
        "fetch_failed",
        15,
        "yes",
    )
    assert told["troubles"] == {"bad_request": 1, "no_reply": 1, "fetch_failed": 1}
    assert [each["status"] for each in told["unsettled"]] == ["in_doubt", "running", "running", "unfetched"]


@pytest.mark.parametrize(
    ("ending", "holder_since_s", "state"),
    [
        (False, None, "cut off"),
        (True, None, "at rest"),
        (True, 5, "in use"),
        (False, 901, "running"),
        (False, 5, "in use"),
    ],
)
def test_who_is_at_work(tmp_path: Path, ending: bool, holder_since_s: float | None, state: str) -> None:
    """A run that has not ended and holds the lock is running; another that holds it is not that run."""
    story = rough_night(tmp_path / "night")
    if ending:
        story.run(5, "run_ended", exit_code=5)
    folder = story.write()
    if holder_since_s is None:
        assert view.standing(view.look(folder, NOW_US)) == state
    else:
        with held(folder, holder_since_s):
            assert view.standing(view.look(folder, NOW_US)) == state


def test_beside_another_verb_it_counts_as_at_rest(command: Command, night: Path) -> None:
    """Nobody waits for an answer then: what is reserved is in doubt, and the report that it leaves is the last one."""
    with held(night, 5):
        told = json.loads(command("status", "outputs/night", "--json").out)
        assert command("report", "outputs/night").code == 0
    assert (told["state"], told["in_doubt"], told["running"], told["reserved_usd"]) == ("in use", 2, 1, "0.00")
    assert [each["status"] for each in told["unsettled"]] == ["in_doubt", "running", "in_doubt", "unfetched"]
    left = json.loads((night / "report" / "summary.json").read_bytes())
    assert (told["as_of"], left["as_of"], left["events"]) == (None, None, told["events"])
    results = pd.read_csv(night / "report" / "results.csv")
    assert results["status"].value_counts()["in_doubt"] == 2
    assert open_run(night).results()["status"].value_counts()["in_doubt"] == 2


def test_more_than_may_be_in_flight(command: Command, tmp_path: Path) -> None:
    """What is done and not yet collected is no breach of the limit: that is said."""
    story = Story(tmp_path / "outputs" / "busy", 3)
    story.run(500, max_in_flight=2)
    for job in range(3):
        story.live(job, 490 - job, 480 - job)
    with held(story.write(), 501):
        shown = " ".join(command("status", "outputs/busy").out.split())
    assert "in flight 3, the oldest for 8 min (5 min is usual); 2 at once, the others are done and wait to" in shown


def test_at_rest_nothing_is_guessed(command: Command, night: Path) -> None:
    """No pace and no time left where nobody is at work; what was cut off is said, with the cure."""
    shown = command("status", "outputs/night").out
    assert "outputs/night: cut off, last event 10 s ago" in shown
    assert "The last run was cut off before its end. Nothing is lost: run it again to settle and collect." in shown
    assert not {"time left", "calls", "in flight"} & {" ".join(line[:2]) for line in words(shown)}
    told = json.loads(command("status", "outputs/night", "--json").out)
    assert (told["in_flight"], told["pace"], told["eta_s"], told["reserved_usd"]) == (None, None, None, "0.00")


@pytest.mark.parametrize(("stopped_by", "begins"), [("cap", "The last run stopped"), (None, "When the last run ended")])
def test_the_last_word_of_a_run_is_told_as_of_then(
    command: Command, tmp_path: Path, stopped_by: str | None, begins: str
) -> None:
    """A person may have settled since what it speaks of."""
    story = Story(tmp_path / "outputs" / "done", 1)
    story.run(500)
    story.run(400, "run_ended", exit_code=5, stopped_by=stopped_by, message="jobs are left: 1 in doubt")
    story.write()
    assert f"{begins}: jobs are left: 1 in doubt." in command("status", "outputs/done").out


def test_a_run_that_did_not_say_its_limits(command: Command, tmp_path: Path) -> None:
    """One of an earlier version: what is not known is left out."""
    story = Story(tmp_path / "outputs" / "old", 2)
    story.run(100, **dict.fromkeys(("requests_per_minute", "starts_per_minute", "max_in_flight", "expected_s")))
    story.live(0, 90, 89)
    with held(story.write()):
        shown = command("status", "outputs/old").out
    assert "in flight   1, the oldest for 89 s\n" in shown
    assert "time left   not known\n" in shown


def test_a_look_leaves_no_trace_and_waits_for_nothing_heavy(night: Path) -> None:
    """Nothing is opened for writing, made, removed or renamed; data frames, HTTP, manifests, the event loop and other
    verbs are not even loaded.

    And memory that Arrow gives back is the machine's again.
    """
    code = f"""
import os, sys
wrote = []
def watch(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        wrote.append(args[0])
    if event in ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod", "os.utime", "os.link"):
        wrote.append((event, *args))
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from pipeline.__main__ import main
from pipeline.cli.app import VERBS
for extra in ([], ["--json"]):
    sys.argv = ["kling-batch", "status", {str(night)!r}, *extra]
    try: main()
    except SystemExit as ended: assert not ended.code
heavy = {{"pandas", "aiohttp", "av", "yaml", "jinja2", "pydantic", "rich", "asyncio", "importlib.metadata"}}
heavy |= {{f"pipeline.cli.{{verb}}" for verb in VERBS if verb != "status"}}
heavy &= set(sys.modules)
import pyarrow
print(wrote, heavy, pyarrow.default_memory_pool().backend_name, file=sys.stderr)
"""
    before = snapshot(night)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == "[] set() system\n"
    assert snapshot(night) == before


def test_no_verb_waits_for_pandas(night: Path) -> None:
    """Arrow would load it for every list: 33 MiB. What it needs to find its types stands in the files all the same."""
    code = f"""
import sys
from pipeline.__main__ import main
sys.argv = ["kling-batch", "report", {str(night)!r}]
try: main()
except SystemExit as ended: assert not ended.code
print("pyarrow" in sys.modules, "pandas" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "True False\n"
    types = pd.read_parquet(night / "report" / "results.parquet").dtypes
    assert {str(types[name]) for name in ("row", "bytes", "attempts")} == {"Int64"}
    assert (str(types["cost_usd"]), str(types["duration_s"])) == ("string", "Float64")


def test_no_garbage_is_looked_for_once_a_command_is_over(night: Path) -> None:
    """Among a million jobs the interpreter would look half a second long, to free what goes with the process."""
    code = f"""
import gc, sys
from pipeline.__main__ import main
sys.argv = ["kling-batch", "status", {str(night)!r}]
try: main()
except SystemExit as ended: assert not ended.code
print(gc.get_freeze_count() > 10_000, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "True\n"


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}


def test_nothing_is_read_again_where_nothing_has_happened(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch of a quiet directory costs a listing; the times go on."""
    first = view.look(night, NOW_US)
    with monkeypatch.context() as patch:
        patch.setattr(view.Reader, "read", lambda _reader: pytest.fail("read again"))
        again = view.look(night, NOW_US + 1_000_000, first)
    assert again.details()["unsettled"][0]["age_s"] == first.details()["unsettled"][0]["age_s"] + 1


def test_a_watch_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a run that writes, each look reads what was added; of a merge of what it has read no event is read."""
    story = rough_night(tmp_path / "night")
    ledger, events = story.folder / "ledger", story.ordered
    ledger.mkdir()
    reached, looks, read = GENESIS, [], []
    real = segments.parts_of
    monkeypatch.setattr(
        segments, "parts_of", lambda folder, name, *how: read.append(name.last) or real(folder, name, *how)
    )
    for number, event in enumerate(events, start=1):
        before, reached = reached, link(reached, [event])
        segments.write_segment(ledger, [event], encode([event], before, reached))
        if number in (5, 20, len(events)):
            looks.append(view.look(story.folder, NOW_US, looks[-1] if looks else None))
    assert read == list(range(1, len(events) + 1))
    last, alone = looks[-1], view.look(story.folder, NOW_US)
    assert last.summary() | last.details() == alone.summary() | alone.details()
    merge_segments(ledger, segments.list_segments(ledger)[0])
    read.clear()
    merged = view.look(story.folder, NOW_US, last)
    assert read == []
    assert merged.state == alone.state
    assert merged.summary() | merged.details() == alone.summary() | alone.details()


def test_all_runs_the_newest_first(command: Command, tmp_path: Path, night: Path) -> None:
    """A line for each, whatever its state; what is no run directory is no line; a damaged one says what is wrong."""
    done = Story(tmp_path / "outputs" / "done", 1)
    done.run(4_000, cap_microusd=5_000_000)
    done.live(0, 3_990, 3_989, 3_600, 3_590)
    done.run(3_580, "run_ended", exit_code=0)
    broken = done.write().parent / "broken"
    (broken / "ledger").mkdir(parents=True)
    (broken / "ledger" / "000000000001-000000000001-00.parquet").write_bytes(b"x")
    os.utime(broken / "ledger", ns=(1, 86_400 * 10**9))
    (tmp_path / "outputs" / "notes").mkdir()
    (tmp_path / "outputs" / "new" / "ledger").mkdir(parents=True)
    with held(night):
        shown = command("status")
        told = json.loads(command("status", "--json").out)
    assert shown.code == 0
    lines = [" ".join(line) for line in words(shown.out)]
    assert lines[:3] == [
        "run state stored failed posted in doubt last event cap",
        "night running (pid 4711), sandbox 3/9 1 $7.00 $1.75 10 s ago $20.00",
        "done at rest, sandbox 1/1 0 $1.75 $0.00 60 min ago $5.00",
    ]
    assert lines[3].startswith("broken damaged ")
    assert lines[4] == "new not begun 0/0 0 $0.00 $0.00 never", "of which no cap is known"
    assert "broken: the ledger is damaged: outputs/broken/ledger/" in " ".join(shown.out.split())
    assert shown.out.endswith("More of one: kling-batch status outputs/night\n")
    assert [(row["name"], row["state"]) for row in told["runs"]] == [
        ("night", "running"), ("done", "at rest"), ("broken", "damaged"), ("new", "not begun")
    ]  # fmt: skip
    assert told["runs"][2]["error"].startswith("the ledger is damaged")
    assert command("status", "outputs/new").out == (
        "outputs/new: not begun\n\nNo run has started in this directory: nothing was sent, and nothing is owed.\n"
    )


def test_where_there_is_no_run_yet(command: Command, tmp_path: Path) -> None:
    """A sentence and how to begin; the folder is the config's."""
    (tmp_path / "nights").mkdir()
    for arguments, folder in (((), "outputs"), (("--set", "output.dir=nights"), "nights")):
        shown = command("status", *arguments)
        assert shown.code == 0
        assert f"There is no run in {folder} yet." in shown.out
        assert "\n  kling-batch run MANIFEST    makes it" in shown.out
    assert json.loads(command("status", "--json").out)["runs"] == []


def test_a_long_list_is_cut(command: Command, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen has the newest; how many more there are is said, and scripts get all."""
    for number in range(3):
        Story(night.parent / f"run-{number}", 1).write()
    monkeypatch.setattr(verb, "LISTED", 2)
    assert "… and 2 older ones (--json lists all)" in command("status").out
    assert len(json.loads(command("status", "--json").out)["runs"]) == 4


def watched(monkeypatch: pytest.MonkeyPatch, *between: Callable[[], object]) -> None:
    """`--watch` shows one screen more than there is something between; then Ctrl-C is pressed."""
    left = list(between)

    def sleep(seconds: float) -> None:
        assert seconds == 2
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr("time.sleep", sleep)


def test_a_watch_on_a_terminal_writes_over_itself(
    command: Command, night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It clears the screen once, never in between; it is cut to the terminal; Ctrl-C ends it well."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "12")
    watched(monkeypatch, lambda: None, lambda: None)
    with held(night):
        shown = command("status", "outputs/night", "--watch")
    assert (shown.code, shown.err) == (0, "")
    nothing, *screens = shown.out.split("\x1b[H")
    assert (nothing, len(screens)) == ("\x1b[2J", 3)
    for screen in screens:
        *lines, rest = screen.split("\x1b[K\n")
        assert (len(lines), rest) == (11, "\x1b[J")
        assert max(map(len, lines)) <= 40
        assert lines[-1] == "… 32 more lines"


def test_a_watch_into_a_pipe(command: Command, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole screens with a blank line between, and no escapes; with --json one line each."""
    watched(monkeypatch, lambda: None)
    shown = command("status", "outputs/night", "--watch")
    assert (shown.code, shown.out.count("outputs/night: cut off"), "\x1b" in shown.out) == (0, 2, False)
    assert shown.out.endswith("\n\n")
    watched(monkeypatch, lambda: None)
    lines = command("status", "--watch", "--json").out.splitlines()
    assert [json.loads(line)["found"] for line in lines] == [1, 1]


def test_a_watch_outlives_what_passes(command: Command, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read for a moment is told of and looked at again; one that never was, is refused."""
    hidden = night / "hidden"
    watched(monkeypatch, lambda: (night / "ledger").rename(hidden), lambda: hidden.rename(night / "ledger"))
    first, second, third = command("status", "outputs/night", "--watch", "--json").out.splitlines()
    assert "is not a run directory" in json.loads(second)["error"]
    assert json.loads(first)["stored"] == json.loads(third)["stored"] == 3
    watched(monkeypatch, lambda: (night / "ledger").rename(hidden))
    assert "has no ledger It is tried again." in command("status", "outputs/night", "--watch").out
    assert command("status", "outputs/night", "--watch").code == 2


def test_ctrl_c_and_a_reader_that_goes_away_end_a_watch_well(night: Path) -> None:
    """As processes: exit 0 either way, and nothing on the error stream."""
    for ending in ("signal", "pipe"):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "status", str(night), "--watch", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["jobs"] == 9
            if ending == "pipe":
                process.stdout.close()
            else:
                process.send_signal(signal.SIGINT)
            assert (process.wait(20), process.stderr.read()) == (0, b"")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
