"""The pages, their examples and the schemas for editors say the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import yaml
from docs_support import DOCUMENTS, blocks, plain, table
from jsonschema import Draft7Validator

from pipeline.config import Config
from pipeline.kernel import strict_yaml
from pipeline.kernel.errors import InputError
from pipeline.manifest import load_manifest
from pipeline.schema import config_schema, manifest_schema

CONFIG, MANIFEST = "docs/config.md", "docs/manifest.md"
YAML_BLOCKS = [block for name in DOCUMENTS for block in blocks(name) if block.words[:1] == ("yaml",)]


def test_the_description_of_a_config_key_is_its_pages() -> None:
    """Each key's cell on the page is what the code says of it, and what editors show, with the default."""
    told = {
        f"{section}.{key}": field.description
        for section, found in Config.model_fields.items()
        for key, field in found.annotation.model_fields.items()
    }
    rows = table(CONFIG, "key", "default", "what it is")
    assert {plain(key): plain(what) for key, _, what in rows} == told
    shown = {
        f"{section}.{key}": schema["description"]
        for section, found in config_schema()["properties"].items()
        for key, schema in found["properties"].items()
    }
    assert shown.keys() == told.keys()
    for key, default, what in rows:
        words, _, said = shown[plain(key)].rpartition(". Default: ")
        assert (words, yaml.safe_load(said)) == (plain(what), yaml.safe_load(plain(default))), key


def test_the_description_of_a_word_of_a_row_is_its_pages() -> None:
    """What the page allows in a row is what an editor shows, with the default."""
    definitions = manifest_schema()["definitions"]
    for name, default, allowed in table(MANIFEST, "column", "default", "allowed"):
        words, _, said = definitions[plain(name)]["description"].partition(". Default: ")
        assert words == plain(allowed), name
        assert not said or yaml.safe_load(said) == yaml.safe_load(plain(default)), name
        assert said or not default.startswith("`"), name


def test_the_schema_takes_every_manifest_of_the_documents_that_is_one(tmp_path: Path) -> None:
    """No editor complains of an example; those that show mistakes are none."""
    path = tmp_path / "example.yaml"
    validator = Draft7Validator(manifest_schema())
    taken = 0
    for block in YAML_BLOCKS:
        path.write_text(block.text)
        with contextlib.suppress(InputError):
            load_manifest(path)
            taken += 1
            found = strict_yaml.parse(block.text, str(block)).value
            assert [error.message for error in validator.iter_errors(found)] == [], block
    assert taken >= 1
