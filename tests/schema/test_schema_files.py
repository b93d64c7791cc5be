"""The files that editors read: what the command prints, what is kept, and what points there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from both_say import VALIDATORS, schema_says
from jsonschema import Draft7Validator

from pipeline.cli import main
from pipeline.schema import config_schema, manifest_schema

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted([*(ROOT / "manifests").glob("*.yaml"), *(ROOT / "configs").glob("*.yaml")])

KNOWN = {
    *("$schema", "$ref", "title", "description", "default", "definitions", "type", "enum", "allOf", "anyOf"),
    *("properties", "additionalProperties", "required", "items", "minItems", "uniqueItems"),
    *("pattern", "patternErrorMessage", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum"),
}
"""The keywords of draft 7 that the YAML language server acts on, and its own for a pattern's message."""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kling-batch", "schema", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("kind", ["manifest", "config"])
def test_the_kept_schema_is_what_the_command_prints_and_writes(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Byte by byte; `make schema` writes both."""
    kept = (ROOT / "configs" / f"{kind}.schema.json").read_text()
    assert call(monkeypatch, kind) == 0
    assert capsys.readouterr().out == kept
    assert call(monkeypatch, kind, "--output", str(tmp_path / "schema.json")) == 0
    assert (tmp_path / "schema.json").read_text() == kept
    assert capsys.readouterr().out == f"Written: {tmp_path}/schema.json\n"


def test_without_an_argument_it_is_the_manifests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that is written most often."""
    assert call(monkeypatch) == 0
    assert '"title": "kling-batch: manifest"' in capsys.readouterr().out


def test_a_schema_that_cannot_be_written_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit 2, with the file and the reason."""
    assert call(monkeypatch, "-o", str(tmp_path / "no" / "schema.json")) == 2
    assert "--output: there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("schema", [manifest_schema(), config_schema()], ids=["manifest", "config"])
def test_a_schema_is_one_of_draft_7_that_editors_understand(schema: dict[str, Any]) -> None:
    """Valid, every reference leads somewhere, and no keyword that an editor would pass over."""
    Draft7Validator.check_schema(schema)
    parts = list(_parts(schema))
    assert {word for part in parts for word in part} <= KNOWN
    references = {part["$ref"].removeprefix("#/definitions/") for part in parts if "$ref" in part}
    assert references <= schema.get("definitions", {}).keys()
    assert [part for part in parts if "enum" in part and len(part["enum"]) != len(set(part["enum"]))] == []


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and every schema within it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for word in ("items", "additionalProperties"):
        yield from _parts(schema.get(word))
    for word in ("properties", "definitions"):
        for part in schema.get(word, {}).values():
            yield from _parts(part)
    for word in ("allOf", "anyOf"):
        for part in schema.get(word, ()):
            yield from _parts(part)


@pytest.mark.parametrize("kind", ["manifest", "config"])
def test_every_key_is_described(kind: str) -> None:
    """Whatever an editor offers, it explains."""
    schema = manifest_schema() if kind == "manifest" else config_schema()
    definitions = schema.get("definitions", {})
    keys = [*schema["properties"].items(), *definitions.get("row", {}).get("properties", {}).items()]
    for section in schema["properties"].values():
        keys += section.get("properties", {}).items()
    told = {
        name: {**definitions.get(found.get("$ref", "").removeprefix("#/definitions/"), {}), **found}
        for name, found in keys
        if found
    }
    assert len(told) > 15
    assert [name for name, found in told.items() if not found.get("description")] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_names_its_schema_in_its_first_line_and_keeps_it(path: Path) -> None:
    """Whoever opens it in an editor has help at once, and sees no complaint."""
    text = path.read_text()
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", text.partition("\n")[0])
    assert named is not None
    kind = "manifest" if path.parent.name == "manifests" else "config"
    assert (path.parent / named[1]).resolve() == ROOT / "configs" / f"{kind}.schema.json"
    assert schema_says(kind, text), [error.message for error in VALIDATORS[kind].iter_errors(text)]


def test_the_command_line_starts_without_what_only_some_verbs_need() -> None:
    """The help of a command is there at once."""
    heavy = "{'asyncio', 'pandas', 'jinja2', 'jsonschema', 'pydantic', 'yaml', 'pyarrow', 'av', 'aiohttp'}"
    load = "import sys; from pipeline.cli.app import VERBS, load_verb; print(len({*map(load_verb, VERBS)}) > 5)"
    code = f"{load}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n\n"
