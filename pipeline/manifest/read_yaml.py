"""Reads YAML: a mapping with defaults, a sweep and rows, or a list of rows alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.kernel.strict_yaml import Node, YamlProblem, parse
from pipeline.manifest.batches import Batch, in_batches
from pipeline.manifest.campaign import ORDERS
from pipeline.manifest.document import NO_SWEEP, ROW_SWEEP, Block, Cells, Document, Row, as_written
from pipeline.manifest.feeds import Feed, rows_of
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.manifest.sources import read_text
from pipeline.manifest.sweep import Axes, Combination, Sweep
from pipeline.models.base import Scalar

TOP_KEYS = ("name", "model", "defaults", "matrix", "zip", "include", "exclude", "rows_from", "rows", "order")
FEED_KEYS = ("path", "where", "each")
ORDER_KEYS = ("by", "seed")
MANY_ROWS = 10_000
MAX_SEED = 2**32 - 1


def read_yaml(path: Path, mistakes: Mistakes) -> Document:
    """The document of a YAML file; what is wrong goes to `mistakes`."""
    root = _parsed(path, mistakes)
    if isinstance(root.value, list):
        return Document(partial(in_batches, _rows(root, mistakes)))
    if isinstance(root.value, dict):
        return _document(_named(root), path.parent, mistakes)
    if root.value is not None:
        mistakes.add("a manifest is a mapping (name, defaults, matrix, rows) or a list of rows", line=root.line)
    return Document(partial(in_batches, ()))


def read_yaml_rows(path: Path, mistakes: Mistakes, needs_prompt: bool, size: int) -> Iterator[Batch]:  # noqa: ARG001 - each row
    """The rows of a YAML file that is a list of rows and nothing else."""
    root = _parsed(path, mistakes)
    if not isinstance(root.value, list):
        raise mistakes.final("is not a list of rows; a file in `rows_from` has rows alone", root.line)
    yield from in_batches(_rows(root, mistakes, mistakes.file), size)


def _parsed(path: Path, mistakes: Mistakes) -> Node:
    try:
        return parse(read_text(path, mistakes), mistakes.file)
    except YamlProblem as problem:
        raise mistakes.final(problem.mistake.message, problem.line) from None


def _named(node: Node) -> dict[str, Node]:
    return {str(name): child for name, child in node.children.items()}


def _document(top: Mapping[str, Node], folder: Path, mistakes: Mistakes) -> Document:
    for key, node in top.items():
        if key not in TOP_KEYS:
            mistakes.add(_unknown_key(key), column=key, line=node.line)
    defaults: Cells = {}
    lines: dict[str, int] = {}
    if "defaults" in top:
        defaults, lines = _cells(_mapping(top["defaults"], "defaults", None, mistakes), None, mistakes)
    sweep, sweep_lines = _sweep(top, None, mistakes)
    order, seed = _order(top.get("order"), mistakes)
    return Document(
        partial(in_batches, itertools.chain.from_iterable(_sources(top, folder, defaults, mistakes))),
        Block(defaults, sweep, lines | sweep_lines),
        _text(top.get("name"), "name", mistakes),
        _text(top.get("model"), "model", mistakes),
        order,
        seed,
        {key: node.line for key, node in top.items()},
    )


def _sources(top: Mapping[str, Node], folder: Path, defaults: Cells, mistakes: Mistakes) -> list[Iterator[Row]]:
    """Where rows come from, in the order in which the manifest names it."""
    sources: list[Iterator[Row]] = []
    for key, node in top.items():
        if key == "rows" and isinstance(node.value, list):
            sources.append(iter(_rows(node, mistakes)))
        elif key == "rows":
            mistakes.add("must be a list of rows", column="rows", line=node.line)
        elif key == "rows_from":
            sources += [
                rows_of(feed, folder, mistakes, needs_prompt="prompt" not in defaults)
                for feed in _feeds(node, mistakes)
            ]
    return sources


def _feeds(node: Node, mistakes: Mistakes) -> list[Feed]:
    several = list(node.children.values()) if isinstance(node.value, list) else [node]
    if not several:
        mistakes.add("names no file; write `rows_from: products.csv`", column="rows_from", line=node.line)
    return [feed for each in several if (feed := _feed(each, mistakes)) is not None]


def _feed(node: Node, mistakes: Mistakes) -> Feed | None:
    if isinstance(node.value, str):
        return Feed(node.value, node.line)
    if not isinstance(node.value, dict):
        mistakes.add(
            "is a path, a mapping with `path`, `where` and `each`, or a list of these",
            column="rows_from",
            line=node.line,
        )
        return None
    named = _named(node)
    for key, child in named.items():
        if key not in FEED_KEYS:
            near = near_miss(key, FEED_KEYS)
            advice = f"did you mean `{near}`?" if near else f"it has {', '.join(FEED_KEYS)}"
            mistakes.add(f"`{key[:60]}` is no key of rows_from; {advice}", column="rows_from", line=child.line)
    path, where = _text(named.get("path"), "path", mistakes), _text(named.get("where"), "where", mistakes)
    each = _row(0, named["each"], mistakes) if "each" in named else None
    if not path:
        mistakes.add("has no `path`; write `path: products.csv`", column="rows_from", line=node.line)
        return None
    return Feed(path, node.line, where, named["where"].line if where else node.line, each)


def _order(node: Node | None, mistakes: Mistakes) -> tuple[str | None, int]:
    if node is None:
        return None, 0
    named = _named(node) if isinstance(node.value, dict) else {"by": node}
    by, seed = named.get("by", node), named.get("seed")
    order = by.value if isinstance(by.value, str) else ORDERS[0]
    if set(named) - set(ORDER_KEYS) or (by is node and not isinstance(node.value, str)):
        mistakes.add("is one of its words, or `{by: balanced, seed: 7}`", column="order", line=node.line)
    elif order not in ORDERS or not isinstance(by.value, str):
        near = near_miss(str(by.value), ORDERS)
        advice = f"did you mean `{near}`?" if near else f"it is {', '.join(ORDERS)}"
        mistakes.add(f"there is no order {str(by.value)[:40]!r}; {advice}", column="order", line=by.line)
    if seed is None:
        return order, 0
    if isinstance(seed.value, bool) or not isinstance(seed.value, int) or not 0 <= seed.value <= MAX_SEED:
        mistakes.add(f"the seed is a whole number from 0 to {MAX_SEED:,}", column="order", line=seed.line)
        return order, 0
    return order, seed.value


def _unknown_key(key: str) -> str:
    if key in ("prompt", "negative_prompt", "start_image", "duration", "aspect_ratio", "cfg_scale", "id", "count"):
        return "belongs into a row (`rows: [{prompt: …}]`) or into `defaults`"
    near = near_miss(key, TOP_KEYS)
    advice = f"did you mean `{near}`?" if near else f"it has {', '.join(TOP_KEYS)}"
    return f"a manifest has no such key; {advice}"


def _text(node: Node | None, key: str, mistakes: Mistakes) -> str | None:
    if node is None:
        return None
    # The text as written counts: `name: 2026` is a good name although YAML reads a number.
    if node.text is None or node.value is None:
        mistakes.add("must be a text", column=key, line=node.line)
        return None
    return node.text


def _mapping(node: Node, key: str, row: int | None, mistakes: Mistakes) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        mistakes.add("must be a mapping of names to values", row=row, column=key, line=node.line)
        return {}
    return _named(node)


def _rows(node: Node, mistakes: Mistakes, file: str | None = None) -> list[Row]:
    if len(node.children) > MANY_ROWS:
        mistakes.warn(
            f"has {len(node.children):,} rows in YAML; a CSV, JSONL or Parquet file, named with `rows_from`, is read "
            "several times faster",
            line=node.line,
        )
    rows = [_row(number, child, mistakes, file) for number, child in enumerate(node.children.values(), start=1)]
    return [row for row in rows if row is not None]


def _row(number: int, node: Node, mistakes: Mistakes, file: str | None = None) -> Row | None:
    """A row, None if it is none; the template of a row has no number."""
    where = number or None
    if not isinstance(node.value, dict):
        says, column = ("write `- prompt: …`", None) if where else ("write `each: {prompt: …}`", "each")
        mistakes.add(f"is not a mapping; {says}", row=where, column=column, line=node.line)
        return None
    named = _named(node)
    sweep, sweep_lines = _sweep({key: named.pop(key) for key in ROW_SWEEP if key in named}, where, mistakes)
    cells, lines = _cells(named, where, mistakes)
    for name in sweep.names():
        if name in cells:
            mistakes.add(
                "is both a value and an axis of this row; keep one of them", row=where, column=name, line=lines[name]
            )
    return Row(cells, sweep, sweep_lines | lines, number=number, line=node.line, file=file)


def _cells(named: Mapping[str, Node], row: int | None, mistakes: Mistakes) -> tuple[Cells, dict[str, int]]:
    cells: dict[str, Scalar] = {}
    for name, node in named.items():
        if name == "tags" and isinstance(node.value, list):
            cells[name] = _tags(node, row, mistakes)
        elif node.text is None:
            mistakes.add("must be a single value, not a list or mapping", row=row, column=name, line=node.line)
        elif node.value is None:
            mistakes.add(
                'has no value; give one ("" is an empty text), or delete the line',
                row=row,
                column=name,
                line=node.line,
            )
        else:
            cells[name] = as_written(node.value, node.text)
    return cells, {name: node.line for name, node in named.items()}


def _tags(node: Node, row: int | None, mistakes: Mistakes) -> str:
    """A list of tags, as the other formats write it: one text."""
    tags = [child.text for child in node.children.values() if child.text]
    if len(tags) < len(node.children) or any("," in tag for tag in tags):
        mistakes.add("is a list of words: [summer, hero]", row=row, column="tags", line=node.line)
    return ", ".join(tags)


# --- sweeps ---


@dataclass(slots=True)
class _SweepPlace:
    """Where in the manifest a sweep stands, and the line of each of its names."""

    row: int | None
    mistakes: Mistakes
    lines: dict[str, int]

    def mistake(self, message: str, column: str, node: Node) -> None:
        self.mistakes.add(message, row=self.row, column=column, line=node.line)


def _sweep(named: Mapping[str, Node], row: int | None, mistakes: Mistakes) -> tuple[Sweep, dict[str, int]]:
    if not any(key in named for key in ROW_SWEEP):
        return NO_SWEEP, {}
    place = _SweepPlace(row, mistakes, {})
    axes = _axes("matrix", named["matrix"], place) if "matrix" in named else {}
    zips = _zips(named["zip"], place) if "zip" in named else ()
    for walked in zips:
        for name in walked:
            if name in axes or sum(name in other for other in zips) > 1:
                mistakes.add("is an axis twice; keep one", row=row, column=name, line=place.lines[name])
    include, include_lines = _entries("include", named, place)
    exclude, exclude_lines = _entries("exclude", named, place)
    return Sweep(axes, zips, include, exclude, include_lines, exclude_lines), place.lines


def _axes(key: str, node: Node, place: _SweepPlace) -> Axes:
    axes: dict[str, tuple[Scalar, ...]] = {}
    for name, axis in _mapping(node, key, place.row, place.mistakes).items():
        place.lines[name] = axis.line
        if name in ("include", "exclude") and isinstance(axis.value, list):
            place.mistake(f"`{name}` stands beside `matrix`, not in it", name, axis)
        elif not isinstance(axis.value, list) or not axis.value:
            place.mistake("an axis is a list of one value or more: [a, b]", name, axis)
        else:
            axes[name] = _axis_values(name, axis, key == "matrix", place)
    return axes


def _axis_values(name: str, axis: Node, is_unique: bool, place: _SweepPlace) -> tuple[Scalar, ...]:
    values: list[Scalar] = []
    seen: set[str] = set()
    for node in axis.children.values():
        if node.text is None or node.value is None:
            place.mistake("each value of an axis is a single value", name, node)
            continue
        if is_unique and node.text in seen:
            place.mistake(f"this axis has {node.text[:40]!r} twice", name, node)
        seen.add(node.text)
        values.append(as_written(node.value, node.text))
    return tuple(values)


def _zips(node: Node, place: _SweepPlace) -> tuple[Axes, ...]:
    several = list(node.children.values()) if isinstance(node.value, list) else [node]
    zips: list[Axes] = []
    for each in several:
        axes = _axes("zip", each, place)
        lengths = {name: len(values) for name, values in axes.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            place.mistake(f"axes that are walked together have the same number of values: here {said}", "zip", each)
        elif axes:
            zips.append(axes)
    return tuple(zips)


def _entries(
    key: str, named: Mapping[str, Node], place: _SweepPlace
) -> tuple[tuple[Combination, ...], tuple[int, ...]]:
    """The entries of `include` or `exclude` with their lines."""
    node = named.get(key)
    if node is None:
        return (), ()
    if not isinstance(node.value, list):
        place.mistake("is a list of entries: [{name: value}]", key, node)
        return (), ()
    entries: list[Combination] = []
    for child in node.children.values():
        values = _mapping(child, key, place.row, place.mistakes)
        if not values:
            place.mistake("an entry names at least one value: {name: value}", key, child)
        for name, value in values.items():
            if value.text is None or value.value is None:
                place.mistake("each value of an entry is a single value", name, value)
        entries.append(
            {name: as_written(value.value, value.text) for name, value in values.items() if value.text is not None}
        )
    return tuple(entries), tuple(child.line for child in node.children.values())
