"""Checks the names of columns, values and axes: a misspelt parameter would buy the wrong video."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.manifest.document import MAX_NAMES, RESERVED, Document
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.manifest.templates import is_template, names_in
from pipeline.models import Model
from pipeline.models.base import Scalar

MAX_NAME = 100
_SWEEP_WORDS = ("matrix", "defaults", "rows")


def check_names(document: Document, model: Model, mistakes: Mistakes) -> None:
    """Report every name that is out of place or probably misspelt, once each."""
    _check_reserved(document, mistakes)
    _check_overridden(document, mistakes)
    known = {*model.parameters, *RESERVED}
    likely = (*model.parameters, "id", "count", "priority")
    checked: set[str] = set()
    used: frozenset[str] | None = None
    for name, row, line in _names(document):
        if name in checked or name in known:
            continue
        checked.add(name)
        if len(checked) > MAX_NAMES:
            mistakes.add(f"has more than {MAX_NAMES:,} different names of values", row=row, line=line)
            return
        if problem := _problem(name):
            mistakes.add(problem, row=row, column=name[:MAX_NAME], line=line)
        elif near := near_miss(name, likely):
            if used is None:
                used = _used_by_templates(document, model)
            if name not in used:
                message = f"is no parameter; did you mean `{near}`? (A variable of this name is used by no template.)"
                mistakes.add(message, row=row, column=name, line=line)


def _names(document: Document) -> Iterator[tuple[str, int | None, int | None]]:
    """Every name with row and line, the shared ones first."""
    shared = document.shared
    for name in (*shared.cells, *shared.axes):
        yield name, None, shared.lines.get(name)
    seen: set[frozenset[str]] = set()
    for row in document.rows:
        # Rows of a table have the same few sets of names: look at each set once.
        if (names := frozenset((*row.cells, *row.axes))) not in seen:
            seen.add(names)
            for name in (*row.cells, *row.axes):
                yield name, row.number, row.line_of(name)


def _problem(name: str) -> str | None:
    if name in _SWEEP_WORDS:
        return f"`{name}` belongs to YAML manifests, not into a row"
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        return f"is no name; a name has 1 to {MAX_NAME} printable characters"
    return None


def _check_reserved(document: Document, mistakes: Mistakes) -> None:
    """`id` is a row's own, and none of the words of a row can be swept over."""
    for name in ("id", "model"):
        if name in document.shared.cells:
            mistakes.add("cannot be in `defaults`", column=name, line=document.shared.lines.get(name))
    for block, row in ((document.shared, None), *((row, row.number) for row in document.rows if row.axes)):
        for name in block.axes:
            if name in RESERVED:
                mistakes.add(
                    "cannot be an axis; parameters and variables can",
                    row=row,
                    column=name,
                    line=block.lines.get(name),
                )


def _check_overridden(document: Document, mistakes: Mistakes) -> None:
    """A value beside an axis of the same name would make the combinations fall together."""
    if not document.shared.axes:
        return
    for row in document.rows:
        for name in row.cells:
            if name in document.shared.axes:
                mistakes.add(
                    f"is an axis of the top `matrix`, so the row cannot set it; give the row its own axis instead: "
                    f"`matrix: {{{name}: […]}}`",
                    row=row.number,
                    column=name,
                    line=row.line_of(name),
                )


def _used_by_templates(document: Document, model: Model) -> frozenset[str]:
    used: set[str] = set()
    for text in {text for text in _texts(document, model) if isinstance(text, str) and is_template(text)}:
        used |= names_in(text)
    return frozenset(used)


def _texts(document: Document, model: Model) -> Iterator[Scalar]:
    for block in (document.shared, *document.rows):
        for name in model.text_parameters:
            if name in block.cells:
                yield block.cells[name]
            yield from block.axes.get(name, ())
