"""Whether a run tells the truth when it ends: its exit code, summary.json and results.csv, against its ledger."""

from __future__ import annotations

import csv
import json
from collections import Counter

from support import durable_state
from worlds import World

from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState

LEFT = frozenset({JobState.IN_DOUBT, JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED})
"""A job that stands here is, or may be, paid for and is not on disk."""

STOPPED_BY = {3: "cap", 4: "account", 6: "machine"}
"""What these scenarios can be stopped by, for each exit code that says so."""


def micro(usd: str) -> int:
    """Dollars as they are written, in micro-dollars."""
    whole, _, rest = usd.partition(".")
    return int(whole) * 1_000_000 + int(rest.ljust(6, "0"))


def check_honesty(world: World) -> None:
    """After a life that came to its end: whatever it said of itself is what the ledger says."""
    code, summary = world.result["exit_code"], world.result["summary"]
    state = durable_state(world.run_folder)
    where = {
        job.job_id: state.jobs[job.job_id].state if job.job_id in state.jobs else None for job in world.campaign.jobs
    }
    assert json.loads((world.run_folder / "report" / "summary.json").read_bytes()) == summary
    assert summary["exit_code"] == code
    assert "defect" not in (summary["message"] or "")
    _check_code(code, summary["stopped_by"], where)
    _check_sums(summary, state, where)
    _check_results(world, state, where)


def _check_code(code: int, stopped_by: str | None, where: dict[str, JobState | None]) -> None:
    states = set(where.values())
    told = f"exit {code}, stopped by {stopped_by}, with jobs {Counter(where.values())}"
    assert code in (0, 1, 3, 4, 5, 6), told
    assert stopped_by == STOPPED_BY.get(code, stopped_by), told
    if code in (0, 1):
        assert states <= {JobState.STORED, JobState.FAILED}, told
        assert (code == 1) == (JobState.FAILED in states), told
    if code == 3:
        assert not states & LEFT, told
        assert states & {None, JobState.VOIDED}, told
    if code == 5:
        assert states & LEFT, told


def _check_sums(summary: dict[str, object], state: State, where: dict[str, JobState | None]) -> None:
    counts = Counter(where.values())
    assert {
        name: summary[name] for name in ("jobs", "stored", "failed", "in_doubt", "running", "unfetched", "pending")
    } == {
        "jobs": len(where),
        "stored": counts[JobState.STORED],
        "failed": counts[JobState.FAILED],
        "in_doubt": counts[JobState.IN_DOUBT] + counts[JobState.RESERVED],
        "running": counts[JobState.SUBMITTED],
        "unfetched": counts[JobState.POSTED],
        "pending": counts[None] + counts[JobState.VOIDED],
    }
    assert micro(str(summary["posted_usd"])) == state.books.posted
    assert micro(str(summary["in_doubt_usd"])) == state.books.in_doubt + state.books.reserved


def _check_results(world: World, state: State, where: dict[str, JobState | None]) -> None:
    with (world.run_folder / "report" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    assert [line["job_id"] for line in lines] == [entry.job.job_id for entry in world.campaign.entries]
    words = {JobState.STORED: "stored", JobState.FAILED: "failed", JobState.SUBMITTED: "running",
             JobState.POSTED: "unfetched", JobState.IN_DOUBT: "in_doubt", JobState.RESERVED: "in_doubt"}  # fmt: skip
    for line in lines:
        job_id = line["job_id"]
        assert line["status"] == words.get(where[job_id], "pending"), job_id  # type: ignore[arg-type]
        if where[job_id] is JobState.STORED:
            record = state.jobs[job_id]
            told = line["video"], line["sha256"], line["request_id"]
            assert told == (record.path, record.sha256, record.request_id)
            assert (world.run_folder / line["video"]).is_file()
    assert sum(micro(line["cost_usd"]) for line in lines) == state.books.posted
