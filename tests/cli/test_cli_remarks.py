"""What the counts of rows do not show is told: videos that are gone, jobs whose rows are gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from conftest import FAST, Command

from pipeline.cli import screen
from pipeline.looking.missing import missing_videos
from pipeline.looking.view import look


def test_a_video_that_somebody_deletes_is_told_by_every_verb_that_looks(command: Command, manifest: str) -> None:
    """By a run, `status` and `report`, by its name and with what to do; the ledger's word stays as it is."""
    folder = Path("outputs/m")
    whole = command("run", manifest, *FAST)
    assert (whole.code, "on the disk" in whole.out) == (0, False)
    kept = json.loads((folder / "report" / "summary.json").read_text())
    assert (kept["missing"], kept["missing_videos"]) == (0, [])

    gone, left = sorted((folder / "videos").iterdir())
    gone.unlink()
    told = f"1 stored video is not on the disk any more: videos/{gone.name}. The provider keeps a file for 7 days"
    for verb in (("status", str(folder)), ("report", str(folder)), ("run", manifest, *FAST)):
        shown = command(*verb)
        assert shown.code == 0
        assert told in " ".join(shown.out.split()), verb
    kept = json.loads((folder / "report" / "summary.json").read_text())
    assert (kept["stored"], kept["missing"], kept["missing_videos"]) == (2, 1, [f"videos/{gone.name}"])
    assert (folder / "report" / "results.csv").read_text().count(",stored,") == 2

    left.unlink()
    assert "2 stored videos are not on the disk" in command("report", str(folder)).out
    shutil.rmtree(folder / "videos")
    assert json.loads(command("status", str(folder), "--json").out)["missing"] == 2


def test_what_object_storage_keeps_is_not_looked_for_on_the_disk(command: Command, manifest: str) -> None:
    """A run directory with an address has its videos there, and another machine has none of them."""
    command("run", manifest, *FAST)
    shutil.rmtree("outputs/m/videos")
    Path("outputs/m/.mirror.json").write_text("{}")
    seen = look(Path("outputs/m"), 1)
    assert (len(seen.state.jobs), missing_videos(seen.folder, seen.state)) == (2, [])


def test_a_disk_that_does_not_say_raises_no_alarm(command: Command, manifest: str) -> None:
    """A folder that cannot be listed tells of no video that it is gone, and ends no run."""
    command("run", manifest, *FAST)
    shutil.rmtree("outputs/m/videos")
    Path("outputs/m/videos").touch()
    shown = command("status", "outputs/m")
    assert (shown.code, "on the disk any more" in shown.out) == (0, False)


def test_many_missing_videos_are_a_few_names() -> None:
    """Three are named on a screen, and the others are counted."""
    told = screen._missing({"missing": 1_002, "missing_videos": [f"videos/{number}.mp4" for number in range(20)]})
    assert "videos/0.mp4, videos/1.mp4, videos/2.mp4 and 999 more." in (told or "")


def test_the_bill_of_rows_that_were_edited_is_explained(command: Command, manifest: str) -> None:
    """What was paid for them is in the sum, and stands beside it with the number of their jobs."""
    command("run", manifest, *FAST)
    Path(manifest).write_text("id,prompt,duration,mood\none,a lamp at night,5,cozy\n")
    told = "2 jobs that the manifest no longer asks for: 2 stored, $5.25 posted."
    for verb in (("run", manifest, *FAST), ("status", "outputs/m"), ("report", "outputs/m")):
        assert told in " ".join(command(*verb).out.split()), verb
    summary = json.loads(Path("outputs/m/report/summary.json").read_text())
    others = summary["no_longer_asked"]
    assert (summary["jobs"], summary["stored"], summary["posted_usd"], others["posted_usd"]) == (1, 1, "7.00", "5.25")

    command("run", manifest, *FAST)
    Path(manifest).write_text("id,prompt,duration,mood\none,a lamp,5,cozy\n")
    assert "2 jobs that the manifest no longer asks for: 2 stored, $5.25 posted." in command("run", manifest, *FAST).out
