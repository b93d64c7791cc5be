"""Run directories from Python: their tables, their list, and what is done with one without a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import pipeline
from pipeline import InputError, RunDirectoryError, open_run


def test_the_tables_are_those_of_the_report_with_their_types(stored: Path) -> None:
    """Results as in the parquet file, the ledger as its own files have it, errors as a table without a line."""
    run = open_run(stored)
    results, ledger = run.results(), run.ledger()
    pd.testing.assert_frame_equal(results, pd.read_parquet(stored / "report" / "results.parquet"))
    assert results.groupby("mood")["duration"].sum().to_dict() == {"bold": 10, "cozy": 5}
    pd.testing.assert_frame_equal(
        ledger, pd.read_parquet(stored / "ledger").drop_duplicates("seq").sort_values("seq", ignore_index=True)
    )
    assert ledger["cost_microusd"].sum() == 5_250_000
    header = (stored / "report" / "errors.csv").read_text().splitlines()[0]
    assert (list(run.errors().columns), len(run.errors())) == (header.split(","), 0)


def test_the_summary_is_the_files_and_the_status_says_more(stored: Path) -> None:
    """Counts and exact cents as in summary.json; at rest nothing is in flight."""
    run = open_run(stored)
    written = json.loads((stored / "report" / "summary.json").read_text())
    assert run.summary() == written
    status = run.status()
    assert (status["state"], status["in_flight"], status["stored"]) == ("at rest", None, 2)


def test_report_and_export_are_written_again(stored: Path, here: Path) -> None:
    """On request for Excel; and a data set of the clips of which the results say so."""
    shutil.copytree(stored, "run")
    run = open_run("run")
    shutil.rmtree(here / "run" / "report")
    assert run.report(bom=True)["stored"] == 2
    assert (here / "run" / "report" / "results.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    done = run.export("clips", format="csv", where=["mood=bold"])
    assert (done.clips, done.cost_microusd, done.exit_code) == (1, 3_500_000, 0)
    assert pd.read_csv("clips/clips.csv")["id"].tolist() == ["two"]
    for to, asked, told in (
        ("ice://bucket/clips", {"format": "hf"}, "of a kind that is not known"),
        ("more", {"format": "hf", "shard_bytes": 10**9}, "only --format webdataset"),
        ("more", {"format": "webdataset", "shard_bytes": 10}, "no size from"),
    ):
        with pytest.raises(InputError, match=told):
            pipeline.export("run", to, **asked)
    assert not (here / "more").exists()


def test_all_runs_of_a_folder_are_listed(stored: Path) -> None:
    """As rows and as paths; no more than asked for; none where there is no folder."""
    assert pipeline.find_runs(stored.parent) == [stored]
    assert [(row["name"], row["stored"], row["error"]) for row in pipeline.list_runs(stored.parent)] == [("m", 2, None)]
    assert pipeline.list_runs(stored.parent, most=0) == []
    assert pipeline.list_runs() == []


async def test_settling_needs_a_clear_word_and_works_in_a_notebook(stored: Path, here: Path) -> None:
    """The history agrees; a word that frees money is never the default; a finished attempt is not in doubt."""
    shutil.copytree(stored, "run")
    found = await pipeline.reconcile("run", {"in_doubt.wait_s": 5})
    assert (found.exit_code, found.comparison is not None and found.comparison.agreed) == (0, 2)
    before = len(open_run("run").ledger())
    for word, told in (({}, "say either"), ({"billed": "req-12345678", "not_billed": True}, "say either")):
        with pytest.raises(InputError, match=told):
            pipeline.resolve("run", "one", **word)
    with pytest.raises(InputError, match="is stored"):
        pipeline.resolve("run", "one", not_billed=True)
    assert len(open_run("run").ledger()) == before
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        open_run("nowhere")
