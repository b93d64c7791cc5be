"""The reference of the Python interface names what there is, and nothing else."""

from __future__ import annotations

import re

from docs_support import plain, table

import pipeline
from pipeline.api import types
from pipeline.api.asked import AskedOfRun
from pipeline.cli.app import load_verb

PAGE = "docs/python.md"


def test_the_table_names_every_function() -> None:
    """Those of `pipeline`, each with what it returns and the members that there are."""
    rows = table(PAGE, "name", "what it does", "returns")
    named = [re.match(r"(?:await )?(\w+)\(", plain(name)) for name, *_ in rows]
    functions = {name for name in pipeline.__all__ if not isinstance(getattr(pipeline, name), type)}
    assert {match[1] for match in named if match} == functions
    for _, _, returned in rows:
        name, _, members = returned.partition(":")
        if plain(name).isidentifier():
            kind = getattr(pipeline, plain(name), None) or getattr(types, plain(name))
            there = {*dir(kind), *getattr(kind, "__annotations__", ())}
            assert [each for each in re.findall(r"`(?:await )?(\w+)(?:\(\))?`", members) if each not in there] == []


def test_the_table_names_every_argument_with_its_flag() -> None:
    """Those that `prepare` takes, and the flags are those of `run`."""
    rows = table(PAGE, "argument", "what for", "flag")
    names = [name for cell, *_ in rows for name in plain(cell).split(", ")]
    assert sorted(names) == sorted(AskedOfRun.__annotations__)
    flags = [flag for *_, cell in rows for flag in plain(cell).split(", ")]
    run = load_verb("run")
    assert set(flags) <= {option for parameter in run.params for option in parameter.opts}
