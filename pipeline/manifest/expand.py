"""Turns a manifest as written into its entries: every row times every combination times every replicate."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.jobs import Job, job_id
from pipeline.kernel.errors import Mistake
from pipeline.manifest.campaign import Campaign, Entry
from pipeline.manifest.document import MAX_ENTRIES, RESERVED, Document, Row, from_text
from pipeline.manifest.mistakes import Mistakes, shortened
from pipeline.manifest.names import check_names
from pipeline.manifest.templates import BadTemplateError, is_template, render, single_braced
from pipeline.models import DEFAULT_MODEL, Model, find_model
from pipeline.models.base import Scalar
from pipeline.models.values import whole_number

MAX_COUNT = 10_000
MAX_PRIORITY = 10**9
MAX_PROMPT_TEXT = 256_000_000
"""Characters of all prompts together, before a small file fills the memory."""
MAX_VALUE = 10_000
SLUG_LENGTH = 40

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID_RULE = "1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
_UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def expand(document: Document, source: Path, mistakes: Mistakes) -> Campaign:
    """The campaign of a document.

    Raises:
        ManifestError: with everything in `mistakes`, and everything found here.
    """
    name = _campaign_name(document, source, mistakes)
    model = _model(document, mistakes)
    if model is None:
        mistakes.raise_if_any()
        raise AssertionError("an unknown model is a mistake")
    if not document.rows:
        mistakes.add("asks for nothing; it needs a row with a prompt at least")
    check_names(document, model, mistakes)
    settings = [_settings(row, document, model, mistakes) for row in document.rows]
    _check_ids(document.rows, settings, mistakes)
    if not _is_bounded(document, settings, mistakes):
        mistakes.raise_if_any()
    expansion = _Expansion(document, model, mistakes)
    for row, setting in zip(document.rows, settings, strict=True):
        expansion.add_row(row, setting)
    mistakes.raise_if_any()
    warnings = shortened(list(expansion.warnings), mistakes.file, "warnings")
    return Campaign(name, source, tuple(expansion.entries), tuple(warnings))


# --- what holds for the whole manifest ---


def _campaign_name(document: Document, source: Path, mistakes: Mistakes) -> str:
    if document.name is None:
        return slug(source.stem, 64) or "campaign"
    if not _ID.fullmatch(document.name):
        mistakes.add(f"{document.name[:70]!r} is no name; use {_ID_RULE}", column="name", line=document.lines["name"])
    return document.name


def _model(document: Document, mistakes: Mistakes) -> Model | None:
    try:
        return find_model(DEFAULT_MODEL if document.model is None else document.model)
    except ValueError as error:
        mistakes.add(str(error), column="model", line=document.lines.get("model"))
        return None


def _is_bounded(document: Document, settings: list[_Settings], mistakes: Mistakes) -> bool:
    """Count before anything is made: a small file can ask for more than a machine holds."""
    total = sum(
        setting.count * math.prod(len(values) for values in _axes_of(row, document).values())
        for row, setting in zip(document.rows, settings, strict=True)
    )
    if total > MAX_ENTRIES:
        asked = f"{total:,}" if total < 10**15 else "far too many"
        mistakes.add(f"asks for {asked} videos; {MAX_ENTRIES:,} are the most")
    return total <= MAX_ENTRIES


def _axes_of(row: Row, document: Document) -> Mapping[str, tuple[Scalar, ...]]:
    return {**document.shared.axes, **row.axes} if row.axes else document.shared.axes


# --- id, count and priority of a row ---


@dataclass(frozen=True, slots=True)
class _Settings:
    row_id: str | None
    count: int
    priority: int


def _settings(row: Row, document: Document, model: Model, mistakes: Mistakes) -> _Settings:
    count = _setting("count", row, document, 1, MAX_COUNT, 1, mistakes)
    priority = _setting("priority", row, document, -MAX_PRIORITY, MAX_PRIORITY, 0, mistakes)
    wanted = row.cells.get("model", model.name)
    if wanted != model.name:
        mistakes.add(
            f"{str(wanted)[:60]!r} is not the manifest's model, {model.name}; one manifest has one model",
            row=row.number,
            column="model",
            line=row.line_of("model"),
        )
    return _Settings(_row_id(row, mistakes), count, priority)


def _setting(name: str, row: Row, document: Document, least: int, most: int, default: int, mistakes: Mistakes) -> int:
    own = name in row.cells
    if not own and name not in document.shared.cells:
        return default
    value = row.cells[name] if own else document.shared.cells[name]
    number = whole_number(value)
    if number is not None and least <= number <= most:
        return number
    line = row.line_of(name) if own else document.shared.lines.get(name)
    message = f"{str(value)[:40]!r} is not a whole number from {least:,} to {most:,}"
    mistakes.add(message, row=row.number if own else None, column=name, line=line)
    return default


def _row_id(row: Row, mistakes: Mistakes) -> str | None:
    value = row.cells.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not _ID.fullmatch(text := str(value)):
        message = f"{str(value)[:70]!r} is no id; use {_ID_RULE}"
        mistakes.add(message, row=row.number, column="id", line=row.line_of("id"))
        return None
    return text


def _check_ids(rows: tuple[Row, ...], settings: list[_Settings], mistakes: Mistakes) -> None:
    """Ids name files, and some file systems do not tell `Hero` from `hero`."""
    first: dict[str, int] = {}
    for row, setting in zip(rows, settings, strict=True):
        if setting.row_id is None:
            continue
        other = first.setdefault(setting.row_id.casefold(), row.number)
        if other != row.number:
            message = f"{setting.row_id!r} is the id of row {other} already (large and small letters are one)"
            mistakes.add(message, row=row.number, column="id", line=row.line_of("id"))


# --- rows to entries ---


@dataclass(slots=True)
class _Expansion:
    document: Document
    model: Model
    mistakes: Mistakes
    entries: list[Entry] = field(default_factory=list)
    warnings: dict[Mistake, None] = field(default_factory=dict)
    _jobs: dict[str, tuple[Job, int]] = field(default_factory=dict)
    _parameters: frozenset[str] = frozenset()
    _characters: int = 0

    def __post_init__(self) -> None:
        self._parameters = frozenset(self.model.parameters)

    def add_row(self, row: Row, settings: _Settings) -> None:
        """All entries of a row."""
        for combination in self._combinations(row):
            cells = {**self.document.shared.cells, **row.cells, **combination}
            given = {name: value for name, value in cells.items() if name in self._parameters}
            variables = self._variables(row, cells)
            params = self._params(row, given, variables)
            if params is None:
                continue
            label = settings.row_id or slug(str(params["prompt"]), SLUG_LENGTH) or "row"
            for replicate in range(1, settings.count + 1):
                job = self._job(row, params, replicate, label)
                self.entries.append(Entry(row.number, label, job, variables, settings.priority, combination))

    def _combinations(self, row: Row) -> Iterator[dict[str, Scalar]]:
        axes = _axes_of(row, self.document)
        if not axes:
            return iter(({},))
        return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

    def _variables(self, row: Row, cells: Mapping[str, Scalar]) -> dict[str, Scalar]:
        variables = {
            name: value for name, value in cells.items() if name not in self._parameters and name not in RESERVED
        }
        for name, value in variables.items():
            if not isinstance(value, str):
                continue
            if len(value) > MAX_VALUE:
                self._mistake(row, name, f"is longer than {MAX_VALUE:,} characters")
            elif not value.isprintable() and _UNWANTED.search(value):
                self._mistake(row, name, "has a control character in it; remove it")
            elif is_template(value):
                self._mistake(row, name, "is a variable, and a variable is not rendered; templates work in the prompt")
            else:
                variables[name] = from_text(value)
        return variables

    def _params(self, row: Row, given: dict[str, Scalar], variables: Mapping[str, Scalar]) -> dict[str, Scalar] | None:
        """The parameters in normal form, or None if there are mistakes."""
        for name in self.model.text_parameters:
            text = given.get(name)
            if isinstance(text, str) and "{" in text:
                rendered = self._rendered(row, name, text, given, variables)
                if rendered is None:
                    return None
                given[name] = rendered
        params, problems = self.model.normalise(given)
        for name, message in problems:
            self._mistake(row, name, message)
        self._characters += len(str(params["prompt"]))
        if self._characters > MAX_PROMPT_TEXT:
            self.mistakes.add(f"asks for prompts of more than {MAX_PROMPT_TEXT:,} characters together", row=row.number)
            self.mistakes.raise_if_any()
        return None if problems else params

    def _rendered(
        self, row: Row, name: str, text: str, given: Mapping[str, Scalar], variables: Mapping[str, Scalar]
    ) -> str | None:
        """The text with its templates filled in; None if it has a mistake."""
        try:
            if braced := single_braced(text, variables):
                raise BadTemplateError(f"has {{{braced}}} in single braces; write {{{{ {braced} }}}}")
            return render(text, self._visible(given, variables)) if is_template(text) else text
        except BadTemplateError as problem:
            self._mistake(row, name, str(problem))
            return None

    def _visible(self, given: Mapping[str, Scalar], variables: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What templates see: the variables, and the parameters that are not text.

        Those are in normal form, so that a default said and a default left out give the same text.
        """
        others = {name: value for name, value in given.items() if name not in self.model.text_parameters}
        params, _ = self.model.normalise(others)
        return {
            **{name: params[name] for name in params if name not in self.model.text_parameters},
            **variables,
        }

    def _job(self, row: Row, params: dict[str, Scalar], replicate: int, label: str) -> Job:
        identity = job_id(self.model.name, params, replicate)
        known = self._jobs.get(identity)
        if known is None:
            job = Job(identity, self.model.name, params, replicate, label)
            self._jobs[identity] = job, row.number
            return job
        job, first = known
        if first == row.number:
            message = "two combinations of this row ask for the very same video; they share one job and one bill"
        else:
            message = f"asks for the very same video as row {first}; they share one job and one bill"
        self.warnings[Mistake(self.mistakes.file, message, row=row.number, line=row.line)] = None
        return job

    def _mistake(self, row: Row, name: str, message: str) -> None:
        shared = name not in row.lines and name in self.document.shared.lines and name not in row.cells
        line = self.document.shared.lines[name] if shared else row.line_of(name)
        self.mistakes.add(message, row=row.number, column=name, line=line)


def slug(text: str, length: int) -> str:
    """A readable file name part of at most `length` small ASCII letters, digits and dashes; may be empty."""
    head = text[: 4 * length]
    plain = head if head.isascii() else unicodedata.normalize("NFKD", head).encode("ascii", "ignore").decode()
    words = re.sub("[^a-z0-9]+", "-", plain.lower()).strip("-")
    if len(words) <= length:
        return words
    # Cut between words where that leaves most of it.
    cut = words[: length + 1].rpartition("-")[0]
    return cut if len(cut) > length // 2 else words[:length].strip("-")
