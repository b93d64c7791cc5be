"""A machine that falls asleep in any step of its upkeep, and another that takes its place: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket import NIGHT, contents, merged_apart
from test_mirror_copies import account, hasty, held, mirrors, note, texts

from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.kernel.objects import Objects
from pipeline.ledger.segments import SegmentName
from pipeline.ledger.store import open_ledger
from pipeline.mirror import copies, holder
from pipeline.mirror.mirror import refresh
from pipeline.mirror.places import attach

__all__ = ["hasty"]


@pytest.fixture
def successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What has another machine take the place over now, and record an event; it stays open until the test ends."""
    stack = contextlib.ExitStack()

    def take_over(text: str) -> None:
        async def go_on() -> None:
            ledger = stack.enter_context(open_ledger(tmp_path / "two/ledger", follower=held(tmp_path / "two")))
            await ledger.record(account(text))

        with monkeypatch.context() as patch:
            patch.setattr(holder, "STALE_S", 0.0)
            patch.setattr("pipeline.ledger.store.MERGE_ABOVE", 64)
            asyncio.run(go_on())

    with stack:
        yield take_over


async def test_a_sweep_that_was_slept_through_removes_nothing_of_the_successors(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successor: Callable[[str], None]
) -> None:
    """It looks at what is there, and the look takes longer than the place was its own."""
    real, slept = Objects.names, list[str]()

    def names(objects: Objects, below: str = "") -> set[str]:
        if objects is sleeper._storage.objects and not slept:
            slept.append(below)
            successor("b")
        return real(objects, below)

    with open_ledger(tmp_path / "one/ledger", follower=(sleeper := held(tmp_path / "one"))) as ledger:
        await ledger.record(account("a"))
        monkeypatch.setattr(Objects, "names", names)
        await asyncio.to_thread(sleeper.settle)
    assert slept
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == ["a", "b"]


async def test_a_run_that_takes_long_to_open_keeps_its_place(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fetches a large ledger over a slow line: meanwhile nobody may take it for dead."""
    await note(tmp_path / "one", *"abcd")
    real, signs = Objects.fetch, list[bytes]()

    def fetch(objects: Objects, name: str, path: Path) -> None:
        real(objects, name, path)
        signs.append(contents(files)["_holder.json"])

    monkeypatch.setattr(holder, "SURE_S", -1.0)
    monkeypatch.setattr(Objects, "fetch", fetch)
    await note(tmp_path / "two", "e")
    assert len(set(signs)) == len(signs) == 4, "a sign of life before each"


async def test_an_opening_that_was_slept_through_leaves_one_history(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successor: Callable[[str], None]
) -> None:
    """What the disk has and the bucket has not is brought there when another has gone on without it: it is too late."""
    await note(tmp_path / "one", "a")
    with open_ledger(tmp_path / "one/ledger") as ledger:  # its storage was away when this was recorded
        await ledger.record(account("late"))
        await ledger.close()
    real, slept = Objects.write, list[str]()

    def write(objects: Objects, name: str, data: bytes) -> None:
        if objects is sleeper._storage.objects and name.startswith("ledger/0"):
            slept.append(name)
            successor("b")
            sleeper._holder._sure_until_s = 0.0
        real(objects, name, data)

    sleeper = held(tmp_path / "one")
    monkeypatch.setattr(Objects, "write", write)

    def open_it() -> None:
        with open_ledger(tmp_path / "one/ledger", follower=sleeper):
            pass

    with pytest.raises(MachineError, match="was taken over"):
        await asyncio.to_thread(open_it)
    assert len(slept) == 1
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == ["a", "b"]


@pytest.mark.parametrize("step", ["write", "remove"])
async def test_a_merge_that_comes_too_late_takes_nothing_away(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, successor: Callable[[str], None], step: str
) -> None:
    """What it replaces is all that the successor has in the bucket: it stays, or is brought there again."""
    monkeypatch.setattr("pipeline.ledger.store.MERGE_ABOVE", 2)
    real, slept = getattr(Objects, step), list[str]()

    def sleep_and_do(objects: Objects, name: str, *data: bytes) -> None:
        segment = SegmentName.parse(name.removeprefix("ledger/"))
        is_due = segment is not None and (step == "remove" or segment.first != segment.last)
        if objects is sleeper._storage.objects and is_due and not slept:
            slept.append(name)
            successor("e")
        real(objects, name, *data)

    monkeypatch.setattr(Objects, step, sleep_and_do)
    with open_ledger(tmp_path / "one/ledger", follower=(sleeper := held(tmp_path / "one"))) as ledger:
        for text in "abcd":
            await ledger.record(account(text))
        # The successor works in a loop of its own.
        await asyncio.to_thread(asyncio.run, ledger.close())
    assert slept
    (two,) = [each for each in mirrors if each._copies._folder.name == "two"]
    await asyncio.to_thread(two.settle)
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == [*"abcde"]


async def test_what_a_sleeper_has_removed_is_brought_there_again(files: Any, tmp_path: Path) -> None:
    """By who holds the place, as long as it has it."""
    with open_ledger(tmp_path / "one/ledger", follower=(follower := held(tmp_path / "one"))) as ledger:
        for text in "ab":
            await ledger.record(account(text))
        for name in contents(files):
            if name.startswith("ledger/0"):
                files.rm_file(f"{NIGHT}/{name}")
        follower.settle()
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == ["a", "b"]


async def test_what_the_bucket_does_not_have_yet_is_never_removed_here(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that was begun on the disk alone, and died while it was brought there; then a stranger's file."""
    with open_ledger(tmp_path / "one/ledger") as ledger:
        for text in "abc":
            await ledger.record(account(text))
        await ledger.close()
    attach(tmp_path / "one", NIGHT)
    real, brought = Objects.write, list[str]()

    def write(objects: Objects, name: str, data: bytes) -> None:
        if name.startswith("ledger/0"):
            brought.append(name)
            if len(brought) > 1:
                raise OSError("away")
        real(objects, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", write)
        with pytest.raises(MachineError):
            await note(tmp_path / "one", "d")
    stranger = tmp_path / "one/ledger/Thumbs.db"
    stranger.write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match=r"Thumbs\.db"):
        await note(tmp_path / "one", "d")
    stranger.unlink()
    await note(tmp_path / "one", "d")
    assert texts(tmp_path / "one") == [*"abcd"]


@pytest.mark.parametrize("placed", [1, 2])
async def test_a_death_between_two_placements_is_mended_by_the_next_opening(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed: int
) -> None:
    """Here and there were merged at other borders, so that half of each is a ledger that overlaps."""
    one, two = tmp_path / "one", tmp_path / "two"
    await note(tmp_path / "one", *"abcdef")
    shutil.copytree(one / "ledger", two / "ledger")
    merged_apart(two, 1, 3)
    merged_apart(two, 4, 6)
    for name in contents(files):
        if name.startswith("ledger/0"):
            files.rm_file(f"{NIGHT}/{name}")
    await note(tmp_path / "two", "g")
    merged_apart(one, 1, 2)
    merged_apart(one, 3, 4)
    real, done = copies.put_in_place, list[Path]()

    def put_in_place(temporary: Path, final: Path) -> None:
        if len(done) == placed:
            raise KeyboardInterrupt
        done.append(final)
        real(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(copies, "put_in_place", put_in_place)
        with pytest.raises(KeyboardInterrupt):
            await note(tmp_path / "one", "h")
    await note(tmp_path / "one", "h")
    assert texts(tmp_path / "one") == [*"abcdefgh"]
