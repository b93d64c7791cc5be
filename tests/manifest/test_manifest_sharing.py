"""What rows have in common is looked through once and held once; nobody can tell, except by the memory it takes."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import Fail, Load
from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs import Kind, canonical_json, ids_of, job_id
from pipeline.kernel.errors import ManifestError
from pipeline.manifest import load_manifest, sizes
from pipeline.manifest.requests import Requests
from pipeline.manifest.row_ids import RowIds
from pipeline.manifest.sharing import MAX_KNOWN
from pipeline.models.values import spelled

EXPAND = importlib.import_module("pipeline.manifest.expand")
"""The module: in its package, the name is the function's."""


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_that_share_parameters_share_their_memory(load: Load) -> None:
    """Of two rows that differ in the prompt alone, and of one that differs in a variable too."""
    table = "id,prompt,duration,mood\na,one,5,calm\nb,two,5,calm\nc,three,5,wild\nd,four,10,calm\n"
    first, second, third, fourth = load(table, "m.csv").entries
    assert first.job.kind is second.job.kind is third.job.kind is not fourth.job.kind
    assert first.variables is second.variables
    assert [dict(entry.variables) for entry in (second, third, fourth)] == [
        {"mood": "calm"},
        {"mood": "wild"},
        {"mood": "calm"},
    ]
    assert [entry.job.params["prompt"] for entry in (first, second, third, fourth)] == ["one", "two", "three", "four"]


def test_rows_share_what_is_written_around_a_template(load: Load) -> None:
    """A prompt from a template is a row's own; its other parameters are not."""
    first, second = load("prompt,mood,duration\na {{ mood }} mug,calm,10\na {{ mood }} mug,wild,10\n", "m.csv").entries
    assert (first.job.prompt, second.job.prompt) == ("a calm mug", "a wild mug")
    assert first.job.kind is second.job.kind


def test_a_negative_prompt_from_a_template_is_shared_by_nobody(load: Load) -> None:
    """The same template gives another text for another row."""
    table = "prompt,negative_prompt,mood\na,no {{ mood }},calm\nb,no {{ mood }},wild\nc,no {{ mood }},calm\n"
    made = load(table, "m.csv").entries
    assert [entry.job.params["negative_prompt"] for entry in made] == ["no calm", "no wild", "no calm"]


def test_values_that_are_equal_and_do_not_look_it_are_not_taken_for_each_other(load: Load) -> None:
    """For Python 1 is true and 0.0 is -0.0; in a prompt they are not."""
    values = [1, True, 1.0, 0, False, 0.0, -0.0, 0.0, "1", "true"]
    rows = ({"prompt": "{{ n }} of it", "n": value} for value in values)
    entries = load(lines(*rows), "m.jsonl").entries
    assert [entry.job.prompt for entry in entries] == [f"{spelled(value)} of it" for value in values]


def test_equal_values_of_two_types_in_one_batch_are_two(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each of them is known from rows before."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", 2)
    values = [1, 1, True, True, 1, True, True, 1, 1, 1]
    entries = load(lines(*({"prompt": f"mug {at}", "n": n} for at, n in enumerate(values))), "m.jsonl").entries
    assert [repr(entry.variables["n"]) for entry in entries] == list(map(repr, values))


def test_a_mistake_is_told_of_every_row_that_makes_it(fail: Fail) -> None:
    """Also where the rows have all else in common, with each other and with rows that are right."""
    table = "prompt,duration,mood\na,5,calm\n,5,calm\na,7,calm\nb,7,calm\nc,5,{{ x }}\nd,5,{{ x }}\n{{ y }},5,calm\n"
    assert [(mistake.row, mistake.column) for mistake in fail(table, "m.csv")] == [
        (2, "prompt"),
        (3, "duration"),
        (4, "duration"),
        (5, "mood"),
        (6, "mood"),
        (7, "prompt"),
    ]


def test_more_sets_of_values_than_are_remembered_change_nothing(load: Load) -> None:
    """A column with a value of its own in every row is what most tables have."""
    rows = MAX_KNOWN + 3
    table = "prompt,sku\n" + "".join(f"mug {number},s{number}\n" for number in range(rows))
    entries = load(table, "m.csv").entries
    assert [entry.variables["sku"] for entry in entries] == [f"s{number}" for number in range(rows)]
    assert entries[0].job.kind is entries[-1].job.kind


RIGHT: dict[str, tuple[object, ...]] = {
    "id": (*(f"r{number}" for number in range(40)), None),
    "prompt": (
        *(f"mug {number}" for number in range(40)),
        " mug 1 ",
        "東京",
        "it's odd",
        "x" * 2_600,
        "a {{ mood }} b",
    ),
    "negative_prompt": ("", "people", "people", "no {{ mood }}"),
    "duration": (5, 10, "5", None),
    "mood": ("calm", "wild", 1, True, 1.0, "1"),
    "tags": (None, None, "a, b"),
    "count": (None, None, 2),
    "model": (None, "kling-2"),
}
"""What a row can say."""
WRONG: dict[str, tuple[object, ...]] = {
    "id": ("R1", "no id!", 5, True),
    "prompt": ("", "a\x00b", "a {mood} mug", None, 5, "{{ y }}"),
    "duration": (7,),
    "mood": ("{{ x }}",),
    "model": ("kling-9",),
}
"""What makes a mistake of it, mostly."""
SHARED: tuple[dict[str, object], ...] = (
    {},
    {"defaults": {"duration": 10, "mood": "dark", "negative_prompt": "people"}},
    {"defaults": {"prompt": "a {{ mood }} c", "mood": "dark"}},
    {"matrix": {"mood": ["calm", "wild"]}},
)
"""What a manifest can say of all its rows."""


@pytest.mark.parametrize("batch_rows", [1, 7])
@pytest.mark.parametrize("seed", range(40))
def test_rows_taken_together_are_what_they_are_one_by_one(
    seed: int, batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a batch ends and whatever is wrong in it: the same entries and warnings, or the same mistakes."""
    rng = random.Random(seed)
    names = sorted({*rng.sample(sorted(RIGHT), rng.randint(1, 2)), *rng.sample(["id", "mood", "prompt"], 2)})
    usual = {name: rng.sample(RIGHT[name][-5:], 2) for name in names}
    wrong = rng.choice([0.0, 0.0, 0.03, 0.2])
    rows = [{"prompt": f"mug {number}"} | _some_cells(rng, usual, number, wrong) for number in range(40)]
    path = tmp_path / "m.jsonl"
    path.write_text(lines(*rows))
    if rng.random() < 0.5:
        # JSON is YAML as well.
        shared = rng.choice(SHARED)
        if "prompt" in str(shared):
            rows = [{name: value for name, value in row.items() if name != "prompt"} | {"n": 1} for row in rows]
        path = tmp_path / "m.yaml"
        path.write_text(json.dumps(shared | {"rows": rows}))

    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    together = outcome(path)
    monkeypatch.setattr(EXPAND._Expansion, "add_plain", lambda *_: False)
    assert together == outcome(path)


def outcome(path: Path) -> object:
    """All that there is to tell of a manifest."""
    try:
        campaign = load_manifest(path)
    except ManifestError as error:
        return error.mistakes
    made = [(entry, entry.job.params, entry.job.label, shown_types(entry.variables)) for entry in campaign.entries]
    return made, campaign.warnings, campaign.entries == list(campaign.entries)


def shown_types(variables: Mapping[str, object]) -> dict[str, str]:
    """Variables as they print: 1, 1.0 and true are equal."""
    return {name: repr(value) for name, value in variables.items()}


ODD_ROWS: tuple[dict[str, object], ...] = (
    {},
    {"prompt": "mug 3"},
    {"prompt": "mug 12"},
    {"prompt": "x" * 2_600},
    {"mood": "new"},
    {"mood": 1},
    {"mood": True},
    {"duration": "5"},
    {"id": "R3"},
    {"id": 5},
    {"id": None},
    {"tags": "a"},
    {"prompt": " two\r\nlines "},
    {"prompt": "a {{ mood }} b"},
    {"prompt": ""},
    {"prompt": "a\x00b"},
    {"matrix": {"mood": ["calm", "wild"]}},
)
"""What one row may say that the rows around it do not."""


@pytest.mark.parametrize("odd", ODD_ROWS, ids=str)
def test_one_odd_row_among_plain_ones_changes_none_of_them(
    odd: dict[str, object], load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before it in its batch, those behind it, and the batches that follow."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", 5)
    rows = [{"id": f"r{number}", "prompt": f"mug {number}", "duration": 5, "mood": "calm"} for number in range(20)]
    rows[12] = {name: value for name, value in (rows[12] | odd).items() if value is not None}
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"rows": rows}))
    together = outcome(path)
    one_by_one = EXPAND._Expansion._add_entries
    alone: list[int] = []
    monkeypatch.setattr(EXPAND._Expansion, "_add_entries", lambda self, *row: alone.append(1) or one_by_one(self, *row))
    assert outcome(path) == together
    assert len(alone) <= 5 + 5  # no more than the first batch, of which nothing is known, and that of the odd row
    monkeypatch.setattr(EXPAND._Expansion, "add_plain", lambda *_: False)
    assert outcome(path) == together


def test_nothing_of_the_reading_stays_until_somebody_looks_for_garbage(load: Load) -> None:
    """What a million rows were read with is as large as what is made of them."""
    gc.collect()
    gc.disable()
    try:
        campaign = load(
            "id,prompt\n" + "".join(f"r{number},mug {number}\n" for number in range(9)) + "a,mug 1\n", "m.csv"
        )
        kept = [found for found in gc.get_objects() if isinstance(found, EXPAND._Expansion | Requests | RowIds)]
    finally:
        gc.enable()
    assert (len(campaign.entries), len(campaign.warnings), kept) == (10, 1, [])


def test_rows_of_several_places_are_told_apart_in_batches(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in the manifest that come behind those of a table are counted for themselves, wherever a batch ends."""
    (tmp_path / "t.csv").write_text("prompt\na\nb\n")
    for batch_rows in (1, 2, 3, 1_000):
        monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
        found = load("rows_from: t.csv\nrows:\n- prompt: c\n- prompt: d\n- prompt: d\n- prompt: b\n").warnings
        assert [warning.message.split("video as ")[1].split(";")[0] for warning in found] == [
            "row 2",
            f"row 2 of {tmp_path / 't.csv'}",
        ]


def _some_cells(rng: random.Random, usual: dict[str, list[object]], number: int, wrong: float) -> dict[str, object]:
    """Most rows are as plain as most rows of a table; some are not, and some say what another has said."""
    cells: dict[str, object] = {}
    for name, choice in usual.items():
        values = RIGHT[name]
        if rng.random() < wrong:
            values = WRONG.get(name, values)
        elif rng.random() < 0.8:
            values = (values[number],) if len(values) > 40 else tuple(choice)
        elif name == "id":
            values = (f"R{number}", f"r{number}.x") if rng.random() < 0.8 else (f"r{max(0, number - 1)}",)
        elif name == "prompt":
            values = values[rng.choice((0, 40, 40)) :]
        if (value := rng.choice(values)) is not None:
            cells[name] = value
    return cells


def test_what_is_too_much_is_so_in_batches_too(load: Load, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were taken in at once count as much as any other."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", 2)
    rows = "".join(f"- prompt: mug {number}\n" for number in range(10))
    swept = "- {prompt: '{{ n }}', matrix: {n: [1, 2, 3]}}\n"
    monkeypatch.setattr(sizes, "MAX_ENTRIES", 13)
    assert len(load(rows + swept).entries) == 13
    monkeypatch.setattr(sizes, "MAX_ENTRIES", 12)
    assert "more than 12 videos" in fail(rows + swept)[-1].message
    monkeypatch.setattr(sizes, "MAX_ENTRIES", 100)
    monkeypatch.setattr(sizes, "MAX_PROMPT_TEXT", 50)
    assert len(load(rows).entries) == 10
    monkeypatch.setattr(sizes, "MAX_PROMPT_TEXT", 49)
    assert "more than 49 characters" in fail(rows)[-1].message
    # Beside one that asks for what another has asked for, too.
    rows += "- prompt: mug 10\n- prompt: mug 0\n" + swept
    monkeypatch.setattr(sizes, "MAX_PROMPT_TEXT", 64)
    assert len(load(rows).entries) == 15
    monkeypatch.setattr(sizes, "MAX_PROMPT_TEXT", 63)
    assert "more than 63 characters" in fail(rows)[-1].message
    monkeypatch.setattr(sizes, "MAX_ENTRIES", 14)
    assert "more than 14 videos" in fail(rows)[-1].message


def test_the_row_that_was_first_is_named_however_many_follow(load: Load, fail: Fail) -> None:
    """Of ids and of jobs, with new ones in between."""
    ids = "".join(f"- {{id: {name}, prompt: mug {number}}}\n" for number, name in enumerate("abAcBCa"))
    named = [mistake.message.split("the id of ")[1].split(" already")[0] for mistake in fail(ids)]
    assert named == ["row 1", "row 2", "row 4", "row 1"]
    warnings = load("".join(f"- prompt: {name}\n" for name in "abacbca")).warnings
    named = [warning.message.split("video as ")[1].split(";")[0] for warning in warnings]
    assert named == ["row 1", "row 2", "row 4", "row 1"]


def test_entries_are_a_sequence_as_any_other(load: Load) -> None:
    """From both ends, in slices, and equal to another reading of the same manifest."""
    text = "- {id: a, prompt: a, priority: 2, tags: x, matrix: {n: [1, 2]}}\n- {id: b, prompt: b, count: 2}\n"
    entries = load(text).entries
    assert [entry.row_id for entry in entries] == ["a", "a", "b", "b"]
    assert (len(entries), entries[-1], entries[1:3]) == (4, list(entries)[3], list(entries)[1:3])
    assert [(entry.priority, entry.axes, entry.tags) for entry in entries[::2]] == [(2, {"n": 1}, ("x",)), (0, {}, ())]
    assert entries == load(text).entries != load("- prompt: a\n").entries
    with pytest.raises(IndexError):
        entries[4]


@pytest.mark.parametrize("batch_rows", [1, 2, 300])
def test_axes_and_tags_are_those_of_their_own_row_whoever_is_the_first_to_have_any(
    batch_rows: int, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows before the first, between, and behind: room is made for them late, and for nobody twice."""
    monkeypatch.setattr(EXPAND, "BATCH_ROWS", batch_rows)
    rows = [
        {"prompt": "a"},
        {"prompt": "b"},
        {"prompt": "c", "tags": ["hero"]},
        {"prompt": "d"},
        {"prompt": "e", "matrix": {"duration": [5, 10]}},
        {"prompt": "f", "tags": ["hero", "late"]},
        {"prompt": "g"},
    ]
    entries = load(json.dumps({"rows": rows}), "m.yaml").entries
    said = [(entry.job.prompt, dict(entry.axes), entry.tags) for entry in entries]
    assert said == [
        ("a", {}, ()),
        ("b", {}, ()),
        ("c", {}, ("hero",)),
        ("d", {}, ()),
        ("e", {"duration": 5}, ()),
        ("e", {"duration": 10}, ()),
        ("f", {}, ("hero", "late")),
        ("g", {}, ()),
    ]
    assert [dict(entries[at].axes) for at in range(8)] == [axes for _, axes, _ in said]
    assert [entries[at].tags for at in range(8)] == [tags for *_, tags in said]


@given(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\:,{}')),
    st.dictionaries(
        st.sampled_from(["aspect_ratio", "negative_prompt", "start_image"]),
        st.text(st.sampled_from('prompt":\\{},x')) | st.just('"prompt":""'),
    ),
    st.integers(1, 10_000),
)
def test_an_id_is_the_hash_of_all_that_is_asked(prompt: str, params: dict[str, str], replicate: int) -> None:
    """Whatever quotes are in the texts: what is written once for many jobs is what would be written for each."""
    whole = {"version": 1, "model": "kling-2", "params": {"prompt": prompt, **params}, "replicate": replicate}
    identity = f"k1-{hashlib.sha256(canonical_json(whole)).hexdigest()[:24]}"
    assert job_id("kling-2", {"prompt": prompt, **params}, replicate) == identity
    identify = ids_of(Kind("kling-2", params, replicate))
    assert (identify("another"), identify(prompt))[1] == identity


def test_what_rows_were_expanded_with_goes_with_the_expansion(load: Load) -> None:
    """Ids and tables of a million rows must not wait for a look for garbage, which is put off."""
    load("id,prompt\nr0,a lamp\n", "rows.csv")
    gc.collect()
    gc.disable()
    try:
        load("id,prompt\n" + "".join(f"r{number},a lamp {number}\n" for number in range(3_000)), "rows.csv")
        assert gc.collect() < 100
    finally:
        gc.enable()
