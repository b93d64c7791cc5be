"""Tables are taken by columns: each row says what it would say alone, and is made where somebody asks for it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Fail, Load

from pipeline.kernel.errors import ManifestError
from pipeline.manifest import load_manifest
from pipeline.manifest.batches import Batch, of_table
from pipeline.manifest.document import Row
from pipeline.manifest.sizes import Sizes

BATCHES = importlib.import_module("pipeline.manifest.batches")
EXPAND = importlib.import_module("pipeline.manifest.expand")
MISTAKES = importlib.import_module("pipeline.manifest.mistakes")
READ_CSV = importlib.import_module("pipeline.manifest.read_csv")

Table = dict[str, list[str | None]]

every_batch_size = pytest.mark.parametrize("batch_rows", [1, 2, 3, 300])


def write(path: Path, table: Table) -> Path:
    """A table as a manifest, in the format of the path's ending."""
    records = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in table.items()}), path)
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(table))
        writer.writeheader()
        writer.writerows(records)
        path.write_text(text.getvalue())
    else:
        # In JSON a text is what it is; in a table the space around it is not, and an empty cell says nothing.
        said = ({name: (value or "").strip() or None for name, value in record.items()} for record in records)
        path.write_text("".join(json.dumps(record) + "\n" for record in said))
    return path


def outcome(path: Path) -> object:
    """What a manifest asks for, or what is wrong with it, whatever the format."""
    try:
        campaign = load_manifest(path)
    except ManifestError as error:
        return [(mistake.message, mistake.row, mistake.column) for mistake in error.mistakes]
    entries = [(entry, entry.job.params, entry.job.label, list(entry.variables.items())) for entry in campaign.entries]
    return entries, [warning.message for warning in campaign.warnings if "no template uses" not in warning.message]


@pytest.mark.parametrize("batch_rows", [1, 7, 300])
@pytest.mark.parametrize("seed", range(30))
def test_a_table_asks_for_the_same_in_every_format(
    seed: int, batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that are full, empty, or both; JSON lines are read row by row."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    rng = random.Random(seed)
    words = {
        "duration": ["5", "10"],
        "aspect_ratio": [" 16:9 ", "9:16"],
        "mood": ["calm", "wild", "true", "0.50"],
        "negative_prompt": ["blur", "{{ mood }}"],
        "sku": ["a", "b", " ", "  "],
        "tags": ["x", "y"],
    }
    names = rng.sample(sorted(words), rng.randint(0, 4))
    holes = {name: rng.choice([0.0, 0.0, 0.1, 1.0]) for name in names}
    table: Table = {
        name: [None if rng.random() < holes[name] else rng.choice(words[name]) for _ in range(40)] for name in names
    }
    table["n"] = ["1"] * 40  # or a line without a prompt would be blank
    wrong = rng.choice([0.0, 0.0, 0.1])
    odd = ["", "mug 3", "a\x00b", "{{ y }}", "{mood}", "x" * 2_600]
    table["prompt"] = [rng.choice(odd) if rng.random() < wrong else f" mug {number}" for number in range(40)]
    if rng.random() < 0.5:
        table["id"] = [rng.choice(["r1", "R2", None, "no id"]) if rng.random() < wrong else f"r{n}" for n in range(40)]
    shuffled = {name: table[name] for name in rng.sample(sorted(table), len(table))}
    found = [outcome(write(tmp_path / name, shuffled)) for name in ("m.csv", "m.parquet", "m.jsonl")]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_a_row_of_a_table_is_made_where_somebody_asks_for_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first batch, of which nothing is known, and beside the row that is not as plain as the others."""
    made: list[int] = []

    def row(*said: Any) -> Row:
        made.append(said[3])
        return Row(*said)

    monkeypatch.setattr(BATCHES, "Row", row)
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", 5)
    table: Table = {
        "id": [f"r{number}" for number in range(30)],
        "prompt": [f"mug {number}" for number in range(30)],
        "mood": ["calm"] * 30,
        "empty": [None] * 30,
    }
    table["mood"][17] = "wild"
    table["mood"][24] = None
    assert len(load_manifest(write(tmp_path / name, table)).entries) == 30
    assert made == [1, 2, 3, 4, 5, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]


@every_batch_size
def test_each_row_knows_its_line(batch_rows: int, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind texts of several lines and behind blank ones, wherever a batch ends."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    text = '\nprompt,duration\n"a\nb",7\n\n"c\r\nd",5\n , \ne,7\n"f\n\ng",7,9\nh\n"i\nj",7\n'
    assert [(mistake.row, mistake.line, mistake.column) for mistake in fail(text, "m.csv")] == [
        (1, 3, "duration"),
        (3, 9, "duration"),
        (4, 10, None),
        (4, 10, "duration"),
        (5, 13, None),
        (6, 14, "duration"),
    ]


@every_batch_size
def test_what_stands_before_a_broken_quote_is_read(
    batch_rows: int, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows before it are looked through as if it were not there."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    found = fail('prompt,duration\na,5\n"b\nc",7\nd,5\n"e"f,5\ng,7\n', "m.csv")
    assert [(mistake.row, mistake.line) for mistake in found] == [(2, 3), (None, 6)]


@every_batch_size
def test_the_first_row_that_is_too_many_ends_the_reading(
    batch_rows: int, load: Load, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows it is not even looked at."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(READ_CSV, "MAX_ENTRIES", 4)
    rows = "prompt\na\n\nb\nc\nd\n"
    assert len(load(rows, "m.csv").entries) == 4
    [mistake] = fail(rows + 'e\n"f"f\n', "m.csv")
    assert (mistake.message, mistake.line) == ("has more than 4 rows; split it", 7)


@every_batch_size
def test_a_value_under_no_name_is_a_mistake_of_its_row(
    batch_rows: int, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows around it say nothing there."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    found = fail("prompt,, \na,,\nb, ,x\nc,,\nd\n,,\ne,x,y\n", "m.csv")
    assert [(mistake.row, "without a name" in mistake.message) for mistake in found] == [
        (2, True),
        (4, False),
        (5, True),
    ]


@every_batch_size
def test_the_value_of_two_columns_of_one_name_is_the_last_that_is_given(
    batch_rows: int, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is said of the rows besides."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    found = fail("prompt,duration,duration\na,7,5\nb,5,\nc,,7\nd,5,7\n", "m.csv")
    assert [(mistake.row, mistake.line) for mistake in found] == [(None, 1), (3, 4), (4, 5)]


@every_batch_size
def test_mistakes_of_columns_are_told_row_by_row(
    batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too many of them, those of the first rows are told."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(MISTAKES, "MAX_COUNTED", 5)
    infinite = pa.array([float("inf")] * 9)
    pq.write_table(pa.table({"prompt": ["a"] * 9, "x": infinite, "y": infinite}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "m.parquet")
    found = [(mistake.row, mistake.column) for mistake in caught.value.mistakes]
    assert found == [(1, "x"), (1, "y"), (2, "x"), (2, "y"), (3, "x")]


def test_rows_of_parquet_stand_together_wherever_its_parts_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in their order, in batches that are full but for the last."""
    sizes: list[int] = []
    foresee = Sizes.foresee

    def seen(self: Any, batch: Batch) -> None:
        sizes.append(len(batch))
        foresee(self, batch)

    monkeypatch.setattr(Sizes, "foresee", seen)
    prompts = [f"mug {number}" for number in range(4_100)]
    pq.write_table(pa.table({"prompt": prompts}), tmp_path / "m.parquet", row_group_size=700)
    entries = load_manifest(tmp_path / "m.parquet").entries
    assert [(entry.row, entry.job.prompt) for entry in entries] == list(enumerate(prompts, start=1))
    assert sizes == [300] * 13 + [200]


@pytest.mark.parametrize("ids", [["a\nb", "c"], ["a", "b\n"], ["\n", "a"], ["a" * 65, "b"], ["a", "-b"], ["a", "ſ"]])
def test_an_id_that_is_none_is_none_among_others(ids: list[str], fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it would be two that are good."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", 2)
    rows = [{"id": name, "prompt": f"mug {name}"} for name in ("x1", "x2", *ids)]
    [mistake] = fail("".join(json.dumps(row) + "\n" for row in rows), "m.jsonl")
    assert (mistake.column, "is no id" in mistake.message) == ("id", True)


def test_ids_that_differ_in_their_letters_size_are_one_in_a_batch_too(load: Load, fail: Fail) -> None:
    """Those that are small already and those that are not."""
    table = "id,prompt\n" + "".join(f"{name},mug {number}\n" for number, name in enumerate(["a0", "Hero", "b1"]))
    assert [entry.row_id for entry in load(table, "m.csv").entries] == ["a0", "Hero", "b1"]
    [mistake] = fail(table + "c2,mug 3\nhERO,mug 4\n", "m.csv")
    assert "the id of row 2 already" in mistake.message


@pytest.mark.parametrize(
    ("names", "columns", "shapes"),
    [
        (("prompt", "mood"), [["a", "b"], ["x", "y"]], {("prompt", "mood")}),
        (("prompt", "mood"), [["a", "b"], [None, None]], {("prompt",)}),
        (("prompt", "mood"), [["a", "b"], [None, "y"]], {("prompt",), ("prompt", "mood")}),
        (("prompt", "mood", "mood"), [["a", "b"], ["x", "y"], ["v", "w"]], {("prompt", "mood")}),
    ],
    ids=["whole", "an empty column", "a hole", "a name twice"],
)
def test_a_batch_says_of_each_row_what_the_row_says(
    names: tuple[str, ...], columns: list[list[str | None]], shapes: set[tuple[str, ...]]
) -> None:
    """Its names, its values, and the default where it has none."""
    batch = of_table(names, columns, [2, 3], 1, "t.csv")
    assert batch.shapes == shapes
    assert batch.shapes == {tuple(row.cells) for row in batch.rows}
    for name in (*names, "more"):
        assert list(batch.column(name, "default")) == [row.cells.get(name, "default") for row in batch.rows]


def test_a_time_beyond_all_calendars_is_a_mistake(fail: Fail, tmp_path: Path) -> None:
    """Of the file, with its reason, and no crash."""
    columns = {"prompt": pa.array(["a"]), "when": pa.array([10**18], pa.timestamp("us"))}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    [mistake] = fail("rows_from: t.parquet\n")
    assert "cannot be read as Parquet" in mistake.message


def test_records_of_very_many_cells_are_not_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused for its width is not held three hundred times over first; and each record is given once."""
    monkeypatch.setattr(READ_CSV, "CELLS_AT_ONCE", 10)
    path = tmp_path / "t.csv"
    path.write_text("prompt,mood\n" + "".join(f"a{number},calm\n" for number in range(12)) + "b" + ",c" * 20 + "\n")
    parts = list(READ_CSV._records(path, MISTAKES.Mistakes("t.csv"), 300))
    assert [len(records) for _, records in parts] == [1, 5, 5, 3]
    assert [line for lines, _ in parts for line in lines] == list(range(1, 15))
