"""A manifest as written: what each format's reader hands to `expand`, and the scalars in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.models.base import Scalar

RESERVED = ("id", "count", "priority", "model")
"""Names in a row that are neither a parameter nor a variable."""

Cells = Mapping[str, Scalar]
Axes = Mapping[str, tuple[Scalar, ...]]
Lines = Mapping[str, int]

MAX_ENTRIES = 2_000_000
MAX_NAMES = 10_000
"""Columns of a table, and different names in a manifest: more are no names."""
MAX_NUMBER = 40
"""Characters of a variable that may be a number; longer ones are text."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NUMBER_BEGINNINGS = frozenset("-0123456789")


@dataclass(frozen=True, slots=True)
class Block:
    """Values and axes that belong together, and the line of each name where the format knows it."""

    cells: Cells = field(default_factory=lambda: _NOTHING)
    axes: Axes = field(default_factory=lambda: _NOTHING)
    lines: Lines = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class Row(Block):
    """One row: its number as written, and the line where it begins, both from 1."""

    number: int = 0
    line: int | None = None

    def line_of(self, name: str) -> int | None:
        """The line of a value, or of the row."""
        return self.lines.get(name, self.line)


@dataclass(frozen=True, slots=True)
class Document:
    """A whole manifest. `shared` holds `defaults` and the top `matrix`."""

    rows: tuple[Row, ...]
    shared: Block = field(default_factory=Block)
    name: str | None = None
    model: str | None = None
    lines: Lines = field(default_factory=lambda: _NOTHING)


def shown(value: Scalar) -> str:
    """A value as templates print it: truth values in YAML's and JSON's spelling."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_written(value: Scalar, text: str) -> Scalar:
    """`value`, or `text` where the value would not be printed as the user wrote it.

    A price of 0.50 stays "0.50" in a prompt, 007 stays "007", in every format alike: the same work, the same ids.
    """
    return value if text == shown(value) and len(text) <= MAX_NUMBER else text


def from_text(text: str) -> Scalar:
    """The number or truth value that a variable's text shows, if it is printed exactly so; else the text itself.

    CSV cannot tell 5 from "5", so no format does: or a template that compares would give the same work two ids.
    """
    if text in ("true", "false"):
        return text == "true"
    if text[:1] not in _NUMBER_BEGINNINGS or len(text) > MAX_NUMBER:
        return text
    try:
        value = float(text)
        return as_written(int(text) if text.lstrip("-").isdecimal() else value, text)
    except ValueError:
        return text
