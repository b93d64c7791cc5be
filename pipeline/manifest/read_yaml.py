"""Reads YAML: a mapping with defaults, a matrix and rows, or a list of rows alone."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.kernel.strict_yaml import Node, YamlProblem, parse
from pipeline.manifest.document import Axes, Block, Cells, Document, Row, as_written
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.models.base import Scalar

TOP_KEYS = ("name", "model", "defaults", "matrix", "rows")
LATER_KEYS = ("include", "exclude", "rows_from", "zip", "tags")


def read_yaml(text: str, mistakes: Mistakes) -> Document:
    """The document of a YAML text; what is wrong goes to `mistakes`."""
    try:
        root = parse(text, mistakes.file)
    except YamlProblem as problem:
        mistakes.add(problem.mistake.message, line=problem.line)
        mistakes.raise_if_any()
        raise
    if isinstance(root.value, list):
        return Document(_rows(root, mistakes))
    if isinstance(root.value, dict):
        return _document(_named(root), mistakes)
    if root.value is not None:
        mistakes.add("a manifest is a mapping (name, defaults, matrix, rows) or a list of rows", line=root.line)
    return Document(())


def _named(node: Node) -> dict[str, Node]:
    return {str(name): child for name, child in node.children.items()}


def _document(top: Mapping[str, Node], mistakes: Mistakes) -> Document:
    for key, node in top.items():
        if key not in TOP_KEYS:
            mistakes.add(_unknown_key(key), column=key, line=node.line)
    defaults: Cells = {}
    lines: dict[str, int] = {}
    if "defaults" in top:
        defaults, default_lines = _cells(_mapping(top["defaults"], "defaults", None, mistakes), None, mistakes)
        lines |= default_lines
    axes, axis_lines = _axes(top.get("matrix"), None, mistakes)
    lines |= axis_lines
    rows: tuple[Row, ...] = ()
    if "rows" in top:
        if isinstance(top["rows"].value, list):
            rows = _rows(top["rows"], mistakes)
        else:
            mistakes.add("must be a list of rows", column="rows", line=top["rows"].line)
    return Document(
        rows,
        Block(defaults, axes, lines),
        _text(top.get("name"), "name", mistakes),
        _text(top.get("model"), "model", mistakes),
        {key: node.line for key, node in top.items()},
    )


def _unknown_key(key: str) -> str:
    if key in LATER_KEYS:
        return "not supported in this version yet; write the rows out, or use `matrix`"
    near = near_miss(key, TOP_KEYS)
    advice = f"did you mean `{near}`?" if near else f"it has {', '.join(TOP_KEYS)}"
    return f"a manifest has no such key; {advice}"


def _text(node: Node | None, key: str, mistakes: Mistakes) -> str | None:
    if node is None:
        return None
    # What matters is what was written: `name: 2026` is a name as good as any.
    if node.text is None or node.value is None:
        mistakes.add("must be a text", column=key, line=node.line)
        return None
    return node.text


def _mapping(node: Node, key: str, row: int | None, mistakes: Mistakes) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        mistakes.add("must be a mapping of names to values", row=row, column=key, line=node.line)
        return {}
    return _named(node)


def _rows(node: Node, mistakes: Mistakes) -> tuple[Row, ...]:
    return tuple(_row(number, child, mistakes) for number, child in enumerate(node.children.values(), start=1))


def _row(number: int, node: Node, mistakes: Mistakes) -> Row:
    if not isinstance(node.value, dict):
        mistakes.add("is not a mapping; write `- prompt: …`", row=number, line=node.line)
        return Row(number=number, line=node.line)
    named = _named(node)
    axes, axis_lines = _axes(named.pop("matrix", None), number, mistakes)
    cells, lines = _cells(named, number, mistakes)
    for name in cells.keys() & axes.keys():
        mistakes.add(
            "is both a value and an axis of this row; keep one of them",
            row=number,
            column=name,
            line=lines[name],
        )
    return Row(cells, axes, axis_lines | lines, number=number, line=node.line)


def _cells(named: Mapping[str, Node], row: int | None, mistakes: Mistakes) -> tuple[Cells, dict[str, int]]:
    cells: dict[str, Scalar] = {}
    for name, node in named.items():
        if node.text is None:
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


def _axes(node: Node | None, row: int | None, mistakes: Mistakes) -> tuple[Axes, dict[str, int]]:
    if node is None:
        return {}, {}
    axes: dict[str, tuple[Scalar, ...]] = {}
    lines: dict[str, int] = {}
    for name, axis in _mapping(node, "matrix", row, mistakes).items():
        lines[name] = axis.line
        if not isinstance(axis.value, list) or not axis.value:
            mistakes.add("an axis is a list of one value or more: [a, b]", row=row, column=name, line=axis.line)
            continue
        axes[name] = _axis_values(name, axis, row, mistakes)
    return axes, lines


def _axis_values(name: str, axis: Node, row: int | None, mistakes: Mistakes) -> tuple[Scalar, ...]:
    values: list[Scalar] = []
    seen: set[str] = set()
    for node in axis.children.values():
        if node.text is None or node.value is None:
            mistakes.add("each value of an axis is a single value", row=row, column=name, line=node.line)
            continue
        if node.text in seen:
            mistakes.add(f"this axis has {node.text[:40]!r} twice", row=row, column=name, line=node.line)
        seen.add(node.text)
        values.append(as_written(node.value, node.text))
    return tuple(values)
