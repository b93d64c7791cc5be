"""The schemas and the code agree on what a file may say."""

from __future__ import annotations

import pytest
from both_say import Ask, schema_says

from pipeline.config import Config
from pipeline.manifest.document import RESERVED
from pipeline.manifest.read_yaml import TOP_KEYS
from pipeline.models import DEFAULT_MODEL, find_model
from pipeline.schema import config_schema, manifest_schema

PARAMETERS = find_model(DEFAULT_MODEL).parameters
ROWS = "rows: [{prompt: a lamp}]"
MANIFEST = manifest_schema()

RIGHT_MANIFESTS = [
    ROWS,
    "- {prompt: a lamp}\n- {prompt: a mug, duration: 10, mood: bold, season: 2026, festive: true}",
    'name: spring\nmodel: kling-2\ndefaults: {duration: 5, aspect_ratio: "16:9", count: 2, priority: -1, mood: calm}\n'
    + ROWS,
    "name: 2026\nrows: [{id: 7, prompt: a lamp, aspect_ratio: 9:16, cfg_scale: 1, model: kling-2}]",
    "matrix: {mood: [cozy, 1, true], cfg_scale: [0.2, 0.8]}\nrows: [{prompt: 'a {{ mood }} lamp'}]",
    "rows: [{prompt: '{{ x }}', x: a, matrix: {duration: [5, 10], start_image: ['https://a.example/{{ x }}.png']}}]",
    "matrix: {}\n" + ROWS,
]
TEMPLATED = """
rows_from:
  path: more.csv
  where: Name == "a lamp"
  each:
    id: '{{ Name | replace(" ", "-") }}'
    prompt: "{{ Name }}"
    duration: '{{ row["Len"] }}'
    count: 2
    tags: [csv]
    matrix: {cfg_scale: [0.2, 0.8]}
"""
RIGHT_SWEEPS = [
    "zip: {product: [mug, lamp], duration: [5, 5]}\nrows: [{prompt: 'a {{ product }}'}]",
    "zip: [{a: [x, y], b: [1, 2]}, {c: [p, q]}]\nrows: [{prompt: '{{ a }} {{ b }} {{ c }}'}]",
    "matrix: {a: [x, y], duration: [5, 10]}\ninclude: [{a: z, duration: 5}]\nexclude: [{a: x, duration: 10}]\n"
    "rows: [{prompt: 'a {{ a }}'}]",
    "rows: [{prompt: 'a {{ a }}', tags: [hero, spring], zip: {a: [x, y]}, include: [{a: z}], exclude: [{a: x}]}]",
    "defaults: {tags: spring}\nrows: [{prompt: a lamp, tags: 'hero, closing'}]",
    "order: balanced\n" + ROWS,
    "order: {by: cheapest, seed: 3}\n" + ROWS,
    TEMPLATED,
    "rows_from: [{path: more.csv, each: {prompt: '{{ Name }}'}}]\n" + ROWS,
]
WRONG_MANIFESTS = [
    "just a text",
    "{}",
    "[]",
    "rows: []",
    "rows: {prompt: a lamp}",
    "rows: [a lamp]",
    "rowz: 1\n" + ROWS,
    "name: a b\n" + ROWS,
    "name:\n" + ROWS,
    "model: kling-3\n" + ROWS,
    "defaults: {id: x}\n" + ROWS,
    "defaults: {model: kling-2}\n" + ROWS,
    "defaults: [5]\n" + ROWS,
    "defaults: {count: 0}\n" + ROWS,
    "matrix: {mood: cozy}\n" + ROWS,
    "matrix: {mood: []}\n" + ROWS,
    "matrix: {mood: [a, a]}\n" + ROWS,
    "matrix: {mood: [[a]]}\n" + ROWS,
    "matrix: {count: [1, 2]}\n" + ROWS,
    "matrix: {duration: [5, 7]}\n" + ROWS,
    "rows: [{prompt: a lamp, duration: 7}]",
    "rows: [{prompt: a lamp, aspect_ratio: 4:3}]",
    "rows: [{prompt: a lamp, cfg_scale: 1.5}]",
    "rows: [{prompt: a lamp, cfg_scale: high}]",
    "rows: [{prompt: '  '}]",
    "rows: [{prompt: 5}]",
    "rows: [{prompt: a lamp, negative_prompt: null}]",
    "rows: [{prompt: a lamp, start_image: 'http://a.example/b.png'}]",
    "rows: [{prompt: a lamp, count: 10001}]",
    "rows: [{prompt: a lamp, priority: 1.5}]",
    "rows: [{prompt: a lamp, id: a b}]",
    "rows: [{prompt: a lamp, id: -1}]",
    "rows: [{prompt: a lamp, mood: [cozy]}]",
    "rows: [{prompt: a lamp, mood: {}}]",
    "rows: [{prompt: a lamp, rows: 1}]",
    "rows: [{prompt: a lamp, defaults: 1}]",
    "rows: [{prompt: a lamp, matrix: [a]}]",
]
WRONG_SWEEPS = [
    "zip: {a: x}\n" + ROWS,
    "zip: [[x]]\n" + ROWS,
    "include: {a: x}\n" + ROWS,
    "exclude: [a]\n" + ROWS,
    "order: fast\n" + ROWS,
    "order: {by: file, seed: -1}\n" + ROWS,
    "order: {by: file, sed: 1}\n" + ROWS,
    "rows_from: {pth: more.csv}",
    "rows_from: {path: more.csv, every: {}}",
    "rows_from: []",
    "rows_from: {path: more.csv, each: {prompt: '{{ Name }}', duration: long}}",
]
RIGHT_CONFIGS = [
    "",
    "limits:\n",
    'budget: {cap_usd: "100.00", stop_below_credits_usd: "0", prices_usd: {"5": "1.80", "10": 3.50}}',
    "budget: {cap_usd: 35.00, stop_below_credits_usd: 0}",
    "budget: {cap_usd: null}",
    "stop: {after: 8h, until: 06:30, failure_rate: 1, failure_window: 5}",
    "stop: {after: 1.5m, until: null}",
    'provider: {kind: sandbox, api: v1, output_hosts: ["*.segmind.com", cdn.example], api_key_env: MY_KEY}',
    "media: {verify: full, workers: 64}",
    "output: {dir: ..}",
]
WRONG_CONFIGS = [
    "a text",
    "[]",
    "limit: {max_in_flight: 4}",
    "limits: {max_in_fligt: 4}",
    "limits: 4",
    "limits: {max_in_flight: 0}",
    "limits: {max_in_flight: 1.5}",
    "limits: {max_in_flight: null}",
    "limits: {adaptive: 3}",
    "provider: {kind: real}",
    "provider: {output_hosts: []}",
    "provider: {output_hosts: ['https://a.example']}",
    "provider: {api_key_env: SG_0123456789abcdef}",
    "budget: {cap_usd: 0}",
    "budget: {cap_usd: '0.00'}",
    "budget: {cap_usd: -5}",
    "budget: {cap_usd: $5}",
    "budget: {cap_usd: ['5']}",
    "budget: {stop_below_credits_usd: null}",
    'budget: {prices_usd: {"7": "2.00"}}',
    'budget: {prices_usd: {"5": "0"}}',
    "stop: {after: 8}",
    "stop: {after: 0h}",
    "stop: {until: '6:30'}",
    "stop: {until: 24:00}",
    "stop: {failure_rate: 1.1}",
    "media: {verify: twice}",
    "media: {workers: 65}",
    "output: {dir: ''}",
]


@pytest.mark.parametrize("text", [*RIGHT_MANIFESTS, *RIGHT_SWEEPS])
def test_a_right_manifest_is_taken_by_both(code_says: Ask, text: str) -> None:
    """No editor complains of what a run would do."""
    assert code_says("manifest", text)
    assert schema_says("manifest", text)


@pytest.mark.parametrize("text", [*WRONG_MANIFESTS, *WRONG_SWEEPS])
def test_a_wrong_manifest_is_refused_by_both(code_says: Ask, text: str) -> None:
    """What an editor can see of a mistake, it shows; and it is one."""
    assert not schema_says("manifest", text)
    assert not code_says("manifest", text)


@pytest.mark.parametrize("text", RIGHT_CONFIGS)
def test_a_right_config_is_taken_by_both(code_says: Ask, text: str) -> None:
    """No editor complains of what a run would take."""
    assert code_says("config", text)
    assert schema_says("config", text)


@pytest.mark.parametrize("text", WRONG_CONFIGS)
def test_a_wrong_config_is_refused_by_both(code_says: Ask, text: str) -> None:
    """A misspelt key, a word that is none, a number out of bounds: seen before the run."""
    assert not schema_says("config", text)
    assert not code_says("config", text)


PROBES = (
    *("null", "true", "-1", "0", "0.25", "1.5", "5", "7", "65", "10001", "1000001", "10000000000"),
    *('""', '" "', "x", "a b", "16:9", "4:3", "06:30", "24:00", "8h", "0s", '"5"', '"0.00"', '"1e3"'),
    *("frames", "v1", "kling-2", "http://a.example", "SG_0123456789abcdef"),
    *("[]", "[x]", "[a.b, '*.c']", "[[x]]", "{}", "{a: b}", '{"5": "1.75"}', '{"7": "1"}'),
)
"""Values to try for every key, as a file writes them."""

BESIDE = {"min_interval_s": ", max_interval_s: 1000000000", "max_interval_s": ", min_interval_s: 0.1"}
"""What must stand beside a key, so that the value alone decides: a schema cannot compare two keys."""

NUMBERS = frozenset({"number", "integer"})


def _kinds(schema: dict) -> frozenset[str]:
    """The JSON types that a key is meant to have."""
    inner = [*schema.get("allOf", ()), *schema.get("anyOf", ())]
    own = schema.get("type", [])
    own = {own} if isinstance(own, str) else set(own)
    if "enum" in schema:
        own |= {"string" if isinstance(word, str) else "number" for word in schema["enum"]}
    return frozenset(own).union(*map(_kinds, inner))


def _is_odd(probe: str, kinds: frozenset[str]) -> bool:
    """Whether a value is of another type than the key: a number in quotes, a text without. The code is kind there."""
    if probe.startswith('"'):
        return bool(kinds & (NUMBERS | {"boolean"})) and "string" not in kinds
    is_number = probe.replace(".", "").replace("-", "").isdecimal()
    return (is_number or probe == "true") and not kinds & (NUMBERS if is_number else {"boolean"})


@pytest.mark.parametrize("section", Config.model_fields)
def test_every_key_of_the_config_takes_the_same_values(code_says: Ask, section: str) -> None:
    """Value by value: what the schema takes the code takes, and the other way round where it is written as usual."""
    for key, schema in config_schema()["properties"][section]["properties"].items():
        for probe in PROBES:
            text = f"{section}: {{{key}: {probe}{BESIDE.get(key, '')}}}"
            expected = code_says("config", text)
            if not (expected and _is_odd(probe, _kinds(schema))):
                assert schema_says("config", text) == expected, text


ROW_KEYS = [
    name for name in MANIFEST["definitions"]["row"]["properties"] if name in {*PARAMETERS, *RESERVED} - {"tags"}
]


@pytest.mark.parametrize("name", [*ROW_KEYS, "mood"])
def test_every_word_of_a_row_takes_the_same_values(code_says: Ask, name: str) -> None:
    """Value by value, in a row, in `defaults` and as an axis: the two agree, but for numbers in quotes."""
    kinds = _kinds(MANIFEST["definitions"].get(name, MANIFEST["definitions"]["scalar"]))
    prompt = "" if name == "prompt" else "prompt: a lamp, "
    for probe in PROBES:
        texts = [f"rows: [{{{prompt}{name}: {probe}}}]"]
        if name != "prompt":
            texts += [f"defaults: {{{name}: {probe}}}\n{ROWS}", f"matrix: {{{name}: [{probe}]}}\n{ROWS}"]
        for text in texts:
            expected = code_says("manifest", text)
            if not (expected and _is_odd(probe, kinds)):
                assert schema_says("manifest", text) == expected or _is_seen_by_the_run_alone(name, probe), text


def _is_seen_by_the_run_alone(name: str, probe: str) -> bool:
    """Addresses: the schema takes every text but `http:`, since most of one may be a template."""
    return name == "start_image" and not probe.startswith("http:")


def test_the_schema_has_the_words_of_the_reader_and_no_others() -> None:
    """Every top key is known to both."""
    assert set(MANIFEST["properties"]) == set(TOP_KEYS)


def test_the_words_of_a_row_are_the_codes() -> None:
    """Parameters, reserved words and the sweep in every row; and only parameters and variables are axes."""
    sweep = {"matrix", "zip", "include", "exclude"}
    for name in ("row", "row_template"):
        words = {word for word, schema in MANIFEST["definitions"][name]["properties"].items() if schema}
        assert words == {*PARAMETERS, *RESERVED, "tags", *sweep}
    for name in ("axes", "axes_of_templates", "zip", "zip_of_templates"):
        known = MANIFEST["definitions"][name]["properties"]
        assert {word for word, schema in known.items() if schema} == set(PARAMETERS)
        assert {word for word, schema in known.items() if not schema} == {*RESERVED, "tags"}
