"""Checks the names of columns, values and axes: a misspelt parameter would buy the wrong video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.manifest.batches import Batch
from pipeline.manifest.document import MAX_NAMES, NO_SWEEP, RESERVED, Document, Row
from pipeline.manifest.mistakes import Mistakes, near_miss
from pipeline.manifest.sweep import Sweep
from pipeline.manifest.templates import is_template, names_in
from pipeline.models import Model
from pipeline.models.base import Scalar

MAX_NAME = 100
MAX_TEMPLATES = 10_000
"""With more different templates than this, they are not searched for names, and no variable is called unused."""
_SWEEP_WORDS = ("matrix", "zip", "include", "exclude", "defaults", "rows", "rows_from")


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a name was met first."""

    row: int | None
    line: int | None
    file: str | None
    is_written: bool
    """Whether somebody wrote it for this manifest. A column of a table may have been there for another purpose."""


@dataclass(slots=True)
class Names:
    """The names of one manifest, checked as its rows come by. `finish` checks what only the whole manifest shows."""

    document: Document
    model: Model
    mistakes: Mistakes
    _known: frozenset[str] = frozenset()
    _texts: tuple[str, ...] = ()
    _zipped: frozenset[str] = frozenset()
    _variables: dict[str, _Found] = field(default_factory=dict)
    _templates: set[str] = field(default_factory=set)
    _shapes: set[tuple[str, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._texts = tuple(self.model.text_parameters)
        self._known = frozenset((*self.model.parameters, *RESERVED))
        shared = self.document.shared
        self._zipped = frozenset(name for walked in shared.sweep.zips for name in walked)
        for name in ("id", "model"):
            if name in shared.cells:
                self.mistakes.add("cannot be in `defaults`", column=name, line=shared.lines.get(name))
        self._check_axes(shared.sweep, None, shared.lines)
        for name in (*shared.cells, *_swept(shared.sweep)):
            self._meet(name, _Found(None, shared.lines.get(name), None, is_written=True))
        self._take_templates(shared.cells, shared.sweep)

    def are_known(self, batch: Batch) -> bool:
        """Whether `check` would find nothing new in any of these rows, as in most batches of a table."""
        if self._zipped or batch.is_swept or not self._shapes.issuperset(batch.shapes):
            return False
        texts = [name for name in self._texts if not batch.has_none_of((name,))]
        return all("{" not in "".join(map(str, batch.column(name))) for name in texts)

    def check(self, row: Row) -> None:
        """Look at the names of a row."""
        self._take_templates(row.cells, row.sweep)
        if row.sweep is not NO_SWEEP:
            self._check_axes(row.sweep, row if row.record is None else None, row.named or row.lines)
        if self._zipped:
            self._check_zipped(row)
        names = tuple(row.cells) if row.sweep is NO_SWEEP else (*row.cells, *_swept(row.sweep))
        # Rows of a table have the same few sets of names: look at each set once.
        if names in self._shapes:
            return
        if len(self._shapes) < MAX_NAMES:
            self._shapes.add(names)
        is_written = not row.columns or row.record is not None
        for name in names:
            if (line := row.named.get(name)) is None:
                self._meet(name, _Found(row.number, row.line_of(name), row.file, is_written))
            else:
                self._meet(name, _Found(None, line, None, is_written))

    def finish(self) -> None:
        """Report names that are probably misspelt, and variables that nothing uses."""
        likely = (*self.model.parameters, "id", "count", "priority", "tags")
        near = {name: meant for name in self._variables if (meant := near_miss(name, likely))}
        if not near and len(self._templates) > MAX_TEMPLATES:
            return
        used: set[str] = set().union(*map(names_in, self._templates))
        for name in near:
            if name in used:
                continue
            found = self._variables[name]
            message = f"is no parameter; did you mean `{near[name]}`? (A variable of this name is used by no template.)"
            self.mistakes.add(message, row=found.row, column=name, line=found.line, file=found.file)
        if len(self._templates) <= MAX_TEMPLATES and "row" not in used:
            self._warn_unused(used)

    def _warn_unused(self, used: set[str]) -> None:
        unused = {name: found for name, found in self._variables.items() if name not in used}
        for name, found in unused.items():
            if found.is_written:
                message = "is a variable that no template uses; it is carried into the results only"
                self.mistakes.warn(message, row=found.row, column=name, line=found.line, file=found.file)

    def _meet(self, name: str, found: _Found) -> None:
        if name in self._known or name in self._variables:
            return
        if len(self._variables) >= MAX_NAMES:
            raise self.mistakes.final(f"has more than {MAX_NAMES:,} different names of values", found.line)
        self._variables[name] = found
        if problem := _problem(name):
            self.mistakes.add(problem, row=found.row, column=name[:MAX_NAME], line=found.line, file=found.file)

    def _check_axes(self, sweep: Sweep, row: Row | None, lines: Mapping[str, int]) -> None:
        """Check that no reserved word of a row is an axis, and that every name in `exclude` is one."""
        number, file = (row.number or None, row.file) if row else (None, None)
        for name in sweep.names():
            if name in RESERVED:
                message = "cannot be an axis; parameters and variables can"
                self.mistakes.add(message, row=number, column=name, line=lines.get(name), file=file)
        for entry, line in zip(sweep.include, sweep.include_lines, strict=True):
            for name in entry:
                if name in RESERVED:
                    message = f"`{name}` cannot be in an entry; parameters and variables can"
                    self.mistakes.add(message, row=number, column="include", line=line, file=file)
        axes = {*self.document.shared.sweep.names(), *sweep.names()}
        for entry, line in zip(sweep.exclude, sweep.exclude_lines, strict=True):
            for name in entry.keys() - axes:
                near = near_miss(name, axes)
                advice = f"did you mean `{near}`?" if near else f"the axes are {', '.join(sorted(axes)) or 'none'}"
                message = f"`{name[:60]}` is no axis; {advice}"
                self.mistakes.add(message, row=number, column="exclude", line=line, file=file)

    def _check_zipped(self, row: Row) -> None:
        """Check that a row sets no axis of the top `zip`: its values belong to those of the other axes."""
        for name in self._zipped & {*row.cells, *row.sweep.names()}:
            self.mistakes.add(
                "is an axis of the top-level `zip`, so a row cannot set it; remove it here, or take it out of `zip`",
                row=row.number,
                column=name,
                line=row.line_of(name),
                file=row.file,
            )

    def _take_templates(self, cells: Mapping[str, Scalar], sweep: Sweep) -> None:
        for name in self._texts:
            if isinstance(text := cells.get(name), str) and "{" in text and is_template(text):
                self._templates.add(text)
        if sweep is not NO_SWEEP:
            texts = (value for name, value, _ in sweep.values() if name in self.model.text_parameters)
            self._templates.update(text for text in texts if isinstance(text, str) and is_template(text))


def _swept(sweep: Sweep) -> Iterator[str]:
    yield from sweep.names()
    for entry in sweep.include:
        yield from entry


def _problem(name: str) -> str | None:
    if name in _SWEEP_WORDS:
        return f"`{name}` belongs to YAML manifests, not into a row"
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        return f"is no name; a name has 1 to {MAX_NAME} printable characters"
    return None
