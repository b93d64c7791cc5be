"""Room on the disk: nothing starts that would not fit, and a full one stops the sending, not the recording."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from nights import AtStart, Night, play
from support import campaign
from virtual_time import VirtualClock

from pipeline.engine import room
from pipeline.engine.room import MIB, RECORDS_BYTES, UNKNOWN_VIDEO_BYTES, Room, needed_bytes, needed_files
from pipeline.kernel.files import free_bytes, free_files
from pipeline.ledger import segments, store
from pipeline.ledger.events import Event, EventKind
from pipeline.runner.watching import LiveRun


def test_videos_are_taken_for_the_largest_seen_or_for_large() -> None:
    """Each of those on their way counts, and the records of them."""
    assert needed_bytes(3, 0) == 3 * UNKNOWN_VIDEO_BYTES + RECORDS_BYTES
    assert needed_bytes(3, 5 * MIB) == 15 * MIB + RECORDS_BYTES
    assert needed_bytes(0, 5 * MIB) == RECORDS_BYTES


def test_free_space_is_asked_for_and_may_be_unknown(tmp_path: Path) -> None:
    """As the file system says; where there is none, nobody knows, and nothing is refused for it."""
    found = os.statvfs(tmp_path)
    free = free_bytes(tmp_path)
    assert free is not None
    assert abs(free - found.f_bavail * found.f_frsize) < 2**30
    assert free_bytes(tmp_path / "none") is None

    async def main() -> None:
        assert Room(tmp_path / "none", VirtualClock(), largest=10**18).lack(1) is None

    play(main())


def test_the_file_system_is_asked_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision is made often, the look at the disk rarely; what is lacking is said with both figures."""
    asked: list[str] = []

    def free(folder: Path) -> int:
        asked.append(folder.name)
        return 10 * MIB

    monkeypatch.setattr(room, "free_bytes", free)

    async def main() -> None:
        looked = Room(tmp_path, VirtualClock())
        looked.note(2 * MIB)
        looked.note(MIB)
        assert [looked.lack(number) for number in (1, 4)] == [None, None]
        lack = looked.lack(5)
        assert lack is not None
        assert "10.0 MiB free" in lack
        assert "12.0 MiB are needed" in lack
        assert sorted(asked) == ["ledger", "videos"]
        await asyncio.sleep(room.LOOK_AGAIN_S)
        looked.lack(1)
        assert len(asked) == 4

    play(main())


def test_a_disk_without_room_ends_the_run_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 6 and a sentence that says how much is missing; with room again, the next run makes everything."""
    made = campaign(tmp_path, 3)

    async def main() -> None:
        async with Night(tmp_path) as night:
            with monkeypatch.context() as disk:
                disk.setattr(room, "free_bytes", lambda _folder: UNKNOWN_VIDEO_BYTES)
                result = await night.run(made)
            assert (result.exit_code, night.posts()) == (6, 0)
            assert "16.0 MiB free and 18.0 MiB are needed" in result.message
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_files_that_may_still_be_made_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are plenty there: each video needs a few files, and what has no bound is no bound."""
    found = os.statvfs(tmp_path)
    files = free_files(tmp_path)
    assert files is None if not found.f_files else abs(files - found.f_favail) < 2**20
    assert free_files(tmp_path / "none") is None

    async def main() -> None:
        for left, lacks in ((needed_files(3), False), (needed_files(3) - 1, True), (None, False)):
            monkeypatch.setattr(room, "free_files", lambda _folder, left=left: left)
            lack = Room(tmp_path, VirtualClock()).lack(3)
            assert (lack is not None) is lacks
            assert lack is None or f"room for {left} more files (inodes) and {needed_files(3)} are needed" in lack

    play(main())


def test_a_disk_without_files_to_be_had_ends_the_run_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way has its files, and all of it is recorded; then the run stops, and says what is missing."""
    made = campaign(tmp_path, 6)
    monkeypatch.setattr(room, "free_files", lambda folder: 60 - sum(1 for _ in folder.parent.rglob("*")))

    async def main() -> None:
        async with Night(tmp_path) as night:
            result = await night.run(made)
            assert result.exit_code == 6
            assert "more files (inodes)" in result.message
            summary = result.summary
            assert 0 < summary["stored"] == night.posts() < 6
            assert (summary["in_doubt"], summary["running"], summary["unfetched"]) == (0, 0, 0)
            monkeypatch.setattr(room, "free_files", lambda _folder: None)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_a_disk_that_refuses_also_what_was_kept_for_it_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First full, then full without a ballast: nothing more was recorded, and the message does not say that it was."""
    made = campaign(tmp_path, 4)
    write_segment = segments.write_segment
    refused = 0

    async def main() -> None:
        async with Night(tmp_path, mean_s=2.0) as night:

            def full(folder: Path, events: list[Event], data: bytes) -> Any:
                nonlocal refused
                if events[0].seq > 6 and refused != 1:
                    refused += 1
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                refused += bool(refused)
                return write_segment(folder, events, data)

            with monkeypatch.context() as disk:
                disk.setattr(store.segments, "write_segment", full)
                result = await night.run(made)
            assert result.exit_code == 6
            assert "could not be written (No space left on device)" in result.message
            assert "is recorded" not in result.message

    play(main())


def test_a_small_disk_makes_the_run_narrow_not_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two unknown videos at once two run; once their real size is known, the rest runs too."""
    made = campaign(tmp_path, 6)
    most = 0
    free = needed_bytes(2, 0)
    monkeypatch.setattr(room, "free_bytes", lambda _folder: free)

    async def main() -> None:
        async with Night(tmp_path) as night:
            live: list[LiveRun] = []

            def count(event: Event) -> None:
                nonlocal most
                if event.event is EventKind.RESERVED and not live[0].context.room.largest:
                    most = max(most, live[0].context.slots.in_flight)

            result = await night.run(made, watcher=AtStart(live.append, count))
            assert result.exit_code == 0
            night.check(made)

    play(main())
    assert most == 2


@pytest.mark.parametrize("kind", [EventKind.RESERVED, EventKind.SUBMITTED, EventKind.POSTED])
def test_a_disk_that_fills_up_stops_the_sending_and_not_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: EventKind
) -> None:
    """From the first write without room on nothing is sent, what runs is finished, and the run ends with exit 6."""
    made = campaign(tmp_path, 8)
    write_segment = segments.write_segment
    live: list[LiveRun] = []
    sent: list[int] = []

    async def main() -> None:
        async with Night(tmp_path, mean_s=2.0) as night:

            def full(folder: Path, events: list[Event], data: bytes) -> Any:
                if not sent and events[0].event is kind and events[0].seq > 4:
                    sent.append(live[0].context.provider.calls["submit"])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write_segment(folder, events, data)

            monkeypatch.setattr(store.segments, "write_segment", full)
            plenty = {"limits.requests_per_minute": "600", "limits.max_in_flight": "2"}
            config = night.config(**{"polling.expected_s": "2"}, **plenty)
            result = await night.run(made, config, AtStart(live.append))
            assert result.exit_code == 6
            assert "is full" in result.message
            assert sent == [night.posts()]
            assert 0 < night.posts() < 8
            summary = result.summary
            assert summary["stored"] == night.posts(), "what ran was finished"
            assert (summary["in_doubt"], summary["running"], summary["unfetched"]) == (0, 0, 0)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())
