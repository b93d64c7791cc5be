"""JSON Schemas of the two files that people write, so that an editor completes and checks them as they are written.

They are of draft 7, with nothing that the YAML language server does not know. What a schema refuses, a run refuses too;
but a run sees more: an undefined name in a prompt, an id given twice, axes of different lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from pipeline.config import Config, dump_config
from pipeline.kernel import strict_yaml
from pipeline.manifest.campaign import ORDERS
from pipeline.manifest.row_ids import ID, ID_RULE
from pipeline.manifest.row_settings import MAX_COUNT, MAX_PRIORITY
from pipeline.models import DEFAULT_MODEL, MODELS, find_model
from pipeline.models.kling_2 import DURATIONS, FRAME_SIZES, MAX_TEXT

DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]

NAME: Schema = {
    "type": ["string", "number"],
    "minimum": 0,
    "pattern": f"^{ID.pattern}$",
    "patternErrorMessage": ID_RULE,
}
"""The rule of ids and of a campaign's name."""

_TEXT = (*find_model(DEFAULT_MODEL).text_parameters, "tags", "scalar")
"""Values that may be any text, so that a template needs no alternative of its own."""


def as_text(schema: Schema) -> str:
    """A schema as its file holds it."""
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


# --- the config ---


def config_schema() -> Schema:
    """The schema of a config file: sections, keys, bounds and descriptions are those of `Config`."""
    defaults = strict_yaml.parse(dump_config(Config()), "the defaults").value
    sections = {name: _section(field.annotation, defaults[name]) for name, field in Config.model_fields.items()}
    return {
        "$schema": DRAFT,
        "title": "kling-batch: config",
        "description": "What holds for a run: provider, cap, limits. What is left out has its default.",
        "type": ["object", "null"],
        "properties": sections,
        "additionalProperties": False,
    }


def _section(model: Any, defaults: Mapping[str, object]) -> Schema:
    made = model.model_json_schema()
    return {
        "description": made["description"],
        "type": ["object", "null"],
        "properties": {key: _key(schema, defaults[key]) for key, schema in made["properties"].items()},
        "additionalProperties": False,
    }


def _key(schema: Schema, default: object) -> Schema:
    plain = {word: value for word, value in schema.items() if word not in ("title", "description", "default")}
    return _told(schema["description"], plain, default)


# --- the manifest ---


def manifest_schema() -> Schema:
    """The schema of a YAML manifest: a mapping, or a list of rows."""
    return {
        "$schema": DRAFT,
        "title": "kling-batch: manifest",
        "description": "Which videos to make: a mapping with rows, or a list of rows alone.",
        "type": ["object", "array"],
        "properties": _top_keys(),
        "additionalProperties": False,
        "anyOf": [{"required": ["rows"]}, {"required": ["rows_from"]}],
        "items": _ref("row"),
        "minItems": 1,
        "definitions": _definitions(),
    }


def _top_keys() -> Schema:
    return {
        "name": _told("the run directory is outputs/<name>; the file's name without it", NAME),
        "model": _ref("model"),
        "defaults": _told("values for every row that does not say otherwise", _values(shared=True)),
        **_sweep("every row", templated=False),
        "rows_from": _told(
            "rows from other files: a path, {path, where, each}, or a list of these",
            {
                "type": ["string", "object", "array"],
                "minLength": 1,
                **_source(),
                "items": {"type": ["string", "object"], "minLength": 1, **_source()},
                "minItems": 1,
            },
        ),
        "rows": _told("each row asks for one video or for several", _list_of("row")),
        "order": _told("in which order jobs of one priority start", _order(), ORDERS[0]),
    }


def _order() -> Schema:
    by: Schema = {"enum": list(ORDERS)}
    mapping = {
        "type": "object",
        "properties": {
            "by": _told("evenly over the variants, as written, or the cheapest first", by, ORDERS[0]),
            "seed": _told("another number, another variant first", {"type": "integer", "minimum": 0}, 0),
        },
        "additionalProperties": False,
    }
    return {"anyOf": [by, mapping]}


def _source() -> Schema:
    """What only a mapping in `rows_from` looks at."""
    return {
        "properties": {
            "path": _told("the file, from the manifest's folder", {"type": "string", "minLength": 1}),
            "where": _told(
                "a Jinja2 expression: only records for which it is true", {"type": "string", "minLength": 1}
            ),
            "each": _told("the row to make of each record; its texts are templates", _ref("row_template")),
        },
        "required": ["path"],
        "additionalProperties": False,
    }


def _definitions() -> Schema:
    """What several places refer to."""
    return {
        "row": _told("one video or several", _row(templated=False)),
        "row_template": _told("a row whose texts may be templates over a record's columns", _row(templated=True)),
        "axes": _axes(templated=False, unique=True),
        "axes_of_templates": _axes(templated=True, unique=True),
        "zip": _zip(templated=False),
        "zip_of_templates": _zip(templated=True),
        "values": _values(),
        "values_of_templates": _values(templated=True),
        **_words(),
        **_parameters(),
        "model": _told("the model", {"enum": list(MODELS)}, DEFAULT_MODEL),
        "scalar": _told("a variable: templates use it as {{ name }}", {"type": ["string", "number", "boolean"]}),
        "template": {"type": "string", "pattern": r"\{[{%]"},
    }


def _words() -> Schema:
    """The words of a row that are neither parameter nor variable, as docs/manifest.md describes them."""
    count = {"type": "integer", "minimum": 1, "maximum": MAX_COUNT}
    priority = {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}
    tags = {"type": ["array", "string"], "items": {"type": ["string", "integer"]}}
    return {
        "id": _told("1 to 64 letters, digits, ., _, -; no two rows the same", NAME),
        "count": _told("takes of the same prompt; each is billed", count, 1),
        "priority": _told("a whole number; higher starts first", priority, 0),
        "tags": _told("words to find the row by: a list, or a text with commas", tags),
    }


def _parameters() -> Schema:
    """The model's parameters, as docs/manifest.md describes them, with the defaults that are sent."""
    defaults, _ = find_model(DEFAULT_MODEL).normalise({"prompt": "a lamp"})
    text = {"type": "string", "maxLength": MAX_TEXT}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    # Only http: is refused, because everything else may be the beginning of a template.
    url = {
        "type": "string",
        "pattern": r"^(?!\s*http:)\s*\S",
        "patternErrorMessage": "an https URL, or the path of a file",
    }
    prompt = {**text, "pattern": r"\S", "patternErrorMessage": "every video needs a prompt"}
    durations = {"enum": list(DURATIONS)}
    ratios = ", ".join(f'"{ratio}"' for ratio in FRAME_SIZES)
    return {
        "prompt": _told(f"text, up to {MAX_TEXT:,} characters", prompt),
        "negative_prompt": _told("text", text, defaults["negative_prompt"]),
        "cfg_scale": _told("0 to 1; higher keeps closer to the prompt", share, defaults["cfg_scale"]),
        "duration": _told("5 or 10, in seconds; 10 costs twice as much", durations, defaults["duration"]),
        "aspect_ratio": _told(ratios, {"enum": list(FRAME_SIZES)}, defaults["aspect_ratio"]),
        "start_image": _told("an https URL, or a path below the manifest's folder: uploaded once", url),
    }


def _row(*, templated: bool) -> Schema:
    return {
        "type": "object",
        "properties": {
            **_named(("id", *_parameters(), "count", "priority", "model", "tags"), _ref, templated=templated),
            **_sweep("this row", templated=templated),
            "defaults": False,
            "rows": False,
        },
        "additionalProperties": _ref("scalar"),
    }


def _sweep(what: str, *, templated: bool) -> Schema:
    suffix = "_of_templates" if templated else ""
    values = _list_of(f"values{suffix}")
    return {
        "matrix": _told(f"axes that multiply {what}: every combination of their values", _ref(f"axes{suffix}")),
        "zip": _told(f"axes of one length that multiply {what} side by side", _ref(f"zip{suffix}")),
        "include": _told("combinations to add", values),
        "exclude": _told("combinations to leave out: all that have these values", values),
    }


def _axes(*, templated: bool, unique: bool) -> Schema:
    """Lists of values by name; the words of a row that are no parameter cannot be axes."""

    def axis(name: str, *, templated: bool) -> Schema:
        return {**_list_of(name, templated=templated), **({"uniqueItems": True} if unique else {})}

    return {
        "type": "object",
        "properties": {
            **_named(_parameters(), axis, templated=templated),
            **dict.fromkeys((*_words(), "model"), False),
        },
        "additionalProperties": axis("scalar", templated=templated),
    }


def _zip(*, templated: bool) -> Schema:
    """Axes that are walked side by side, or a list of such groups. A value may come twice here."""
    axes = _axes(templated=templated, unique=False)
    return {**axes, "type": ["object", "array"], "items": axes, "minItems": 1}


def _values(*, templated: bool = False, shared: bool = False) -> Schema:
    """Single values by name; the values that all rows share (`defaults`) may also have some words of a row."""
    names = (*_parameters(), "count", "priority", "tags") if shared else _parameters()
    return {
        "type": "object",
        "properties": {
            **_named(names, _ref, templated=templated),
            **dict.fromkeys(("id", "model") if shared else (), False),
        },
        "additionalProperties": _ref("scalar"),
    }


def _named(names: Any, make: Callable[..., Schema], *, templated: bool) -> Schema:
    return {name: make(name, templated=templated) for name in names}


def _ref(name: str, *, templated: bool = False) -> Schema:
    plain = {"$ref": f"#/definitions/{name}"}
    return {"anyOf": [plain, {"$ref": "#/definitions/template"}]} if templated and name not in _TEXT else plain


def _list_of(name: str, *, templated: bool = False) -> Schema:
    return {"type": "array", "items": _ref(name, templated=templated), "minItems": 1}


def _told(description: str, schema: Schema, default: object = ...) -> Schema:
    """A schema with the words that an editor shows, and the default that it writes for a key that is completed.

    Editors do not show the default, so the description says it. The type stands in `allOf`, apart from the default:
    side by side, an editor that completes a section or a row would fill in all defaults. A default that is a mapping is
    left out, because editors would write its names without quotes.
    """
    if default is ...:
        return {"description": description, **schema}
    told = f"{description}. Default: {orjson.dumps(default).decode()}"
    written = {} if isinstance(default, dict) else {"default": default}
    return {"description": told, **written, "allOf": [schema]}
