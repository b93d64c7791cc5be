"""What a row says beside its values: how often it is made, how soon, with which model and under which tags."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.manifest.document import RESERVED, Row
from pipeline.manifest.rows import Rows
from pipeline.models import Model
from pipeline.models.base import Scalar
from pipeline.models.values import whole_number

MAX_COUNT = 10_000
MAX_PRIORITY = 10**9
MAX_TAG = 64
MAX_TAGS = 100

SETTINGS = frozenset(RESERVED) - {"id"}
"""The names of the cells that these are written in."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How many videos each combination of a row asks for, and the priority and tags of these."""

    count: int = 1
    priority: int = 0
    tags: tuple[str, ...] = ()


NO_SETTINGS = Settings()
"""Those of a row that sets none."""


def settings_of(row: Row, rows: Rows, model: Model) -> Settings:
    """The settings of the latest row, below the manifest's `defaults`; what is wrong with them is noted."""
    cells, shared = row.cells, rows.shared.cells
    count = _number("count", row, rows, 1, MAX_COUNT, 1)
    priority = _number("priority", row, rows, -MAX_PRIORITY, MAX_PRIORITY, 0)
    if (wanted := cells.get("model", model.name)) != model.name:
        message = f"{str(wanted)[:60]!r} is not the manifest's model, {model.name}; one manifest has one model"
        rows.mistake(row, "model", message)
    tags: tuple[str, ...] = ()
    if "tags" in cells or "tags" in shared:
        tags = tuple(dict.fromkeys((*_tags(shared.get("tags")), *_tags(cells.get("tags")))))
        if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG or not tag.isprintable() for tag in tags):
            rows.mistake(row, "tags", f"has at most {MAX_TAGS} tags of at most {MAX_TAG} printable characters")
    return Settings(count, priority, tags)


def _number(name: str, row: Row, rows: Rows, least: int, most: int, default: int) -> int:
    shared = rows.shared
    is_own = name in row.cells
    if not is_own and name not in shared.cells:
        return default
    value = row.cells[name] if is_own else shared.cells[name]
    number = whole_number(value)
    if number is not None and least <= number <= most:
        return number
    message = f"{str(value)[:40]!r} is not a whole number from {least:,} to {most:,}"
    if is_own:
        rows.mistake(row, name, message)
    else:
        rows.mistakes.add(message, column=name, line=shared.lines.get(name))
    return default


def _tags(value: Scalar) -> list[str]:
    return [tag for part in str(value).split(",") if (tag := part.strip())] if value is not None else []
