"""One manifest in several run directories, one for each key: no job twice, none left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import FAST, Command

ROWS = 6


@pytest.fixture
def many(manifest: str) -> str:
    """A manifest of enough rows that each part has some."""
    lines = [f"row-{number},a film of {number} lamps" for number in range(ROWS)]
    Path(manifest).write_text("\n".join(["id,prompt", *lines]) + "\n")
    return manifest


def _planned(command: Command, many: str, *arguments: str) -> list[str]:
    assert command("plan", many, "--expand", "jobs.csv", *arguments).code == 0
    rows = [line.split(",") for line in Path("jobs.csv").read_text().splitlines()]
    at = rows[0].index("job_id")
    return [row[at] for row in rows[1:]]


def test_the_parts_of_a_manifest_are_all_of_it_and_share_no_job(command: Command, many: str) -> None:
    whole = _planned(command, many)
    parts = [_planned(command, many, "--part", f"{number}/2") for number in (1, 2)]
    assert all(parts)
    assert len(whole) == ROWS
    assert sorted(job for part in parts for job in part) == sorted(whole)


def test_a_row_that_is_added_moves_no_job_to_another_part(command: Command, many: str) -> None:
    before = _planned(command, many, "--part", "1/2")
    path = Path(many)
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, "new,a film of a new lamp", *reversed(others)]) + "\n")
    after = _planned(command, many, "--part", "1/2")
    assert set(before) <= set(after)
    assert len(after) - len(before) in (0, 1)


def test_each_part_has_a_run_directory_with_a_report_of_its_own(command: Command, many: str) -> None:
    jobs = 0
    for number in (1, 2):
        assert command("run", many, *FAST, "--part", f"{number}/2", "--no-progress").code == 0
        summary = json.loads(Path(f"outputs/m-{number}-of-2/report/summary.json").read_text())
        assert summary["stored"] == summary["rows"]
        jobs += summary["stored"]
    assert jobs == ROWS


def test_a_directory_keeps_to_the_part_that_it_was_begun_with(command: Command, many: str) -> None:
    """Three keys instead of two would make jobs anew that another directory has paid for."""
    assert command("run", many, *FAST, "--part", "1/2", "-n", "1", "--no-progress").code == 3
    folder = ("-o", "outputs/m-1-of-2")
    for asked, remedy in (("--part", "1/3"), "say --part 1/2"), ((), "say --part 1/2"):
        for verb in ("plan", "run", "rehearse"):
            refused = command(verb, many, *folder, *asked)
            assert (refused.code, remedy in refused.err) == (2, True), verb
    assert command("run", many, *FAST, "-n", "1", "--no-progress").code == 3
    assert "leave --part out" in command("run", many, "-o", "outputs/m", "--part", "1/2").err


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/1001", "a/b", "1/2/3", "-1/2", "1/0"])
def test_what_is_no_part_is_refused(command: Command, many: str, text: str) -> None:
    refused = command("plan", many, f"--part={text}")
    assert refused.code == 2
    assert "is no part; write 1/3, 2/3 and 3/3" in refused.err
