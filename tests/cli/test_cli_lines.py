"""`run --json`: what happens, a line each; whatever becomes of its reader, the run goes on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import FAST, Command

from pipeline.cli import lines
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.reading import read_events
from pipeline.report.lines import Keys
from pipeline.runner.watching import LiveRun

KEY = "SG_0123456789abcdef"


def event(seq: int, job: str | None = "k1-a", **facts: str) -> Event:
    return Event(event=EventKind.VOIDED, seq=seq, at_us=seq, job_id=job, attempt=1, **facts)


def test_every_event_is_a_line_and_the_summary_the_last(command: Command, manifest: str, tmp_path: Path) -> None:
    """Each with `event` and `at`, in the ledger's order and words, jobs with their row; the last is summary.json."""
    ended = command("run", manifest, *FAST, "--json")
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    folder = tmp_path / "outputs" / "m"
    recorded = read_events(folder / "ledger")
    assert [(each["event"], each["seq"]) for each in told[:-1]] == [(each.event, each.seq) for each in recorded]
    assert all(each["at"].endswith("Z") for each in told)
    assert {each["id"] for each in told if "job_id" in each} == {"one", "two"}
    assert told[-1].items() >= json.loads((folder / "report" / "summary.json").read_text()).items()
    assert told[-1]["event"] == "summary"
    again = command("run", manifest, *FAST, "--json", "--no-progress").out
    assert [json.loads(line)["event"] for line in again.splitlines()] == ["summary"]


def test_mistakes_are_one_line_too(command: Command, tmp_path: Path) -> None:
    """Whoever reads line by line finds them as an event."""
    (tmp_path / "bad.csv").write_text("id,prompt,duration\na b,x,7\n")
    ended = command("run", "bad.csv", "--json")
    (line,) = ended.out.splitlines()
    assert (ended.code, json.loads(line)["event"], len(json.loads(line)["mistakes"])) == (2, "mistakes", 2)


def test_a_reader_that_goes_away_hurts_nothing(manifest: str, tmp_path: Path) -> None:
    """`| head -1`: the run goes on to its end, silently, with its own exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", manifest, *FAST, "--ids", "one", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert json.loads(process.stdout.readline())["event"] == "run_started"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    summary = json.loads((tmp_path / "outputs" / "m" / "report" / "summary.json").read_text())
    assert (summary["stored"], summary["exit_code"]) == (1, 0)


def test_a_reader_that_does_not_read_never_holds_up_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are kept for it up to a bound; what is left out behind that is counted, and the summary still comes."""
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    monkeypatch.setattr(lines, "MOST_WAITING", 50)
    long = "x" * 70_000
    told = lines.EventLines()
    with os.fdopen(reading) as reader, sys.stdout, told:
        for seq in range(1, 101):
            told.event(event(seq, detail=long))  # the first fills the pipe: nobody reads
        told.summary({"stored": 1})
        first = [json.loads(reader.readline()) for _ in range(50)]
        while (latest := json.loads(reader.readline()))["event"] == "voided":
            first.append(latest)
        last = json.loads(reader.readline())
    assert [each["seq"] for each in first] == list(range(1, len(first) + 1))
    assert (latest["event"], latest["events"], last["event"]) == ("left_out", 100 - len(first), "summary")


def test_a_disk_that_is_full_for_a_while_spoils_no_other_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line that broke off is the only one that is no JSON, and what is missing is counted where it is missing."""
    room, write = [40], os.write

    def write_on_a_small_disk(descriptor: int, data: bytes | memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(descriptor, bytes(data[: room[0]]))
        room[0] -= taken
        return taken

    with open(tmp_path / "night.jsonl", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(os, "write", write_on_a_small_disk)
        with lines.EventLines() as told:
            for seq in (1, 2):
                told.event(event(seq))
            while told._outlet.pieces:
                time.sleep(0.001)
            room[0] = 100_000
            told.event(event(3))
            told.summary({"stored": 1})
    torn, *whole = (tmp_path / "night.jsonl").read_text().splitlines()
    with pytest.raises(json.JSONDecodeError):
        json.loads(torn)
    lost, *after = map(json.loads, whole)
    assert (lost["event"], lost["events"]) == ("left_out", 2)
    assert [each["event"] for each in after] == ["voided", "summary"]


def live_run(*notices: str) -> LiveRun:
    keys = Keys([1, 2], ["one", "two"], ["k1-a", "k1-a"])
    return SimpleNamespace(lines=SimpleNamespace(keys=keys), notices=notices)  # type: ignore[return-value]


def test_what_a_person_should_know_of_is_a_line_before_the_events(capfd: pytest.CaptureFixture[str]) -> None:
    """That another machine's place was taken, say; not where the summary is the only line."""
    for events in (True, False):
        with lines.EventLines(events=events) as told:
            told.started(live_run("a place was taken over"))
            told.notice("credits will not do")
            told.event(event(1))
            told.summary({"stored": 1})
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [each["event"] for each in said] == ["notice", "notice", "voided", "summary", "summary"]
    assert [each["message"] for each in said[:2]] == ["a place was taken over", "credits will not do"]
    assert said[0]["at"].endswith("Z")


def test_no_secret_and_no_escape_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """The key and the webhook's address are struck out of whatever an event holds, and nothing moves a terminal."""
    hook = 'https://hooks.example.com/"x"'
    with lines.EventLines(KEY, hook) as told:
        told.started(live_run())
        told.event(event(1, detail=f"{KEY} \x9b31m {hook}"))
        told.event(event(2, job=None))
        told.event(event(3, job="k1-of-no-row"))
    out = capfd.readouterr().out
    assert KEY not in out
    assert "hooks.example" not in out
    assert "\x9b" not in out
    first, second, third = map(json.loads, out.splitlines())
    assert first["detail"] == "[key] \x9b31m [key]"
    assert (first["id"], "id" in second, third["id"]) == ("one", False, None)
