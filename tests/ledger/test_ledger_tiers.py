"""A ledger that is being written never has many segments, and nobody who reads it or dies over it loses an event."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disk_faults import Disk, Killed
from hypothesis import example, given
from hypothesis import strategies as st
from ledger_doubles import HandClock, event, segment_paths

from pipeline.kernel.errors import RunDirectoryError
from pipeline.ledger import merge_thread, reading, segments, store, tiers
from pipeline.ledger.encoding import table_of
from pipeline.ledger.events import Event
from pipeline.ledger.fold import fold
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.reading import Reader, read_events
from pipeline.ledger.segments import SegmentName, list_segments
from pipeline.ledger.store import Ledger, open_ledger
from pipeline.ledger.tiers import Tiers

FAN = 4


@pytest.fixture(autouse=True)
def small_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four segments make one of the next tier."""
    monkeypatch.setattr(tiers, "FAN", FAN)


async def write(ledger: Ledger, count: int) -> list[Event]:
    """Commits of one event each; a merge that is due is over before the next."""
    written = []
    for _ in range(count):
        written += await ledger.record(event("reserved", f"job-{ledger.state.last_seq + 1}"))
        ledger._merging.wait()
    return written


@given(st.integers(0, 700))
def test_tiers_stay_few_and_what_they_merge_follows_each_other(commits: int) -> None:
    """Whatever is due is a full tier's oldest, in order, and never the newest segment of all."""
    counted, live = Tiers(), []
    for seq in range(1, commits + 1):
        newest = SegmentName(seq, seq, "0" * 32)
        counted.add(newest)
        live.append(newest)
        while group := counted.due():
            at = live.index(group[0])
            assert live[at : at + FAN] == list(group)
            assert newest not in group
            merged = SegmentName(group[0].first, group[-1].last, "0" * 32)
            counted.replace(group, merged)
            live[at : at + FAN] = [merged]
    assert len(live) <= FAN * 6
    assert [name.first for name in live] == [1, *(name.last + 1 for name in live[:-1])][: len(live)]


@given(st.lists(st.sampled_from([1, 7, 40, 99, 100]), max_size=300))
@example([100] * 5 + [1] * 200)
def test_no_merge_is_larger_than_memory_allows_and_large_ones_stay_few(sizes: list[int]) -> None:
    """Commits of any size: what is merged follows each other and is not large; files are as many as the events need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiers, "LARGE", 100)
        counted, live, seq = Tiers(), [], 0
        for size in sizes:
            counted.add(SegmentName(seq + 1, seq + size, "0" * 32))
            live.append(SegmentName(seq + 1, seq + size, "0" * 32))
            seq += size
            while group := counted.due():
                at = live.index(group[0])
                assert live[at : at + len(group)] == list(group)
                merged = SegmentName(group[0].first, group[-1].last, "0" * 32)
                assert merged.last - merged.first < tiers.LARGE
                counted.replace(group, merged)
                live[at : at + len(group)] = [merged]
    assert len(live) <= 2 * seq / 100 + FAN * 8


async def test_a_long_run_has_few_segments_while_it_goes_on(folder: Path) -> None:
    """A hundred commits, and the ledger is whole with far fewer files; the merged ones are compact."""
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 100)
        paths = segment_paths(folder)
        assert len(paths) < 4 * FAN
        assert read_events(folder) == written
        large = pq.ParquetFile(paths[0]).metadata.row_group(0).column(0)
        assert (large.compression, large.num_values) == ("ZSTD", FAN**3)
        await ledger.close()
    with open_ledger(folder, HandClock()) as ledger:
        assert ledger.state == fold(written)


async def test_a_reader_beside_the_merges_reads_only_what_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has read and checked, a merge does not make it read again; and it sees every event once."""
    reads: list[SegmentName] = []
    real = segments.parts_of
    with open_ledger(folder, HandClock()) as ledger:
        reader, written = Reader(folder, moments=True), []
        for _ in range(30):
            written += await write(ledger, 1)
            monkeypatch.setattr(
                segments, "parts_of", lambda at, name, *how: (reads.append(name), real(at, name, *how))[1]
            )
            reader.read()
            monkeypatch.undo()
            assert reader.state == fold(written)
            assert reader.moments.to_pylist() == table_of(written).select(reader.moments.column_names).to_pylist()
            monkeypatch.setattr(tiers, "FAN", FAN)
        assert len(segment_paths(folder)) < 30
    assert [name.first for name in reads] == list(range(1, 31))


async def test_a_merge_beside_a_long_reading_has_no_large_segment_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While those are read, the young ones that were listed go away. Else no look at a busy large ledger would end."""
    reads: list[SegmentName] = []
    real = segments.parts_of
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, FAN**2 + FAN)

        def parts_of(at: Path, name: SegmentName, *how: Any) -> Iterator[pa.Table]:
            if name.last == FAN**2:
                reads.append(name)
                merge_segments(folder, list_segments(folder)[0][1:])
            return real(at, name, *how)

        monkeypatch.setattr(segments, "parts_of", parts_of)
        monkeypatch.setattr(reading, "MANY", FAN**2 - 1)
        reader = Reader(folder, moments=True)
        reader.read()
        assert reader.state == fold(written)
        assert reader.moments.to_pylist() == table_of(written).select(reader.moments.column_names).to_pylist()
    assert len(reads) == 1


async def test_a_merge_over_the_end_of_what_was_read_is_read_from_the_start(folder: Path) -> None:
    """Each event counts once, also where a merged segment holds some that are known and some that are not."""
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 3)
        reader = Reader(folder, moments=True)
        reader.read()
        written += await write(ledger, 2)
        merge_segments(folder, list_segments(folder)[0][1:], sealed=False)
        reader.read()
        assert reader.state == fold(written)
        assert len(reader.moments) == len(written)


async def test_a_reader_does_not_take_another_segment_of_the_same_events_for_known(folder: Path) -> None:
    """A file that was swapped for one of the same range is read, and its place in the chain found wrong."""
    with open_ledger(folder, HandClock()) as ledger:
        await write(ledger, 3)
        reader = Reader(folder, moments=True)
        reader.read()
        stranger = folder.parent / "stranger"
        with open_ledger(stranger, HandClock()) as other:
            await other.record(event("reserved", "another"))
        [theirs] = segment_paths(stranger)
        segment_paths(folder)[0].unlink()
        (folder / theirs.name).write_bytes(theirs.read_bytes())
        with pytest.raises(RunDirectoryError, match="does not continue"):
            reader.read()


@pytest.mark.parametrize("deadly", [True, False])
async def test_a_merge_of_old_segments_may_end_at_any_call(folder: Path, disk: Disk, deadly: bool) -> None:
    """Death or an error at each call of the operating system: all events are there, each once, and it is written on."""
    with open_ledger(folder, HandClock()) as ledger:
        events = await write(ledger, 4)
    start = {path.name: path.read_bytes() for path in folder.iterdir()}
    for call in range(1, 60):
        disk.heal()
        for path in folder.iterdir():
            path.unlink()
        for name, data in start.items():
            (folder / name).write_bytes(data)
        (disk.kill_at if deadly else disk.fail_at)(call)
        try:
            merge_segments(folder, list_segments(folder)[0][:3], sealed=True)
        except (Killed, OSError):
            pass
        else:
            if not disk.has_failed:
                break
        disk.heal()
        assert read_events(folder) == events
        with open_ledger(folder, HandClock()) as ledger:
            assert ledger.state == fold(events)
            more = await write(ledger, 1)
        assert read_events(folder) == events + more
    assert 10 < call < 59, "every call was tried, and at the end one merge went through"
    assert [(name.first, name.last) for name in list_segments(folder)[0]] == [(1, 3), (4, 4)]


@pytest.mark.parametrize(("room", "reads_again"), [(merge_thread.KNOWN_BYTES, 0), (1, FAN)])
async def test_what_was_just_written_is_merged_from_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: int, reads_again: int
) -> None:
    """Only the merged segment is read back, and once, while there is room to remember the others."""
    read: list[SegmentName] = []
    real = segments.open_segment
    monkeypatch.setattr(segments, "open_segment", lambda at, name, **how: (read.append(name), real(at, name, **how))[1])
    monkeypatch.setattr(merge_thread, "KNOWN_BYTES", room)
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, FAN + 1)
        assert ledger._merging._known_bytes <= room
    spans = [(name.first, name.last) for name in read]
    assert set(spans) == {*((n, n) for n in range(1, reads_again + 1)), (1, FAN)}
    assert spans.count((1, FAN)) == 1
    assert read_events(folder) == written


async def test_what_goes_bad_beside_a_run_undoes_no_end_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidying finds it and leaves all as it is, a copy elsewhere included: who opens it next is told."""
    monkeypatch.setattr(store, "MERGE_ABOVE", 2)
    copy = Mock(spec=store.Follower)
    with open_ledger(folder, HandClock(), follower=copy) as ledger:
        await write(ledger, FAN - 1)
        bad = segment_paths(folder)[1]
        bad.write_bytes(bad.read_bytes()[:-1] + b"?")
        await ledger.close()
        assert ledger.failure is None
    assert len(segment_paths(folder)) == FAN - 1
    copy.follow.assert_called()
    copy.settle.assert_not_called()
    with pytest.raises(RunDirectoryError, match=f"{bad.name} is damaged"), open_ledger(folder, HandClock()):
        pass


async def test_a_merge_that_fails_stops_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidiness is all that it costs: every later event is recorded, and the ledger is whole."""

    def refuse(*_: object, **__: object) -> SegmentName:
        raise RunDirectoryError("a segment is damaged")

    monkeypatch.setattr(merge_thread, "merge_segments", refuse)
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 3 * FAN)
    assert len(segment_paths(folder)) == 3 * FAN
    assert read_events(folder) == written


async def test_trouble_in_the_merges_themselves_is_no_failure_to_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread to be had, or a mistake of ours: what is on the disk by then is acknowledged."""
    monkeypatch.setattr(Tiers, "due", lambda _tiers: 1 // 0)
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 2 * FAN)
        assert ledger.failure is None
    assert read_events(folder) == written


async def test_a_merge_never_takes_the_room_of_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where little is free, segments stay as they are."""
    monkeypatch.setattr(merge_thread, "free_bytes", lambda _folder: merge_thread.SPARE_BYTES)
    with open_ledger(folder, HandClock()) as ledger:
        await write(ledger, 3 * FAN)
    assert len(segment_paths(folder)) == 3 * FAN


async def test_a_disk_that_had_no_room_for_a_merge_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every commit, but when as many segments again have come: then the whole backlog becomes few."""
    free, asked = merge_thread.SPARE_BYTES, 0

    def look(_folder: Path) -> int:
        nonlocal asked
        asked += 1
        return free

    monkeypatch.setattr(merge_thread, "free_bytes", look)
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 5 * FAN)
        assert len(segment_paths(folder)) == 5 * FAN
        assert asked <= 5
        free = 2**40
        written += await write(ledger, 4 * FAN)
        assert len(segment_paths(folder)) <= 4 * FAN
    assert read_events(folder) == written


async def test_an_old_segment_that_cannot_be_removed_ends_no_merges(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader on a shared disk has it open, say. It stays beside what stands for it until the next opening."""
    real, tried = Path.unlink, list[str]()

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet":
            tried.append(path.name)
            if len(tried) == 3:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with open_ledger(folder, HandClock()) as ledger:
        written = await write(ledger, 100)
        assert len(segment_paths(folder)) < 4 * FAN + FAN
        assert read_events(folder) == written
    with open_ledger(folder, HandClock()) as ledger:
        assert ledger.state == fold(written)
        assert not list_segments(folder)[1]


async def test_a_merge_that_fails_for_good_is_told_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: it is not tried again."""

    def refuse(*_: object, **__: object) -> SegmentName:
        raise RunDirectoryError("a segment is damaged")

    monkeypatch.setattr(merge_thread, "merge_segments", refuse)
    with open_ledger(folder, HandClock()) as ledger:
        await write(ledger, 4 * FAN)
    assert [record.getMessage() for record in caplog.records] == [
        "no more segments of the ledger are merged until it is opened again"
    ]


async def test_a_question_about_one_job_passes_over_the_rows_that_do_not_have_it(folder: Path) -> None:
    """DuckDB, asked whether a group of rows can have a job: the filter says no, but of the one that is there."""
    with open_ledger(folder, HandClock()) as ledger:
        await write(ledger, 2 * FAN)
    merged = segment_paths(folder)[0]

    def passes_over(job_id: str) -> list[bool]:
        probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'job_id', ?)"
        return [row[0] for row in duckdb.execute(probe, [str(merged), job_id]).fetchall()]

    assert passes_over("job-2") == [False]
    assert [passes_over(f"stranger-{number}") for number in range(20)].count([True]) >= 15
    assert merged.stat().st_size < 20_000


async def test_a_broken_chain_is_not_merged_away(folder: Path) -> None:
    """A segment of another ledger between ours is damage, and every file stays as evidence."""
    with open_ledger(folder, HandClock()):
        pass
    strangers = []
    for number in range(2):
        other = folder.parent / f"other-{number}"
        with open_ledger(other, HandClock()) as ledger:
            for each in range(2):
                await ledger.record(event("reserved", f"job-{number}-{each}"))
        strangers.append(segment_paths(other))
    for path in (strangers[0][0], strangers[1][1]):
        (folder / path.name).write_bytes(path.read_bytes())
    kept = {path.name for path in segment_paths(folder)}
    with pytest.raises(RunDirectoryError, match="does not continue"):
        merge_segments(folder, list_segments(folder)[0], sealed=True)
    assert {path.name for path in segment_paths(folder)} == kept
