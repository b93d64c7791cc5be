"""The lives that are killed: what came before them, what the provider does to them, and what they leave behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kill_points import KillAtCall, KillOnceDurable, MergeAbove, NoteFaults
from score import in_tier
from worlds import Doom, World, make_world

from pipeline.ledger.reading import read_events


@dataclass(frozen=True, slots=True)
class Act:
    """One life of a story. Each of its faults fires once."""

    faults: tuple[str, ...] = ()
    dooms: tuple[Doom, ...] = ()

    def play(self, world: World, *dooms: Doom) -> int:
        """Live it, with more dooms; returns the exit code, or -9 for a life that was killed."""
        faults = {"faults": dict.fromkeys(self.faults, 1.0), "fault_limit": dict.fromkeys(self.faults, 1)}
        return world.live([NoteFaults(world.folder / "faults"), *self.dooms, *dooms], at_most_s=300, **faults)


@dataclass(frozen=True, slots=True)
class Story:
    """A campaign, the lives before, and the life to be attacked. `purpose` are functions that it must pass."""

    name: str
    act: Act = Act()
    before: tuple[Act, ...] = ()
    rows: int = 3
    count: int = 1
    """How many videos the last row asks for."""
    provider: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    purpose: tuple[str, ...] = ()

    @property
    def faults(self) -> set[str]:
        return {fault for act in (*self.before, self.act) for fault in act.faults}


STORIES = (
    Story(
        "a calm night",
        rows=in_tier(quick=2, full=3, long=3),
        purpose=("make", "finish", "collect", "_write", "put_in_place", "close_run"),
    ),
    Story(
        "after a death",
        rows=4,
        count=2,
        before=(Act(("submit_504_after", "submit_drop_after", "gen_failed"), (KillOnceDurable("reserved", 5),)),),
        act=Act(("history_500", "poll_404"), (MergeAbove(4),)),
        provider={"history_lag_s": 100.0},
        changes={"limits__max_in_flight": "2", "in_doubt__settle_after_s": "120"},
        purpose=("doubt_what_was_reserved", "match_rows", "_accept", "_void_absent", "merge_segments", "take_up"),
    ),
    Story(
        "after a death in a merge",
        before=(
            Act(("gen_failed_input",)),
            Act((), (MergeAbove(4), KillAtCall("ledger/segments.py", "remove_segments"))),
        ),
        options={"retry_classes": frozenset()},
        purpose=("grant_retries", "remove_segments"),
    ),
    Story(
        "much trouble",
        rows=6,
        act=Act(
            (
                *("submit_429", "submit_500", "submit_504_after", "gen_failed", "gen_failed_input"),
                *("poll_500", "poll_404", "result_500", "result_no_url", "cost_missing", "file_corrupt"),
            )
        ),
        purpose=("void", "doubt", "try_again_or_give_up", "look_in_history", "_believed_cost", "_ask_for_url"),
    ),
    Story(
        "blocking calls",
        act=Act(("submit_half_reply_after",)),
        changes={"provider__api": "v1"},
        purpose=("take_delivery", "keep"),
    ),
)


class Stage:
    """A story, told up to the life to be attacked. That life begins in a copy, so it can be killed again and again."""

    def __init__(self, story: Story, folder: Path) -> None:
        self.story = story
        world = make_world(folder, rows=story.rows, changes=story.changes, **story.provider)
        lines = [json.loads(line) for line in world.manifest.read_text().splitlines()]
        lines[-1]["count"] = story.count
        world.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        world.options.update(story.options)
        for act in story.before:
            act.play(world)
        self._world = world

    def set(self, folder: Path) -> World:
        """The world as it is right before the life to be attacked, in a folder of its own.

        The copies share a port, for a run directory belongs to one base URL: only one of them may live at a time.
        """
        shutil.copytree(self._world.folder, folder)
        return dataclasses.replace(self._world, folder=folder, manifest=folder / self._world.manifest.name)


def crash_state(world: World) -> str:
    """A digest of all that the next life will find, save for moments and random names: equal, it does the same."""
    ledger = world.run_folder / "ledger"
    events = read_events(ledger) if ledger.is_dir() else []
    told = [event._replace(at_us=0, detail="", url="") for event in events]
    files = sorted(_file_state(path, world.folder) for path in world.folder.rglob("*"))
    journal = (world.folder / "provider" / "journal.jsonl").read_text()
    sold = re.sub(r'"(at|accepted_at|ended_at|file_at)":[0-9.]+', "", journal)
    return hashlib.sha256(repr((told, files, sold)).encode()).hexdigest()


def whole_state(world: World) -> str:
    """As `crash_state`, for lives that were not killed: a bad disk may have cut any file short, so sizes count too."""
    sizes = {
        path.name: path.stat().st_size
        for path in world.run_folder.rglob("*")
        if path.is_file()
        and path.parent.name != "report"
        and path.suffix not in (".log", ".part")
        and path.name != "_lock"
        and not (path.parent.name == "ledger" and path.suffix == ".parquet")
    }
    head = world.run_folder / "ledger" / "_head"
    told = re.sub(r"[0-9a-f]{32}", "", head.read_text(errors="replace")) if head.exists() else ""
    return f"{crash_state(world)} {sorted(sizes.items())} {told}"


def _file_state(path: Path, folder: Path) -> tuple[str, str]:
    """A file's name and content, where the next life looks at them."""
    name = path.relative_to(folder).as_posix()
    if name.endswith(".parquet") and "/ledger/" in name:
        return name[: -len("0" * 32 + ".parquet")], ""
    if path.name.endswith(".part"):
        return f"{name[: -len('0' * 12 + '.part')]}.part", str(path.stat().st_size)
    if name.startswith("run/videos/") and path.is_file():
        return name, hashlib.sha256(path.read_bytes()).hexdigest()
    return name, ""
