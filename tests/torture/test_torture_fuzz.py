"""Fuzz: whatever bytes arrive, from the provider, from a user's file or from the disk, a value or a refusal comes out.

Real replies and files are cut, flipped, spliced and rebuilt with wrong values in right places. Each reading takes at
most a second of the processor, and now and then it is looked at how much memory one takes at its height.
"""

from __future__ import annotations

import itertools
import json
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hunting import PATIENCE, hunt, hunting
from hypothesis import given
from hypothesis import strategies as st
from score import Score

from pipeline.kernel.errors import ManifestError, RunDirectoryError
from pipeline.kernel.strict_yaml import YamlProblem, parse
from pipeline.kernel.usd import MAX_MICROUSD
from pipeline.ledger.encoding import GENESIS, SCHEMA, encode, link
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State, fold
from pipeline.ledger.reading import read_events
from pipeline.ledger.segments import SegmentName
from pipeline.ledger.store import open_ledger
from pipeline.manifest import load_manifest
from pipeline.media.boxes import Facts, walk
from pipeline.media.results import Damaged
from pipeline.provider import history, replies, values
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Accepted, Finished, Refused, Uncertain
from pipeline.sandbox.clips import tiny_clip

pytestmark = PATIENCE

T = TypeVar("T")

MOST_S = 5.0
"""Seconds of CPU: what is read in milliseconds was once seen to take 1.1 on a machine that others share."""
MOST_BYTES = 64 * 2**20
LOOK_EVERY = 40
"""How many readings pass between two looks at the memory, which make one several times slower."""

NOW_US = 1_790_000_000_000_000
REQUEST_ID = "3f2c1a9e-0000-4000-8000-1234567890ab"
VALID_ID = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)
REFUSING = {400, 401, 403, 404, 405, 406, 410, 422, 429, 500}
"""The statuses by which a submission is certainly not charged."""

STATUSES = st.one_of(st.sampled_from((200, 201, 202, 204, 301, 307, 404, 408, 418, 502, 503, *sorted(REFUSING))),
                     st.integers(100, 599))  # fmt: skip

ANSWERED = st.one_of(st.sampled_from((200, 422)), STATUSES)
"""Of a question, most answers are of a status that says something."""


def bounded(score: Score, read: Callable[[], T], *, look: bool | None = None) -> T:
    """The reading, which takes neither long nor much; `look` says whether to look at the memory this time."""
    score.trials += 1
    looked = score.trials % LOOK_EVERY == 0 if look is None else look
    if looked:
        tracemalloc.start()
    began_s = time.thread_time()
    try:
        return read()
    finally:
        took_s = time.thread_time() - began_s
        if looked:
            _, height = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            score.fired["looked at the memory"] += 1
            assert height < MOST_BYTES, f"took {height:,} bytes"
        else:
            assert took_s < MOST_S, f"took {took_s:.2f} s"


# --- what is mutated, and how -----------------------------------------------------------------------------------------

KEYS = ("request_id", "status", "metrics", "cost", "video", "url", "output", "error", "message", "detail", "data",
        "model_status", "credits_deduction", "request_body", "created_at", "generation_url", "success", "queue_time",
        "inference_time", "prompt", "duration", "", "\ud800")  # fmt: skip
TEXTS = ("QUEUED", "PROCESSING", "COMPLETED", "FAILED", " completed ", REQUEST_ID, "short", "x" * 65, "a b c d e f g",
         "../../../etc/passwd", "https://cdn.segmind.com/v.mp4", "javascript:alert(1)", "1.75", "-1.75", "1e400", "NaN",
         "１２３４５６７８", "2026-01-01T00:00:00Z", "Mon, 01 Jan 2026 00:00:00 GMT", "9" * 60, "\x00", "", "nsfw",
         "credits", "\ud800\udfff", "\u202e")  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(TEXTS),
    st.sampled_from((0, -1, 1.75, 3.5, 1e308, 5e-324, 10**15, 10**30, 10**400, float("nan"), float("inf"), -0.0)),
    st.integers(),
    st.text(max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), inner)
    ),
    max_leaves=12,
)
DEEP = st.builds(
    lambda opening, closing, depth, cut: opening * depth + b"1" + closing * (depth - cut),
    *(st.just(b'{"status":') | st.just(b"["), st.just(b"}") | st.just(b"]"), st.integers(1, 3_000), st.integers(0, 2)),
)

REPLIES = (
    {"request_id": REQUEST_ID, "status": "QUEUED", "status_url": "https://api.segmind.com/x"},
    {"request_id": REQUEST_ID, "status": "PROCESSING"},
    {
        "request_id": REQUEST_ID,
        "status": "COMPLETED",
        "video": {"url": "https://cdn.segmind.com/v.mp4"},
        "metrics": {"cost": 1.75, "queue_time": 1.5, "inference_time": 300.25},
    },
    {"request_id": REQUEST_ID, "status": "FAILED", "error": "the prompt was flagged", "metrics": {"cost": 0}},
    {"status": "FAILED", "error": "the worker failed, and it was billed", "metrics": {"cost": 1.75}},
    {"error": "Insufficient credits", "detail": [{"msg": "top up"}]},
)
HISTORY = {
    "data": [
        {
            "request_id": REQUEST_ID,
            "model_status": "COMPLETED",
            "credits_deduction": 1.75,
            "generation_url": "https://cdn.segmind.com/v.mp4",
            "request_body": {"prompt": "a lamp", "duration": 5},
            "created_at": "2026-01-01T00:00:00Z",
        },
        {"request_id": None, "model_status": "FAILED", "credits_deduction": None, "error": {"message": "no"}},
    ]
}


@st.composite
def altered(draw: st.DrawFn, whole: Any) -> Any:
    """A JSON value with one or two places in it changed, removed or doubled."""
    made = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(0, 2))):
        place: Any = made
        while True:
            keys = list(range(len(place))) if isinstance(place, list) else list(place)
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            match draw(st.integers(0, 2)):
                case 0:
                    place[key] = draw(VALUES)
                case 1:
                    del place[key]
                case _ if isinstance(place, list):
                    place.append(place[key])
                case _:
                    place[draw(st.sampled_from(KEYS))] = place[key]
            break
    return made


@st.composite
def mangled(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with a few of them flipped, cut out, doubled or put in."""
    made = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(made) - 1)))
        end = min(len(made), start + draw(st.integers(1, 40)))
        match draw(st.integers(0, 3)):
            case 0 if made:
                made[start] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del made[start:end]
            case 2:
                made[start:start] = made[start:end]
            case _:
                made[start:end] = draw(st.binary(max_size=16))
    return bytes(made)


def as_body(value: Any) -> bytes:
    return json.dumps(value).encode()


IDS = st.builds(lambda name, at, odd: name[:at] + odd + name[at:], st.just(REQUEST_ID), st.integers(0, 36),
                st.sampled_from(("", "\n", " ", "/", "é", "１", "\x00", "x" * 29, ".")))  # fmt: skip
"""Names that are almost, or quite, those of a request."""

BODIES = st.one_of(
    st.builds(lambda reply, name: as_body(reply | {"request_id": name}), st.sampled_from(REPLIES), IDS),
    st.sampled_from(REPLIES).map(as_body),
    st.sampled_from(REPLIES).flatmap(altered).map(as_body),
    st.sampled_from(REPLIES).map(as_body).flatmap(mangled),
    VALUES.map(as_body),
    DEEP,
    st.binary(max_size=200),
)
PAGES = st.one_of(
    IDS.map(lambda name: as_body({"data": [HISTORY["data"][0] | {"request_id": name}]})),
    altered(HISTORY).map(as_body),
    st.just(as_body(HISTORY)).flatmap(mangled),
    st.lists(VALUES, max_size=3).map(as_body),
    DEEP,
)
MOMENTS = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=70),
    st.from_regex(r"Mon, ?\d{1,3}[ ,-](Jan|Xyz)[ ,-]?\d{0,9} ?[\d:.]{0,9} ?([+-]\d{0,9}|,|GMT)?", fullmatch=True),
    st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.,+Z-]{0,20}", fullmatch=True),
    st.from_regex(r"[0-9]{1,16}(\.[0-9]{0,12})?", fullmatch=True),
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-rate-limit-reset-at-utc": MOMENTS,
        "x-cost": st.one_of(st.just("1.75"), st.sampled_from(TEXTS), st.text(max_size=9)),
    },
)


# --- the provider's words ---------------------------------------------------------------------------------------------


def names_a_charge(body: bytes, headers: dict[str, str]) -> bool:
    """Whether an error contradicts itself by a plain charge of the documented shape."""
    try:
        cost = json.loads(body)["metrics"]["cost"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        cost = None
    return cost in (1.75, 3.5) or headers.get("x-cost") == "1.75"


def test_answers_to_a_submission(new_score: Callable[[str], Score]) -> None:
    """Whatever the bytes: `Refused` only by a status of the table and no charge, `Accepted` only under a valid id."""
    score = new_score("fuzz: answers to a submission")

    @hunt(600)
    @given(STATUSES, HEADERS, BODIES)
    def read(status: int, headers: dict[str, str], body: bytes) -> None:
        reply = bounded(score, lambda: replies.decode_submit(status, headers, body, NOW_US))
        score.fired[type(reply).__name__] += 1
        assert isinstance(reply, Accepted | Refused | Uncertain)
        if isinstance(reply, Accepted):
            assert 200 <= status < 300
            assert VALID_ID.fullmatch(reply.request_id)
            assert json.loads(body)["request_id"] == reply.request_id
        elif isinstance(reply, Refused):
            assert status in REFUSING
            assert not names_a_charge(body, headers)
            assert 0 <= reply.wait_s <= replies.LONGEST_PAUSE_S
        refusal = replies.decode_refusal(status, headers, body, NOW_US)
        assert refusal is None or (isinstance(refusal, Refused) and status in REFUSING)
        if status in REFUSING and names_a_charge(body, headers):
            score.fired["a charge in a refusal"] += 1

    with hunting(score):
        read()
    score.conclude(["Accepted", "Refused", "Uncertain", "a charge in a refusal", "looked at the memory"])


def test_answers_to_a_question(new_score: Callable[[str], Score]) -> None:
    """A poll comes to one of its values; a charge is whole and believable, a URL is one line of http."""
    score = new_score("fuzz: answers to a question")

    @hunt(400)
    @given(ANSWERED, HEADERS, BODIES)
    def read(status: int, headers: dict[str, str], body: bytes) -> None:
        reply = bounded(score, lambda: replies.decode_poll(status, headers, body, NOW_US, REQUEST_ID))
        score.fired[type(reply).__name__] += 1
        assert isinstance(reply, replies.Working | Finished | Refused | replies.Expired | replies.Unavailable)
        if isinstance(reply, Finished):
            assert reply.cost is None or (type(reply.cost) is int and 0 <= reply.cost <= MAX_MICROUSD)
            assert reply.url is None or re.fullmatch(r"(?i)https?://\S*", reply.url)

    with hunting(score):
        read()
    score.conclude(["Working", "Finished", "Refused", "Expired", "Unavailable", "looked at the memory"])


def test_pages_of_history(new_score: Callable[[str], Score]) -> None:
    """Rows under valid ids, each request once, or no page at all; a row alone is a row or none."""
    score = new_score("fuzz: history")

    @hunt(400)
    @given(PAGES, VALUES)
    def read(body: bytes, item: Any) -> None:
        rows = bounded(score, lambda: history.decode_history(body))
        if rows is None:
            score.fired["no page"] += 1
        else:
            score.fired["rows" if rows else "an empty page"] += 1
            assert all(VALID_ID.fullmatch(row.request_id) for row in rows)
            assert len({row.request_id for row in rows}) == len(rows)
        row = history.decode_history_row(values.parse_json(as_body(item)))
        assert row is None or isinstance(row, HistoryRow)

    with hunting(score):
        read()
    score.conclude(["no page", "rows", "an empty page", "looked at the memory"])


def test_amounts_moments_and_bodies(new_score: Callable[[str], Score]) -> None:
    """A charge, a pause, a fingerprint of anything: within its bounds or none, and equal for equal bodies."""
    score = new_score("fuzz: amounts, moments, bodies")

    @hunt(500)
    @given(VALUES, MOMENTS, BODIES)
    def read(value: Any, moment: str, body: bytes) -> None:
        parsed = values.parse_json(as_body(value))
        amount = bounded(score, lambda: values.charged(parsed))
        assert amount is None or (type(amount) is int and 0 <= amount <= MAX_MICROUSD)
        pause_s = bounded(score, lambda: replies.pause_s({"x-rate-limit-reset-at-utc": moment}, NOW_US))
        assert 0 <= pause_s <= replies.LONGEST_PAUSE_S
        score.fired["a pause that was stated" if pause_s != replies.PAUSE_GUESS_S else "a pause that was guessed"] += 1
        for each in (parsed, body, body.decode("utf-8", "surrogateescape")):
            known = each
            mark = bounded(score, lambda known=known: values.fingerprint(known))
            assert mark is None or mark == values.fingerprint(mark)
            score.fired["a mark" if mark else "no mark"] += 1

    with hunting(score):
        read()
    score.conclude(["a mark", "no mark", "a pause that was guessed", "looked at the memory"])


# --- videos -----------------------------------------------------------------------------------------------------------


BOXES = re.compile(rb"ftyp|moov|mdat|trak|mdia|minf|stbl|stsz|stco|stsc|tkhd|mvhd|hdlr")


@st.composite
def films(draw: st.DrawFn) -> bytes:
    """A real clip with wrong numbers in its boxes: sizes, counts, offsets."""
    made = bytearray(tiny_clip("16:9", 5))
    kinds = [match.start() for match in BOXES.finditer(bytes(made))]
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(kinds))
        at = kind + draw(st.sampled_from((-4, 0, 4, 8, 12, 16, 20)))
        number = draw(st.one_of(st.sampled_from((0, 1, 7, 8, 2**31, 2**32 - 1)), st.integers(0, 2**32 - 1)))
        made[at : at + 4] = number.to_bytes(4, "big")
    return bytes(made)


def test_boxes_of_a_film(new_score: Callable[[str], Score]) -> None:
    """A film is whole and says what it is, or is damaged: nothing else, whatever its boxes say."""
    score = new_score("fuzz: boxes of a film")
    clip = tiny_clip("16:9", 5)

    @hunt(400)
    @given(st.one_of(films(), mangled(clip), st.binary(max_size=100).map(lambda tail: clip[:40] + tail)))
    def read(film: bytes) -> None:
        try:
            facts = bounded(score, lambda: walk(lambda at, length: film[at : at + length], len(film)))
        except Damaged as damage:
            score.fired["damaged"] += 1
            assert str(damage)  # noqa: PT017
        else:
            score.fired["whole"] += 1
            assert isinstance(facts, Facts)

    with hunting(score):
        read()
    score.conclude(["damaged", "whole", "looked at the memory"])


# --- what a user writes -----------------------------------------------------------------------------------------------

MANIFESTS = {
    "yaml": b'name: spring\nmodel: kling-2\ndefaults: {duration: 5, aspect_ratio: "16:9"}\n'
    b"matrix: {product: [mug, lamp]}\nrows:\n  - id: hero\n    matrix: {mood: [cozy, bold]}\n"
    b'    prompt: "A {{ mood }} film of a {{ product }}"\n'
    b"    count: 2\n  - prompt: |\n      a cup\n    priority: 10\n",
    "csv": b'id,prompt,duration,count,mood\nhero,"A {{ mood }} film, ""bold""",5,2,cozy\ntwo,a mug,10,,\n',
    "jsonl": b'{"id":"hero","prompt":"A {{ mood|upper }} film","duration":5,"mood":"cozy"}\n\n'
    b'{"prompt":"b","cfg_scale":0.5}\n',
}
WORDS = st.sampled_from((
    b"{{ ", b" }}", b"{% for x in range(9) %}", b"{% endfor %}", b"{% if ", b"{# ", b"9" * 5_000, b"1e999", b"promt",
    b"&a ", b"*a", b"<<: ", b"!!int ", b"- ", b"? ", b": ", b"\t", b"\r", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"',
    b"[" * 1_200, b"{" * 60, b"|9\n", b"%YAML 9.9\n", b"---\n", b"...\n", b"null", b"[]", b"{}", b"-1", b"count", b"id",
    b"\xef\xbb\xbf", "\u2028".encode(), b"|replace('', 'x')", b"%s" * 50, b"** 9 ** 9", b"~" * 40, b".__class__",
))  # fmt: skip


@st.composite
def scribbled(draw: st.DrawFn, whole: bytes) -> bytes:
    """A user's file with words of its own language, and of others, written into it."""
    made = bytearray(draw(st.one_of(st.just(whole), mangled(whole))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(made)))
        made[at:at] = draw(WORDS)
    return bytes(made)


@pytest.mark.parametrize("ending", sorted(MANIFESTS))
def test_manifests(ending: str, tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """A manifest is read or refused with its mistakes, each in a sentence that names the file."""
    score = new_score(f"fuzz: manifests, {ending}")
    path = tmp_path / f"m.{ending}"

    @hunt(250)
    @given(scribbled(MANIFESTS[ending]))
    def read(text: bytes) -> None:
        path.write_bytes(text)
        try:
            campaign = bounded(score, lambda: load_manifest(path))
        except ManifestError as refused:
            score.fired["refused"] += 1
            assert {mistake.file for mistake in refused.mistakes} == {str(path)}  # noqa: PT017
        else:
            score.fired["read"] += 1
            assert campaign.jobs

    with hunting(score):
        read()
    score.conclude(["read", "refused", "looked at the memory"])


def test_yaml(new_score: Callable[[str], Score]) -> None:
    """Any text and any bytes come to a value with its place, or to a problem with one."""
    score = new_score("fuzz: yaml")

    @hunt(300)
    @given(st.one_of(scribbled(MANIFESTS["yaml"]), st.binary(max_size=60), st.text(max_size=60)))
    def read(text: bytes | str) -> None:
        try:
            node = bounded(score, lambda: parse(text, "any.yaml"))
        except YamlProblem as problem:
            score.fired["refused"] += 1
            assert problem.line >= 1  # noqa: PT017
        else:
            score.fired["read"] += 1
            json.dumps(node.value, allow_nan=False)

    with hunting(score):
        read()
    score.conclude(["read", "refused", "looked at the memory"])


LARGE = (
    ("csv", "prompt," + ",".join(f"c{n}" for n in range(20_000)) + "\na" + ",b" * 20_000 + "\n"),
    ("csv", "prompt\n" + '"' * 200_000),
    ("csv", "prompt\n" + "a\n" * 5_000),
    ("jsonl", "[" * 200_000),
    ("jsonl", '{"prompt":"a","x":' + "9" * 200_000 + "}"),
    ("jsonl", '{"prompt":"' + "{{ x }}" * 1_400 + '","x":"' + "y" * 5_000 + '"}'),
    ("jsonl", '{"prompt":"{{ ' + "9" * 5_000 + ' }}","promt":"x"}'),
    ("yaml", "- prompt: " + "[" * 200_000),
    ("yaml", "- prompt: a\n  " + "? " * 50_000),
    ("yaml", "matrix: {" + ", ".join(f"a{n}: [1, 2]" for n in range(60)) + "}\nrows: [{prompt: a}]"),
    ("yaml", "- {prompt: a, " + ", ".join(f"v{n}: 1" for n in range(5_000)) + "}"),
)


def test_large_manifests(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """A small file that would be long to read, or large once read, is read or refused within the same bounds."""
    score = new_score("fuzz: large manifests")
    for (ending, text), look in itertools.product(LARGE, (False, True)):
        path = tmp_path / f"m.{ending}"
        path.write_text(text)
        with score.trial(f"{ending}: {text[:40]}"):
            try:
                bounded(score, lambda path=path: load_manifest(path), look=look)
            except ManifestError:
                score.fired["refused"] += 1
            else:
                score.fired["read"] += 1
    score.trials //= 2  # each was counted by its trial and by its reading
    score.conclude(["read", "refused", "looked at the memory"])


# --- the disk ---------------------------------------------------------------------------------------------------------

EVENTS = [
    Event(event=EventKind.RUN_STARTED, seq=1, at_us=NOW_US, detail="{}"),
    Event(event=EventKind.RESERVED, seq=2, at_us=NOW_US, job_id="a", attempt=1, quote_microusd=1_750_000, request="{}"),
    Event(event=EventKind.SUBMITTED, seq=3, at_us=NOW_US, job_id="a", attempt=1, request_id=REQUEST_ID),
]
WHOLE = encode(EVENTS, GENESIS, link(GENESIS, EVENTS))


def whole_table() -> pa.Table:
    # Without Arrow's threads: one that frees memory while tracemalloc is being stopped takes the process with it.
    return pq.ParquetFile(pa.BufferReader(WHOLE), pre_buffer=False).read(use_threads=False)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A segment that is whole as a file, and wrong as a table: columns missing, of other types, empty."""
    table = whole_table()
    for _ in range(draw(st.integers(1, 2))):
        position = draw(st.integers(0, table.num_columns - 1))
        name = table.column_names[position]
        other = draw(st.sampled_from((
            pa.array([None, "x", "reserved"]),
            pa.array([1.5, float("nan"), -1.0]),
            pa.array([2**63 - 1, -(2**63), 0]),
            pa.array([True, None, False]),
            pa.array([[1], [], None]),
            pa.array([b"\xff", b"", None]),
            pa.array([2**62, 0, None], pa.timestamp("us", "UTC")),
            pa.array([2**40, 0, None], pa.timestamp("ns")),
        ))).slice(0, table.num_rows)  # fmt: skip
        match draw(st.integers(0, 3)):
            case 0 if table.num_columns > 1:
                table = table.remove_column(position)
            case 1:
                table = table.add_column(position, f"{name}_too", other)
            case 2:
                table = table.slice(0, draw(st.integers(0, 3)))
            case _:
                table = table.set_column(position, name, other)
    chain = draw(st.sampled_from((None, None, None, None, b"", b"[]", b"{}", b"null", b'{"before":1,"after":2}')))
    if chain is not None:
        table = table.replace_schema_metadata({b"kling-batch.chain": chain})
    return as_file(table)


def as_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def holed(column: str) -> bytes:
    """A segment of the right shape with nothing in one of its columns."""
    table = whole_table()
    position = table.column_names.index(column)
    return as_file(table.set_column(position, table.field(position), pa.nulls(len(EVENTS), table.field(position).type)))


def state_of(folder: Path) -> State:
    """What a writer starts from."""
    with open_ledger(folder) as ledger:
        return ledger.state


def test_segments(tmp_path: Path, new_score: Callable[[str], Score]) -> None:
    """Any bytes under a checksum that fits them: events that fold as they are read, or a refusal in a sentence.

    A forger who makes checksum and chain fit is believed; he must not be able to crash who reads.
    """
    score = new_score("fuzz: segments")
    folder = tmp_path / "run" / "ledger"
    folder.mkdir(parents=True)

    @hunt(400)
    @given(st.one_of(tables(), st.sampled_from(SCHEMA.names).map(holed), mangled(WHOLE), st.binary(max_size=64)))
    def read(data: bytes) -> None:
        path = folder / str(SegmentName.of(1, 3, data))
        path.write_bytes(data)
        try:
            state = bounded(score, lambda: state_of(folder))
            assert state == fold(read_events(folder))
            score.fired["read"] += 1
        except RunDirectoryError as refused:
            told = str(refused)
            assert path.name in told or f"{folder} contradicts itself" in told
            score.fired["refused" if path.name in told else "contradicts itself"] += 1
        finally:
            path.unlink()

    with hunting(score):
        read()
    score.conclude(["refused", "read", "contradicts itself", "looked at the memory"])
