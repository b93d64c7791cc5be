"""Parquet manifests: what pandas writes, and what nobody should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Fail, Load

from pipeline.manifest import load_manifest
from pipeline.manifest.document import MAX_ENTRIES


def test_what_pandas_writes_is_a_manifest(load: Load, tmp_path: Path) -> None:
    """Nulls and NaN are values not given; numbers, truth values, categories and dates are read as from CSV."""
    frame = pd.DataFrame(
        {
            "prompt": ["a {{ mood }} mug", "a lamp of {{ day }}"],
            "duration": [5.0, float("nan")],
            "mood": pd.Categorical(["calm", None]),
            "day": [None, pd.Timestamp("2026-05-01").date()],
            "hot": [True, None],
        }
    )
    frame.to_parquet(tmp_path / "m.parquet")
    frame.to_csv(tmp_path / "m.csv", index=False)
    campaign = load_manifest(tmp_path / "m.parquet")
    assert [entry.job.params["prompt"] for entry in campaign.entries] == ["a calm mug", "a lamp of 2026-05-01"]
    assert [job.job_id for job in campaign.jobs] == [job.job_id for job in load_manifest(tmp_path / "m.csv").jobs]


@pytest.mark.parametrize(
    ("columns", "column", "says"),
    [
        ({"prompt": [["a"]]}, "prompt", "is a column of list"),
        ({"prompt": [b"a"]}, "prompt", "is a column of binary"),
        ({"prompt": ["a"], "x": [float("inf")]}, "x", "is not a finite number"),
        ({"text": ["a"]}, None, "has no column `prompt`"),
        ({"prompt": ["a"], "durration": [5]}, "durration", "did you mean `duration`"),
        ({"prompt": ["a"], "duration": [7]}, "duration", "it is 5 or 10"),
    ],
    ids=["list", "bytes", "infinite", "no prompt", "misspelt", "value"],
)
def test_parquet_mistakes(fail: Fail, tmp_path: Path, columns: dict[str, Any], column: str | None, says: str) -> None:
    """Each names its column, and its row where it has one."""
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    [mistake] = fail((tmp_path / "x.parquet").read_bytes(), "m.parquet")
    assert (mistake.column, says in mistake.message) == (column, True), mistake


def test_two_columns_of_one_name_are_a_mistake(fail: Fail, tmp_path: Path) -> None:
    """Which of them counts is not for us to choose."""
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "x.parquet")
    [mistake] = fail((tmp_path / "x.parquet").read_bytes(), "m.parquet")
    assert "two columns have this name" in mistake.message


def test_damaged_parquet_is_a_mistake(fail: Fail, tmp_path: Path) -> None:
    """Cut short, overwritten in the middle, or text under the wrong name."""
    pq.write_table(pa.table({"prompt": [f"prompt {n}" for n in range(1000)]}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    for data in (whole[:-9], whole[:50] + b"\xff" * 200 + whole[250:], b"prompt\na\n", b"", b"PAR1PAR1"):
        assert "cannot be read as Parquet" in fail(data, "m.parquet")[-1].message


def test_more_rows_than_a_machine_holds_are_refused_unread(fail: Fail, tmp_path: Path) -> None:
    """Three million rows of one value are a file of a few kilobytes."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * (MAX_ENTRIES + 1), pa.int8()), pa.array(["a"]))
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "x.parquet")
    [mistake] = fail((tmp_path / "x.parquet").read_bytes(), "m.parquet")
    assert "2,000,001 rows" in mistake.message


def test_a_short_float_is_the_number_it_prints_as(load: Load, tmp_path: Path) -> None:
    """A 0.7 that was stored in four bytes buys the video that 0.7 in a CSV file has bought."""
    frame = pd.DataFrame({"prompt": ["a {{ n }}", "b"], "cfg_scale": [0.7, None], "n": [0.1, 2]})
    frame.astype({"cfg_scale": "float32", "n": "float32"}).to_parquet(tmp_path / "m.parquet")
    [first, second] = load_manifest(tmp_path / "m.parquet").jobs
    assert (first.params["prompt"], first.params["cfg_scale"]) == ("a 0.1", 0.7)
    assert [first, second] == [*load("prompt,cfg_scale,n\na {{ n }},0.7,0.1\nb,,2.0\n", "m.csv").jobs]
