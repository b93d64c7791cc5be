"""What rows ask for, taken out by columns, is what each of them asks for; and a column has one type."""

from __future__ import annotations

import csv
import dataclasses
import errno
import gc
import io
import os
import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.kernel.arrow import values_of
from pipeline.kernel.errors import RunDirectoryError
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.report import gallery, tables
from pipeline.report import write as report_files
from pipeline.report.columns import column_of, for_pandas, in_pandas, joined, parquet_bytes, typed
from pipeline.report.jobs_file import load_keys, load_lines, save_lines
from pipeline.report.jobs_format import SCHEMA
from pipeline.report.lines import Line, Lines, as_lines
from pipeline.report.summary import summarise
from pipeline.report.write import _write_results, write_report

PROMPTS = (
    "a mug",
    "",
    'say "hi"',
    "back\\slash",
    "a\nb",
    "東京",
    "half \ud800",
    '","duration":9,"x":"',
    "}",
    None,
    5,
    1.5,
)
VALUES = (None, "text", "", 5, 10**30, 0.5, True, "half \ud800", "{", "\x00")
NAMES = ("prompt", "duration", "mood", "seed", "nobody's")


@pytest.mark.parametrize("at_once", [1, 7, 50_000])
@pytest.mark.parametrize("seed", range(40))
def test_what_rows_ask_for_is_the_same_by_columns(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the values are, however many rows share them, and wherever one part of the rows ends."""
    monkeypatch.setattr("pipeline.report.lines.LINES_AT_ONCE", at_once)
    rng = random.Random(seed)
    values = rng.sample(VALUES, rng.randint(1, 4))
    lines = as_lines([_line(rng, number, values) for number in range(rng.randint(0, 30))])
    found = lines.asked(NAMES)
    assert list(found) == list(NAMES)
    for name, column in found.items():
        wanted = [line.params[name] if name in line.params else line.variables.get(name) for line in lines]
        assert list(map(_with_type, values_of(column))) == list(map(_with_type, wanted)), name


@pytest.mark.parametrize("seed", range(25))
def test_a_report_is_the_same_however_many_lines_are_written_together(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV to the byte, and in Parquet the same types and values; also where rows share a job, and without any row."""
    rng = random.Random(seed)
    values = rng.sample(VALUES, rng.randint(1, 4))
    lines = [_line(rng, number, values) for number in range(rng.choice([0, 1, 2, 9, 30]))]
    lines = [dataclasses.replace(line, job_id=rng.choice(["k1-0", line.job_id])) for line in lines]
    state = State()
    for number, line in enumerate(lines):
        stands = rng.choice(list(JobState))
        state.jobs[line.job_id] = JobRecord(line.job_id, stands, 1, cost_microusd=number, width=rng.choice([0, 9]))
    written = []
    for at_once in (2**16, 1, 4):
        for module in ("lines", "tables"):
            monkeypatch.setattr(f"pipeline.report.{module}.LINES_AT_ONCE", at_once)
        _write_results(tmp_path, tables.results_in_parts(lines, state))
        written.append(((tmp_path / "results.csv").read_bytes(), pq.read_table(tmp_path / "results.parquet")))
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "results.parquet"}
    (as_csv, table), *others = written
    assert all(text == as_csv and each.equals(table) for text, each in others)
    rows = list(csv.DictReader(io.StringIO(as_csv.decode(), newline="")))
    assert [row["job_id"] for row in rows] == table["job_id"].to_pylist() == [line.job_id for line in lines]
    paid = [record for record in state.jobs.values() if record.state in (JobState.POSTED, JobState.STORED)]
    bill = sum(Decimal(row["cost_usd"]) for row in rows)
    assert bill == Decimal(format_usd(sum(record.cost_microusd for record in paid)))


def test_no_list_is_made_of_all_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million they take a sixth of a gigabyte: what a page holds becomes a list, and nothing else does."""
    lines = as_lines([Line(number, "x", 1, f"k1-{number}", "kling-2", {"prompt": "a"}, {}) for number in range(9)])
    save_lines(lines, tmp_path)
    state = State()
    for line in lines:
        state.jobs[line.job_id] = JobRecord(line.job_id, JobState.STORED, 1)
    listed: list[int] = []

    def counted(column: Any) -> list[Any]:
        listed.append(len(column))
        return values_of(column)

    monkeypatch.setattr("pipeline.report.lines.values_of", counted)
    monkeypatch.setattr(gallery, "MOST_LINES", 4)
    summary = summarise(load_keys(tmp_path), state, cap_microusd=0, live=False)
    write_report(tmp_path, load_lines(tmp_path), state, summary)
    assert set(listed) == {4}


def test_a_report_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    """Both files, or none: what breaks off in the middle has no name."""
    lines, state = [Line(1, "x", 1, "k1-1", "kling-2", {"prompt": "a"}, {})], State()
    _write_results(tmp_path, tables.results_in_parts(lines, state))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[tuple[dict[str, Any], pa.Table]]:
        yield from tables.results_in_parts(lines, state)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        _write_results(tmp_path, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_is_not_closed_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses the one table in the middle of writing the other: no file is left, and nothing crashes."""
    has_failed, done = threading.Event(), []
    write, close = pq.ParquetWriter.write_table, pq.ParquetWriter.close

    def write_late(*asked: Any) -> None:
        assert has_failed.wait(60)
        write(*asked)
        done.append("written")

    def note_close(writer: pq.ParquetWriter) -> None:
        done.append("closed")
        close(writer)

    def refuse(_rows: Any) -> Iterator[bytes]:
        has_failed.set()
        raise OSError("the disk is full")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_late)
    monkeypatch.setattr(pq.ParquetWriter, "close", note_close)
    monkeypatch.setattr(report_files, "csv_lines", refuse)
    lines = [Line(1, "x", 1, "k1-1", "kling-2", {"prompt": "a"}, {})]
    with pytest.raises(OSError, match="the disk is full"):
        _write_results(tmp_path, tables.results_in_parts(lines, State()))
    assert done == ["written", "closed"]
    assert not list(tmp_path.iterdir())


def test_a_table_that_the_disk_refused_writes_into_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refused once: what is left of the table must not go to whoever has its descriptor by then, as a ledger may."""
    lines = [Line(1, "x", 1, "k1-1", "kling-2", {"prompt": "a"}, {})]
    parts, real, calls = 3 * list(tables.results_in_parts(lines, State())), os.write, list[int]()

    def refuse_once(descriptor: int, data: Any) -> int:
        if threading.current_thread().name.startswith("parquet"):
            calls.append(descriptor)
            if len(calls) == 5:
                raise OSError(errno.ENOSPC, "the disk is full")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", refuse_once)
    with pytest.raises(OSError, match="the disk is full"):
        _write_results(tmp_path, iter(parts))
    others = [(tmp_path / f"other {number}").open("xb") for number in range(8)]
    assert set(calls) <= {file.fileno() for file in others}
    gc.collect()
    for file in others:
        file.close()
    assert all(path.stat().st_size == 0 for path in tmp_path.iterdir())


def test_pandas_finds_in_parquet_what_it_would_have_written() -> None:
    """The types that know nothing from zero, without pandas being there when the file is made."""
    table = pa.table({"a": pa.array([1], pa.int64()), "b": [0.5], "c": ["x"], "d": [True]})
    mine = for_pandas(table.schema).pandas_metadata
    theirs = pa.Schema.from_pandas(in_pandas(table), preserve_index=False).pandas_metadata
    assert mine["columns"] == [
        {**each, "pandas_type": mine["columns"][at]["pandas_type"]} for at, each in enumerate(theirs["columns"])
    ]
    assert [each["pandas_type"] for each in mine["columns"]] == ["int64", "float64", "unicode", "bool"]
    assert all(mine[name] == theirs[name] for name in ("index_columns", "column_indexes"))


def _line(rng: random.Random, number: int, values: list[Any]) -> Line:
    """A row whose prompt comes first, as in all that we write, or not at all, or last."""
    others: dict[str, Any] = {name: rng.choice(values) for name in ("duration", "mood") if rng.random() < 0.7}
    prompt: dict[str, Any] = {"prompt": rng.choice(PROMPTS)}
    params = rng.choice([prompt | others] * 3 + [others | prompt, others])
    variables = {name: rng.choice(values) for name in ("mood", "seed") if rng.random() < 0.5}
    return Line(number, "x", 1, f"k1-{number}", "kling-2", params, variables)


def _with_type(value: object) -> tuple[type, object]:
    return type(value), value


@pytest.mark.parametrize(
    "text",
    [
        *('{"a":1', '{"a":1,}', '{"a":1,,"b":1}', '{"a":1}{}', '{"a":1x"b":1}'),
        *("[]", "5", "{'a':1}", "", '"a":1}', "}"),
    ],
)
@pytest.mark.parametrize("name", ["settings", "variables"])
def test_rows_that_are_no_rows_are_refused_in_either_way(text: str, name: str) -> None:
    """A directory whose rows cannot be read says so, and nothing is made up for them."""
    whole = as_lines([Line(1, "x", 1, "k1-1", "kling-2", {"prompt": "a"}, {})]).table.cast(SCHEMA)
    broken = Lines(whole.set_column(whole.column_names.index(name), name, pa.array([text])))
    with pytest.raises(RunDirectoryError):
        broken.asked(NAMES)
    with pytest.raises(RunDirectoryError):
        list(broken)


@pytest.mark.parametrize("name", ["settings", "variables"])
@pytest.mark.parametrize("text", ['{"a":[1]}', '{"a":{}}'])
def test_values_that_no_cell_can_have_are_refused_by_who_makes_cells(text: str, name: str) -> None:
    """Who wants to know what a row had asked for is told: what is paid must be known again whatever else is there."""
    whole = as_lines([Line(1, "x", 1, "k1-1", "kling-2", {"prompt": "a"}, {})]).table.cast(SCHEMA)
    strange = Lines(whole.set_column(whole.column_names.index(name), name, pa.array([text])))
    with pytest.raises(RunDirectoryError):
        strange.asked(NAMES)
    assert [line.params["prompt"] for line in strange] == ["a"]


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([None, None], pa.string(), [None, None]),
        ([1, None], pa.int64(), [1, None]),
        ([1, 0.5], pa.float64(), [1.0, 0.5]),
        ([1, 10**30], pa.string(), ["1", str(10**30)]),
        ([True, None], pa.bool_(), [True, None]),
        ([True, 1, "x", 2.5], pa.string(), ["true", "1", "x", "2.5"]),
        (["half \ud800", None], pa.string(), ["half ?", None]),
    ],
)
def test_a_column_has_one_type_in_parquet(values: list[Any], kind: pa.DataType, wanted: list[Any]) -> None:
    """Numbers where all are numbers, and texts in the manifest's spelling where they are not."""
    parts = [[value] for value in values]
    for column in (column_of(values), joined([column_of(part) for part in parts])):
        table = typed({"column": column})
        assert table["column"].type == kind
        assert table["column"].to_pylist() == wanted
    read = pa.parquet.read_table(pa.BufferReader(parquet_bytes({"column": column})))
    assert read["column"].to_pylist() == wanted
    assert read.to_pandas().dtypes.equals(in_pandas(table).dtypes)
