"""What was acknowledged is on the disk, what was not is there whole or not at all, and only one holds the pen."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disk_faults import Disk
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_doubles import (
    NOON_US,
    STEPS,
    HandClock,
    event,
    legal,
    life,
    segment_names,
    segment_paths,
    write_ledger,
)

from pipeline.kernel import files
from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.kernel.files import is_held
from pipeline.ledger import segments, store
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.ledger.job import JobState
from pipeline.ledger.lock import lock_holder
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.reading import Reader, read_events
from pipeline.ledger.store import Ledger, open_ledger


class Gate:
    """Holds up the ledger's disk before the file of each commit is flushed, until it is opened."""

    def __init__(self, disk: Disk) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        disk.before_call = self._wait

    def _wait(self, call: str) -> None:
        if call == "fsync file":
            self.reached.set()
            assert self.opened.wait(60)

    async def until_reached(self) -> None:
        await asyncio.to_thread(self.reached.wait, 60)


@pytest.fixture
def gate(disk: Disk) -> Iterator[Gate]:
    gate = Gate(disk)
    yield gate
    gate.opened.set()


async def turns(count: int = 5) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def reopened(folder: Path) -> State:
    with open_ledger(folder, HandClock()) as ledger:
        return ledger.state


# --- group commit -----------------------------------------------------------------------------------------------------


async def test_each_event_is_durable_before_its_record_returns(folder: Path, disk: Disk) -> None:
    """Bytes, flush of the file, name, flush of the folder, and only then the word that it is done."""
    with open_ledger(folder, HandClock()) as ledger:
        for each in life("stored"):
            disk.calls.clear()
            [recorded] = await ledger.record(each)
            [name] = [name for name in segment_names(folder) if name.first == recorded.seq]
            order = [call for call in disk.calls if call.split()[0] in ("write", "fsync", "replace")]
            assert order[:4] == ["write", "fsync file", f"replace {name}", "fsync folder"]
            assert order[4:] == ["write"], "the head, which is not flushed"
        await ledger.close()


def test_what_a_writer_left_is_flushed_before_it_is_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have died between name and flush: the folder is flushed before the first look at what it holds."""
    write_ledger(folder, [[event("reserved")]])
    done: list[str] = []
    list_segments = segments.list_segments
    monkeypatch.setattr(store, "fsync_folder", lambda flushed: done.append(f"flush {flushed}"))
    monkeypatch.setattr(segments, "list_segments", lambda looked: (done.append("look"), list_segments(looked))[1])
    reopened(folder)
    assert done[:2] == [f"flush {folder}", "look"]


async def test_many_records_at_once_make_few_commits(folder: Path, disk: Disk, gate: Gate) -> None:
    """What comes while the disk is busy goes into one commit after it, and nobody is told before that one is done."""
    with open_ledger(folder, HandClock()) as ledger:
        first = asyncio.create_task(ledger.record(event("reserved", "first")))
        await gate.until_reached()
        others = [asyncio.create_task(ledger.record(event("reserved", f"job-{index}"))) for index in range(200)]
        await turns()
        assert ledger.state.counts[JobState.RESERVED] == 201, "the state shows them at once: the cap counts them"
        assert not first.done()
        assert not any(task.done() for task in others)
        assert segment_paths(folder) == []
        gate.opened.set()
        recorded = [each for task in [first, *others] for each in await task]
        assert [(name.first, name.last) for name in segment_names(folder)] == [(1, 1), (2, 201)]
        assert read_events(folder) == recorded
        await ledger.close()


async def test_the_second_group_waits_for_its_own_commit(folder: Path, disk: Disk) -> None:
    """The end of one commit acknowledges its own events, never those that came in meanwhile."""
    flushes: list[str] = []
    second_reached, second_opened = threading.Event(), threading.Event()

    def hold_up_the_second(call: str) -> None:
        if call == "fsync file":
            flushes.append(call)
            if len(flushes) == 2:
                second_reached.set()
                assert second_opened.wait(60)

    disk.before_call = hold_up_the_second
    with open_ledger(folder, HandClock()) as ledger:
        first = asyncio.create_task(ledger.record(event("reserved", "a")))
        await turns()
        second = asyncio.create_task(ledger.record(event("reserved", "b")))
        await first
        await asyncio.to_thread(second_reached.wait, 60)
        await turns()
        assert not second.done()
        second_opened.set()
        await second
        await ledger.close()


async def test_a_cancelled_waiter_disturbs_nobody(folder: Path, gate: Gate) -> None:
    """Its event is recorded all the same, and the others of its commit get their word."""
    with open_ledger(folder, HandClock()) as ledger:
        tasks = [asyncio.create_task(ledger.record(event("reserved", name))) for name in "abc"]
        await gate.until_reached()
        tasks[1].cancel()
        await turns()
        assert tasks[1].cancelled()
        gate.opened.set()
        await tasks[0]
        await tasks[2]
        await ledger.record(event("in_doubt", "b"))
        await ledger.close()
    assert [each.job_id for each in read_events(folder)] == ["a", "b", "c", "b"]


async def test_recording_nothing_returns_at_once(folder: Path) -> None:
    """An empty list of events is no commit, and nobody waits for one for ever."""
    with open_ledger(folder, HandClock()) as ledger:
        assert await asyncio.wait_for(ledger.record(), 10) == []
        await ledger.record(event("reserved"))
        await ledger.close()
    assert len(segment_paths(folder)) == 1


@pytest.mark.parametrize("busy", [True, False])
async def test_an_impossible_event_leaves_no_hole(folder: Path, gate: Gate, busy: bool) -> None:
    """It raises and changes nothing; what was recorded with it, before it and after it is all on the disk."""
    with open_ledger(folder, HandClock()) as ledger:
        if busy:
            first = asyncio.create_task(ledger.record(event("reserved", "first")))
            await gate.until_reached()
        with pytest.raises(ImpossibleMoveError):
            await ledger.record(event("posted"))
        with pytest.raises(ImpossibleMoveError):
            await ledger.record(event("reserved"), event("posted"), event("in_doubt"))
        gate.opened.set()
        if busy:
            await first
            await ledger.record(event("reserved", "last"))
        await ledger.close()
        assert fold(read_events(folder)) == ledger.state
        assert ledger.state.jobs["a"].state is JobState.RESERVED
    assert reopened(folder) == ledger.state


# --- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("forever", [True, False])
async def test_a_disk_that_fails_anywhere_loses_nothing_acknowledged(
    folder: Path, disk: Disk, error: int, forever: bool
) -> None:
    """At each call of two commits: every waiter is told, nothing more is taken, and a group is there whole or not.

    Only a disk that is full and then has the ballast's room takes it all.
    """
    for call in range(1, 60):
        place = folder.parent.parent / str(call) / "ledger"
        disk.folder = place
        disk.heal()
        with open_ledger(place, HandClock()) as ledger:
            acknowledged = await ledger.record(event("reserved"))
            disk.fail_at(call, error, forever=forever)
            groups = [[event("submitted"), event("reserved", "b")], [event("reserved", "c")], [event("posted")]]
            early = [asyncio.create_task(ledger.record(*group)) for group in groups[:2]]
            await turns(3)
            results = await asyncio.gather(ledger.record(*groups[2]), *early, return_exceptions=True)
            for result in results:
                if isinstance(result, list):
                    acknowledged += result
                else:
                    assert isinstance(result, MachineError)
                    assert os.strerror(error) in str(result)
                    assert result.exit_code == 6
            failed = disk.has_failed
            short = failed and error == errno.ENOSPC and not forever
            assert ledger.is_short == short
            lost = failed and not short
            assert lost == (ledger.failure is not None)
            if lost:
                assert any(isinstance(result, MachineError) for result in results)
                calls = len(disk.calls)
                with pytest.raises(MachineError):
                    await ledger.record(event("reserved", "later"))
                assert len(disk.calls) == calls, "a ledger that failed is not written again"
            live = ledger.state
            await ledger.close()
            disk.heal()
        found = read_events(place)
        assert {each.seq for each in acknowledged} <= {each.seq for each in found}
        assert [each for each in found if each in acknowledged] == sorted(acknowledged, key=lambda each: each.seq)
        assert len(found) in (1, 4, 5), "the two commits are there whole or not at all"
        assert reopened(place).books.committed <= live.books.committed
        if not lost:
            assert found == sorted(acknowledged, key=lambda each: each.seq)
        if not failed:
            break
    assert 15 < call < 59


async def test_a_failure_reaches_those_who_came_later(folder: Path, disk: Disk, gate: Gate) -> None:
    """Waiters of the commit that fails and of the one that would have followed are told alike."""
    with open_ledger(folder, HandClock()) as ledger:
        first = asyncio.create_task(ledger.record(event("reserved", "a")))
        gone = asyncio.create_task(ledger.record(event("reserved", "gone")))
        await gate.until_reached()
        later = asyncio.create_task(ledger.record(event("reserved", "b")))
        await turns()
        gone.cancel()
        disk.fail_at(1, errno.EIO, forever=True)
        gate.opened.set()
        results = await asyncio.gather(first, later, return_exceptions=True)
        assert [type(result) for result in results] == [MachineError, MachineError]
        await ledger.close()
        disk.heal()
    assert read_events(folder) == []


async def test_what_the_columns_cannot_hold_poisons_the_ledger_instead_of_bending_it(folder: Path) -> None:
    """A number too large for its column is never cut: the commit fails whole."""
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("reserved"))
        with pytest.raises(MachineError):
            await ledger.record(event("in_doubt", http_status=2**40))
        await ledger.close()
    assert [each.event for each in read_events(folder)] == [EventKind.RESERVED]


async def test_a_commit_that_is_cancelled_leaves_nobody_waiting(folder: Path, gate: Gate) -> None:
    """Whoever cancels every task of the loop gets an end, and the ledger takes nothing more."""
    with open_ledger(folder, HandClock()) as ledger:
        waiting = asyncio.create_task(ledger.record(event("reserved")))
        await gate.until_reached()
        for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
            task.cancel()
        with pytest.raises(MachineError):
            await waiting
        gate.opened.set()
        with pytest.raises(MachineError):
            await ledger.record(event("reserved", "b"))
        await ledger.close()
    assert fold(read_events(folder)).last_seq in (0, 1)


# --- closing and opening ----------------------------------------------------------------------------------------------


async def test_closing_waits_for_every_commit(folder: Path, gate: Gate) -> None:
    """What was given to the ledger before it was closed is on the disk when it is closed."""
    with open_ledger(folder, HandClock()) as ledger:
        tasks = [asyncio.create_task(ledger.record(event("reserved", "a")))]
        await gate.until_reached()
        tasks.append(asyncio.create_task(ledger.record(event("reserved", "b"))))
        await turns()
        closing = asyncio.create_task(ledger.close())
        await turns()
        assert not closing.done()
        gate.opened.set()
        await closing
        assert all(task.done() for task in tasks)
        assert len(read_events(folder)) == 2
        with pytest.raises(MachineError):
            await ledger.record(event("reserved", "c"))
    assert len(read_events(folder)) == 2


async def test_the_lock_outlives_the_last_write(folder: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is torn away in the middle of a commit lets nobody else write before that commit has ended."""
    held_at_the_end: list[bool] = []
    real = store.Ledger._write

    def write(ledger: Ledger, batch: list[Event]) -> None:
        real(ledger, batch)
        held_at_the_end.append(is_held(folder / "_lock"))

    let_go = Ledger.let_go
    monkeypatch.setattr(Ledger, "_write", write)
    monkeypatch.setattr(Ledger, "let_go", lambda ledger: (gate.opened.set(), let_go(ledger)))

    async def run() -> None:
        with open_ledger(folder, HandClock()) as ledger:
            await ledger.record(event("reserved"))

    running = asyncio.create_task(run())
    await gate.until_reached()
    running.cancel()
    await asyncio.wait([running])
    assert held_at_the_end == [True]
    assert not is_held(folder / "_lock")
    assert reopened(folder).last_seq == 1


@pytest.mark.parametrize("when", ["closed", "opened"])
async def test_many_segments_are_merged(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """When the ledger is closed, or when it is opened after a death; with the same events."""
    monkeypatch.setattr(store, "MERGE_ABOVE", 3)
    with open_ledger(folder, HandClock()) as ledger:
        recorded = [(await ledger.record(each))[0] for each in life("stored")]
        if when == "closed":
            await ledger.close()
    if when == "opened":
        assert len(segment_paths(folder)) == 4
        with open_ledger(folder, HandClock()):
            pass
    assert len(segment_paths(folder)) == 1
    assert read_events(folder) == recorded


async def test_a_disk_that_refuses_to_merge_costs_only_tidiness(
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the end of a run is no failure of the run."""
    monkeypatch.setattr(store, "MERGE_ABOVE", 3)
    with open_ledger(folder, HandClock()) as ledger:
        recorded = [(await ledger.record(each))[0] for each in life("stored")]
        disk.fail_at(1, errno.ENOSPC, forever=True)
        await ledger.close()
        disk.heal()
    assert read_events(folder) == recorded


@given(STEPS, st.lists(st.integers(1, 4), min_size=1, max_size=10), st.integers(-(2**62), 2**62))
@settings(max_examples=25, deadline=None)
def test_the_state_after_reopening_is_the_live_state(
    steps: list[tuple[str, int, int]], sizes: list[int], now_us: int
) -> None:
    """Any history, in commits of any size, at any reading of the clock: the files say exactly what memory said."""
    history = legal(steps)

    async def live(folder: Path) -> State:
        clock = HandClock()
        with open_ledger(folder, clock) as ledger:
            clock.at_us, clock.step_us = now_us, -7
            rest = list(history)
            for size in sizes * len(history):
                group, rest = rest[:size], rest[size:]
                await asyncio.gather(*(ledger.record(each) for each in group))
            await ledger.close()
            assert ledger.state.last_seq == len(history)
            return ledger.state

    with tempfile.TemporaryDirectory() as place:
        state = asyncio.run(live(Path(place) / "ledger"))
        assert reopened(Path(place) / "ledger") == state
        assert fold(read_events(Path(place) / "ledger")) == state


async def test_whoever_gets_past_the_lock_silences_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not work, the earlier run is told who came at its next record, and writes nothing more."""
    monkeypatch.setattr(files, "_lock_soon", lambda *_: None)
    with open_ledger(folder, HandClock()) as earlier:
        await earlier.record(event("reserved"))
        with open_ledger(folder, HandClock()) as later:
            with pytest.raises(MachineError, match=f"lock does not work here: process {os.getpid()} on"):
                await earlier.record(event("submitted", request_id="r-1"))
            await later.record(event("in_doubt"))
    assert [each.event.value for each in read_events(folder)] == ["reserved", "in_doubt"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_two_writers_never_both_have_an_event_of_one_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Somebody gets past the lock right before or right after a segment has its name: only one is acknowledged."""
    monkeypatch.setattr(files, "_lock_soon", lambda *_: None)
    write_segment = segments.write_segment
    with contextlib.ExitStack() as stack:
        others: list[Ledger] = []

        def come_between() -> None:
            others.append(stack.enter_context(open_ledger(folder, HandClock())))

        def write(*arguments: Any) -> segments.SegmentName:
            monkeypatch.setattr(segments, "write_segment", write_segment)
            if moment == "before":
                come_between()
            written = write_segment(*arguments)
            if moment == "after":
                come_between()
            return written

        monkeypatch.setattr(segments, "write_segment", write)
        with open_ledger(folder, HandClock()) as earlier, pytest.raises(MachineError, match="the lock does not work"):
            await earlier.record(event("reserved", "a"))
        await others[0].record(event("reserved", "b"))
    if moment == "before":
        with pytest.raises(RunDirectoryError, match=r"damaged: .*000000000001-.* contradicts another segment"):
            read_events(folder)
    else:
        assert [each.job_id for each in read_events(folder)] == ["a", "b"]


def test_a_clock_that_runs_backwards_disturbs_nothing(folder: Path) -> None:
    """The order of events is that of their numbers; moments are only told, also those before 1970."""
    events = write_ledger(folder, [[each] for each in life("stored")], HandClock(5_000, -3_000))
    assert [each.at_us for each in events] == [-1_000, -4_000, -7_000, -10_000]
    assert read_events(folder) == events
    later = write_ledger(folder, [[event("reserved", "b")]], HandClock(NOON_US - 10**15))
    assert read_events(folder) == events + later


@pytest.mark.parametrize(
    "text", ["", "\0", "x" * 2_000_000, "naïve 猫 🎬 \u202e\x1b[2J", "null", "\ufeff", "\U0010ffff"]
)
def test_texts_are_kept_as_they_are(folder: Path, text: str) -> None:
    """Long, empty, with NUL, in any script: byte for byte."""
    events = write_ledger(folder, [[event("reserved", request=text)], [event("in_doubt", detail=text)]])
    assert [events[0].request, events[1].detail] == [text, text]
    assert read_events(folder) == events


def test_half_a_character_does_not_stop_the_ledger(folder: Path) -> None:
    """A lone surrogate in somebody's JSON becomes a question mark, on the disk and in memory alike."""
    broken = "says \ud83d here, é"
    events = write_ledger(folder, [[event("reserved", request=broken)], [event("in_doubt", detail=broken)]])
    assert [events[0].request, events[1].detail] == ["says ? here, é"] * 2
    assert read_events(folder) == events
    assert reopened(folder).jobs["a"].error == "says ? here, é"


def test_leftovers_of_a_death_are_swept_away(folder: Path) -> None:
    """Half-written files are no part of the ledger, and the next writer deletes them."""
    events = write_ledger(folder, [life("stored")])
    (folder / ".half.part").write_bytes(b"PAR1")
    (folder / ".head-half.part").write_bytes(b"")
    assert read_events(folder) == events
    assert reopened(folder) == fold(events)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("where", ["file", "file/deeper"])
def test_a_place_that_cannot_be_a_folder_is_the_machines_failure(tmp_path: Path, where: str) -> None:
    """A sentence with exit 6, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(MachineError), open_ledger(tmp_path / where, HandClock()):
        pass


# --- one writer -------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.store import open_ledger

async def main():
    with open_ledger(Path(sys.argv[1])) as ledger:
        await ledger.record(Event(event=EventKind.RESERVED, job_id="theirs", attempt=1, quote_microusd=5))
        print("recorded", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_second_writer_is_refused_until_the_first_is_dead(folder: Path) -> None:
    """It is told who writes and since when; readers read on; a killed writer's events are there for the next one."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "recorded\n"
        with pytest.raises(RunDirectoryError) as refused, open_ledger(folder, HandClock()):
            pass
        pattern = rf"process {writer.pid} on \S+ has held it since 20\d\d-\d\d-\d\dT[\d:.]+Z"
        assert re.search(pattern, str(refused.value))
        holder = lock_holder(folder)
        assert holder is not None
        assert (holder["pid"], holder["since"]) == (
            writer.pid,
            str(refused.value).split("since ")[1].split("Z")[0] + "Z",
        )
        assert [each.job_id for each in read_events(folder)] == ["theirs"]
        assert lock_holder(folder) is not None, "neither looking nor reading frees it"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert lock_holder(folder) is None
    assert reopened(folder).books.reserved == 5
    assert lock_holder(folder) is None


def test_two_in_one_process_are_two_writers(folder: Path) -> None:
    """The lock is the ledger's, not the process's; a holder that left no name is still a holder."""
    with open_ledger(folder, HandClock()):
        for noise in (b"", b"{", b"[1]", b'{"pid": 1}'):
            (folder / "_lock").write_bytes(noise)
            with (
                pytest.raises(RunDirectoryError, match="another process holds it"),
                open_ledger(folder, HandClock()),
            ):
                pass
            assert lock_holder(folder) == {"pid": None, "host": None, "since": None}
    assert lock_holder(folder) is None
    assert reopened(folder).last_seq == 0


async def test_what_was_read_a_moment_ago_is_taken_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the segments are the same, an opening reads none of them; the chain goes on, and so does the state."""
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("reserved", "a"))
        await ledger.close()
    known = Reader(folder)
    known.read()
    with monkeypatch.context() as patch:
        patch.setattr(segments, "_read_file", lambda _, name: pytest.fail("read again") if "parquet" in name else b"")
        with open_ledger(folder, HandClock(), known=known) as ledger:
            assert ledger.state is known.state
            await ledger.record(event("submitted", "a"))
            await ledger.close()
    assert [each.event.value for each in read_events(folder)] == ["reserved", "submitted"]
    taken_over = ledger.state
    with open_ledger(folder, HandClock(), known=known) as ledger:
        # Its state has moved on without the reader: it is folded anew.
        assert ledger.state is known.state is not taken_over
        assert ledger.state == fold(read_events(folder))


async def test_of_what_was_read_a_moment_ago_only_the_news_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run has gone on in between: its events join what is known, and the next one follows on them."""
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("reserved", "a"))
        await ledger.close()
    known = Reader(folder)
    known.read()
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("submitted", "a"))
        await ledger.close()
    old, new = segment_paths(folder)
    read, real = [], segments._read_file
    with monkeypatch.context() as patch:
        patch.setattr(segments, "_read_file", lambda *asked: read.append(asked[1]) or real(*asked))
        with open_ledger(folder, HandClock(), known=known) as ledger:
            assert new.name in read
            assert old.name not in read
            await ledger.record(event("posted", "a"))
            await ledger.close()
    assert [each.event.value for each in read_events(folder)] == ["reserved", "submitted", "posted"]


async def test_what_others_wrote_since_it_was_read_is_read(folder: Path) -> None:
    """Also where a failed run has left its own events in the state, and where nothing was there before."""
    known = Reader(folder)
    with open_ledger(folder, HandClock(), known=known) as ledger:
        await ledger.record(event("reserved", "a"))
        await ledger.close()
    assert known.state.last_seq == 1
    folder_of_another = folder.parent / "another" / "ledger"
    with open_ledger(folder_of_another, HandClock()) as ledger:
        await ledger.record(event("reserved", "b"))
        await ledger.close()
    for path in folder.glob("*"):
        path.unlink()
    for path in folder_of_another.glob("0*"):
        (folder / path.name).write_bytes(path.read_bytes())
    with open_ledger(folder, HandClock(), known=known) as ledger:
        assert list(ledger.state.jobs) == ["b"]
        await ledger.close()


async def test_a_state_that_went_further_than_the_disk_is_not_taken_over(folder: Path) -> None:
    """What a run that could not write has applied in memory alone never counts for the next."""
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("reserved", "a"))
        await ledger.close()
    known = Reader(folder)
    known.read()
    too_far = known.state
    too_far.apply(event("submitted", "a")._replace(seq=2))
    with open_ledger(folder, HandClock(), known=known) as ledger:
        assert ledger.state == fold(read_events(folder)) != too_far
        await ledger.close()


async def test_a_ledger_that_a_copy_has_replaced_is_read_anew(tmp_path: Path) -> None:
    """Also where it has as many events, in one segment: what is known of another would be paid a second time."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder, ends in ((mine, "voided"), (other, "submitted")):
        for kind in ("reserved", ends):
            with open_ledger(folder, HandClock()) as ledger:
                await ledger.record(event(kind, "a"))
                await ledger.close()
    merge_segments(other, segments.list_segments(other)[0])
    known = Reader(mine)
    known.read()
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    with open_ledger(mine, HandClock(), known=known) as ledger:
        assert ledger.state == fold(read_events(other))
        await ledger.record(event("posted", "a"))
        await ledger.close()
    assert [each.event.value for each in read_events(mine)] == ["reserved", "submitted", "posted"]
