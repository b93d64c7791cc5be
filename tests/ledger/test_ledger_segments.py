"""The files of the ledger: readable by anybody, and refused by name when they are not what was written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disk_faults import Disk, Killed
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_doubles import (
    HandClock,
    contents,
    event,
    forge,
    life,
    numbered,
    packed,
    read_state,
    segment_names,
    segment_paths,
    write_ledger,
)

from pipeline.kernel import files
from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.ledger import encoding, reading, segments
from pipeline.ledger.encoding import GENESIS, SCHEMA, Content, encode, encode_content, link, table_of
from pipeline.ledger.events import COLUMNS, Event, EventKind
from pipeline.ledger.fold import fold
from pipeline.ledger.merge import _Group, merge_segments
from pipeline.ledger.reading import Reader, read_events
from pipeline.ledger.segments import SegmentName, ends_of, list_segments, read_segments, remove_segments, write_segment
from pipeline.ledger.store import open_ledger

FIVE = [[each] for each in [*life("stored"), event("reserved", "b")]]


def five_segments(folder: Path) -> list[Event]:
    """A ledger of five segments, an event in each."""
    events = write_ledger(folder, FIVE)
    assert len(segment_paths(folder)) == 5
    return events


def refusal(folder: Path) -> str:
    """How a writer and a reader alike refuse the ledger, without having touched a file of it."""
    before = contents(folder)
    with pytest.raises(RunDirectoryError) as reader:
        read_events(folder)
    with pytest.raises(RunDirectoryError):
        read_state(folder)
    with pytest.raises(RunDirectoryError) as writer, open_ledger(folder, HandClock()):
        pass
    assert str(writer.value) == str(reader.value)
    assert writer.value.exit_code == 2
    assert contents(folder) == before
    return str(writer.value)


# --- what anybody can read --------------------------------------------------------------------------------------------


def test_every_segment_has_the_full_schema_from_the_first_event_on(folder: Path) -> None:
    """Names, order and types of all columns, in a segment of one event and in a merged one."""
    five_segments(folder)
    [merged] = [merge(folder)]
    for path in [*segment_paths(folder), merged]:
        schema = pq.read_schema(path)
        assert {field.name: str(field.type).replace("tz=", "") for field in schema} == COLUMNS
        assert schema.names == list(COLUMNS) == SCHEMA.names


def merge(folder: Path) -> Path:
    merge_segments(folder, list_segments(folder)[0])
    [path] = segment_paths(folder)
    return path


def test_pandas_reads_a_live_ledger(folder: Path) -> None:
    """Beside the lock, the head and half-written files: every event, integers as integers, moments in UTC."""
    with open_ledger(folder, HandClock()):
        (folder / ".half.part").write_bytes(b"PAR1 half a segment")
        (folder / ".head-half.part").write_bytes(b"0000")
        last = GENESIS
        for each in numbered([*life("stored"), Event(event=EventKind.RUN_ENDED, detail="{}")]):
            after = link(last, [each])
            write_segment(folder, [each], encode([each], last, after))
            last = after
        assert {"_lock", "_head"} <= {path.name for path in folder.iterdir()}
        frame = pd.read_parquet(folder).sort_values("seq", ignore_index=True)
    kinds = {name: str(frame[name].dtype) for name in COLUMNS}
    for name, kind in COLUMNS.items():
        if kind in ("int64", "int32"):
            assert kinds[name] == kind
    assert kinds["at"] == "datetime64[us, UTC]"
    assert kinds["duration_s"] == kinds["queue_s"] == "float64"
    assert list(frame["seq"]) == [1, 2, 3, 4, 5]
    assert list(frame["event"]) == ["reserved", "submitted", "posted", "stored", "run_ended"]
    assert frame["cost_microusd"].sum() == 1_750_000
    assert frame["request_id"].isna().sum() == 4
    assert frame["at"].dt.tz is not None


texts = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
amounts = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-(2**31), 2**31 - 1)
reals = st.one_of(st.none(), st.floats(allow_nan=False))
EVENTS = st.builds(
    Event,
    event=st.sampled_from(EventKind),
    at_us=amounts,
    attempt=small,
    http_status=small,
    width=small,
    height=small,
    quote_microusd=amounts,
    cost_microusd=amounts,
    bytes=amounts,
    duration_s=reals,
    queue_s=reals,
    inference_s=reals,
    **dict.fromkeys(("job_id", "request_id", "request", "error_class", "detail", "model", "url", "path"), texts),
)


@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, given_: list[Event], is_packed: bool
) -> None:
    """Every field of every event, whatever its extremes: moments before 1970, NUL in a text, the largest integers."""
    folder = tmp_path_factory.mktemp("any")
    events = [each._replace(seq=seq) for seq, each in enumerate(given_, 1)]
    name = write_segment(folder, events, (packed if is_packed else encode)(events, GENESIS, "f" * 64))
    assert read_segments(folder, [name]) == events
    assert ends_of(folder, name) == (GENESIS, "f" * 64)


# --- damage -----------------------------------------------------------------------------------------------------------


def test_each_flipped_byte_is_refused_by_name(folder: Path) -> None:
    """Every single byte of a segment, first to last: the file is named, nothing is sent."""
    [recorded] = [write_ledger(folder, [life("stored")])]
    [path] = segment_paths(folder)
    [name] = segment_names(folder)
    whole = path.read_bytes()
    assert read_segments(folder, [name]) == recorded
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(RunDirectoryError, match=path.name):
            read_segments(folder, [name])
    path.write_bytes(bytes(damaged))
    assert path.name in refusal(folder)


def test_even_under_a_matching_checksum_damage_ends_in_a_sentence(folder: Path) -> None:
    """A segment whose name was made to fit its damaged bytes is read or refused, never a crash of the reader."""
    write_ledger(folder, [life("stored")])
    [path] = segment_paths(folder)
    whole = path.read_bytes()
    path.unlink()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        name = SegmentName.of(1, 4, bytes(damaged))
        renamed = folder / str(name)
        renamed.write_bytes(damaged)
        try:
            read_segments(folder, [name])
        except RunDirectoryError as damage:
            assert renamed.name in str(damage)  # noqa: PT017
        renamed.unlink()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("quote_microusd", pa.array([None], pa.int64())),
        ("at", pa.array([None], pa.timestamp("us", "UTC"))),
        ("cost_microusd", pa.array(["1.75"])),
        ("detail", pa.array([2**62], pa.timestamp("us", "UTC"))),
    ],
)
def test_whole_parquet_that_is_no_ledger_is_refused_by_name(folder: Path, column: str, values: pa.Array) -> None:
    """A number that is missing or a column of another type is no crash of whoever adds it up."""
    write_ledger(folder, [[event("reserved")]])
    [path] = segment_paths(folder)
    table = pq.read_table(path, partitioning=None)
    table = table.set_column(table.column_names.index(column), column, values)
    path = put_in_place(path, table)
    assert f"{path.name} cannot be read" in refusal(folder)


def test_a_segment_without_any_event_is_refused_by_name(folder: Path) -> None:
    """Nothing is not what its name says, and no crash of whoever looks for its first and its last event."""
    write_ledger(folder, [[event("reserved")]])
    [path] = segment_paths(folder)
    path = put_in_place(path, pq.read_table(path, partitioning=None).slice(0, 0))
    assert f"{path.name} does not hold the events that its name says" in refusal(folder)


def put_in_place(path: Path, table: pa.Table) -> Path:
    """Replace the one segment of a ledger by a table, under a name that has its checksum."""
    path.unlink()
    (path.parent / "_head").unlink()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    forged = path.parent / str(SegmentName.of(1, 1, data))
    forged.write_bytes(data)
    return forged


@pytest.mark.parametrize("length", [0, 1, 4, 1_000, -1, -8])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_segment_cut_short_or_grown_is_refused_by_name(folder: Path, length: int, which: int) -> None:
    """Whichever segment it is, down to nothing, and one byte too many as well."""
    five_segments(folder)
    path = segment_paths(folder)[which]
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert path.name in refusal(folder)
    path.write_bytes(whole + b"\0")
    assert path.name in refusal(folder)


@pytest.mark.parametrize("lost", [{0}, {1}, {2}, {3}, {4}, {0, 1}, {2, 3}, {3, 4}, {0, 1, 2, 3, 4}])
def test_missing_segments_are_noticed(folder: Path, lost: set[int]) -> None:
    """The first, one in the middle, the last, several, all: the ledger never reads as a shorter one."""
    five_segments(folder)
    paths = segment_paths(folder)
    for index in lost:
        paths[index].unlink()
    sentence = refusal(folder)
    rest = [path for index, path in enumerate(paths) if index not in lost and index > min(lost)]
    assert (rest[0] if rest else paths[4]).name in sentence
    assert "missing" in sentence


def swapped_contents(folder: Path) -> str:
    first, second, *_ = segment_paths(folder)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    return first.name


def swapped_places(folder: Path) -> str:
    one, two = segment_names(folder)[1:3]
    moved = SegmentName(one.first, one.last, two.checksum), SegmentName(two.first, two.last, one.checksum)
    os.rename(folder / str(one), folder / str(moved[1]))
    os.rename(folder / str(two), folder / str(moved[0]))
    return str(moved[0])


def foreign_in_the_middle(folder: Path) -> str:
    segment_paths(folder)[2].unlink()
    return forge(folder, numbered([event("posted", cost_microusd=1)], 3)).name


def foreign_at_the_end(folder: Path) -> str:
    return forge(folder, numbered([event("reserved", "c")], 6)).name


def foreign_first(folder: Path) -> str:
    segment_paths(folder)[0].unlink()
    forge(folder, numbered([event("reserved", "c")], 1))
    return segment_paths(folder)[1].name


def same_events_otherwise(folder: Path) -> str:
    forge(folder, numbered([event("posted", cost_microusd=1)], 3))
    return segment_paths(folder)[2].name[:25]


def overlapping(folder: Path) -> str:
    forge(folder, numbered([event("submitted"), event("posted")], 2))
    return segment_paths(folder)[1].name[:12]


def overlapping_the_edge(folder: Path) -> str:
    return forge(folder, numbered([event("reserved", name) for name in "cd"], 5)).name[:12]


def covering(folder: Path) -> str:
    """Another ledger's merged segment, which claims to stand for all that is here."""
    forge(folder, numbered([event("reserved", name) for name in "uvwxyz"]))
    return segment_paths(folder)[1].name[:12]


def backwards(folder: Path) -> str:
    name = SegmentName(3, 2, "0" * 32)
    (folder / str(name)).write_bytes(b"")
    return str(name)


def a_file_of_somebody(folder: Path) -> str:
    (folder / "notes.txt").touch()
    return "notes.txt"


def a_parquet_of_somebody(folder: Path) -> str:
    pd.DataFrame({"seq": np.arange(3)}).to_parquet(folder / "export.parquet")
    return "export.parquet"


def a_copy_of_a_segment(folder: Path) -> str:
    path = segment_paths(folder)[0]
    copy = folder / f"{path.stem} (1).parquet"
    copy.write_bytes(path.read_bytes())
    return copy.name


def a_name_in_other_digits(folder: Path) -> str:
    path = segment_paths(folder)[4]
    other = path.name.replace("5", "٥", 1)
    os.rename(path, folder / other)
    return other


def a_folder_of_somebody(folder: Path) -> str:
    (folder / "old").mkdir()
    return "old"


@pytest.mark.parametrize(
    "meddle",
    [
        swapped_contents,
        swapped_places,
        foreign_in_the_middle,
        foreign_at_the_end,
        foreign_first,
        same_events_otherwise,
        overlapping,
        overlapping_the_edge,
        covering,
        backwards,
        a_file_of_somebody,
        a_parquet_of_somebody,
        a_copy_of_a_segment,
        a_name_in_other_digits,
        a_folder_of_somebody,
    ],
)
def test_what_does_not_belong_is_refused_by_name(folder: Path, meddle: Callable[[Path], str]) -> None:
    """Swapped, foreign, doubled, overlapping or just lying there: the file is named, and none is deleted."""
    five_segments(folder)
    named = meddle(folder)
    assert named in refusal(folder)


def test_what_contradicts_itself_is_refused(folder: Path) -> None:
    """Segments that are whole and chained but tell an impossible story are damage too, not a crash."""
    folder.mkdir(parents=True)
    events = numbered([event("posted")])
    write_segment(folder, events, encode(events, GENESIS, link(GENESIS, events)))
    with pytest.raises(RunDirectoryError, match="contradicts itself: event 1"), open_ledger(folder, HandClock()):
        pass


@pytest.mark.parametrize("head", [b"", b"\0" * 80, b"\xff\xfe", b"half a na", None])
def test_a_head_that_a_power_loss_took_is_no_damage(folder: Path, head: bytes | None) -> None:
    """It is not flushed, so it may be empty, zeros, old or gone: a whole ledger is never refused for it."""
    events = five_segments(folder)
    (folder / "_head").unlink()
    if head is not None:
        (folder / "_head").write_bytes(head)
    assert read_events(folder) == events
    with open_ledger(folder, HandClock()) as ledger:
        assert ledger.state == fold(events)


def test_a_head_that_lags_is_no_damage(folder: Path) -> None:
    """An older head names a segment that is there or was merged: the ledger reads as it is."""
    events = five_segments(folder)
    (folder / "_head").write_text(f"{segment_paths(folder)[1].name}\n" * 2)
    assert read_events(folder) == events
    merge(folder)
    (folder / "_head").write_text(f"{1:012d}-{2:012d}-{'0' * 32}.parquet\n" * 2)
    assert read_events(folder) == events


def test_a_head_torn_between_two_names_is_no_damage(folder: Path) -> None:
    """Overwritten in place and not flushed, it may hold any of the new name and the rest of the old one."""
    nine = [[event("run_started", detail="{}")] for _ in range(9)]
    write_ledger(folder, nine)
    before = (folder / "_head").read_bytes()
    write_ledger(folder, [[event("run_started", detail="{}")]])
    after = (folder / "_head").read_bytes()
    events = read_events(folder)
    for cut in range(len(after) + 1):
        (folder / "_head").write_bytes(after[:cut] + before[cut:])
        assert read_events(folder) == events, f"torn after {cut} bytes"


def test_a_restored_copy_that_is_older_than_the_head_is_refused(folder: Path) -> None:
    """Segments from an old copy under the newer head: money is missing there, and the missing segment is named."""
    five_segments(folder)
    newest = segment_paths(folder)[4]
    newest.unlink()
    assert newest.name in refusal(folder)


@pytest.mark.parametrize("merged", [True, False])
def test_another_ledger_under_this_head_is_refused(folder: Path, tmp_path: Path, merged: bool) -> None:
    """Whole in itself, and of the same length: only the head remembers that these were other events."""
    five_segments(folder)
    other = tmp_path / "other" / "ledger"
    write_ledger(other, [[event("reserved", name)] for name in "uvwxy"])
    if merged:
        merge(folder)
        merge(other)
    newest = segment_paths(folder)[-1]
    for path in segment_paths(folder):
        path.unlink()
    for path in segment_paths(other):
        os.rename(path, folder / path.name)
    sentence = refusal(folder)
    assert newest.name in sentence
    assert "_head" in sentence


def test_planted_links_are_not_written_through(folder: Path, tmp_path: Path) -> None:
    """A link in the place of the head is replaced, one in the place of the lock is refused: their targets stay."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder.mkdir(parents=True)
    (folder / "_head").symlink_to(victim)
    write_ledger(folder, FIVE)
    assert not (folder / "_head").is_symlink()
    (folder / "_lock").unlink()
    (folder / "_lock").symlink_to(victim)
    with pytest.raises(MachineError, match="_lock"), open_ledger(folder, HandClock()):
        pass
    assert victim.read_bytes() == b"precious"


def test_a_segment_that_cannot_be_read_is_the_machines_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses to read is no damage and no traceback: exit 6, cure it and run again."""
    five_segments(folder)
    real = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == segment_paths(folder)[1]:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(MachineError, match="cannot be read"), open_ledger(folder, HandClock()):
        pass


@pytest.mark.parametrize("where", ["open_encoded", "check_columns", "decode"])
def test_too_little_memory_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Arrow raises it like its errors for bad files. Nobody is told to restore a ledger that is whole."""
    five_segments(folder)

    def fail(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 262144 failed")

    monkeypatch.setattr(segments, where, fail)
    with pytest.raises(MachineError, match=r"\.parquet cannot be read: this machine has too little memory"):
        read_events(folder) if where == "decode" else Reader(folder).read()
    if where != "decode":
        with pytest.raises(MachineError, match="too little memory"), open_ledger(folder, HandClock()):
            pass


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")], ids=["folder", "pipe", "link to nothing"]
)
@pytest.mark.parametrize("which", ["segment", "head"])
def test_what_is_no_file_is_refused_by_name(folder: Path, make: Callable[[Path], None], which: str) -> None:
    """A folder, a pipe or a dead link in the place of a file is named, and nobody waits for it."""
    five_segments(folder)
    path = segment_paths(folder)[1] if which == "segment" else folder / "_head"
    path.unlink()
    make(path)
    assert f"{path.name} is no file" in refusal(folder)


# --- merging ----------------------------------------------------------------------------------------------------------


def test_a_merged_ledger_is_the_same_ledger(folder: Path) -> None:
    """The same events, the same place in the chain, one file; and it goes on from there."""
    events = five_segments(folder)
    assert read_segments(folder, list_segments(folder)[0]) == events
    reached = ends_of(folder, list_segments(folder)[0][-1])[1]
    merge(folder)
    [merged] = list_segments(folder)[0]
    assert read_segments(folder, [merged]) == events
    assert ends_of(folder, merged) == (GENESIS, reached)
    more = write_ledger(folder, [[event("submitted", "b")]])
    assert read_events(folder) == events + more
    assert len(segment_paths(folder)) == 2
    merge(folder)
    assert read_events(folder) == events + more


def test_merging_what_is_merged_already_keeps_it(folder: Path) -> None:
    """The result has the name that it had: it is not taken for its own predecessor and deleted."""
    events = five_segments(folder)
    once = merge(folder)
    assert merge(folder) == once
    assert read_events(folder) == events


@pytest.mark.parametrize("deadly", [True, False])
def test_a_merge_that_ends_anywhere_leaves_the_same_ledger(folder: Path, disk: Disk, deadly: bool) -> None:
    """Death or an error at each call of the operating system: readers and writers find all events, each once."""
    events = five_segments(folder)
    start = contents(folder)
    for call in range(1, 80):
        disk.heal()
        for path in [*folder.glob("*.parquet"), *folder.glob("_head"), *folder.glob(".*")]:
            path.unlink()
        for name, data in start.items():
            (folder / name).write_bytes(data)
        (disk.kill_at if deadly else disk.fail_at)(call)
        try:
            merge_segments(folder, list_segments(folder)[0])
        except (Killed, OSError):
            assert deadly or not [path for path in folder.iterdir() if path.suffix == ".part"]
        else:
            if not disk.has_failed:
                break
        disk.heal()
        frame = pd.read_parquet(folder).drop_duplicates("seq")
        assert sorted(frame["seq"]) == [1, 2, 3, 4, 5]
        assert read_events(folder) == events
        with open_ledger(folder, HandClock()) as ledger:
            assert ledger.state == fold(events)
        assert list_segments(folder)[1] == []
        assert read_events(folder) == events
    assert 15 < call < 79, "every call was tried, and at the end one merge went through"
    assert len(segment_paths(folder)) == 1


def test_readers_see_the_same_ledger_at_every_step_of_a_merge(folder: Path, disk: Disk) -> None:
    """Before each call that the merge makes, a reader finds every event once."""
    events = five_segments(folder)
    looks: list[bool] = []
    disk.before_call = lambda _call: looks.append(read_events(folder) == events)
    merge(folder)
    assert len(looks) > 15
    assert all(looks)


def test_a_merge_whose_bytes_went_astray_deletes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that says it wrote and did not: the old segments go only when the merged one was read back."""
    events = five_segments(folder)
    before = contents(folder)
    real = os.write
    monkeypatch.setattr(files, "write_all", lambda descriptor, data: real(descriptor, data[:-100]))
    with pytest.raises(OSError, match="did not keep its bytes"):
        merge_segments(folder, list_segments(folder)[0])
    monkeypatch.undo()
    (folder / "_head").unlink()
    before.pop("_head")
    assert contents(folder) == before
    assert read_events(folder) == events


@pytest.mark.parametrize(
    ("wrong", "rows"), [("another event", 2), ("one less", 2), ("one more", 5), ("one more", 2), ("another place", 2)]
)
def test_a_merge_that_holds_something_else_deletes_nothing(
    wrong: str, rows: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read back group by group: also the last event counts, how many there are, and its place in the chain."""
    events = five_segments(folder)
    before = contents(folder)

    def astray(group: _Group) -> bytes:
        before, after = group.ends
        if wrong == "another event":
            return packed([*events[:-1], events[-1]._replace(detail="another")], before, after)
        if wrong == "one less":
            return packed(events[:-1], before, after)
        if wrong == "one more":
            return packed([*events, events[-1]], before, after)
        return packed(events, before, "0" * 64)

    monkeypatch.setattr(_Group, "encode", astray)
    monkeypatch.setattr("pipeline.ledger.merge.COMPARED_AT_ONCE", rows)
    with pytest.raises(OSError, match="did not keep its bytes"):
        merge_segments(folder, list_segments(folder)[0], sealed=True)
    assert contents(folder) == before


@pytest.mark.parametrize("known", [(), (1, 3)], ids=["all read", "some known"])
@pytest.mark.parametrize("number", range(5))
def test_a_merge_whose_old_segments_go_bad_meanwhile_deletes_neither(
    number: int, known: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were whole when it was made of them: what it holds may be all that is left of them."""
    events = five_segments(folder)
    names = list_segments(folder)[0]
    contents_of = {names[at]: segments.read_content(folder, names[at]) for at in known}
    place = segments.place

    def then_rot(folder: Path, first: int, last: int, data: bytes) -> SegmentName:
        merged = place(folder, first, last, data)
        path = folder / str(names[number])
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return merged

    monkeypatch.setattr(segments, "place", then_rot)
    if number in known:
        merge_segments(folder, names, sealed=True, known=contents_of)
    else:
        with pytest.raises(RunDirectoryError, match=f"{names[number]} is damaged"):
            merge_segments(folder, names, sealed=True, known=contents_of)
        assert {path.name for path in segment_paths(folder)} > set(map(str, names))
    [merged] = [name for name in list_segments(folder)[0] if (name.first, name.last) == (1, 5)]
    assert read_segments(folder, [merged]) == events


@pytest.mark.parametrize("wrong", ["other events", "other columns", "another place"])
def test_what_is_no_segment_of_this_ledger_is_not_merged(wrong: str, folder: Path) -> None:
    """Under a name that fits its bytes: nothing is made of it, and every file stays."""
    events = five_segments(folder)
    last = list_segments(folder)[0][-1]
    ends = ends_of(folder, last)
    (folder / str(last)).unlink()
    (folder / "_head").unlink()
    table = table_of(events[-1:])
    if wrong == "other events":
        table = table_of([events[-1]._replace(seq=9)])
    if wrong == "other columns":
        table = table.set_column(0, "seq", table["seq"].cast(pa.int32()))
    if wrong == "another place":
        ends = GENESIS, ends[1]
    segments.place(folder, 5, 5, encode_content(Content(table, *ends)))
    before = contents(folder)
    with pytest.raises(RunDirectoryError):
        merge_segments(folder, list_segments(folder)[0], sealed=True)
    assert contents(folder) == before


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_a_merge_goes_a_group_of_rows_at_a_time(rows: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the segments have, so that all of a large one is never in memory: the same file as of all at once."""
    events = five_segments(folder)
    monkeypatch.setattr(encoding, "ROWS_PER_GROUP", rows)
    merged = merge(folder)
    groups = pq.ParquetFile(merged).metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [
        min(rows, 5 - first) for first in range(0, 5, rows)
    ]
    ends = ends_of(folder, list_segments(folder)[0][0])
    assert merged.read_bytes() == packed(events, *ends)
    assert read_events(folder) == events


def test_a_damaged_merged_segment_costs_no_good_one(folder: Path) -> None:
    """What stands for others is read before they are deleted: the good ones are still there to restore from."""
    five_segments(folder)
    kept = contents(folder)
    merged = merge(folder)
    merged.write_bytes(merged.read_bytes()[:-1])
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    assert merged.name in refusal(folder)


def test_replaced_segments_are_swept_away_by_the_next_writer(folder: Path) -> None:
    """A death between the merge and the deletion costs a little space, not an event."""
    events = five_segments(folder)
    kept = contents(folder)
    merged = merge(folder)
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    assert read_events(folder) == events
    with open_ledger(folder, HandClock()) as ledger:
        assert ledger.state == fold(events)
    assert segment_paths(folder) == [merged]


# --- readers beside a writer ------------------------------------------------------------------------------------------


def test_a_commit_between_two_looks_of_a_reader_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that commits while the folder is being listed does not make the reader cry damage."""
    events = five_segments(folder)
    real = os.listdir
    chain = ends_of(folder, list_segments(folder)[0][-1])[1]
    commits = iter(numbered([event("submitted", "b"), event("posted", "b")], 6))

    def list_then_commit(path: Path) -> list[str]:
        nonlocal chain
        names = real(path)
        if each := next(commits, None):
            after = link(chain, [each])
            write_segment(folder, [each], encode([each], chain, after))
            events.append(each)
            chain = after
        return names

    monkeypatch.setattr(os, "listdir", list_then_commit)
    assert read_segments(folder, list_segments(folder)[0]) == events[:5]
    assert read_events(folder) == events
    assert len(events) == 7


def test_a_listing_that_missed_a_name_is_taken_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that changes under a listing may hide a name once; only what a quiet folder shows is believed."""
    events = five_segments(folder)
    real, missed = os.listdir, segment_paths(folder)[2].name
    listings = 0

    def miss_one(path: Path) -> list[str]:
        nonlocal listings
        listings += 1
        return [name for name in real(path) if listings > 2 or name != missed]

    monkeypatch.setattr(os, "listdir", miss_one)
    assert read_events(folder) == events


def test_a_folder_that_never_rests_ends_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader gives up after a few tries instead of looking for ever; a missing ledger is told at once."""
    five_segments(folder)
    remove_segments(folder, [])
    with pytest.raises(RunDirectoryError, match="holds no ledger"):
        read_events(folder / "missing")
    tries = 0

    def gone(*_names: object, **_options: object) -> None:
        nonlocal tries
        tries += 1
        raise FileNotFoundError

    monkeypatch.setattr(segments, "read_segments", gone)
    with pytest.raises(RunDirectoryError, match="keeps changing"):
        read_events(folder)
    assert tries == reading.READ_TRIES
