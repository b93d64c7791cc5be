"""Two copies of a ledger, two who want it, and a store that fails: nothing counts that does not stand in both."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bucket import NIGHT, contents, machine, merged_apart, run_at
from object_store import Server
from support import campaign, check_books, check_liability, quick_provider

from pipeline import api
from pipeline.kernel.errors import InputError, MachineError, RunDirectoryError
from pipeline.kernel.objects import BrokenUpload, Objects
from pipeline.ledger.encoding import table_of
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.reading import read_events
from pipeline.ledger.segments import SegmentName, choose, list_segments
from pipeline.ledger.store import Ledger, open_ledger
from pipeline.mirror import holder
from pipeline.mirror.copies import Copies
from pipeline.mirror.decide import Hold, Way, hold_of, way_by_events, way_by_names
from pipeline.mirror.mirror import HUNG_JOIN_S, Mirror, mirror_of, refresh
from pipeline.mirror.places import attach, local_folder
from pipeline.mirror.storage import LEAVING_S, Storage
from pipeline.runner.choice import run_folder
from pipeline.runner.watching import Watcher
from pipeline.sandbox import Sandbox

A, B = SegmentName(1, 1, "a" * 32), SegmentName(2, 2, "b" * 32)
AB, C = SegmentName(1, 2, "d" * 32), SegmentName(3, 3, "c" * 32)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two tries."""
    mirrors.clear()
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.mark.parametrize(
    ("here", "there", "way"),
    [
        ([], [], Way.PUSH),
        ([A, B], [A], Way.PUSH),
        ([A], [A, B], Way.PULL),
        ([], [A], Way.PULL),
        ([AB, C], [A, B], Way.COMPARE),
        ([A, C], [A, B], Way.COMPARE),
    ],
)
def test_names_tell_which_copy_goes_on(here: list[SegmentName], there: list[SegmentName], way: Way) -> None:
    assert way_by_names(here, there) is way


def test_events_tell_it_where_names_do_not() -> None:
    one, two, other = (table_of([account(text, seq)]) for text, seq in (("a", 1), ("b", 2), ("c", 2)))
    assert way_by_events([one, two], [one]) is Way.PUSH
    assert way_by_events([one], [pa.concat_tables([one, two])]) is Way.PULL
    assert way_by_events([one, two], [pa.concat_tables([one, two])]) is Way.PUSH
    assert way_by_events([one, two], [one, other]) is Way.APART


OWN = {"state_id": "ours", "host": "box", "boot": "b", "pid": 7}


@pytest.mark.parametrize(
    ("holder", "age_s", "hold"),
    [
        (OWN, 1, Hold.OURS),
        (OWN | {"pid": 8}, 1, Hold.HELD),
        (OWN | {"state_id": "theirs"}, 59, Hold.HELD),
        (OWN | {"host": "other"}, 1, Hold.HELD),
        (OWN | {"boot": "c"}, 1, Hold.HELD),
        ({"state_id": "ours"}, 1, Hold.HELD),
        (OWN | {"pid": 8}, 60, Hold.STALE),
        (OWN | {"pid": 8, "has_left": True}, 1, Hold.FREE),
    ],
    ids=["died", "lives", "other folder", "copied away", "cloned", "older version", "silent", "left"],
)
def test_a_holder_is_dead_if_it_was_here_and_is_gone_or_gives_no_sign(
    holder: dict[str, Any], age_s: float, hold: Hold
) -> None:
    """A folder that was copied while its run goes on is told from the one in which a run has died."""
    assert hold_of(holder, OWN | {"pid": 9}, age_s, 60, lambda pid: pid == 8) is hold


def test_a_process_is_alive_where_it_is() -> None:
    """Our own number was another's, who has died; of what has no number nobody knows."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert holder._is_alive(child.pid)
    assert not any(map(holder._is_alive, (child.pid, os.getpid(), None, "7", 0, -1)))


def test_two_containers_of_one_name_on_one_machine_are_told_apart() -> None:
    """Numbers of processes mean nothing from one to the other: who lives there looks dead here."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    asks = [sys.executable, "-c", "from pipeline.mirror.holder import _boot; print(_boot())"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no container can be made here")
    here, there = (subprocess.check_output([*around, *asks], text=True).strip() for around in ([], apart))
    assert here == holder._boot()
    assert here != there


@pytest.mark.parametrize("address", ["s3://", "s3://films/../x", "s3://films//x", "s3://films/.hidden"])
def test_an_address_that_leads_out_of_its_folder_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="cannot be used for a run directory"):
        local_folder(address, Path("outputs"))


def test_a_local_folder_that_is_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="must be a folder on a disk"):
        local_folder(NIGHT, Path("s3://films"))


def account(text: str, seq: int = 0) -> Event:
    """An event that moves no money."""
    return Event(event=EventKind.ACCOUNT, seq=seq, detail=json.dumps({"said": text}))


def texts(folder: Path) -> list[str]:
    return [json.loads(event.detail or "")["said"] for event in read_events(folder / "ledger")]


mirrors: list[Mirror] = []


def held(folder: Path) -> Mirror:
    attach(folder, NIGHT)
    found = mirror_of(folder)
    assert found is not None
    mirrors.append(found)
    return found


async def note(folder: Path, *texts: str) -> None:
    """Record an event for each text in a ledger that is mirrored."""
    with open_ledger(folder / "ledger", follower=held(folder)) as ledger:
        try:
            for text in texts:
                await ledger.record(account(text))
        finally:
            await ledger.close()


async def test_of_two_machines_one_is_refused_while_the_other_lives(files: Any, tmp_path: Path) -> None:
    def meanwhile() -> None:
        with pytest.raises(RunDirectoryError, match=r"s3://films-of-lamps/runs/campaign is in use: process \d+ on"):
            asyncio.run(note(tmp_path / "two", "b"))

    await note(tmp_path / "one", "a")
    with open_ledger(tmp_path / "one/ledger", follower=held(tmp_path / "one")):
        await asyncio.to_thread(meanwhile)
    await note(tmp_path / "two", "b")
    assert texts(tmp_path / "two") == ["a", "b"]
    assert json.loads(contents(files)["_holder.json"])["has_left"]
    assert [name for name in contents(files) if name.startswith("_")] == ["_holder.json"]


async def test_who_was_taken_over_records_nothing_more(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept for too long, and looks before its next segment counts."""
    with open_ledger(tmp_path / "one/ledger", follower=(sleeper := held(tmp_path / "one"))) as ledger:
        await ledger.record(account("a"))
        monkeypatch.setattr(holder, "STALE_S", 0.0)
        await asyncio.to_thread(lambda: asyncio.run(note(tmp_path / "two", "b")))
        sleeper._holder._sure_until_s = 0.0
        with pytest.raises(MachineError, match="was taken over"):
            await ledger.record(account("c"))
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == ["a", "b"]
    # What it had noted on its own disk alone never counted; it is told, not thrown away.
    with pytest.raises(RunDirectoryError, match="have both gone on, each without the other"):
        await note(tmp_path / "one", "d")


async def test_of_two_who_find_a_place_given_up_one_has_it(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other was quicker, between the look at the name and the writing of one's own."""
    await note(tmp_path / "one", "a")
    real, stack = Objects.swap, contextlib.ExitStack()

    def swap(objects: Objects, name: str, data: bytes, may_go: Callable[[bytes], bool]) -> bool:
        if not stack._exit_callbacks:  # type: ignore[attr-defined]
            stack.callback(lambda: None)
            stack.enter_context(open_ledger(tmp_path / "b/ledger", follower=held(tmp_path / "b")))
        return real(objects, name, data, may_go)

    monkeypatch.setattr(Objects, "swap", swap)
    with stack, pytest.raises(RunDirectoryError, match="another machine has just begun"):
        await note(tmp_path / "c", "c")


@pytest.mark.parametrize("how", ["create", "swap"])
@pytest.mark.parametrize("told", ["refused", "lost"])
async def test_a_lost_answer_at_the_door_refuses_nobody(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    """The name was written, and the answer was lost: whoever writes it again meets their own name."""
    if how == "swap":
        await note(tmp_path / "one", "a")
    real, lost = getattr(Objects, how), list[str]()

    def write(objects: Objects, name: str, data: bytes, *more: Any) -> bool:
        done: bool = real(objects, name, data, *more)
        if lost:
            return done
        lost.append(name)
        if told == "lost":
            raise ConnectionResetError
        return False

    monkeypatch.setattr(Objects, how, write)
    await note(tmp_path / "one", "b")
    assert lost == ["_holder.json"]
    assert texts(tmp_path / "one") == (["b"] if how == "create" else ["a", "b"])


async def test_a_bucket_from_which_nothing_may_be_deleted_is_good_for_more_than_one_run(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever left is followed at once, and whoever died when they have been silent for long enough."""

    def refuse(objects: Objects, name: str) -> None:
        raise PermissionError

    monkeypatch.setattr(Objects, "remove", refuse)
    for text in "ab":
        await note(tmp_path / "one", text)
    assert [name for name in contents(files) if name.startswith("_")] == ["_holder.json"], "nobody asked for the time"
    silent = json.loads(contents(files)["_holder.json"]) | {"host": "other", "has_left": False}
    files.pipe_file(f"{NIGHT}/_holder.json", json.dumps(silent).encode())
    with pytest.raises(RunDirectoryError, match="is in use"):
        await note(tmp_path / "one", "c")
    monkeypatch.setattr(holder, "STALE_S", 0.0)
    await note(tmp_path / "one", "c")
    assert texts(tmp_path / "one") == [*"abc"]


async def test_only_what_was_brought_in_its_turn_is_followed_when_it_is_merged(files: Any, tmp_path: Path) -> None:
    """A segment that was not brought yet may not reach the bucket before the one in front of it."""
    with open_ledger(tmp_path / "one/ledger", follower=(follower := held(tmp_path / "one"))) as ledger:
        await ledger.record(account("a"))
        await ledger.close()
    before = contents(files)
    with open_ledger(tmp_path / "one/ledger") as apart:
        await apart.record(account("b"))
    follower._copies.tidy()
    assert contents(files) == before


async def test_a_copy_of_a_folder_does_not_take_the_place_of_a_run_that_goes_on(files: Any, tmp_path: Path) -> None:
    """Both know each other's folder by one name, and only one of them was sent a job."""

    def copied() -> None:
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        with pytest.raises(RunDirectoryError, match="is in use"):
            asyncio.run(note(tmp_path / "two", "b"))

    with open_ledger(tmp_path / "one/ledger", follower=held(tmp_path / "one")) as ledger:
        await ledger.record(account("a"))
        said = json.loads(contents(files)["_holder.json"])
        # A process that lives, as the run would be in which the other one is a command of its own.
        files.pipe_file(f"{NIGHT}/_holder.json", json.dumps(said | {"pid": os.getppid()}).encode())
        await asyncio.to_thread(copied)
        await ledger.close()
    assert texts(tmp_path / "one") == ["a"]


async def test_who_leaves_takes_nobody_elses_place_away(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls asleep in its last step, and another takes over: a third is refused all the same."""
    real, stack = Objects.swap, contextlib.ExitStack()

    def swap(objects: Objects, name: str, data: bytes, may_go: Callable[[bytes], bool]) -> bool:
        if objects is leaver._storage.objects and b"has_left" in data:
            with monkeypatch.context() as patch:
                patch.setattr(holder, "STALE_S", 0.0)
                stack.enter_context(open_ledger(tmp_path / "b/ledger", follower=held(tmp_path / "b")))
        return real(objects, name, data, may_go)

    monkeypatch.setattr(Objects, "swap", swap)
    with open_ledger(tmp_path / "a/ledger", follower=(leaver := held(tmp_path / "a"))) as ledger:
        await ledger.record(account("a"))
        await ledger.close()
    with stack, pytest.raises(RunDirectoryError, match="is in use"):
        await note(tmp_path / "c", "c")


async def test_upkeep_that_outlasts_its_run_does_not_take_the_place_again(files: Any, tmp_path: Path) -> None:
    """Its bucket hung while the run ended, and answers now."""
    with open_ledger(tmp_path / "one/ledger", follower=(left := held(tmp_path / "one"))) as ledger:
        await ledger.record(account("a"))
        await ledger.close()
    with contextlib.suppress(MachineError):
        left._holder.beat()
    assert json.loads(contents(files)["_holder.json"])["has_left"]
    await note(tmp_path / "two", "b")


@pytest.mark.parametrize(("late", "acknowledged"), [(60, 3), (3, 3), (1, 1), (1, 3), (4, 2)])
@pytest.mark.parametrize("sweeper", ["the one that slept", "the one that took over"])
async def test_a_segment_that_comes_too_late_takes_the_place_of_none(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int, acknowledged: int, sweeper: str
) -> None:
    """It was on its way while another took over and went on: what the other has recorded is what counts."""
    real, stack = Objects.write, contextlib.ExitStack()

    def write(objects: Objects, name: str, data: bytes) -> None:
        if objects is sleeper._storage.objects and name.startswith("ledger/0") and len(texts(tmp_path / "one")) > 1:
            monkeypatch.setattr(Objects, "write", real)
            with monkeypatch.context() as patch:
                patch.setattr(holder, "STALE_S", 0.0)
                other = stack.enter_context(open_ledger(tmp_path / "two/ledger", follower=held(tmp_path / "two")))
                asyncio.run(others(other))
            sleeper._holder._sure_until_s = 0.0
        real(objects, name, data)

    async def others(ledger: Ledger) -> None:
        for number in range(acknowledged):
            await ledger.record(account(f"two-{number}"))
        if sweeper == "the one that slept":
            await ledger.close()
            stack.close()

    with open_ledger(tmp_path / "one/ledger", follower=(sleeper := held(tmp_path / "one"))) as ledger:
        await ledger.record(account("a"))
        if sweeper != "the one that slept":
            monkeypatch.setattr(sleeper._copies, "_take_back", lambda _: None)
        monkeypatch.setattr(Objects, "write", write)
        with pytest.raises(MachineError, match="was taken over"):
            await ledger.record(*[account(f"late-{number}") for number in range(late)])
    with stack:
        if sweeper == "the one that took over":
            (follower,) = [each for each in mirrors if each._copies._folder.name == "two"]
            follower.settle()
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == ["a", *(f"two-{number}" for number in range(acknowledged))]


async def test_two_histories_in_one_bucket_are_refused(files: Any, tmp_path: Path) -> None:
    """One of the two who wrote them has died before it could take its own back: nobody pays on the word of either."""
    await note(tmp_path / "one", "a")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two/.mirror.json").unlink()
    await note(tmp_path / "one", "b")
    with open_ledger(tmp_path / "two/ledger") as apart:
        await apart.record(account("c"), account("d"))
    stray = max((tmp_path / "two/ledger").glob("0*.parquet"))
    files.pipe_file(f"{NIGHT}/ledger/{stray.name}", stray.read_bytes())
    for folder in ("one", "three"):
        with pytest.raises(RunDirectoryError, match=r"the copy in s3://.* contradicts another segment"):
            await note(tmp_path / folder, "e")


async def test_a_segment_that_went_bad_here_is_not_brought_there(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge is followed later: where its file is not as it was written, what it replaces stays in the bucket."""
    monkeypatch.setattr("pipeline.ledger.store.MERGE_ABOVE", 2)
    real = Mirror.settle

    def settle(self: Mirror) -> None:
        (merged,) = (tmp_path / "one/ledger").glob("0*.parquet")
        data = bytearray(merged.read_bytes())
        data[len(data) // 2] ^= 1
        merged.write_bytes(data)
        real(self)

    monkeypatch.setattr(Mirror, "settle", settle)
    await note(tmp_path / "one", *"abcd")
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == list("abcd")


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("ours", ["other bytes", "other bytes there", "other borders"])
async def test_segments_that_were_merged_here_give_way_to_those_that_another_machine_has_merged(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, dies: bool
) -> None:
    """By another version of Arrow, or at other borders: the events are the same, and the names are not."""
    one, two = tmp_path / "one", tmp_path / "two"
    await note(tmp_path / "one", *"abc")
    shutil.copytree(one / "ledger", two / "ledger")
    merged_apart(two, 1, 2, compress=ours == "other bytes")
    for name in contents(files):
        if name.startswith("ledger/0"):
            files.rm_file(f"{NIGHT}/{name}")
    await note(tmp_path / "two", "d")
    merged_apart(one, *((2, 3) if ours == "other borders" else (1, 2)), compress=ours != "other bytes")
    if dies:
        with monkeypatch.context() as patch:
            patch.setattr(Copies, "_keep_only", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                await note(tmp_path / "one", "e")
    for text in "ef":
        await note(tmp_path / "one", text)
    assert texts(tmp_path / "one") == [*"abcdef"]
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == [*"abcdef"]


async def test_two_copies_are_compared_a_part_at_a_time(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a merge here and the same in the bucket: a ledger of a million jobs must not fill the memory."""
    await note(tmp_path / "one", *"abcd")
    merged_apart(tmp_path / "one", 1, 3)

    def refuse(table: pa.Table) -> list[Event]:
        raise AssertionError(f"{len(table)} events become objects")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.ledger.segments.decode", refuse)
        await note(tmp_path / "one", "e")
    refresh(tmp_path / "seen", NIGHT)
    assert texts(tmp_path / "seen") == [*"abcde"]


async def test_rows_come_with_the_ledger_also_at_the_second_try(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has older ones: once the segments are here, nobody would look for newer ones."""
    await note(tmp_path / "one", "a")
    files.pipe_file(f"{NIGHT}/jobs.parquet", b"old")
    refresh(tmp_path / "two", NIGHT)
    await note(tmp_path / "one", "b")
    files.pipe_file(f"{NIGHT}/jobs.parquet", b"new")
    real, failed = Objects.fetch, list[str]()

    def fetch(objects: Objects, name: str, path: Path) -> None:
        if name == "jobs.parquet" and not failed:
            failed.append(name)
            raise BrokenUpload
        real(objects, name, path)

    monkeypatch.setattr(Objects, "fetch", fetch)
    refresh(tmp_path / "two", NIGHT)
    assert failed
    assert ((tmp_path / "two/jobs.parquet").read_bytes(), texts(tmp_path / "two")) == (b"new", ["a", "b"])


async def test_a_look_beside_a_run_that_merges_what_was_listed_lists_again(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is slow: no patience is left by the time at which something is gone."""
    real, fetched = Objects.fetch, list[str]()

    def fetch(objects: Objects, name: str, path: Path) -> None:
        if len(fetched) == 2:
            merge_segments(tmp_path / "one/ledger", list_segments(tmp_path / "one/ledger")[0])
            live._copies.tidy()
        fetched.append(name)
        real(objects, name, path)

    with open_ledger(tmp_path / "one/ledger", follower=(live := held(tmp_path / "one"))) as ledger:
        for text in "abcd":
            await ledger.record(account(text))
        monkeypatch.setattr("pipeline.mirror.storage.FIRST_PATIENCE_S", 0.0)
        monkeypatch.setattr(Objects, "fetch", fetch)
        await asyncio.to_thread(refresh, tmp_path / "two", NIGHT)
    assert texts(tmp_path / "two") == [*"abcd"]
    assert len(fetched) == 4, "two that stood, one that was gone, and what stands for all of them"


async def test_what_was_listed_and_is_never_there_ends_a_look(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(objects: Objects, name: str, path: Path) -> None:
        raise FileNotFoundError(name)

    await note(tmp_path / "one", "a")
    monkeypatch.setattr(Objects, "fetch", gone)
    with pytest.raises(RunDirectoryError, match=r"s3://.* keeps changing while it is read; try again"):
        refresh(tmp_path / "two", NIGHT)


async def test_one_refusal_in_a_long_opening_refuses_no_run(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger of many segments, each of which takes a while: the bucket is too busy for one of them, once."""
    real = {name: getattr(Objects, name) for name in ("fetch", "write")}
    asked: dict[str, list[str]] = {"fetch": [], "write": []}

    def slow(call: str) -> Callable[..., None]:
        def ask(objects: Objects, name: str, *more: Any) -> None:
            if name.startswith("ledger/0"):
                asked[call].append(name)
                threading.Event().wait(0.05)
                if len(asked[call]) == 6:
                    raise OSError(errno.EBUSY, "Please reduce your request rate.")
            real[call](objects, name, *more)

        return ask

    await note(tmp_path / "one", *"abcdefgh")
    shutil.copytree(tmp_path / "one", tmp_path / "kept")
    monkeypatch.setattr("pipeline.mirror.storage.FIRST_PATIENCE_S", 0.2)
    for call in asked:
        monkeypatch.setattr(Objects, call, slow(call))
    refresh(tmp_path / "two", NIGHT)
    assert texts(tmp_path / "two") == [*"abcdefgh"]
    files.rm(f"{NIGHT}/ledger", recursive=True)
    await note(tmp_path / "kept", "i")
    assert texts(tmp_path / "kept") == [*"abcdefghi"]
    assert all(len(names) > 8 for names in asked.values())


async def test_a_look_keeps_no_run_from_beginning(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetching what another machine has recorded, from a slow bucket: it gives way, and the run begins."""
    await note(tmp_path / "one", "a")
    refresh(tmp_path / "two", NIGHT)
    await note(tmp_path / "one", "b")
    real, fetching, begun = Objects.fetch, threading.Event(), threading.Event()

    def fetch(objects: Objects, name: str, path: Path) -> None:
        if threading.current_thread().name == "look":
            fetching.set()
            objects._ask(lambda: begun.wait(60))
        real(objects, name, path)

    monkeypatch.setattr(Objects, "fetch", fetch)
    # The tries of a beginning are really apart here: the look needs that time to notice it.
    monkeypatch.setattr("time.sleep", lambda seconds: threading.Event().wait(seconds))
    look = threading.Thread(target=refresh, args=(tmp_path / "two", NIGHT), name="look")
    look.start()
    try:
        assert await asyncio.to_thread(fetching.wait, 60)
        await note(tmp_path / "two", "c")
    finally:
        begun.set()
        await asyncio.to_thread(look.join)
    assert texts(tmp_path / "two") == [*"abc"]
    assert not list(tmp_path.glob("two/.incoming"))


async def test_a_file_system_without_links_is_good_enough(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, other: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path), None, str(other))

    await note(tmp_path / "one", "a")
    refresh(tmp_path / "two", NIGHT)
    await note(tmp_path / "one", "b")
    monkeypatch.setattr(os, "link", refuse)
    await note(tmp_path / "two", "c")
    assert texts(tmp_path / "two") == [*"abc"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
async def test_what_the_disk_refuses_is_not_told_of_the_bucket(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Exit 6, and the disk's own word: the bucket's rights need no look."""

    def refuse(objects: Objects, name: str, path: Path) -> None:
        raise OSError(number, os.strerror(number), *([str(path)] if number == errno.EACCES else []))

    await note(tmp_path / "one", "a")
    monkeypatch.setattr(Objects, "fetch", refuse)
    with pytest.raises(MachineError, match=os.strerror(number)) as told:
        refresh(tmp_path / "two", NIGHT)
    assert "s3://" not in str(told.value)


async def test_a_copy_that_is_damaged_is_not_gone_on_with(files: Any, tmp_path: Path) -> None:
    await note(tmp_path / "one", "a", "b")
    name = min(name for name in contents(files) if name.startswith("ledger/0"))
    data = bytearray(contents(files)[name])
    data[len(data) // 2] ^= 1
    files.pipe_file(f"{NIGHT}/{name}", bytes(data))
    with pytest.raises(RunDirectoryError, match=r"the copy in s3://.* is damaged"):
        refresh(tmp_path / "two", NIGHT)
    assert not list((tmp_path / "two/ledger").glob("*.parquet"))
    files.rm_file(f"{NIGHT}/{max(name for name in contents(files) if name.startswith('ledger/0'))}")
    files.pipe_file(f"{NIGHT}/{name}", contents_of(tmp_path / "one", name))
    with pytest.raises(RunDirectoryError, match="is missing, and events with it"):
        refresh(tmp_path / "two", NIGHT)


def contents_of(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


async def test_merges_are_followed_and_the_bucket_is_readable_after_each_step(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is merged stands before what it replaces goes."""
    monkeypatch.setattr("pipeline.ledger.store.MERGE_ABOVE", 2)
    steps: list[int] = []

    def looked_at(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(objects: Objects, name: str, *more: Any) -> Any:
            done = real(objects, name, *more)
            if name.startswith("ledger/0"):
                seen = tmp_path / f"seen-{len(steps)}"
                refresh(seen, NIGHT)
                steps.append(len(read_events(seen / "ledger")))
            return done

        return step

    for name in ("write", "remove"):
        monkeypatch.setattr(Objects, name, looked_at(getattr(Objects, name)))
    await note(tmp_path / "one", *"abcd")
    assert steps[:4] == [1, 2, 3, 4]
    assert steps[4:] == [4] * 5, "one merged, four removed"
    segments = [name for each in contents(files) if (name := SegmentName.parse(each.removeprefix("ledger/")))]
    assert len(choose(segments)[0]) == len(segments) == 1
    await note(tmp_path / "two", "e")
    assert len(read_events(tmp_path / "two/ledger")) == 5


async def test_a_run_whose_storage_goes_away_stops_and_goes_on_later(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = campaign(tmp_path, 3)
    real, calls = Objects.write, 0

    def fail(objects: Objects, name: str, data: bytes) -> None:
        nonlocal calls
        calls += name.startswith("ledger/0")
        if calls > 4:
            raise BrokenUpload
        real(objects, name, data)

    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "disk", provider.url)
        folder = run_folder(config, made, None)
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "write", fail)
            stopped = await run_at(config, made)
        assert stopped.exit_code == 6
        assert "could not be written (an object differs from what was uploaded)" in stopped.message
        refresh(tmp_path / "seen", NIGHT)
        check_liability(tmp_path / "seen", provider.requests())
        while (done := await run_at(config, made)).exit_code != 0:
            assert done.exit_code == 5, done.summary
        check_books(folder, provider.invoice())
        assert len(provider.invoice()["charges"]) == 3


async def test_a_storage_that_hangs_for_a_while_costs_nothing_but_time(
    files: Any, server: Server, tmp_path: Path
) -> None:
    """Its process is stopped while jobs are at the provider: nothing is recorded meanwhile, and nothing is lost."""

    class Hangs(Watcher):
        heard = 0
        before: int | None = None
        after: int | None = None

        def event(self, event: Event) -> None:
            self.heard += 1
            if event.event is EventKind.SUBMITTED and self.before is None:
                server.process.send_signal(signal.SIGSTOP)
                # What had reached the storage just before is still told.
                asyncio.get_running_loop().call_later(0.3, self.look)
                asyncio.get_running_loop().call_later(2.0, self.go_on)

        def look(self) -> None:
            self.before = self.heard

        def go_on(self) -> None:
            self.after = self.heard
            server.process.send_signal(signal.SIGCONT)

    made, watcher = campaign(tmp_path, 6), Hangs()
    async with Sandbox(quick_provider(mean_s=0.8)) as provider:
        config = machine(tmp_path / "disk", provider.url)
        try:
            done = await run_at(config, made, watcher=watcher)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert (done.exit_code, done.summary["stored"]) == (0, 6)
        assert watcher.before == watcher.after is not None
        check_books(run_folder(config, made, None), provider.invoice())
        assert len(provider.invoice()["charges"]) == 6


async def test_patience_that_has_run_out_is_not_begun_anew(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video first, then the records of the end: together they wait as long as one, until something is answered."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    storage = Storage(NIGHT)

    def refuse() -> None:
        raise OSError("away")

    def waited_s() -> int:
        waits.clear()
        with pytest.raises(MachineError, match="could not be written"):
            storage.patiently(refuse, lambda: None)
        return round(sum(waits))

    assert waited_s() >= 100
    assert waited_s() <= 5
    with pytest.raises(MachineError, match="could not be written"):
        storage.require_answers()
    storage.objects.names()
    storage.require_answers()
    assert waited_s() >= 100


async def test_a_second_interrupt_is_heard_while_the_storage_hangs(files: Any, server: Server, tmp_path: Path) -> None:
    """A commit is on its way there: it is given up, the disk has it, and the run that follows brings it there."""
    second_s: list[float] = []

    class Leaves(Watcher):
        def event(self, event: Event) -> None:
            if event.event is EventKind.SUBMITTED and not second_s:
                second_s.append(0.0)
                server.process.send_signal(signal.SIGSTOP)
                loop = asyncio.get_running_loop()
                loop.call_later(0.5, signal.raise_signal, signal.SIGINT)
                loop.call_later(1.0, self.again)

        def again(self) -> None:
            signal.raise_signal(signal.SIGINT)
            second_s[0] = time.monotonic()

    made = campaign(tmp_path, 6)
    async with Sandbox(quick_provider(mean_s=0.8)) as provider:
        config = machine(tmp_path / "disk", provider.url)
        try:
            left = await run_at(config, made, watcher=Leaves())
            took_s = time.monotonic() - second_s[0]
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert left.exit_code == 130
        assert took_s < 2 * (LEAVING_S + HUNG_JOIN_S), "a slow machine has as long again"
        while (done := await run_at(config, made)).exit_code != 0:
            assert done.exit_code == 5, done.summary
        check_books(run_folder(config, made, None), provider.invoice())
        assert len(provider.invoice()["charges"]) == 6


async def test_interrupts_are_heard_while_a_run_is_opened(
    files: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage hangs before it has said a word: nothing was sent, and nothing is left behind."""
    loop, second_s = asyncio.get_running_loop(), list[float]()

    def open_it(self: Mirror) -> None:
        server.process.send_signal(signal.SIGSTOP)
        loop.call_soon_threadsafe(loop.call_later, 0.2, signal.raise_signal, signal.SIGINT)
        loop.call_soon_threadsafe(loop.call_later, 0.4, again)
        real(self)

    def again() -> None:
        signal.raise_signal(signal.SIGINT)
        second_s.append(time.monotonic())

    real, made = Mirror.open, campaign(tmp_path, 1)
    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "disk", provider.url)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Mirror, "open", open_it)
                with pytest.raises(MachineError, match="gives no answer"):
                    await run_at(config, made)
            took_s = time.monotonic() - second_s[0]
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert took_s < 2 * (LEAVING_S + HUNG_JOIN_S)
        assert not provider.requests()
        assert (await run_at(config, made)).exit_code == 0


async def test_a_video_counts_only_once_it_is_in_the_bucket(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = campaign(tmp_path, 1)
    real = Objects.put

    def fail(objects: Objects, path: Path, name: str, sha256: str | None = None) -> None:
        if name.startswith("videos/"):
            raise PermissionError
        real(objects, path, name, sha256)

    async with Sandbox(quick_provider()) as provider:
        config = machine(tmp_path / "disk", provider.url, output__keep_videos="false")
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "put", fail)
            stopped = await run_at(config, made)
        assert (stopped.exit_code, stopped.summary["stored"], stopped.summary["unfetched"]) == (6, 0, 1)
        assert "access was refused" in stopped.message
        done = await run_at(config, made)
        assert (done.exit_code, done.summary["stored"]) == (0, 1)
        assert len(provider.invoice()["charges"]) == 1
    folder = run_folder(config, made, None)
    assert list((folder / "videos").iterdir()) == [], "it is in the bucket alone"
    # Whoever needs it has it fetched, and an object that is not what was stored is not taken for it.
    run = api.open_run(folder)
    (name,) = (name for name in contents(files) if name.startswith("videos/"))
    right = contents(files)[name]
    files.pipe_file(f"{NIGHT}/{name}", right[:-1] + b"?")
    assert run.export(tmp_path / "spoilt", format="csv").exit_code == 1
    files.pipe_file(f"{NIGHT}/{name}", right)
    assert run.export(tmp_path / "clips", format="csv").clips == 1
    assert (folder / name).read_bytes() == right


async def test_an_address_is_taken_wherever_a_directory_is(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = campaign(tmp_path, 1)
    async with Sandbox(quick_provider()) as provider:
        await run_at(machine(tmp_path / "disk", provider.url), made)
    for place in (NIGHT, Path(NIGHT)):
        run = api.open_run(place)
        assert run.summary()["stored"] == 1
    assert run.folder == Path("outputs") / NIGHT.replace("://", "/")
    assert len(run.report()) > 0
    assert run.export(tmp_path / "clips", format="csv").clips == 1
    with pytest.raises(RunDirectoryError, match="it has no ledger"):
        api.open_run("s3://films-of-lamps/runs/none")
    with pytest.raises(InputError, match="that is not known; s3:// and gs:// are"):
        api.open_run("nonsense://films/none")
