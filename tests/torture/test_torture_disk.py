"""Disks that fail and disks that are full: nothing new is sent, a sentence says why, and what is paid is kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import itertools
import json
import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulty_disk import SHORT, Diary, FaultyDisk, FillingDisk, Told, fill_up
from score import LONG, Score
from stories import whole_state
from support import KEY, fast_config
from virtual_time import STARTED_US
from worlds import Life, Unreported, World, fork, make_world, side_by_side

from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import KlingBatchError
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.reading import read_events
from pipeline.manifest import load_manifest
from pipeline.runner.running import run
from pipeline.sandbox import Sandbox, SandboxSettings

PRICES = {1: "3.50", 2: "5.25", 3: "7.00"}
"""What so many rows cost together: the cap leaves nothing to buy a video twice with."""

SENTENCES = ("could not be written", "cannot be ", "cannot write ", "cannot read back ", "is full", "MiB are needed")
"""How a run says that this machine stopped it."""


def new_world(folder: Path, rows: int, **changes: str) -> World:
    return make_world(folder, rows=rows, changes={"budget__cap_usd": PRICES[rows], **changes})


def check_end(world: World, code: int, told: Told, trouble: str) -> None:
    """A life that met a bad disk ended clearly, spent nothing after it, and left nothing uncovered."""
    assert told.printed == ""
    assert code in (0, 6)
    message = world.result["summary"]["message"]
    if code == 0:
        assert message is None
        assert world.result["summary"]["stored"] == world.result["summary"]["jobs"]
        world.check_rest()
    else:
        assert any(sentence in message for sentence in SENTENCES), message
        assert "\n" not in message
        assert message.endswith(".") or trouble in message, message
    events = read_events(world.run_folder / "ledger") if (world.run_folder / "ledger").is_dir() else []
    reserved = {event.job_id or "": event.seq for event in events if event.event is EventKind.RESERVED}
    assert not told.sent_without_leave(reserved)
    world.check_exposure()


def check_cured(world: World) -> None:
    """The next runs finish: every video is here, each was bought once, and the cap held at every event."""
    assert world.live_on([Unreported()]) == 0
    world.check_rest()
    requests, _, _ = world.look()
    jobs = len(world.campaign.jobs)
    assert world.result["summary"]["stored"] == jobs
    assert len(requests) == jobs, "what was accepted once was not asked for again"
    cap = world.result["summary"]["cap_usd"]
    state = State()
    for event in read_events(world.run_folder / "ledger"):
        state.apply(event)
        assert state.books.committed <= round(float(cap) * 1e6)


@dataclass(frozen=True)
class Sweep:
    """The same trouble at one call after another, until a life gets through without meeting it."""

    part: str
    error: int
    lasting: bool = False
    call: str | None = None
    step: int = 1
    """But in the long tier, ever fewer calls: each so many times as far on as the one before; 1 for every call."""
    rows: int = 1
    in_flight: int = 60

    def __str__(self) -> str:
        error = errno.errorcode.get(self.error, "short")
        return f"{error} {'lasting' if self.lasting else 'once'}, {self.call or 'any call'} on {self.part}"

    def calls(self) -> Iterator[int]:
        nth = 1
        while True:
            yield nth
            nth = nth + 1 if LONG or self.step == 1 else nth * self.step

    def make(self, score: Score, folder: Path, seen: set[str]) -> None:
        """Make a trial of each call. The same lives follow from what is `seen` already: they are lived once."""
        for nth in self.calls():
            met = False
            with score.trial(f"{self}, number {nth}"):
                changes = {"limits__max_in_flight": str(self.in_flight)}
                if self.part == "posters":
                    changes["media__verify"] = "frames"
                world = new_world(folder / f"{self}-{nth}", self.rows, **changes)
                code = world.live([FaultyDisk(world.folder, self.part, self.error, nth, self.lasting, self.call)])
                told = Told.of(world.folder)
                met = bool(told.refused)
                score.fired[str(self)] += len(told.refused)
                for entry in told.refused:
                    score.fired[f"{entry['refused']} on {entry['part']}"] += 1
                assert met or code == 0
                if met:
                    check_end(world, code, told, os.strerror(self.error))
                state = f"{changes} {self.rows} {whole_state(world)}"
                if code and state not in seen:
                    seen.add(state)
                    check_cured(world)
            if not met:
                return


def test_any_call_on_the_ledger_and_on_the_videos_may_fail(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """EIO once and ENOSPC for ever, at every call in turn: a clear end, and the next run finishes the work."""
    score = new_score("disk: every call on ledger and videos fails")
    troubles = ((errno.EIO, False), (errno.ENOSPC, True), *([(errno.ENOSPC, False)] if LONG else []))
    sweeps = [Sweep(part, *trouble) for part in ("ledger", "videos") for trouble in troubles]
    seen: set[str] = set()
    side_by_side(lambda sweep: sweep.make(score, tmp_path, seen), sweeps)
    score.conclude(map(str, sweeps))


def test_every_other_part_may_fail_in_every_other_way(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Posters, report, lock, log and copies; quotas, descriptors, short writes, a name that cannot go: never worse."""
    score = new_score("disk: other parts, other errors")
    parts = ("posters", "report", "lock", "log", "copies", "ballast")
    sweeps = [Sweep(part, errno.EIO, step=1 if part == "lock" else 5) for part in parts]
    sweeps += [
        Sweep("all", errno.ENOSPC, lasting=True, step=6),
        Sweep("all", errno.EDQUOT, step=6),
        Sweep("all", errno.EMFILE, step=6),
        Sweep("ledger", SHORT, lasting=True, step=30),
        Sweep("videos", SHORT, lasting=True, step=30),
        Sweep("ledger", errno.EIO, call="fsync", step=5),
        Sweep("all", errno.EIO, call="close", lasting=True, step=5),
        Sweep("all", errno.EIO, call="mkdir"),
    ]
    if LONG:
        errors = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, SHORT)
        every = itertools.product((*parts, "ledger", "videos", "all"), errors, (False, True))
        sweeps = [sweep for sweep in sweeps if sweep.call] + [Sweep(*each) for each in every]
    seen: set[str] = set()
    side_by_side(lambda sweep: sweep.make(score, tmp_path, seen), sweeps)
    score.conclude(map(str, sweeps))


def test_nothing_is_sent_once_a_commit_has_failed(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Of two jobs one after the other, the second is sent only if the ledger took everything before it."""
    score = new_score("disk: nothing is sent after a failed commit")
    troubles = ((errno.EIO, False), (errno.ENOSPC, False), (errno.ENOSPC, True))
    sweeps = [Sweep("ledger", error, lasting, step=3, rows=2, in_flight=1) for error, lasting in troubles]
    seen: set[str] = set()
    side_by_side(lambda sweep: sweep.make(score, tmp_path, seen), sweeps)
    score.conclude(map(str, sweeps))


def may_mount(folder: Path) -> bool:
    """Whether this process may mount a small disk."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError), small_disk(folder, 2**16):
        return True
    return False


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes in the place of `folder`, for the block."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


MIB = 2**20


@dataclass(frozen=True)
class FullDisk:
    """A small disk in the place of a part of the run directory, that somebody else fills up to `left` bytes."""

    part: str
    """`ledger`, `videos`, or nothing for all of the run directory."""
    left: int
    after_event: int
    """When: after so many events; 0 before the run begins."""

    @classmethod
    def drawn(cls, part: str, seed: int) -> FullDisk:
        draw = random.Random(f"{part} {seed}")
        return cls(part, draw.choice((0, 1, 2, 5, 20, 60)) * 4096, draw.randrange(17))

    def make(self, score: Score, folder: Path) -> None:
        """One run on the disk that fills up, the next when there is room again."""
        with score.trial(str(self)):
            world = new_world(folder / str(self).replace("/", "-"), 3, limits__max_in_flight="2")
            place = world.run_folder / self.part
            with small_disk(place, 4 * MIB if self.part == "ledger" else 40 * MIB):
                if not self.after_event:
                    fill_up(place, self.left)
                code = world.live([FillingDisk(world.folder, place, self.left, self.after_event)])
                told = Told.of(world.folder)
                (place / ".filler").unlink(missing_ok=True)
                check_end(world, code, told, os.strerror(errno.ENOSPC))
                score.fired[f"{self.part or 'all'} ends with {code}"] += 1
                for sentence in SENTENCES if code else ():
                    score.fired[sentence] += sentence in world.result["summary"]["message"]
                check_cured(world)


def test_a_disk_that_is_full_stops_the_run_until_there_is_room(
    tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    """A real disk of its own for the ledger, the videos or both, filled at any moment to any level."""
    if not may_mount(tmp_path / "probe"):
        pytest.skip("a small disk cannot be mounted here: not root, or not allowed")
    score = new_score("disk: full, then room")
    disks = [FullDisk("ledger", 0, 6), FullDisk("videos", 0, 0), FullDisk("", 0, 6)]
    disks += [FullDisk.drawn(part, seed) for part in ("ledger", "videos", "") for seed in range(60 if LONG else 2)]
    side_by_side(lambda disk: disk.make(score, tmp_path), dict.fromkeys(disks))
    score.conclude(["ledger ends with 6", "videos ends with 6", "all ends with 6", "is full", "MiB are needed"])


class ShiftedClock(SystemClock):
    """The real time, as seen in a world in which it is another year."""

    def __init__(self, shift_s: float) -> None:
        self._shift_s = shift_s

    def now_us(self) -> int:
        return super().now_us() + int(self._shift_s * 1e6)

    def wall_s(self) -> float:
        return self.now_us() / 1e6


def provide(life: Life, shift_s: float) -> None:
    """The main function of a provider's own process, which nothing limits."""

    async def serve() -> None:
        clock = ShiftedClock(shift_s)
        state = life.folder / "provider"
        async with Sandbox(SandboxSettings(**life.provider, clock=clock.wall_s, state_dir=state)):
            await asyncio.Event().wait()

    asyncio.run(serve())


def live_within(life: Life, shift_s: float, kind: int, limit: int) -> None:
    """The main function of a life whose process may only have so much of something, in real time."""
    Diary(life.folder)
    if kind == resource.RLIMIT_NOFILE:
        limit += len(os.listdir("/proc/self/fd"))
    resource.setrlimit(kind, (limit, limit))
    config = fast_config(f"http://127.0.0.1:{life.provider['port']}", **life.changes)
    try:
        campaign = load_manifest(life.manifest)
        ended = asyncio.run(run(campaign, config, life.folder / "run", key=KEY, clock=ShiftedClock(shift_s)))
        told = {"exit_code": ended.exit_code, "summary": ended.summary}
    except KlingBatchError as error:
        told = {"exit_code": error.exit_code, "summary": {"message": str(error)}}
    (life.folder / "result.json").write_text(json.dumps(told))


@dataclass(frozen=True)
class Limit:
    """So many descriptors more than a process has, or so many bytes in any file."""

    kind: int
    limit: int

    def __str__(self) -> str:
        return f"{'descriptors' if self.kind == resource.RLIMIT_NOFILE else 'bytes in a file'}: {self.limit}"

    def make(self, score: Score, folder: Path) -> None:
        """One run within the limit, then as many as it takes without."""
        with score.trial(str(self)):
            world = new_world(folder / str(self), 3)
            world.provider["mean_s"] = 0.2
            life = dataclasses.replace(
                world.life(),
                changes={"budget__cap_usd": PRICES[3], "in_doubt__wait_s": "0.5", "retry__max_delay_s": "1"},
            )
            shift_s = STARTED_US / 1e6 - time.time()
            provider = fork(provide, life, shift_s)
            limited = fork(live_within, life, shift_s, self.kind, self.limit)
            limited.join(60)
            assert limited.exitcode == 0
            provider.terminate()
            provider.join()
            world.now_s += 600
            code, message = world.result["exit_code"], world.result["summary"]["message"] or ""
            for sign in ("Too many open files", "File too large"):
                score.fired[sign] += sign in message
            score.fired["success"] += code == 0
            told = Told.of(world.folder)
            assert told.printed == ""
            assert code in (0, 5, 6)
            assert (code == 6) == bool(message)
            world.check_exposure()
            check_cured(world)


def test_a_process_with_few_descriptors_or_small_files_loses_nothing(
    tmp_path: Path, new_score: Callable[[str], Score]
) -> None:
    """The limits that a system sets for a process end a run with a sentence, or not at all; never with a lost row."""
    score = new_score("disk: few descriptors, small files")
    descriptors = range(3, 40) if LONG else (6, 12, 30)
    sizes = range(2_000, 60_000, 1_000) if LONG else (3_000, 6_000, 60_000)
    limits = [Limit(resource.RLIMIT_NOFILE, number) for number in descriptors]
    limits += [Limit(resource.RLIMIT_FSIZE, number) for number in sizes]
    side_by_side(lambda limit: limit.make(score, tmp_path), limits)
    score.conclude(["Too many open files", "File too large", "success"])
