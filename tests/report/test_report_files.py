"""The report's files can be opened by anything: pandas, a spreadsheet, a terminal."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_doubles import make_job
from report_doubles import NOON_US, event, life, line, state_of

from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.manifest import Entry
from pipeline.report import columns
from pipeline.report.campaign_lines import lines_of, mark_of, mark_with
from pipeline.report.columns import column_of, csv_bytes, harmless
from pipeline.report.jobs_file import kept_sha256, load_keys, load_lines, save_lines
from pipeline.report.jobs_format import SCHEMA, VERSION
from pipeline.report.lines import Line
from pipeline.report.summary import summarise
from pipeline.report.write import write_report
from pipeline.runlog import RunLog

RESULT_COLUMNS = [
    *("row", "id", "replicate", "job_id", "status", "video", "sha256", "bytes", "duration_s", "width", "height"),
    *("cost_usd", "attempts", "request_id", "submitted_at", "finished_at", "queue_s", "inference_s"),
    *("error_class", "error"),
]
PARAMETERS = ["prompt", "negative_prompt", "cfg_scale", "duration", "aspect_ratio", "start_image"]
ERROR_COLUMNS = [
    *("row", "id", "job_id", "attempt", "at", "http_status", "error_class", "billed", "request_id", "error", "next")
]

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "=cmd|'/C calc'!A0",
    '=HYPERLINK("http://x.example","y")',
    "  =1+1",
    "\t=1+1",
    "\n=1+1",
    "\r=1+1",
    "\x00=1+1",
    "\ufeff=1+1",
    "＝1+1",
    "＠SUM(A1)",
    "-5 degrees",
]
TEXTS = ["two\nlines", 'a "quote", a comma; a semicolon', "naïve 東京 🎬", "tab\there", "ends in \\", "'quoted'", " x "]


def write(folder: Path, lines: list[Line], state: State) -> Path:
    write_report(folder, lines, state, summarise(lines, state, cap_microusd=5_000_000, live=False))
    return folder / "report"


def read_csv(path: Path) -> list[dict[str, str]]:
    """The file as Python's own reader sees it."""
    return list(csv.DictReader(io.StringIO(path.read_text(), newline=""), strict=True))


def test_the_columns_are_the_published_ones(tmp_path: Path) -> None:
    """The fixed columns in their order, then every parameter, then every variable, also where there are no rows."""
    report = write(tmp_path, [line(1, "a", variables={"mood": "cozy"}), line(2, "b", variables={"n": 2})], State())
    assert list(pd.read_csv(report / "results.csv")) == [*RESULT_COLUMNS, *PARAMETERS, "mood", "n"]
    assert list(pd.read_parquet(report / "results.parquet")) == [*RESULT_COLUMNS, *PARAMETERS, "mood", "n"]
    assert list(pd.read_csv(report / "errors.csv")) == ERROR_COLUMNS
    files = {"index.html", "results.csv", "results.parquet", "errors.csv", "summary.json"}
    assert {path.name for path in report.iterdir()} >= files


def test_no_rows(tmp_path: Path) -> None:
    """An empty campaign has tables with headers and nothing below."""
    report = write(tmp_path, [], State())
    assert list(pd.read_csv(report / "results.csv")) == RESULT_COLUMNS
    assert pd.read_parquet(report / "results.parquet").shape == (0, len(RESULT_COLUMNS))
    assert json.loads((report / "summary.json").read_text())["jobs"] == 0


def test_both_readers_read_the_same_back(tmp_path: Path) -> None:
    """pandas reads CSV and parquet without a warning, with the same numbers in both."""
    lines = [line(1, "a", variables={"n": 1}), line(2, "b", variables={"n": 2}), line(3, "c")]
    report = write(tmp_path, lines, state_of(*life("stored", "a"), *life("unfetched", "b")))
    from_csv, from_parquet = pd.read_csv(report / "results.csv"), pd.read_parquet(report / "results.parquet")
    for column in ("row", "replicate", "bytes", "attempts", "duration", "cfg_scale", "n"):
        assert from_csv[column].astype("Float64").equals(from_parquet[column].astype("Float64")), column
    assert from_csv["cost_usd"].sum() == 3.5
    assert from_csv["status"].tolist() == from_parquet["status"].tolist() == ["stored", "unfetched", "pending"]


@pytest.mark.parametrize("text", [*FORMULAS, *TEXTS])
def test_no_text_runs_in_a_spreadsheet_or_breaks_a_row(tmp_path: Path, text: str) -> None:
    """In CSV a formula is made harmless by a leading `'`, wherever it stands; parquet has the text as it was."""
    header = text if text.strip() and text.isprintable() else "v"
    lines = [line(1, "a", params={"prompt": text}, variables={header: text}), line(2, "b")]
    state = state_of(event("reserved"), event("voided", error_class="bad_request", detail=text))
    report = write(tmp_path, lines, state)
    rows = read_csv(report / "results.csv")
    assert [row["row"] for row in rows] == ["1", "2"]
    (error,) = read_csv(report / "errors.csv")
    for cell in (rows[0]["prompt"], rows[0]["error"], error["error"], list(rows[0])[-1]):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＠", "\x00"))
        assert cell.isprintable() or set(cell) & set("\n\t\ufeff")
    if text in TEXTS:
        assert rows[0]["prompt"] == text
    assert len(pd.read_csv(report / "results.csv")) == 2
    table = pd.read_parquet(report / "results.parquet")
    assert table["prompt"][0] == text
    assert table[header][0] == text


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "a\x00b", "a\x1b[2Jb", "a\x9bb", "a\ud800b"])
def test_what_is_no_writing_does_not_break_a_table(tmp_path: Path, text: str) -> None:
    """A carriage return ends no row, an escape reaches no terminal, half a character stops no report."""
    sound = text.encode("utf-8", "replace").decode()
    report = write(
        tmp_path,
        [line(1, "a", variables={"v": text}), line(2, "b")],
        state_of(event("reserved"), event("voided", error_class="bad_request", detail=sound)),
    )
    raw = (report / "results.csv").read_bytes().decode()
    assert not set(raw) & set("\r\x00\x1b\x9b")
    assert len(read_csv(report / "results.csv")) == len(pd.read_csv(report / "results.csv")) == 2
    assert len(pd.read_csv(report / "errors.csv")) == 1


def test_numbers_stay_numbers() -> None:
    """A negative number is no formula."""
    assert harmless(-5) == -5
    assert harmless(-0.5) == -0.5
    assert harmless(None) is None


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, 2], "Int64", [1, 2]),
        ([1, 0.5], "Float64", [1.0, 0.5]),
        ([True, False], "boolean", [True, False]),
        ([1, "x"], "string", ["1", "x"]),
        ([True, "x"], "string", ["true", "x"]),
        ([True, 1], "string", ["true", "1"]),
        ([10**30, 1], "string", [str(10**30), "1"]),
        ([None, None], "string", [None, None]),
    ],
)
def test_a_column_of_parquet_is_of_one_kind(tmp_path: Path, values: list[Any], kind: str, read: list[Any]) -> None:
    """A variable may be a number here and a text there; nothing is rounded and nothing breaks."""
    report = write(
        tmp_path, [line(row, f"j{row}", variables={"v": value}) for row, value in enumerate(values)], State()
    )
    column = pd.read_parquet(report / "results.parquet")["v"].astype(kind)
    assert [None if pd.isna(value) else value for value in column] == read
    assert len(pd.read_csv(report / "results.csv")) == len(values)


def test_rows_are_kept_as_they_were(tmp_path: Path) -> None:
    """The run directory's own copy of the rows gives back variables of any size and kind."""
    variables = {"huge": 10**30, "half": "a\ud800", "none": None, "yes": True, "text": "東京"}
    entry = Entry(3, "x", make_job("kling-2", {"prompt": "p"}, 2, "x"), variables, 0)
    save_lines(lines_of([entry]), tmp_path)
    (kept,) = load_lines(tmp_path)
    assert (kept.row, kept.id, kept.replicate, kept.variables) == (3, "x", 2, variables)


def one_entry(**changed: Any) -> Entry:
    """An entry, but for what is `changed` of it."""
    said = {"row": 3, "row_id": "x", "variables": {"v": 1}, "priority": 0, "prompt": "p", "duration": 5, "replicate": 1}
    said |= changed
    params = {"prompt": said["prompt"], "duration": said["duration"]}
    job = make_job("kling-2", params, said["replicate"], said["row_id"])
    return Entry(said["row"], said["row_id"], job, said["variables"], said["priority"])


def test_the_mark_of_rows_is_another_where_anything_that_is_kept_is(tmp_path: Path) -> None:
    """And the same for the same rows made anew, so that a million need not be written down to be compared."""
    values = (True, 1.0, "1", None, float("nan"), 10**30, "a\ud800", "東京")
    several = [
        [one_entry()],
        [one_entry(row=4)],
        [one_entry(row_id="y")],
        [one_entry(priority=1)],
        [one_entry(prompt="q")],
        [one_entry(duration=10)],
        [one_entry(replicate=2)],
        *[[one_entry(variables={"v": value})] for value in values],
        [one_entry(variables={})],
        [one_entry(variables={"w": 1})],
        [],
        [one_entry(), one_entry(row=4)],
        [one_entry(row=4), one_entry()],
    ]
    assert len({mark_of(entries) for entries in several}) == len(several)
    kept = set()
    for entries in several:
        save_lines(lines_of(entries), tmp_path)
        kept.add((tmp_path / "jobs.parquet").read_bytes())
    assert len(kept) == len(several), "what is kept is another each time"
    assert mark_of([one_entry(), one_entry(row=4)]) == mark_of([one_entry(), one_entry(row=4)])


def test_what_is_kept_of_the_same_rows_changes_together_with_their_mark() -> None:
    """Else a directory would keep what an older version made of them. When this fails, `VERSION` is to be raised."""
    lines = lines_of([one_entry(variables={"v": True, "w": "東京"}, prompt='"p"')])
    assert (VERSION, lines.table.to_pylist()) == (
        2,
        [
            {
                "row": 3,
                "id": "x",
                "replicate": 1,
                "job_id": "k1-da78c045f179c3bd5e494565",
                "model": "kling-2",
                "priority": 0,
                "prompt": '"p"',
                "settings": '{"duration":5}',
                "variables": r'{"v": true, "w": "\u6771\u4eac"}',
            }
        ],
    )


def test_the_same_parameters_in_another_order_are_kept_as_such(tmp_path: Path) -> None:
    """One job, and other text: the mark tells them apart as the file does."""
    shuffled = [{"prompt": "p", "duration": 5, "mode": "pro"}, {"prompt": "p", "mode": "pro", "duration": 5}]
    entries = [[Entry(1, "x", make_job("kling-2", params, 1, "x"), {}, 0)] for params in shuffled]
    (one,), (other,) = entries
    assert one.job.job_id == other.job.job_id
    assert mark_of([one]) != mark_of([other])


def test_the_mark_of_what_is_kept_is_of_the_file_as_well(tmp_path: Path) -> None:
    """A file that was damaged has another mark than the one that was noted; a link, or what is no file, has none."""
    path, mark = tmp_path / "jobs.parquet", mark_of([one_entry()])
    assert kept_sha256(tmp_path) is None
    sha256, data = save_lines(lines_of([one_entry()]), tmp_path), path.read_bytes()
    assert kept_sha256(tmp_path) == load_lines(tmp_path).keys.sha256 == load_keys(tmp_path).sha256 == sha256
    assert load_lines(tmp_path, only=["elsewhere"]).keys.sha256 is None
    noted = mark_with(mark, sha256)
    assert mark_with(mark_of([one_entry(row=4)]), sha256) != noted
    for at in (0, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert mark_with(mark, kept_sha256(tmp_path) or "") != noted
    path.write_bytes(data)
    assert mark_with(mark, kept_sha256(tmp_path) or "") == noted
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert kept_sha256(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert kept_sha256(tmp_path) is None


def test_too_little_memory_is_no_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow raises it like its errors for bad files. Nobody is sent to look for a copy of a file that is whole."""
    save_lines(lines_of([one_entry()]), tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 262144 failed")

    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(MachineError, match=r"jobs\.parquet cannot be read: this machine has too little memory"):
        load_lines(tmp_path)


def test_a_log_that_cannot_be_opened_leaves_nothing_to_be_closed(tmp_path: Path) -> None:
    """Else the end of the process, where logging closes what it remembers, is a traceback."""
    (tmp_path / "run.log").mkdir()
    before = list(logging._handlerList)  # type: ignore[attr-defined]
    with pytest.raises(IsADirectoryError) as refused:
        RunLog(tmp_path / "run.log")
    assert logging._handlerList == before, refused.tb  # type: ignore[attr-defined]


def test_the_log_is_json_without_the_key(tmp_path: Path) -> None:
    """Each line of run.log is JSON in the ledger's words, also of stranger texts, and never holds the key."""
    key = 'SG_"quoted"\\key'
    log = RunLog(tmp_path / "run.log", key)
    log.event(Event(event=EventKind.VOIDED, seq=1, at_us=NOON_US, job_id="a", detail=f"no {key}\n\x1b"))
    log.emit(logging.LogRecord("x", logging.INFO, "", 1, f"half \ud800 {key}", None, None))
    log.close()
    log.close()
    lines = (tmp_path / "run.log").read_bytes().splitlines()
    assert [json.loads(each)["event"] for each in lines] == ["voided", "log"]
    assert orjson.loads(lines[0])["detail"] == "no [key]\n\x1b"
    assert not any(b"quoted" in each for each in lines)


def test_a_report_that_dies_on_the_way_has_no_new_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary says up to which event the report reaches: it comes when all the rest stands."""
    summary = summarise([], State(), cap_microusd=1, live=False)
    write_report(tmp_path, [], State(), summary | {"events": 1})

    def die(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.report.write.gallery_page", die)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path, [], State(), summary | {"events": 3})
    assert json.loads((tmp_path / "report" / "summary.json").read_bytes())["events"] == 1


async def test_the_log_writes_the_events_of_a_commit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one call when the loop comes round; another message, or the end, waits for nothing."""
    writes: list[int] = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda at, data: (writes.append(data.count(b"\n")), real(at, data))[1])
    log = RunLog(tmp_path / "run.log", "")
    each = Event(event=EventKind.VOIDED, seq=1, at_us=NOON_US, job_id="a")
    for seq in (1, 2, 3):
        log.event(each._replace(seq=seq))
    await asyncio.sleep(0)
    assert writes == [3]
    log.event(each._replace(seq=4))
    log.emit(logging.LogRecord("x", logging.INFO, "", 1, "in a hurry", None, None))
    log.event(each._replace(seq=5))
    log.close()
    assert writes == [3, 2, 1]
    lines = [json.loads(line) for line in (tmp_path / "run.log").read_bytes().splitlines()]
    assert [line.get("seq") for line in lines] == [1, 2, 3, 4, None, 5]


def test_rows_are_read_without_threads(tmp_path: Path) -> None:
    """A short command that ends while Arrow's threads are still being started would be aborted at its exit."""
    job = make_job("kling-2", {"prompt": "p"}, 1, "x")
    save_lines(lines_of([Entry(row, "x", job, {}, 0) for row in range(1_000)]), tmp_path)
    code = (
        "import os, sys, pathlib; from pipeline.report.jobs_file import load_keys, load_lines\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before, folder = count(), pathlib.Path(sys.argv[1])\n"
        f"assert len(load_keys(folder)) == len(load_lines(folder, only=['{job.job_id}'])) == len(load_lines(folder))\n"
        "assert len(load_lines(folder, only=['another'])) == 0\n"
        "assert count() == before, (before, count())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_log_that_cannot_be_closed_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log explains and does not prove: its end is no failure of the run, and it is closed once."""
    log = RunLog(tmp_path / "run.log", "")
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "close", fail)
    log.close()
    monkeypatch.undo()
    log.close()


NASTY = [
    *(
        "",
        "a",
        "a, b",
        'say "a"',
        "two\nlines",
        "a\r\nb",
        "=1+1",
        " =1",
        "＋1",
        "-5",
        "5",
        "é",
        "東京",
        "a\ud800b",
        "'",
        "@x",
    ),
    *("a\x00", "~", "A~ b", "x" * 300),
]


@pytest.mark.parametrize("seed", range(60))
def test_columns_become_the_csv_that_a_writer_of_rows_makes(seed: int) -> None:
    """Whatever a column holds, of one kind or of several: each cell harmless, quoted as Python's own writer does."""
    rng = random.Random(seed)
    kinds = [
        lambda: rng.choice(NASTY),
        lambda: rng.choice(["plain", "text 5", None]),
        lambda: rng.choice([text for text in NASTY if "\ud800" not in text] + [None]),
        lambda: rng.choice([None, -3, 0, 2**62]),
        lambda: rng.choice([None, 0.5, 5.0, 1e-7, 1e22, -0.1]),
        lambda: rng.choice([None, True, False]),
        lambda: rng.choice([1, 2.5, -1, None, "=x", True, 10**30]),
        lambda: rng.choice([0.5, 5.0, None]),
        lambda: rng.choice([-1, 10**30]),
        lambda: None,
    ]
    count = rng.randint(0, 40)
    chosen = rng.sample(kinds, rng.randint(2, len(kinds)))
    table = {f"c, {n}": [make() for _ in range(count)] for n, make in enumerate(chosen)}
    assert csv_bytes({name: column_of(values) for name, values in table.items()}) == _as_python_writes(table)


@pytest.mark.parametrize("code", [*range(128), 0x80, 0xE9, 0x200B, 0xFF1D, 0xD800])
def test_every_character_is_as_safe_alone_as_among_others(code: int) -> None:
    """Columns of which all texts are alike are written by a shorter way: first or later, no character slips through."""
    for text in (chr(code), f"a{chr(code)}", f"{chr(code)}a"):
        table = {"x": [text, text], "y": ["", text], "z": [text, "a b"], "a": [None, text]}
        assert csv_bytes({name: column_of(values) for name, values in table.items()}) == _as_python_writes(table)


def test_what_many_lines_say_alike_stands_in_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written once for all lines that are made together, wherever its columns stand, and also where nothing differs."""
    monkeypatch.setattr(columns, "_ROWS_AT_ONCE", 3)
    kinds: list[list[Any]] = [["=a", "b, c"], [7, None], [0.5, 5.0], [None, None], [True, False]]
    for kind in kinds:
        for at in range(6):
            alike, mixed = [kind[0]] * 5, [kind[at == row] for row in range(5)]
            table = {"first": alike, "second": alike, "third": mixed, "fourth": alike}
            made = csv_bytes({name: column_of(values) for name, values in table.items()})
            assert made == _as_python_writes(table)


def _as_python_writes(table: Mapping[str, Sequence[Any]]) -> bytes:
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(table)
    writer.writerows([harmless(value) for value in row] for row in zip(*table.values(), strict=True))
    return rows.getvalue().encode()


def test_the_lines_of_jobs_that_share_a_kind_keep_the_parameters_of_each(tmp_path: Path) -> None:
    """In their order, the prompt first, whatever it has in it."""
    kinds = [{"duration": 5, "negative_prompt": 'a "b"'}, {"duration": 10}]
    prompts = ['say "hi"', "東京", "a\nb", "\\"]
    jobs = [
        make_job("kling-2", {"prompt": text, **kind}, n, "x") for text in prompts for n, kind in enumerate(kinds, 1)
    ]
    shared, none = {"mood": "calm"}, {}
    variables = [(shared, none, {"mood": row})[row % 3] for row, _ in enumerate(jobs)]
    entries = [Entry(row, "x", job, mine, 0) for row, (job, mine) in enumerate(zip(jobs, variables, strict=True))]
    save_lines(lines_of(entries), tmp_path)
    assert [each.params for each in load_lines(tmp_path)] == [job.params for job in jobs]
    assert [list(each.params) for each in load_lines(tmp_path)] == [list(job.params) for job in jobs]
    assert [each.variables for each in load_lines(tmp_path)] == variables


def test_rows_that_an_older_version_kept_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt stood among the parameters then; what a line asks for is the same, and the next run keeps it anew."""
    for module in ("campaign_lines", "jobs_file", "lines"):
        monkeypatch.setattr(f"pipeline.report.{module}.LINES_AT_ONCE", 3)
    entries = [one_entry(prompt=text, variables={"n": n}) for n, text in enumerate(['say "hi"', "東京", "a\nb", "\\"])]
    new = lines_of(entries)
    params = pa.array([orjson.dumps(dict(line.params)).decode() for line in new])
    old = new.table.cast(SCHEMA).drop_columns(["prompt", "settings"]).add_column(6, "params", params)
    pq.write_table(old, tmp_path / "jobs.parquet")
    assert load_lines(tmp_path).table.cast(SCHEMA).equals(new.table.cast(SCHEMA))
    assert list(load_keys(tmp_path)) == list(new.keys)
    for broken in ("[]", "{"):
        pq.write_table(old.set_column(6, "params", pa.array([broken] * 4)), tmp_path / "jobs.parquet")
        with pytest.raises(RunDirectoryError, match=r"jobs\.parquet cannot be read"):
            load_lines(tmp_path)
    pq.write_table(old.slice(0, 0), tmp_path / "jobs.parquet")
    assert list(load_lines(tmp_path)) == []
    save_lines(new, tmp_path)
    kept = (tmp_path / "jobs.parquet").stat()
    save_lines(load_lines(tmp_path), tmp_path)
    assert (tmp_path / "jobs.parquet").stat() == kept, "what is read is kept as the same"


@pytest.mark.parametrize("name", ["id", "prompt", "settings", "params"])
def test_a_text_of_which_the_disk_has_lost_a_bit_is_not_shown(name: str, tmp_path: Path) -> None:
    """Nor does anybody crash over it: neither in a file of today nor in one of an older version."""
    whole = lines_of([one_entry(prompt="x")]).table.cast(SCHEMA)
    old = whole.drop_columns(["prompt", "settings"]).append_column("params", pa.array(['{"prompt":"x"}']))
    table, broken = old if name == "params" else whole, b'{"prompt":"\xff"}'
    bounds = pa.py_buffer(b"".join(at.to_bytes(4, "little") for at in (0, len(broken))))
    column = pa.Array.from_buffers(pa.string(), 1, [None, bounds, pa.py_buffer(broken)])
    table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "jobs.parquet")
    with pytest.raises(RunDirectoryError, match=r"jobs\.parquet cannot be read"):
        load_lines(tmp_path)


@pytest.mark.parametrize("again", ["id", "prompt", "settings", "params"])
def test_a_column_that_is_there_twice_is_none_of_a_run_directorys(again: str, tmp_path: Path) -> None:
    """Also where it stands beside the one of an older version that it is made of."""
    whole = lines_of([one_entry(prompt="x")]).table.cast(SCHEMA)
    old = whole.drop_columns(["prompt", "settings"]).append_column("params", pa.array(['{"prompt":"x"}']))
    pq.write_table(old.append_column(again, pa.array(["{}"])), tmp_path / "jobs.parquet")
    with pytest.raises(RunDirectoryError, match=r"it has (no|more than one) column"):
        load_lines(tmp_path)


@pytest.mark.parametrize("name", ["kling-3", "", "x" * 1000])
def test_a_model_that_this_version_does_not_know_is_named(name: str, tmp_path: Path) -> None:
    """A later version may have kept it: who shows its rows is told in a sentence, who looks for what is paid not."""
    whole = lines_of([one_entry(), one_entry()]).table.cast(SCHEMA)
    strange = whole.set_column(whole.column_names.index("model"), "model", pa.array(["kling-2", name]))
    pq.write_table(strange, tmp_path / "jobs.parquet")
    with pytest.raises(RunDirectoryError, match=rf"asks for model '{name[:60]}', which this version does not know"):
        write_report(tmp_path, load_lines(tmp_path), State(), {})
    assert [line.model for line in load_lines(tmp_path)] == ["kling-2", name]
    assert len(load_keys(tmp_path)) == 2


@pytest.mark.parametrize("prompt", [r'"a\ud800"', "null", "5"])
def test_a_prompt_of_an_older_version_that_is_no_proper_text_is_read(prompt: str, tmp_path: Path) -> None:
    """Only where it can be read at all: a text that nests without end is refused."""
    whole = lines_of([one_entry(prompt="x")]).table.cast(SCHEMA).drop_columns(["prompt", "settings"])
    text = f'{{"duration":5,"prompt":{prompt}}}'
    pq.write_table(whole.append_column("params", pa.array([text])), tmp_path / "jobs.parquet")
    assert [dict(each.params) for each in load_lines(tmp_path)] == [json.loads(text)]
    deep = text.replace('duration":5', 'duration":' + "[" * 100_000 + "]" * 100_000)
    pq.write_table(whole.append_column("params", pa.array([deep])), tmp_path / "jobs.parquet")
    with pytest.raises(RunDirectoryError, match="RecursionError"):
        load_lines(tmp_path)
