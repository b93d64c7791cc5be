"""What a mistake in the configuration is called, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.settings import Config
from pipeline.kernel import strict_yaml
from pipeline.kernel.errors import Mistake
from pipeline.kernel.suggestion import suggestion


@dataclass(frozen=True, slots=True)
class Override:
    """A value from outside the file: where it came from, for messages, and what it says."""

    source: str
    path: tuple[str, ...]
    value: object


@dataclass(frozen=True, slots=True)
class Places:
    """Says where a value came from: what was said last counts."""

    file: Path | None
    node: strict_yaml.Node | None
    changes: list[Override]

    def mistake(self, path: tuple[str, ...], message: str) -> str:
        """A message about the value at `path`, with the place that it came from in front."""
        source = next((each.source for each in reversed(self.changes) if each.path[: len(path)] == path), None)
        if source is not None:
            return f"{source}: {message}"
        if self.file is not None and self.node is not None:
            return str(Mistake(str(self.file), message, line=self.node.place(*path)[0]))
        return message


def explained(problem: Any) -> tuple[tuple[str, ...], str]:
    """The path of a value that pydantic refuses, and a sentence in our own words."""
    depth = 3 if problem["loc"][:2] == ("budget", "prices_usd") else 2
    path = tuple(str(step) for step in problem["loc"])[:depth]
    if problem["type"] == "extra_forbidden":
        return path, f"unknown key `{'.'.join(path)}`{suggest(path)}"
    limit = problem.get("ctx", {})
    match problem["type"]:
        case "value_error":
            message = problem["msg"].removeprefix("Value error, ")
        case "greater_than":
            message = f"must be more than {limit['gt']:g}"
        case "greater_than_equal":
            message = f"must be at least {limit['ge']:g}"
        case "less_than_equal":
            message = (
                f"must be at most {limit['le']:,g}" if limit["le"] < 1e6 else f"must be at most {limit['le']:,.0f}"
            )
        case "int_type" | "int_parsing" | "int_from_float":
            message = "must be a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            message = "must be a number"
        case "bool_type" | "bool_parsing":
            message = "must be true or false"
        case "literal_error":
            message = f"must be {limit['expected'].replace(chr(39), '')}"
        case "model_type" | "dict_type":
            message = "is a section: its keys stand below it, indented"
        case "string_too_short":
            message = "must not be empty"
        case "string_type":
            message = "must be text"
        case _:  # pragma: no cover - the fields above have no other mistakes
            message = problem["msg"]
    given = problem["input"]
    if problem["type"] != "value_error" and isinstance(given, str | int | float) and given != "":
        message += f", not {_shown(given)}"
    return path, f"`{'.'.join(path)}`: {message}"


def _shown(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:40]


def suggest(path: tuple[str, ...]) -> str:
    """What follows the name of an unknown key: the known one that was probably meant, or all that are known."""
    fields = Config.model_fields
    if len(path) == 1:
        known = list(fields)
    else:
        section: Any = fields[path[0]].annotation
        known = list(section.model_fields)
    return f"; {suggestion(path[-1], known, quote='`')}"
