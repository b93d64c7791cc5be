"""Folding by columns is folding: the same state from the same events, and the same words where they cannot be true."""

from __future__ import annotations

import asyncio
import random
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from ledger_doubles import (
    AFTER,
    NOON_US,
    QUOTE,
    HandClock,
    NaiveJob,
    event,
    forge,
    life,
    numbered,
    read_state,
    segment_paths,
    write_ledger,
)

from pipeline.kernel.errors import RunDirectoryError
from pipeline.ledger import columns, encoding, reading, records, segments, store
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.columns import fold_singly, fold_tables
from pipeline.ledger.encoding import GENESIS, Content, decode, encode_content, link, table_of
from pipeline.ledger.events import SAID_BILLED, Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.reading import read_events
from pipeline.ledger.records import COLUMNS
from pipeline.ledger.segments import list_segments
from pipeline.ledger.store import open_ledger

PLAIN = ["reserved", "submitted", "posted", "stored"]


@pytest.fixture(autouse=True)
def even_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a few events are folded by columns."""
    monkeypatch.setattr(columns, "FEW", 1)


def history(rng: random.Random) -> list[Event]:
    """What a ledger could hold: most jobs with a plain life, some with any other, all at the same time."""
    jobs = {f"job-{number}": NaiveJob() for number in range(rng.randint(1, 12))}
    troubled = {name for name in jobs if rng.random() < 0.3}
    made: list[Event] = []
    for _ in range(rng.randint(1, 120)):
        if rng.random() < 0.1:
            made.append(rng.choice(_of_the_run(rng)))
            continue
        name = rng.choice(list(jobs))
        job = jobs[name]
        options = [kind for state, kind in AFTER if state == job.state]
        if name not in troubled:
            options = [kind for kind in options if kind in PLAIN][:1]
        if not options:
            continue
        kind = rng.choice(options)
        facts: dict[str, object] = {}
        if kind == "reserved":
            facts = {"quote_microusd": rng.choice([QUOTE, 2 * QUOTE])}
        elif kind == "posted":
            facts = {"cost_microusd": rng.choice([0, 0, job.quote, job.quote, job.quote, job.quote + 1])}
        elif kind == "submitted" and job.request_id:
            facts = {"request_id": job.request_id}
            if job.request_id.startswith("said"):
                facts = rng.choice([facts, {"request_id": f"said-{len(made)}", "detail": f"ann {SAID_BILLED}"}, {}])
        elif kind == "submitted" and job.state == "in_doubt" and rng.random() < 0.5:
            facts = {"request_id": f"said-{len(made)}", "detail": f"ann {SAID_BILLED}: it was"}
        elif kind == "stored":
            facts = {"bytes": rng.randint(0, 9), "path": f"videos/{name}.mp4", "poster": rng.choice([None, "p.jpg"])}
            facts |= rng.choice([{}, {}, {"error_class": "not_as_asked", "detail": "6 s"}, {"detail": "fine"}])
        made.append(event(kind, name, job.attempt + (kind == "reserved"), **facts))
        job.take(made[-1])
    return made


def _of_the_run(rng: random.Random) -> list[Event]:
    account = orjson.dumps({"balance_microusd": rng.randint(0, 9), "skew_us": rng.randint(-5, 5)}).decode()
    return [
        Event(EventKind.RUN_STARTED, detail="{}"),
        Event(EventKind.RUN_ENDED, detail='{"exit_code":0}'),
        Event(EventKind.ACCOUNT, detail=account),
        Event(EventKind.UPLOADED, sha256="0" * 64, url="https://example.com/i.png"),
    ]


def spoilt(rng: random.Random, events: list[Event]) -> list[Event]:
    """The same with one event that cannot be true, or with none at all."""
    place = rng.randrange(len(events))
    each, other = events[place], rng.choice(events)
    wrong = rng.choice(
        [
            each._replace(attempt=rng.randint(0, 3)),
            each._replace(job_id=other.job_id),
            each._replace(job_id=""),
            each._replace(request_id=other.request_id),
            each._replace(request_id=""),
            each._replace(event=other.event),
            each._replace(quote_microusd=rng.randint(-1, 0)),
            *(each._replace(quote_microusd=0) for _ in range(3 * (each.event is EventKind.RESERVED))),
            each._replace(cost_microusd=-1),
            each._replace(seq=each.seq + 1),
            each._replace(detail="[]"),
        ]
    )
    return [*events[:place], wrong, *events[place + 1 :]]


def outcome(state: State, *tables: list[Event], by_columns: bool, rng: random.Random | None = None) -> State | str:
    """The state after these events, or why there is none; with `rng` their texts are dictionaries, as in a file."""
    made = [table_of(table) if rng is None else with_dictionaries(table_of(table), rng) for table in tables]
    try:
        (fold_tables if by_columns else fold_singly)(state, made)
    except ImpossibleMoveError as error:
        return str(error)
    return state


def with_dictionaries(table: pa.Table, rng: random.Random) -> pa.Table:
    """The same texts as dictionaries of any order, some texts twice or for no row: as a file from any hand has them."""
    for name in encoding._NUMBERED:
        texts = table[name].to_pylist()
        words = [*dict.fromkeys(texts), "unused"] if name != "event" else list(dict.fromkeys(texts))
        words += [word for word in words if rng.random() < 0.05]
        rng.shuffle(words)
        places = [None if text is None else rng.choice([i for i, w in enumerate(words) if w == text]) for text in texts]
        words = [word or "" for word in words]
        column = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(words, pa.string()))
        table = table.set_column(table.schema.get_field_index(name), encoding._NUMBERED_SCHEMA.field(name), column)
    return table


def rows_of(state: State) -> int:
    """How many jobs were taken in by columns."""
    return len(state.jobs) - len(list(state.jobs.unsettled()))


@pytest.mark.parametrize("seeds", [range(start, start + 250) for start in range(0, 1000, 250)], ids=str)
def test_both_ways_of_folding_say_the_same(seeds: range) -> None:
    """Any history, true or not, in any pieces, texts as they are or as dictionaries: equal states, or both refuse."""
    plain = refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        events = numbered(history(rng))
        if events and rng.random() < 0.4:
            events = spoilt(rng, events)
        cut = rng.randint(0, len(events))
        expected = outcome(State(), events, by_columns=False)
        got = outcome(State(), events[:cut], events[cut:], by_columns=True, rng=rng if seed % 2 else None)
        plain += rows_of(got) if isinstance(got, State) else 0
        if isinstance(got, State) and isinstance(expected, State):
            assert got == expected, seed
            assert list(got.jobs) == list(expected.jobs), seed
            assert [got.state_of(name) for name in got.jobs] == [record.state for record in expected.jobs.values()]
            assert list(got.in_state(JobState.STORED)) == list(expected.in_state(JobState.STORED))
            assert list(got.in_state(JobState.VOIDED)) == list(expected.in_state(JobState.VOIDED))
        else:
            assert isinstance(got, str), seed
            assert isinstance(expected, str), seed
            refused += 1
    assert plain > 100, "most were taken in by columns"
    assert refused > 10


def of_request(name: str, events: list[Event]) -> list[Event]:
    """The same events, but of this request."""
    return [each._replace(request_id=name) if each.event is EventKind.SUBMITTED else each for each in events]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (life("stored", "a"), of_request("req-a-1", life("stored", "b"))),
        (life("stored", "a"), of_request("req-b-1", life("stored", "a"))),
        (life("stored", "a"), life("stored", "")),
        (life("stored", "a"), of_request("", life("stored", "b"))),
    ],
    ids=["a request of another job", "a stored job again", "no job", "no request"],
)
@pytest.mark.parametrize("cut", [0, 8])
@pytest.mark.parametrize("again", [False, True], ids=["at once", "read on"])
def test_a_plain_life_that_cannot_be_true_is_refused(
    first: list[Event], second: list[Event], cut: int, again: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one segment or in two, at once or as news: whoever reads or opens it is told which event it is, and why."""
    monkeypatch.setattr(reading, "FOLDED_AT_ONCE", 1)
    events = numbered([*life("stored", "c"), *first, *life("stored", "d"), *second])
    expected = outcome(State(), events, by_columns=False)
    assert isinstance(expected, str)
    assert isinstance(outcome(State(), *filter(None, [events[:cut], events[cut:]]), by_columns=True), str)
    folder.mkdir(parents=True)
    reader, reached = reading.Reader(folder), GENESIS
    for piece in filter(None, [events[:cut], events[cut:]]):
        if again and reached != GENESIS:
            reader.read()
        forge(folder, piece, reached)
        reached = link(reached, piece)
    with pytest.raises(ImpossibleMoveError) as seen:
        reader.read()
    assert str(seen.value) == expected
    with pytest.raises(RunDirectoryError, match=re.escape(f"contradicts itself: {expected}.")), open_ledger(folder):
        pass


def test_what_is_read_on_is_held_against_what_was_read(folder: Path) -> None:
    """News of jobs that have rows already join them; the state is the one of all events."""
    lives = [life("stored", f"job-{number}") for number in range(6)]
    events = numbered([*lives[0], *lives[1], *lives[2][:3], *lives[3], lives[2][3], *lives[4], *lives[5]])
    folder.mkdir(parents=True)
    reader, reached = reading.Reader(folder), GENESIS
    for piece in (events[:11], events[11:16], events[16:]):
        forge(folder, piece, reached)
        reached = link(reached, piece)
        reader.read()
        assert reader.state == fold(events[: piece[-1].seq])
        assert list(reader.state.jobs) == list(fold(events[: piece[-1].seq]).jobs)
        assert reader.state.jobs["job-0"].request_id == "req-job-0-1"
        assert reader.state.request_ids["req-job-0-1"] == "job-0"
    assert rows_of(reader.state) == 5


@pytest.mark.parametrize(("at_once", "is_large"), [(100, False), (8, True)])
def test_a_large_ledger_is_read_while_it_is_folded(
    at_once: int, is_large: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread of its own, which leaves with it, also when a later segment is damaged. A small one needs none."""
    written = write_ledger(folder, [life("stored", f"job-{number}") for number in range(9)])
    monkeypatch.setattr(reading, "FOLDED_AT_ONCE", at_once)
    readers, real = set(), segments.open_segment

    def note(*asked: Any, **options: Any) -> Any:
        readers.add(threading.get_ident())
        return real(*asked, **options)

    monkeypatch.setattr(segments, "open_segment", note)
    assert read_state(folder) == fold(written)
    assert len(readers) == 1
    assert (threading.get_ident() in readers) is not is_large
    newest = segment_paths(folder)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(RunDirectoryError, match="is damaged"):
        read_state(folder)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_what_is_folded_by_columns_can_be_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger in pieces of any size opens to the same state, and the next event is checked against it."""
    written = write_ledger(folder, [life("stored", f"job-{number}") for number in range(9)])
    merge_segments(folder, list_segments(folder)[0])
    for at_once in (1, 5, 100):
        monkeypatch.setattr(segments, "ROWS_PER_GROUP", at_once)
        monkeypatch.setattr(reading, "FOLDED_AT_ONCE", at_once)
        with open_ledger(folder) as ledger:
            assert rows_of(ledger.state) == {1: 0, 5: 3, 100: 9}[at_once]
            assert ledger.state == fold(written)
            again = event("stored", "job-3")._replace(seq=ledger.state.last_seq + 1)
            with pytest.raises(ImpossibleMoveError, match="says `stored` for job job-3, which is stored"):
                ledger.state.apply(again)


def test_the_texts_of_a_large_segment_are_read_as_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its file has them; what is folded of them, and what becomes of each event, is the same."""
    written = write_ledger(folder, [life("stored", f"job-{number}") for number in range(9)])
    merge_segments(folder, list_segments(folder)[0])
    monkeypatch.setattr(segments, "MANY", 30)
    monkeypatch.setattr(segments, "ROWS_PER_GROUP", 20)
    tables = list(segments.read_tables(folder, list_segments(folder)[0], GENESIS, {}))
    assert [len(table) for table in tables] == [20, 16]
    for table in tables:
        assert {name for name in table.column_names if pa.types.is_dictionary(table[name].type)} == {
            "job_id", "event", "request_id", "error_class", "model"
        }  # fmt: skip
    assert [each for table in tables for each in decode(table)] == written
    reader = reading.Reader(folder, moments=True)
    reader.read()
    assert (reader.state, rows_of(reader.state)) == (fold(written), 9)
    assert read_events(folder) == written
    expected = table_of(written).select(reader.moments.column_names)
    assert reader.moments.to_pylist() == expected.to_pylist()
    without = reading.Reader(folder)
    without.read()
    assert (without.state, len(without.moments)) == (reader.state, 0)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_large_segment_with_other_columns_is_refused_as_a_small_one_is(
    kind: pa.DataType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they would be read as dictionaries anyway: what one reader refuses, no other goes on with."""
    events = numbered(life("stored", "a"))
    table = table_of(events)
    at = table.schema.get_field_index("event")
    other = table.set_column(at, pa.field("event", kind), table["event"].cast(kind))
    folder.mkdir(parents=True)
    data = encode_content(Content(other, GENESIS, link(GENESIS, events)))
    segments.write_segment(folder, events, data)
    for many in (0, 100):
        monkeypatch.setattr(segments, "MANY", many)
        for read in (lambda: read_state(folder), lambda: reading.read_events(folder)):
            with pytest.raises(RunDirectoryError, match="cannot be read"):
                read()


async def test_a_reader_sees_the_same_state_beside_a_writer(folder: Path) -> None:
    """Whole, half-merged or written on: `read_state` says what the events say, and refuses what they cannot be."""
    with open_ledger(folder, HandClock()) as ledger:
        for number in range(4):
            await ledger.record(*life("stored", f"job-{number}"))
        assert read_state(folder) == ledger.state
        small = list_segments(folder)[0]
        kept = {str(name): (folder / str(name)).read_bytes() for name in small}
        merge_segments(folder, small[:3], sealed=True)
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        assert list_segments(folder)[1], "a merge died before it removed what it replaced"
        assert read_state(folder) == ledger.state
        other = folder.parent / "other"
        with open_ledger(other, HandClock()) as another:
            await another.record(*life("stored", "another"))
        (foreign,) = list_segments(other)[0]
        (folder / str(small[0])).unlink()
        (folder / str(foreign)).write_bytes((other / str(foreign)).read_bytes())
        with pytest.raises(RunDirectoryError, match="contradicts another segment"):
            read_state(folder)
        (folder / str(foreign)).unlink()
    (folder / str(small[3])).unlink()
    with pytest.raises(RunDirectoryError, match="is missing"):
        read_state(folder)


def test_a_large_ledger_is_tidied_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No merge holds more than fits into memory; large segments stay as they are, and every event is there."""
    written = write_ledger(folder, [life("stored", f"job-{number}") for number in range(9)])
    monkeypatch.setattr(store, "MERGE_ABOVE", 2)
    monkeypatch.setattr(store, "LARGE", 12)
    for _ in range(2):
        with open_ledger(folder) as ledger:
            assert ledger.state == fold(written)
        assert [(name.first, name.last) for name in list_segments(folder)[0]] == [(1, 12), (13, 24), (25, 36)]
    assert read_events(folder) == written


@pytest.mark.parametrize("seed", range(60))
def test_what_a_run_keeps_as_rows_is_what_it_knew_as_objects(seed: int) -> None:
    """At any moment, again and again: the same jobs in the same order, and what may not follow is still refused."""
    rng = random.Random(seed)
    state, told, plain = State(), State(), 0
    for each in numbered(spoilt(rng, events) if (events := history(rng)) and seed % 2 else history(rng)):
        words = []
        for one in (state, told):
            try:
                one.apply(each)
                words.append("")
            except ImpossibleMoveError as error:
                words.append(str(error))
        assert words[0] == words[1]
        if words[0]:
            break
        if rng.random() < 0.2:
            columns.shelve(state)
            assert state == told
            assert list(state.jobs) == list(told.jobs)
            plain = max(plain, rows_of(state))
    columns.shelve(state)
    assert state == told
    assert state.jobs.columns(COLUMNS) == told.jobs.columns(COLUMNS)
    assert state.jobs.find(list(state.jobs)).records() == list(told.jobs.values())
    assert rows_of(state) >= plain
    assert state.jobs.keys() - {record.job_id for record in state.jobs.unsettled()} == {
        record.job_id for record in told.jobs.values() if record.state is JobState.STORED and was_calm(record)
    }


def was_calm(record: JobRecord) -> bool:
    """Whether nothing ever went wrong with a job, in this test's own words."""
    usual = {"attempt": 1, "error_class": None, "doubted_us": None, "counted_failures": 0, "fetch_failures": 0}
    return all(getattr(record, name) == value for name, value in usual.items())


async def test_a_long_run_keeps_what_it_has_stored_as_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so many stored jobs, and never one that may still change; what the disk says later is the same."""
    monkeypatch.setattr(store, "SHELVED_AT_ONCE", 4)
    with open_ledger(folder, HandClock()) as ledger:
        kept = []
        for number in range(11):
            await ledger.record(*life("stored" if number % 3 else "posted", f"job-{number}"))
            kept.append(rows_of(ledger.state))
        assert kept == [0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4]
        expected = fold(read_events(folder))
        assert ledger.state == expected
        await ledger.close()
    assert read_state(folder) == expected


async def test_no_event_waits_for_ever_because_rows_could_not_be_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidiness fails no commit, and none that comes after it."""

    def refuse(_: State) -> None:
        raise MemoryError

    monkeypatch.setattr(store, "SHELVED_AT_ONCE", 1)
    monkeypatch.setattr(store, "shelve", refuse)
    with open_ledger(folder, HandClock()) as ledger:
        first = asyncio.create_task(ledger.record(*life("stored", "job-0")))
        for _ in range(3):
            await asyncio.sleep(0)
        assert ledger._committing is not None
        assert not ledger._pending, "it is being written: more waits for the next"
        await asyncio.wait_for(asyncio.gather(first, ledger.record(*life("posted", "job-1"))), 20)
        assert ledger.failure is None
        await ledger.close()
    assert len(read_state(folder).jobs) == 2


def test_a_record_is_the_same_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, from all values at once, or as columns: what the events say."""
    monkeypatch.setattr(records, "ASKED_SINGLY", 3)
    events = numbered(each for number in range(5) for each in life("stored", f"job-{number}"))
    state = State()
    fold_tables(state, [table_of(events)])
    singly = state.jobs["job-1"]
    assert (singly.reserved_us, singly.bytes, singly.duration_s) == (NOON_US + 5_000, 5, 5.04)
    assert state.jobs["job-1"] == singly
    assert list(state.jobs.values()) == list(fold(events).jobs.values())
    assert state.jobs.get("job-9") is None
    assert state.largest_bytes == 5


@pytest.mark.parametrize("by_columns", [False, True])
def test_what_was_submitted_in_a_time_is_found_among_rows_and_records(by_columns: bool) -> None:
    """Both ends in, and none under a name that is known to be elsewhere."""
    events = numbered([*life("stored", "a"), *life("stored", "b"), *life("submitted", "c"), *life("reserved", "d")])
    state = outcome(State(), events, by_columns=by_columns)
    assert isinstance(state, State)
    assert rows_of(state) == (2 if by_columns else 0)
    first_us, last_us = events[1].at_us, events[9].at_us

    def found(from_us: int, to_us: int, *beside: str) -> set[str]:
        return {record.job_id for record in state.jobs.submitted(from_us, to_us, beside)}

    assert found(first_us, last_us) == {"a", "b", "c"}
    assert found(first_us + 1, last_us - 1) == {"b"}
    assert found(first_us, last_us, "req-b-1", "req-c-1") == {"a"}


def test_names_are_looked_up_in_what_was_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs are asked for by name: a million questions must not each go through all rows."""
    state, read = State(), []
    fold_tables(state, [table_of(numbered(each for number in range(5) for each in life("stored", f"job-{number}")))])
    texts = records.JobTable.texts
    monkeypatch.setattr(records.JobTable, "texts", lambda rows, name: read.append(name) or texts(rows, name))
    for number in range(5):
        assert f"job-{number}" in state.jobs
        assert state.request_ids[f"req-job-{number}-1"] == f"job-{number}"
    assert "job-5" not in state.jobs
    assert read == ["job_id", "request_id"]


def test_texts_with_the_same_hash_are_not_taken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that are there, nor one that is not; also where some came later."""
    monkeypatch.setattr(records, "hash", lambda text: len(text), raising=False)
    state = State()
    for number in range(12):
        for each in life("stored", f"job-{number}"):
            state.apply(each._replace(seq=state.last_seq + 1))
        if number % 3 == 2:
            columns.shelve(state)
            assert "job-99" not in state.jobs
    assert [state.jobs[f"job-{number}"].job_id for number in range(12)] == list(state.jobs)
    assert [state.request_ids.get(f"req-job-{number}-1") for number in range(13)] == [*state.jobs, None]


def test_who_looks_on_finds_what_was_there_although_others_have_more_or_fewer_rows() -> None:
    """Two threads make what finds rows at once: neither is led past a row of its own, nor to one that it has not."""
    state, stages = State(), []
    for number in range(3):
        for each in life("stored", f"job-{number}"):
            state.apply(each._replace(seq=state.last_seq + 1))
        columns.shelve(state)
        stages.append(state.jobs._kept)
    index = records._Index("job_id")
    for early, late in ((0, 2), (1, 2), (0, 1)):
        assert index.find(f"job-{late}", stages[late]) == late
        assert index.find(f"job-{late}", stages[early]) is None, "its rows are not there yet"
        assert index.find(f"job-{early}", stages[early]) == early
    fresh, known = records._Index("job_id"), index.take_in(stages[2])
    take_in = fresh.take_in

    def overtaken(kept: records._Kept) -> records._Hashed:
        found = take_in(kept)
        fresh._hashed = known if kept is stages[0] else records._Index("job_id").take_in(stages[0])
        return found

    fresh.take_in = overtaken  # type: ignore[method-assign]
    assert [fresh.find("job-2", stages[2]), fresh.find("job-0", stages[0])] == [2, 0]


def test_a_request_is_left_to_its_row_once_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks on in between finds it twice, and never nowhere."""
    state, seen = State(), []
    for each in life("stored", "job-0"):
        state.apply(each._replace(seq=state.last_seq + 1))
    leave = records.RequestIds.leave_to_rows

    def watched(mine: records.RequestIds, request_ids: list[str]) -> None:
        seen.extend(state.jobs.owner_of(each) for each in request_ids)
        leave(mine, request_ids)

    monkeypatch.setattr(records.RequestIds, "leave_to_rows", watched)
    columns.shelve(state)
    assert seen == ["job-0"]


def test_a_request_that_a_row_has_is_in_memory_once() -> None:
    """A run of a million would keep the texts of all, although their rows answer for them."""
    state = State()
    for each in [*life("stored", "job-0"), *life("posted", "job-1")]:
        state.apply(each._replace(seq=state.last_seq + 1))
    columns.shelve(state)
    assert list(state.request_ids.noted) == ["req-job-1-1"]
    assert dict(state.request_ids) == {"req-job-1-1": "job-1", "req-job-0-1": "job-0"}
    again = life("stored", "job-2")[:2]
    state.apply(again[0]._replace(seq=state.last_seq + 1))
    with pytest.raises(ImpossibleMoveError, match="belongs to job-0"):
        state.apply(again[1]._replace(seq=state.last_seq + 1, request_id="req-job-0-1"))


def test_a_ledger_with_more_text_than_one_array_holds_is_taken_event_by_event() -> None:
    """Columns in several chunks are no reason to lose a row."""
    import pyarrow as pa

    events = numbered(each for number in range(4) for each in life("stored", f"job-{number}"))
    table = pa.concat_tables([table_of(events[:7]), table_of(events[7:])])

    class Torn:
        """A table whose chunks do not combine."""

        def __getattr__(self, name: str) -> object:
            return table if name == "combine_chunks" else getattr(table, name)

        def __len__(self) -> int:
            return len(table)

        def __getitem__(self, name: str) -> object:
            return table[name]

    torn = Torn()
    torn.combine_chunks = lambda: table  # type: ignore[attr-defined]
    state = State()
    fold_tables(state, [torn])  # type: ignore[list-item]
    assert state == fold(events)
    assert rows_of(state) == 0


@pytest.mark.parametrize("seed", range(40))
def test_columns_of_many_records_say_what_each_record_says(seed: int) -> None:
    """Rows, records and jobs that nobody knows, in any order: a row for each that is asked for."""
    rng = random.Random(seed)
    state, events = State(), numbered(history(rng))
    fold_tables(state, (table_of(events[first : first + 40]) for first in range(0, len(events), 40)))
    names = list(records.COLUMNS)
    asked = [f"job-{rng.randint(0, 14)}" for _ in range(rng.randint(0, 40))]
    known = list(state.jobs)
    going_on = {each for each in known if state.jobs[each].state is not JobState.STORED}
    assert going_on <= {record.job_id for record in state.jobs.unsettled()}
    for job_ids in (None, asked, known, known[::-1], rng.sample(known, len(known))):
        found = state.jobs.columns(names, job_ids).to_pylist()
        wanted = [state.jobs.get(each) for each in (state.jobs if job_ids is None else job_ids)]
        for row, record in zip(found, wanted, strict=True):
            said = {name: getattr(record, name, None) for name in names}
            assert row == said | ({"state": record.state.name} if record else {})
        states = [each and each.state for each in wanted]
        assert state.states_of(known if job_ids is None else job_ids) == states
        assert state.count(known if job_ids is None else job_ids) == Counter(states)


def test_whoever_looks_on_from_a_thread_sees_every_job_once() -> None:
    """While jobs are begun, stored and kept as rows: never two of one, and none that was there is missing."""
    state, is_over, counts = State(), threading.Event(), [0]
    wrong: list[str] = []

    def look() -> None:
        while not is_over.is_set():
            at_least = counts[0]
            names = list(state.jobs)
            if len(names) < at_least or len(set(names)) < len(names):
                wrong.append(f"{len(names)} of {at_least}, {len(names) - len(set(names))} of them twice")
            if at_least and state.jobs.get("job-0") is None:
                wrong.append("the first is missing")
            if at_least and state.request_ids.get("req-job-0-1") != "job-0":
                wrong.append("nobody knows whose the first request is")

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        for number in range(600):
            for each in life("stored", f"job-{number}"):
                state.apply(each._replace(seq=state.last_seq + 1))
            counts[0] += 1
            columns.shelve(state)
    finally:
        is_over.set()
        onlooker.join()
        sys.setswitchinterval(before_s)
    assert wrong == []
    assert rows_of(state) == 600
