"""Asks the schemas and the code the same question: may this file be?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonschema import Draft7Validator

from pipeline.config import load_config
from pipeline.kernel import strict_yaml
from pipeline.kernel.errors import InputError
from pipeline.manifest import load_manifest
from pipeline.schema import config_schema, manifest_schema

REFUSALS = ("is used only with", "is an address, and must be")

Ask = Callable[[str, str], bool]

VALIDATORS = {"manifest": Draft7Validator(manifest_schema()), "config": Draft7Validator(config_schema())}


def schema_says(kind: str, text: str) -> bool:
    """Whether the schema has nothing against a file of that text, read as YAML 1.2 as editors do."""
    return VALIDATORS[kind].is_valid(strict_yaml.parse(text, "the file").value)


def code_says(kind: str, path: Path) -> bool:
    """Whether the code takes the file; what it refuses for want of another key is well written all the same."""
    try:
        if kind == "manifest":
            load_manifest(path)
        else:
            load_config(path, {}, [], environment={})
    except InputError as error:
        return all(any(words in line for words in REFUSALS) for line in str(error).splitlines())
    return True
