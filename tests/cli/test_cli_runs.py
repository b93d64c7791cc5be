"""The commands at work in the embedded sandbox, and as processes of their own."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import errno
import itertools
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import FAST, Command

from pipeline import jobs
from pipeline.engine.context import RunContext
from pipeline.kernel import files
from pipeline.kernel.errors import MachineError
from pipeline.ledger.store import Ledger
from pipeline.looking import view
from pipeline.manifest import load_manifest, sharing
from pipeline.report import campaign_lines, write
from pipeline.report.campaign_lines import lines_of
from pipeline.report.jobs_file import load_lines, save_lines
from pipeline.report.lines import Keys
from pipeline.runner import reporting, running
from pipeline.runner.reporting import rewrite_report
from pipeline.runner.watching import LiveRun

BINARY = str(Path(sys.executable).with_name("kling-batch"))


def test_a_small_night(command: Command, manifest: str) -> None:
    """Stop at a limit, at a cap, go on, finish; then nothing is sent any more, and every screen agrees."""
    first = command("run", manifest, *FAST, "-n", "1")
    assert (first.code, "1 attempt," in first.out) == (3, True)
    assert f"Run again to go on:\n  kling-batch run m.csv {' '.join(FAST)} -n 1" in first.out
    second = command("run", manifest, *FAST, "--budget-usd", "2", "--json")
    told = json.loads(second.out.splitlines()[-1])
    assert (second.code, told["exit_code"], told["stopped_by"], told["stored"]) == (3, 3, "cap", 1)
    capped = command("run", manifest, *FAST, "--budget-usd", "2")
    assert capped.code == 3
    assert capped.out.endswith(f"kling-batch run m.csv {' '.join(FAST)} --budget-usd 5.25\n")
    one = command("run", manifest, *FAST, "--ids", "one")
    assert one.code == 0
    assert "1 job of the manifest is not made yet" in one.out

    done = command("run", manifest, *FAST)
    assert done.code == 0
    assert "Everything is stored. Open outputs/m/report/index.html to watch the clips." in done.out
    again = json.loads(command("run", manifest, *FAST, "--retry-failed", "--json", "--no-progress").out)
    assert (again["attempts"], again["requests_sent"], again["posted_usd"]) == (2, 2, "5.25")

    folder = Path("outputs/m")
    for name in ("config.yaml", "manifest.csv", "run.log", "ledger", "posters", "report/results.parquet"):
        assert (folder / name).exists(), name
    table = pd.read_csv(folder / "report" / "results.csv")
    assert table["status"].tolist() == ["stored", "stored"]
    assert all((folder / video).is_file() for video in table["video"])
    assert len(list((folder / "videos").iterdir())) == 2
    assert pd.read_parquet(folder / "ledger")["cost_microusd"].sum() == 5_250_000

    written = json.loads((folder / "report" / "summary.json").read_text())
    shown = json.loads(command("status", "outputs/m", "--json").out)
    assert {name: shown[name] for name in written} == written
    assert (shown["held_by"], shown["unsettled"]) == (None, [])
    screen = command("status", "outputs/m")
    assert screen.out.startswith("SANDBOX:")
    assert "outputs/m: at rest" in screen.out
    (folder / "report" / "results.csv").unlink()
    assert command("report", "outputs/m").code == 0
    assert pd.read_csv(folder / "report" / "results.csv").equals(table)
    assert json.loads(command("report", "outputs/m", "--json").out) == written
    assert "Already: 2 stored." in command("plan", manifest).out


def test_a_run_that_changes_nothing_leaves_the_report_as_it_is(command: Command, manifest: str) -> None:
    """Only the summary is written; all is, where a file, a row or a bound is another, or the report lags behind."""
    report = Path("outputs/m/report")

    def is_written_by(*arguments: str) -> bool:
        before = {path.name: path.stat().st_ino for path in report.iterdir()}
        assert command("run", manifest, *FAST, *arguments).code == 0
        after = {path.name: path.stat().st_ino for path in report.iterdir()}
        assert before["summary.json"] != after["summary.json"]
        assert json.loads(command("status", "outputs/m", "--json").out)["events"] == events()
        tables = {"index.html", "results.csv", "results.parquet", "errors.csv", "errors-by-class.csv"}
        assert {name for name in tables if before.get(name) != after[name]} in (set(), tables)
        return before.get("index.html") != after["index.html"]

    def events() -> int:
        return int(json.loads((report / "summary.json").read_bytes())["events"])

    command("run", manifest, *FAST, "-n", "1")
    assert is_written_by()
    assert not is_written_by()
    assert is_written_by("--budget-usd", "50"), "the page says what is free"
    assert not is_written_by("--budget-usd", "50")
    (report / "errors.csv").unlink()
    assert is_written_by("--budget-usd", "50")
    said = json.loads((report / "summary.json").read_bytes())
    (report / "summary.json").write_text(json.dumps(said | {"events": events() - 2}))
    assert is_written_by("--budget-usd", "50"), "a run was killed before it wrote its report"
    Path(manifest).write_text(Path(manifest).read_text().replace("cozy", "wild"))
    assert is_written_by("--budget-usd", "50"), "a tag is another"
    assert "wild" in (report / "results.csv").read_text()


def test_rows_that_are_kept_already_are_not_made_again(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to be compared: that takes seconds for a million. A file that is not what was written is mended."""
    kept, made = Path("outputs/m/jobs.parquet"), []
    real = campaign_lines._part_of
    monkeypatch.setattr(campaign_lines, "_part_of", lambda *given: (made.append(1), real(*given))[1])

    def makes_rows(*arguments: str) -> bool:
        before = len(made)
        assert command("run", manifest, *FAST, *arguments).code == 0
        return len(made) > before

    assert makes_rows()
    whole = kept.read_bytes()
    assert not makes_rows()
    assert not makes_rows()
    at = len(whole) // 2
    kept.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert makes_rows()
    assert kept.read_bytes() == whole
    assert not makes_rows()
    (kept.parent / "report" / "index.html").unlink()
    before = pd.read_csv(kept.parent / "report" / "results.csv")
    assert makes_rows(), "for a report"
    assert pd.read_csv(kept.parent / "report" / "results.csv").equals(before)
    Path(manifest).write_text(Path(manifest).read_text().replace("cozy", "wild"))
    assert makes_rows()
    assert kept.read_bytes() != whole
    assert not makes_rows()


@pytest.mark.parametrize("is_noted", [True, False], ids=["", "of an older version"])
def test_rows_that_a_run_kept_and_died_are_new_to_the_next(
    is_noted: bool, command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died before it said that it began: the report must show them all the same. Older versions noted no rows."""
    with monkeypatch.context() as patch:
        if not is_noted:
            patch.setattr(running, "noted_rows", lambda _: None)
        command("run", manifest, *FAST)
        Path(manifest).write_text(Path(manifest).read_text().replace("cozy", "wild"))
        save_lines(lines_of(load_manifest(Path(manifest)).entries), Path("outputs/m"))
        assert command("run", manifest, *FAST).code == 0
    assert "wild" in Path("outputs/m/report/results.csv").read_text()


def test_a_report_made_between_two_runs_that_died_is_not_taken_for_current(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both died after they had kept their rows, the second those of the last whole run: as many jobs, other words."""
    command("run", manifest, *FAST)
    calm, results = Path(manifest).read_text(), Path("outputs/m/report/results.csv")
    with monkeypatch.context() as patch:
        patch.setattr(running, "open_provider", no_provider)
        Path(manifest).write_text(calm.replace("cozy", "wild"))
        assert command("run", manifest, *FAST).code == 6
        assert command("report", "outputs/m").code == 0
        assert "wild" in results.read_text()
        Path(manifest).write_text(calm)
        assert command("run", manifest, *FAST).code == 6
        assert json.loads(results.with_name("summary.json").read_bytes())["jobs"] == 2, "a summary is always there"
    assert command("run", manifest, *FAST).code == 0
    assert "wild" not in results.read_text()


def test_a_slow_report_of_rows_that_are_gone_is_not_taken_for_current(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read what a run that died had kept, and was written after the next had kept the rows of before, and died."""
    command("run", manifest, *FAST)
    calm, results = Path(manifest).read_text(), Path("outputs/m/report/results.csv")
    real = reporting._write

    def slowly(*arguments: Any, **named: Any) -> None:
        Path(manifest).write_text(calm)
        assert command("run", manifest, *FAST).code == 6
        real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(running, "open_provider", no_provider)
        Path(manifest).write_text(calm.replace("cozy", "wild"))
        assert command("run", manifest, *FAST).code == 6
        patch.setattr(reporting, "_write", slowly)
        rewrite_report(Path("outputs/m"))
    assert "wild" in results.read_text()
    assert command("run", manifest, *FAST).code == 0
    assert "wild" not in results.read_text()


@pytest.mark.parametrize("at", ["errors.csv", "index.html", "summary.json"])
def test_a_report_of_other_rows_that_died_is_not_left_beside_the_summary_of_before(
    at: str, command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary that stands says what the run would say, but the files are those of a run that died."""
    command("run", manifest, *FAST)
    calm, results = Path(manifest).read_text(), Path("outputs/m/report/results.csv")
    writers = {"write_file": write.write_file, "write_summary": write.write_summary}

    def no_room(name: str) -> Callable[..., None]:
        def refuse_or_write(path: Path, *what: Any) -> None:
            if at in (path.name, "summary.json" if name == "write_summary" else ""):
                raise OSError(errno.ENOSPC, "No space left on device")
            writers[name](path, *what)

        return refuse_or_write

    with monkeypatch.context() as patch:
        patch.setattr(running, "open_provider", no_provider)
        Path(manifest).write_text(calm.replace("cozy", "wild"))
        assert command("run", manifest, *FAST).code == 6
        for name in writers:
            patch.setattr(write, name, no_room(name))
        assert command("report", "outputs/m").code == 6
    assert "wild" in results.read_text()
    Path(manifest).write_text(calm)
    assert command("run", manifest, *FAST).code == 0
    assert "wild" not in results.read_text()
    before = results.stat()
    assert command("run", manifest, *FAST).code == 0
    assert results.stat() == before, "once"


def test_a_report_that_hangs_keeps_no_run_from_its_end_and_misleads_none(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written results.csv and not yet its summary: the run that comes and goes meanwhile writes its own."""
    monkeypatch.setattr(reporting, "LONGEST_WAIT_S", 0.0)
    command("run", manifest, *FAST)
    calm, results = Path(manifest).read_text(), Path("outputs/m/report/results.csv")
    real, seen = write.write_summary, list[bool]()

    def slowly(report: Path, summary: Any) -> None:
        if not seen:
            seen.append("wild" in results.read_text())
            Path(manifest).write_text(calm)
            assert command("run", manifest, *FAST).code == 0
            seen.append("wild" in results.read_text())
        real(report, summary)

    with monkeypatch.context() as patch:
        patch.setattr(running, "open_provider", no_provider)
        Path(manifest).write_text(calm.replace("cozy", "wild"))
        assert command("run", manifest, *FAST).code == 6
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_summary", slowly)
        rewrite_report(Path("outputs/m"))
    assert seen == [True, False]
    assert command("run", manifest, *FAST).code == 0
    assert "wild" not in results.read_text()


def test_a_report_waits_for_the_one_that_is_being_written_and_then_reads(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once could leave the older table of the one under the newer summary of the other."""
    command("run", manifest, *FAST)
    done, waits = list[str](), threading.Event()
    write_real, load_real = write.write_summary, reporting.load_lines

    def last(report: Path, summary: Any) -> None:
        if not beside.ident:
            beside.start()
            assert waits.wait(60)
        write_real(report, summary)
        done.append("written")

    def load_lines(folder: Path) -> Any:
        done.append("read")
        return load_real(folder)

    def pause(_seconds: float) -> None:
        waits.set()

    beside = threading.Thread(target=rewrite_report, args=(Path("outputs/m"),))
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_summary", last)
        patch.setattr(reporting, "load_lines", load_lines)
        patch.setattr(reporting, "LONGEST_WAIT_S", 1e6)
        patch.setattr(files.time, "sleep", pause)
        rewrite_report(Path("outputs/m"))
        beside.join(60)
    assert done == ["read", "written", "read", "written"]


def test_a_report_of_the_minute_is_left_out_while_another_is_written(command: Command, manifest: str) -> None:
    """Its summary would be older than its tables by all that it waited; the next minute writes the next."""
    command("run", manifest, *FAST)
    folder = Path("outputs/m")
    seen, before = view.look(folder, 0), written(folder)
    with files.hold_folder(folder / "report"):
        reporting.write_report(folder, seen.lines(), seen.state, seen.summary())
    assert written(folder) == before
    reporting.write_report(folder, seen.lines(), seen.state, seen.summary())
    assert written(folder) != before


@pytest.mark.parametrize("shown_seq", [None, 0], ids=["all of it", "its summary"])
def test_the_report_at_the_end_of_a_run_waits_for_the_one_that_is_being_written(
    shown_seq: int | None, command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote meanwhile would be written over, file by file, by what is older."""
    command("run", manifest, *FAST)
    folder = Path("outputs/m")
    seen, before = view.look(folder, 0), written(folder)
    other = contextlib.ExitStack()
    other.enter_context(files.hold_folder(folder / "report"))
    found = list[bool]()

    def pause(_seconds: float) -> None:
        found.append(written(folder) == before)
        other.close()

    monkeypatch.setattr(files.time, "sleep", pause)
    shown_seq = None if shown_seq is None else seen.state.last_seq
    reporting.renew_report(folder, seen.lines(), seen.state, seen.summary(), shown_seq)
    assert found == [True]
    assert written(folder) != before


def written(folder: Path) -> dict[str, int]:
    """Which files stand in a report, each by its number on the disk: who writes one anew gives it another."""
    return {path.name: path.stat().st_ino for path in (folder / "report").iterdir()}


@pytest.mark.parametrize("further_runs", [1, 9])
def test_a_report_that_outlasts_the_end_of_a_run_is_written_once_more(
    further_runs: int, command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it read is older than the report that it writes over; where runs come on and on, it is not for ever."""
    monkeypatch.setattr(reporting, "LONGEST_WAIT_S", 0.0)
    command("run", manifest, *FAST, "--ids", "one")
    folder, real, rounds = Path("outputs/m"), reporting._write, list[int]()

    def slowly(*arguments: Any, **named: Any) -> None:
        if threading.current_thread() is not reporter:
            return real(*arguments, **named)
        rounds.append(len(rounds))
        if len(rounds) <= further_runs:
            assert command("run", manifest, *FAST).code == 0
        return real(*arguments, **named)

    reporter = threading.current_thread()
    monkeypatch.setattr(reporting, "_write", slowly)
    summary = rewrite_report(folder)
    assert len(rounds) == min(1 + further_runs, reporting.MOST_ROUNDS)
    left = json.loads((folder / "report" / "summary.json").read_bytes())
    assert (summary["stored"], left["stored"], left["exit_code"]) == (2, 2, 0)
    assert pd.read_csv(folder / "report" / "results.csv")["status"].tolist() == ["stored", "stored"]


def test_a_report_beside_a_run_that_goes_on_is_written_once(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although events come all the while: the run writes the next one, and a last one at its end."""
    real, written_live, moments = running._make_jobs, list[bool](), itertools.count()
    look_real, write_real = reporting.look, reporting._write

    def look(*arguments: Any) -> Any:
        return dataclasses.replace(look_real(*arguments), names=(str(next(moments)),))

    def noted(*arguments: Any, live: bool) -> None:
        written_live.append(live)
        write_real(*arguments, live=live)

    async def with_a_report(context: RunContext, *others: Any) -> None:
        await real(context, *others)
        rewrite_report(context.folder)

    monkeypatch.setattr(reporting, "look", look)
    monkeypatch.setattr(reporting, "_write", noted)
    monkeypatch.setattr(running, "_make_jobs", with_a_report)
    assert command("run", manifest, *FAST).code == 0
    assert written_live == [True, False]


def test_a_report_with_marks_for_a_spreadsheet_is_left_as_it_is(command: Command, manifest: str) -> None:
    """The marks are written after the tables, and the summary after the marks: a run with nothing to do keeps them."""
    command("run", manifest, *FAST)
    assert command("report", "outputs/m", "--bom").code == 0
    assert command("run", manifest, *FAST).code == 0
    assert Path("outputs/m/report/results.csv").read_bytes().startswith(codecs.BOM_UTF8)


@pytest.mark.parametrize("name", ["config.yaml", "jobs.parquet", "manifest.csv", "report/results.csv"])
def test_a_folder_of_somebody_else_is_not_written_over(name: str, command: Command, manifest: str) -> None:
    """Nor one whose ledger is gone, and with it what was paid: refused with a remedy, and left as it was."""
    folder = Path("mine")
    folder.mkdir()
    for other in ("notes.txt", "report/notes.txt", name):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_text("my own")
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    for verb in ("plan", "run"):
        refused = command(verb, manifest, *FAST, "--out", "mine")
        assert refused.code == 2
        assert f"mine has {name} but no ledger" in " ".join(refused.err.split())
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    (folder / name).unlink()
    assert command("run", manifest, *FAST, "--out", "mine").code == 0


def test_an_emptied_ledger_is_not_begun_anew(command: Command, manifest: str) -> None:
    """What it had paid for would be paid again; a run that died before its first event has nothing to lose."""
    command("run", manifest, *FAST)
    for path in Path("outputs/m/ledger").iterdir():
        path.unlink()
    refused = command("run", manifest, *FAST)
    assert refused.code == 2
    assert "has report/summary.json but no ledger" in " ".join(refused.err.split())
    for path in Path("outputs/m/report").iterdir():
        path.unlink()
    assert command("run", manifest, *FAST).code == 0


def test_a_run_directory_may_be_where_its_manifest_is(command: Command, manifest: str) -> None:
    """The copy that is kept is the file itself."""
    own = Path("clips/manifest.csv")
    own.parent.mkdir()
    Path(manifest).rename(own)
    assert command("run", str(own), *FAST, "--out", "clips").code == 0
    assert command("run", str(own), *FAST, "--out", "clips").code == 0


def test_a_strange_row_hides_no_video_that_would_be_bought_again(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept of the rows is the only witness where ids of one scheme are made differently."""
    command("run", manifest, *FAST)
    path = Path("outputs/m/jobs.parquet")
    table = pq.read_table(path)
    another = {
        **table.slice(1, 1).to_pylist()[0],
        "job_id": "k1-" + "f" * 24,
        "model": "kling-9",
        "variables": '{"a":[]}',
    }
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist([another], schema=table.schema)]), path)
    real = jobs.ids_of

    def other(kind: jobs.Kind) -> Callable[[str], str]:
        identify = real(kind)
        return lambda prompt: identify(prompt + " ")

    for module in (jobs, sharing):
        monkeypatch.setattr(module, "ids_of", other)
    ended = command("run", manifest, *FAST)
    assert (ended.code, "would be bought again" in ended.err) == (2, True)


def test_a_run_writes_reports_while_it_goes_on_and_a_rehearsal_none(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks at what is thrown away, and an hour of its time is a moment."""
    asked, real = list[bool](), running._keep_house

    async def noted(live: LiveRun, *, reports: bool) -> None:
        asked.append(reports)
        await real(live, reports=reports)

    monkeypatch.setattr(running, "_keep_house", noted)
    assert command("run", manifest, *FAST).code == 0
    assert command("rehearse", manifest, "--out", "elsewhere", "--json").code == 0
    assert asked == [True, False]


def test_a_report_counts_the_rows_that_it_shows(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those that a run has kept while it was being made."""
    command("run", manifest, *FAST)
    before = json.loads(Path("outputs/m/report/summary.json").read_bytes())
    kept, real = load_lines(Path("outputs/m")), view.load_keys

    def of_others(folder: Path) -> Keys:
        save_lines(lines_of(load_manifest(Path(manifest)).entries[:1]), folder)
        return real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "load_lines", lambda _folder: kept)
        patch.setattr(view, "load_keys", of_others)
        after = rewrite_report(Path("outputs/m"))
    assert (after["rows"], after["jobs"], after["rows_sha256"]) == (2, 2, before["rows_sha256"])


def no_provider(*_: Any, **__: Any) -> NoReturn:
    raise MachineError("no room")


def test_a_report_made_beside_an_idle_run_is_not_what_is_left(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows a run that goes on: the end of the run writes it anew, although nothing has happened."""
    command("run", manifest, *FAST)
    page, real, beside = Path("outputs/m/report/index.html"), running._make_jobs, []

    async def with_a_look(context: RunContext, *others: Any) -> None:
        await real(context, *others)
        rewrite_report(context.folder)
        beside.append(page.stat().st_ino)

    monkeypatch.setattr(running, "_make_jobs", with_a_look)
    assert command("run", manifest, *FAST).code == 0
    (made_beside,) = beside
    assert page.stat().st_ino != made_beside
    assert json.loads(page.with_name("summary.json").read_bytes())["as_of"] is None


def test_a_report_that_began_before_other_rows_were_kept_is_not_what_is_left(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for at rest, and took so long that it was written while an idle run with other rows went on."""
    command("run", manifest, *FAST)
    report, real = Path("outputs/m/report"), running._make_jobs
    slow = {path: path.read_bytes() for path in report.iterdir()}

    async def with_a_late_report(context: RunContext, *others: Any) -> None:
        await real(context, *others)
        for path, data in slow.items():
            path.write_bytes(data)

    monkeypatch.setattr(running, "_make_jobs", with_a_late_report)
    Path(manifest).write_text(Path(manifest).read_text().replace("cozy", "wild"))
    assert command("run", manifest, *FAST).code == 0
    assert "wild" in (report / "results.csv").read_text()


def test_a_run_in_object_storage_is_shown_by_its_address(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was written, with both slashes."""
    command("run", manifest, *FAST, "-n", "1", "-o", "outputs/s3/bucket/m")
    monkeypatch.setattr("pipeline.mirror.mirror.refresh", lambda _folder, _address: None)
    assert "\ns3://bucket/m: at rest" in command("status", "s3://bucket/m").out
    assert "\ns3://bucket/m: held against the account's history" in command("reconcile", "s3://bucket/m").out


def test_a_plan_for_object_storage_names_the_address_and_the_folder_by_which_it_works(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.mirror.mirror.refresh", lambda _folder, _address: None)
    shown = command("plan", manifest, "-o", "s3://bucket/m").out
    assert "->  s3://bucket/m, by way of outputs/s3/bucket/m\n" in shown
    told = json.loads(command("plan", manifest, "-o", "s3://bucket/m", "--json").out)
    assert (told["address"], told["run_directory"]) == ("s3://bucket/m", "outputs/s3/bucket/m")
    told = json.loads(command("plan", manifest, "--json").out)
    assert (told["address"], told["run_directory"]) == (None, "outputs/m")


def test_a_canary_goes_on_only_when_a_person_agrees(
    command: Command, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal it stops, whatever --yes says; on one it shows the videos and asks; a no starts nothing."""
    with (tmp_path / manifest).open("a") as rows:
        rows.write("three,a cup,5,calm\n")
    told: list[tuple[str, str]] = []

    async def send(url: str, body: bytes, _clock: object) -> None:
        told.append((url, json.loads(body)["event"]))

    monkeypatch.setattr("pipeline.notify.send", send)
    monkeypatch.setenv("HOOK", "https://hooks.example.com/x")
    setting = ("--set", "notify.webhook_env=HOOK")
    arguments = ("run", manifest, *FAST, *setting, "--canary", "1", "--canary-approve", "--yes")
    assert "Canary: 1 job first (one-1-" in command("plan", *arguments[1:-2]).out
    alone = command(*arguments)
    assert (alone.code, "1 attempt," in alone.out) == (3, True)
    assert "Stopped: the canary is passed: look at one-1-" in alone.out
    assert alone.out.endswith(f"kling-batch run {manifest} {' '.join((*FAST, *setting))} --canary 1\n")

    asked: list[str] = []
    answers = iter((False, True))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda question, err: asked.append(question) or next(answers))
    refused = command(*arguments)
    assert (refused.code, "1 attempt," in refused.out) == (3, True)
    agreed = command(*arguments, "-n", "1")
    assert asked == ["Go on with the other 2 jobs for at most $5.25?", "Go on with the other job for at most $3.50?"]
    assert agreed.out.count("Canary: passed; 1 job stored at the quote.") == 1
    assert "The canary is stored:\n  outputs/m/videos/one-1-" in agreed.out
    assert (agreed.code, "2 attempts," in agreed.out) == (3, True)
    assert told == [("https://hooks.example.com/x", "stopped")] * 4, "the run after the yes is a run of its own"


def test_a_directory_of_the_sandbox_is_refused_for_money(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its books are the sandbox's: a live run there is exit 2, and not one request."""
    assert command("run", manifest, *FAST, "--ids", "one", "--no-progress").code == 0
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_0123456789abcdef")
    ended = command("run", manifest, "--set", "provider.kind=segmind", "--budget-usd", "9", "--yes")
    assert ended.code == 2
    assert "outputs/m belongs to sandbox" in ended.err
    assert "Nothing was sent." in ended.err


def test_the_sandbox_writes_through_no_link(command: Command, manifest: str, tmp_path: Path) -> None:
    """Neither its folder in the run directory nor its files there lead anywhere else."""
    victim, elsewhere = tmp_path / "victim", tmp_path / "elsewhere"
    victim.write_text("precious")
    elsewhere.mkdir()
    sandbox = tmp_path / "outputs" / "m" / ".sandbox"
    sandbox.parent.mkdir(parents=True)
    sandbox.symlink_to(elsewhere)
    refused = command("run", manifest, *FAST)
    assert (refused.code, list(elsewhere.iterdir())) == (6, [])
    assert ".sandbox is a link, and nothing is written through a link" in refused.err
    sandbox.unlink()
    sandbox.mkdir()
    (sandbox / "port").symlink_to(victim)
    (sandbox / "journal.jsonl").symlink_to(victim)
    assert command("run", manifest, *FAST).code == 6
    (sandbox / "journal.jsonl").unlink()
    assert command("run", manifest, *FAST).code in (0, 5)  # 5 where a busy machine draws too late
    assert victim.read_text() == "precious"


def test_help_needs_nothing_heavy() -> None:
    """A person who asks for help waits for no data frames and no network."""
    code = (
        "import sys, runpy\nsys.argv = ['kling-batch', 'run', '--help']\n"
        "try: runpy.run_module('pipeline', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(*sorted({'pandas', 'pyarrow', 'aiohttp', 'av', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert "Usage:" in done.stdout
    assert done.stderr.strip() == ""


def test_the_command_and_the_module_are_one(tmp_path: Path) -> None:
    """Installed or as a module, with the same code and no traceback."""
    for start in ([BINARY], [sys.executable, "-m", "pipeline"]):
        done = subprocess.run(
            [*start, "plan", "no.csv"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("kling-batch: no.csv: ")


def test_the_sandbox_says_where_it_is_and_ends_on_a_signal(tmp_path: Path) -> None:
    """Its URL comes first; it answers there; SIGTERM ends it with 0."""
    process = subprocess.Popen(
        [BINARY, "sandbox", "--credits", "12.50"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        request = urllib.request.Request(f"{url}/v1/get-user-credits", headers={"x-api-key": "SG_0123456789abcdef"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read())["credits"] == 12.5
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_report_made_beside_a_run_that_closes_is_as_final_as_its_own(
    command: Command, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has said how it ended and written its last report, and holds the directory for a moment yet."""
    real = Ledger._tidy_up

    def with_a_report(ledger: Ledger) -> None:
        rewrite_report(Path("outputs/m"))
        real(ledger)

    monkeypatch.setattr(Ledger, "_tidy_up", with_a_report)
    assert command("run", manifest, *FAST).code == 0
    left = json.loads(Path("outputs/m/report/summary.json").read_bytes())
    assert (left["exit_code"], left["as_of"], left["stored"]) == (0, None, 2)
