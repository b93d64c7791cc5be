"""A job's id depends on what is asked for and on nothing else: a changed id buys finished work again."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Load
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.jobs import Job
from pipeline.manifest import Campaign, load_manifest
from pipeline.manifest.campaign import count_rows
from pipeline.models.values import spelled

GOLDEN = """
name: golden
defaults: {duration: 5, negative_prompt: text, mood: calm}
matrix: {product: [mug, lamp], aspect_ratio: ["16:9", "9:16"]}
rows:
  - {id: swept, prompt: "A {{ mood }} film of a {{ product }}, {{ duration }} s"}
  - {id: hero, prompt: "Ein Käse für 0.50 € — 猫", duration: 10, cfg_scale: 1, count: 2, priority: 9,
     matrix: {product: [vase]}}
  - {prompt: "from an image", start_image: "https://example.com/a.png",
     matrix: {product: [cup], aspect_ratio: ["1:1"]}}
"""
GOLDEN_IDS = [
    "k1-063e03fed5634779b09664e0",
    "k1-947b653bfff6f6981881dc69",
    "k1-b8a2382e639f1366ac37c584",
    "k1-42887d418f0f90d8c160a4d1",
    "k1-5346b15ee3cff4a0d4adfd67",
    "k1-1f2da966c4d2393692f3d513",
    "k1-e3f4bbe05f576537b63118c8",
    "k1-3d8efb2068e0de7197808469",
    "k1-d36a4596c5fe81cfdd295f67",
]


def campaign_of(text: str | bytes, name: str) -> Campaign:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_manifest(path)


def ids(jobs: tuple[Job, ...]) -> list[str]:
    return [job.job_id for job in jobs]


def test_the_ids_of_a_fixed_manifest_never_change(load: Load) -> None:
    """If this fails, everybody's finished videos would be bought again: the change needs a new id version."""
    assert ids(load(GOLDEN).jobs) == GOLDEN_IDS


PROMPTS = [
    "a mug",
    "a {{ mood }} mug",
    "ein Käse, zwei; 'drei' \"vier\"",
    "zwei\nZeilen {{ n }}",
    "{{ duration }} s, {{ cfg_scale }}, {{ aspect_ratio }}",
    "{% if n == 1 %}one{% else %}{{ n ~ '' }}{% endif %}",
    "5",
    "true",
]
MOODS = ["cozy", "no", "1.50", "007", "1e5", "0x1F", "2026-01-01", "16:9", "-0", "a, b"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": st.sampled_from(PROMPTS),
            "mood": st.sampled_from(MOODS),
            "n": st.sampled_from([0, 1, "1", -2, 2.5, "2.5", 1e16, 10**20, 10**60, "1e400", True, "true", "x"]),
        },
        optional={
            "duration": st.sampled_from([5, 10]),
            "cfg_scale": st.sampled_from([0, 1, 0.5, 0.25]),
            "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1"]),
            "negative_prompt": st.just("blurry"),
            "count": st.integers(1, 3),
            "start_image": st.just("https://example.com/a.png"),
        },
    ),
    min_size=1,
    max_size=5,
)


def as_csv(rows: list[dict[str, object]]) -> str:
    columns = sorted({name for row in rows for name in row})
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        values = [row.get(name, "") for name in columns]
        writer.writerow([spelled(value) if isinstance(value, bool) else value for value in values])
    return out.getvalue()


def as_jsonl(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_yaml(rows: list[dict[str, object]]) -> str:
    # JSON is YAML: written so, texts keep their quotes, as PyYAML (which knows YAML 1.1) would not always keep them.
    return "rows:\n" + "".join(f"  - {json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def as_parquet(rows: list[dict[str, object]]) -> bytes:
    columns: dict[str, list[object]] = {}
    for name in sorted({name for row in rows for name in row}):
        values = [row.get(name) for row in rows]
        large = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
        if large or len({type(value) for value in values if value is not None}) > 1:
            values = [None if value is None else spelled(value) for value in values]
        columns[name] = values
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@settings(deadline=None)
@given(ROWS)
def test_the_same_work_has_the_same_ids_in_every_format(rows: list[dict[str, object]]) -> None:
    """YAML, CSV, JSON lines and Parquet of the same rows: the same jobs, labels, row numbers and variables' looks."""
    yaml_one = campaign_of(as_yaml(rows), "m.yaml")
    for name, text in (("m.csv", as_csv(rows)), ("m.jsonl", as_jsonl(rows)), ("m.parquet", as_parquet(rows))):
        other = campaign_of(text, name)
        assert [(e.job.job_id, e.row, e.row_id) for e in other.entries] == [
            (e.job.job_id, e.row, e.row_id) for e in yaml_one.entries
        ]
        assert [{k: spelled(v) for k, v in e.variables.items()} for e in other.entries] == [
            {k: spelled(v) for k, v in e.variables.items()} for e in yaml_one.entries
        ]


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_order_names_and_spelt_out_defaults_change_no_id(rows: list[dict[str, object]], chance: random.Random) -> None:
    """Rows shuffled, keys shuffled, ids and priorities added, the file renamed, every default written out."""
    defaults = {"duration": 5, "cfg_scale": 0.5, "aspect_ratio": "16:9", "negative_prompt": ""}
    changed = []
    for number, row in enumerate(rows):
        items = list({**defaults, **row, "id": f"r{number}", "priority": number}.items())
        chance.shuffle(items)
        changed.append(dict(items))
    chance.shuffle(changed)
    before, after = campaign_of(as_yaml(rows), "a.yaml"), campaign_of(as_yaml(changed), "other.yaml")
    assert sorted(ids(before.jobs)) == sorted(ids(after.jobs))


def test_a_variable_that_no_template_uses_is_no_part_of_the_id(load: Load) -> None:
    """A column for the report must not buy the video again."""
    assert ids(load("- {prompt: a, sku: 1}").jobs) == ids(load("- {prompt: a, sku: 2, shop: x}").jobs)


@pytest.mark.parametrize(
    "other",
    [
        "{prompt: b}",
        "{prompt: a, duration: 10}",
        "{prompt: a, cfg_scale: 0.6}",
        "{prompt: a, negative_prompt: x}",
        '{prompt: a, aspect_ratio: "1:1"}',
        '{prompt: a, start_image: "https://example.com/a"}',
        "{prompt: A}",
    ],
)
def test_every_parameter_is_part_of_the_id(load: Load, other: str) -> None:
    """What asks for another video has another id."""
    assert not set(ids(load("- {prompt: a}").jobs)) & set(ids(load(f"- {other}").jobs))


def test_a_variable_in_quotes_is_the_same_variable(load: Load) -> None:
    """CSV cannot tell 1 from "1": a template that compares must not see a difference either."""
    row = "prompt: '{% if n == 1 %}one{% else %}many{% endif %}'"
    quoted, plain = load(f"- {{{row}, n: '1'}}"), load(f"- {{{row}, n: 1}}")
    assert ids(quoted.jobs) == ids(plain.jobs)
    assert quoted.entries[0].job.params["prompt"] == "one"


def test_an_endless_number_is_text_in_every_format(load: Load) -> None:
    """Beyond 40 digits no format calculates, so that none differs."""
    digits = "1" + "0" * 60
    for text, name in [
        (f"- {{prompt: a, n: {digits}}}", "m.yaml"),
        (f'{{"prompt": "a", "n": {digits}}}', "m.jsonl"),
        (f"prompt,n\na,{digits}\n", "m.csv"),
    ]:
        assert load(text, name).entries[0].variables == {"n": digits}


def test_more_replicates_leave_the_first_ones_alone(load: Load) -> None:
    """count: 3 after count: 2 buys one more."""
    two, three = (ids(load(f"- {{prompt: a, count: {count}}}").jobs) for count in (2, 3))
    assert three[:2] == two
    assert len(set(three)) == 3


def test_a_matrix_and_the_rows_written_out_are_the_same_work(load: Load) -> None:
    """The sweep is a way of writing, nothing else."""
    swept = load('matrix: {m: [x, y], duration: [5, 10]}\nrows: [{prompt: "a {{ m }}"}]')
    plain = load("prompt,duration\na x,5\na x,10\na y,5\na y,10\n", "m.csv")
    assert ids(swept.jobs) == ids(plain.jobs)


def test_the_body_is_what_was_asked_for_and_no_more(load: Load) -> None:
    """Normal parameters only; no start_image, no variable, no playground sample."""
    [job] = load("- {prompt: a mug, sku: 7}").jobs
    assert job.body == b'{"aspect_ratio":"16:9","cfg_scale":0.5,"duration":5,"negative_prompt":"","prompt":"a mug"}'


def test_the_quickstart_is_fourteen_different_videos_in_every_shape_and_length() -> None:
    """The first manifest that a user meets has no mistake and no warning, and shows what there is."""
    path = Path(__file__).parents[2] / "manifests" / "quickstart.yaml"
    campaign = load_manifest(path)
    assert (campaign.name, count_rows(campaign.entries)) == ("quickstart", 6)
    assert len(campaign.entries) == len(campaign.jobs) == 14
    assert not campaign.warnings
    assert {job.params["duration"] for job in campaign.jobs} == {5, 10}
    assert {job.params["aspect_ratio"] for job in campaign.jobs} == {"16:9", "9:16", "1:1"}
    assert yaml.safe_load(path.read_text())["name"] == "quickstart"
