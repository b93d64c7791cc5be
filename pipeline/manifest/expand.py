"""Turns a manifest as written into its entries: every row times every combination times every replicate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.jobs import Job
from pipeline.kernel.errors import ManifestError
from pipeline.manifest.batches import Batch
from pipeline.manifest.campaign import ORDERS, Campaign, Entries
from pipeline.manifest.document import MAX_ENTRIES, NO_SWEEP, RESERVED, Cells, Document, Row, from_text
from pipeline.manifest.images import LocalImages, is_local
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.names import Names
from pipeline.manifest.sharing import Common, Form, Layout, Sharing
from pipeline.manifest.sweep import MAX_WORK, Sweep, combinations, contradicts, shown, unmatched
from pipeline.manifest.templates import BadTemplateError, is_template, render, scope, seen, single_braced
from pipeline.models import DEFAULT_MODEL, Model, Problem, find_model
from pipeline.models.base import Scalar
from pipeline.models.values import whole_number

BATCH_ROWS = 300
MAX_COUNT = 10_000
MAX_PRIORITY = 10**9
MAX_PROMPT_TEXT = 256_000_000
"""Characters of all prompts together, before a small file fills the memory."""
MAX_VALUE = 10_000
SLUG_LENGTH = 40
MAX_TAG = 64
MAX_TAGS = 100
MAX_SHAPES = 1_000
"""Forms of the top sweep that are remembered, as rows have changed it."""

Place = int | tuple[int, str]
"""A row, for other rows' messages: its number, and its file where that is not the manifest."""

_SETTINGS = frozenset(RESERVED) - {"id"}
_ONCE: list[dict[str, Scalar]] = [{}]
_NO_VARIABLES: Mapping[str, Scalar] = MappingProxyType({})
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IDS = re.compile(rf"{_ID.pattern}(\n{_ID.pattern})*")
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
    names = Names(document, model, mistakes)
    expansion = _Expansion(document, model, mistakes, LocalImages(source.parent))
    for batch in document.batches(BATCH_ROWS):
        expansion.foresee(batch)
        if not names.are_known(batch) or not expansion.add_plain(batch):
            for row in batch.rows:
                names.check(row)
                expansion.add_row(row)
    if not expansion.rows and not len(mistakes):
        mistakes.add("asks for nothing; it needs a row with a prompt at least")
    names.finish()
    expansion.warn_idle()
    mistakes.raise_if_any()
    expansion.entries.distinct = len(expansion._jobs)
    return Campaign(
        name,
        source,
        expansion.entries,
        mistakes.warnings,
        document.order or ORDERS[0],
        document.seed,
        {hashed: image.path for hashed, image in expansion.images.by_hash.items()},
    )


# --- what holds for the whole manifest ---


def _campaign_name(document: Document, source: Path, mistakes: Mistakes) -> str:
    if document.name is None:
        name = slug(source.stem, 64) or "campaign"
        letters = unicodedata.normalize("NFKD", source.stem)
        if any(not each.isascii() and unicodedata.category(each)[0] in "LNS" for each in letters):
            mistakes.warn(
                f"only {name!r} of this file's name can be in a folder's, and another manifest's may come to the same: "
                "with --out you say where its videos and its money belong"
            )
        return name
    if not _ID.fullmatch(document.name):
        mistakes.add(f"{document.name[:70]!r} is no name; use {_ID_RULE}", column="name", line=document.lines["name"])
    return document.name


def _model(document: Document, mistakes: Mistakes) -> Model | None:
    try:
        return find_model(DEFAULT_MODEL if document.model is None else document.model)
    except ValueError as error:
        mistakes.add(str(error), column="model", line=document.lines.get("model"))
        return None


# --- id, count and priority of a row ---


@dataclass(frozen=True, slots=True)
class _Settings:
    count: int = 1
    priority: int = 0
    tags: tuple[str, ...] = ()


_NO_SETTINGS = _Settings()


def _tags(value: Scalar) -> list[str]:
    return [tag for part in str(value).split(",") if (tag := part.strip())] if value is not None else []


# --- rows to entries ---


@dataclass(slots=True)
class _FirstRows:
    """The first row of each key. Nothing is kept of them before two rows have the same key and somebody asks."""

    _known: dict[str | None, int] = field(default_factory=dict)
    _looked_at: int = 0

    def of(self, key: str, pairs: int, pair: Callable[[int], tuple[str | None, int]]) -> int:
        """The first row of a key, if there are so many pairs by now; `pair` gives the nth key, from 0, and its row."""
        for at in range(self._looked_at, pairs):
            other, row = pair(at)
            self._known.setdefault(other, row)
        self._looked_at = pairs
        return self._known[key]


@dataclass(slots=True)
class _Expansion:
    document: Document
    model: Model
    mistakes: Mistakes
    images: LocalImages
    entries: Entries = field(default_factory=Entries)
    rows: int = 0
    _jobs: dict[str, Job] = field(default_factory=dict)
    _rows_of_jobs: _FirstRows = field(default_factory=_FirstRows)
    _sharing: Sharing = field(init=False)
    _ids: set[str] = field(default_factory=set)
    """Every id in small letters."""
    _row_ids: list[str | None] = field(default_factory=list)
    """The id of each row in small letters, if it has one."""
    _rows_of_ids: _FirstRows = field(default_factory=_FirstRows)
    _places: dict[int, Place] = field(default_factory=dict)
    """Where those rows stand that are not simply as many in the manifest's own file."""
    _shared: dict[object, list[dict[str, Scalar]]] = field(default_factory=dict)
    _parameters: frozenset[str] = frozenset()
    _characters: int = 0
    _asked: int = 0
    _foreseen: int = 0
    _work: int = 0
    _is_plain: bool = True
    """Whether `defaults` say nothing of what a row is asked besides its values."""
    _is_swept: bool = False
    """Whether there is a top sweep."""
    _idle: set[int] = field(default_factory=set)
    _brought: frozenset[str] = frozenset()
    """What entries of the top `include` bring: names that are no axes."""
    _misshapen: int = 0
    """The last row that was warned of the shape of its image."""

    def __post_init__(self) -> None:
        self._sharing = Sharing(self.model)
        self._parameters = frozenset(self.model.parameters)
        self._is_plain = _SETTINGS.isdisjoint(self.document.shared.cells)
        shared = self.document.shared.sweep
        self._is_swept = bool(shared)
        self._idle = set(range(len(shared.exclude)))
        if axes := set(shared.names()):
            self._brought = frozenset(name for entry in shared.include for name in entry if name not in axes)

    def add_row(self, row: Row) -> None:
        """All entries of a row."""
        self.rows += 1
        # Of a file of the manifest's own, the number is enough.
        if row.file is not None and row.file != self.mistakes.file:
            self._places[self.rows] = row.number, row.file
        elif row.number != self.rows:
            self._places[self.rows] = row.number
        is_plain = self._is_plain and _SETTINGS.isdisjoint(row.cells)
        settings = _NO_SETTINGS if is_plain else self._settings(row)
        row_id, folded = self._row_id(row)
        self._row_ids.append(folded)
        self._add_entries(row, row_id, settings)

    def _add_entries(self, row: Row, row_id: str | None, settings: _Settings) -> None:
        """All entries of the latest row."""
        found = self._combinations(row) if self._is_swept or row.sweep is not NO_SWEEP else _ONCE
        self._asked += len(found) * settings.count
        if self._asked > MAX_ENTRIES:
            raise self._too_many(row)
        shared = self.document.shared.cells
        for combination in found:
            cells = {**shared, **row.cells, **combination} if combination or shared else row.cells
            request = self._request(row, cells, combination, settings.tags)
            if request is None:
                continue
            prompt, form, variables = request
            label = row_id or _label(prompt)
            for replicate in range(1, settings.count + 1):
                job = self._job(row, prompt, form, replicate, label)
                self.entries.add(self.rows, label, job, variables, settings.priority, combination, settings.tags)

    def add_plain(self, batch: Batch) -> bool:
        """All entries of many rows at once, as `add_row` makes them, if they are as plain as those of most tables.

        `Names` knows them, they have values and nothing else, and nothing is to be said of their numbers, ids and
        prompts. Returns whether they are so; nothing has happened if not.
        """
        shared = self.document.shared.cells
        if (
            not self._is_plain
            or self._is_swept
            or "{" in str(shared.get("prompt", ""))
            or self._asked + len(batch) > MAX_ENTRIES
            or not batch.has_none_of(_SETTINGS)
            or not batch.follows(self.rows, self.mistakes.file)
        ):
            return False
        try:
            prompts = self.model.normal_prompts(batch.column("prompt", shared.get("prompt")))
        except ValueError:
            return False
        if self._characters + sum(map(len, prompts)) > MAX_PROMPT_TEXT or (ids := self._new_ids(batch)) is None:
            return False
        self._add_plain(batch, ids, prompts, self._sharing.common_of_each(batch, shared))
        return True

    def _add_plain(
        self, batch: Batch, ids: Sequence[str | None], prompts: Sequence[str], common: Sequence[Common | None]
    ) -> None:
        """The entries of the next rows, whose prompts are in normal form; at once, if there is nothing to say."""
        labels = [row_id or _label(prompt) for row_id, prompt in zip(ids, prompts, strict=True)]
        usual_length = self.model.usual_prompt_length
        jobs = [
            None if each is None or len(prompt) > usual_length else each[0].first_job(prompt, label)
            for each, prompt, label in zip(common, prompts, labels, strict=True)
        ]
        new = {job.job_id: job for job in jobs if job is not None}
        if len(new) == len(batch) and self._jobs.keys().isdisjoint(new):
            variables = [each[1] for each in common if each is not None]
            self._jobs.update(new)
            self.entries.extend_plain(self.rows + 1, labels, new.values(), variables)
            self.rows += len(batch)
            self._asked += len(batch)
            self._characters += sum(map(len, prompts))
            return
        for row, row_id, label, job, each in zip(batch.rows, ids, labels, jobs, common, strict=True):
            self.rows += 1
            if job is None or each is None or self._jobs.setdefault(job.job_id, job) is not job:
                self._add_entries(row, row_id, _NO_SETTINGS)
                continue
            self.entries.extend_plain(self.rows, (label,), (job,), each[1:])
            self._asked += 1
            self._characters += len(job.prompt)

    def _new_ids(self, batch: Batch) -> Sequence[str | None] | None:
        """The id of each row, none for all, or None where anything is to be said of any; then nothing has happened."""
        values = batch.column("id")
        if values.count(None) == len(values):
            self._row_ids += [None] * len(values)
            return [None] * len(values)
        ids = [value for value in values if isinstance(value, str)]
        written = "\n".join(ids)
        if len(ids) < len(values) or written.count("\n") >= len(ids) or not _IDS.fullmatch(written):
            return None
        small = written.casefold()
        folded = (
            ids
            if small == written
            else [text if text == small else small for text, small in zip(ids, small.split("\n"), strict=True)]
        )
        if len(set(folded)) < len(folded) or not self._ids.isdisjoint(folded):
            return None
        self._ids.update(folded)
        self._row_ids += folded
        return ids

    def foresee(self, batch: Batch) -> None:
        """Count what these rows ask for at least, before the first of them is made: a large `count` is quickly said."""
        default = self.document.shared.cells.get("count")
        if default is None and batch.has_none_of(("count",)) and self._foreseen + len(batch) <= MAX_ENTRIES:
            self._foreseen += len(batch)
            return
        for row in batch.rows:
            written = row.cells.get("count", default)
            count = 1 if written is None else whole_number(written)
            self._foreseen += count if count is not None and 0 < count <= MAX_COUNT else 1
            if self._foreseen > MAX_ENTRIES:
                raise self._too_many(row)

    def warn_idle(self) -> None:
        """Say which entries of the top `exclude` took nothing away from any row."""
        for at in sorted(self._idle) if self.rows else ():
            line = self.document.shared.sweep.exclude_lines[at]
            self.mistakes.warn("this entry takes nothing away", column="exclude", line=line)

    # --- id, count, priority and tags of a row ---

    def _settings(self, row: Row) -> _Settings:
        cells, shared = row.cells, self.document.shared.cells
        count = self._setting("count", row, 1, MAX_COUNT, 1)
        priority = self._setting("priority", row, -MAX_PRIORITY, MAX_PRIORITY, 0)
        if (wanted := cells.get("model", self.model.name)) != self.model.name:
            self._mistake(
                row,
                "model",
                f"{str(wanted)[:60]!r} is not the manifest's model, {self.model.name}; one manifest has one model",
            )
        tags: tuple[str, ...] = ()
        if "tags" in cells or "tags" in shared:
            tags = tuple(dict.fromkeys((*_tags(shared.get("tags")), *_tags(cells.get("tags")))))
            if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG or not tag.isprintable() for tag in tags):
                self._mistake(row, "tags", f"has at most {MAX_TAGS} tags of at most {MAX_TAG} printable characters")
        return _Settings(count, priority, tags)

    def _setting(self, name: str, row: Row, least: int, most: int, default: int) -> int:
        shared = self.document.shared
        own = name in row.cells
        if not own and name not in shared.cells:
            return default
        value = row.cells[name] if own else shared.cells[name]
        number = whole_number(value)
        if number is not None and least <= number <= most:
            return number
        message = f"{str(value)[:40]!r} is not a whole number from {least:,} to {most:,}"
        if own:
            self._mistake(row, name, message)
        else:
            self.mistakes.add(message, column=name, line=shared.lines.get(name))
        return default

    def _row_id(self, row: Row) -> tuple[str | None, str | None]:
        """The row's id, as written and in small letters. Ids name files, and for some file systems `Hero` is `hero`."""
        value = row.cells.get("id")
        if value is None:
            return None, None
        if isinstance(value, bool) or not _ID.fullmatch(text := str(value)):
            self._mistake(row, "id", f"{str(value)[:70]!r} is no id; use {_ID_RULE}")
            return None, None
        folded = text if text == (small := text.casefold()) else small
        before = len(self._ids)
        self._ids.add(folded)
        if len(self._ids) == before:
            place = self._place(self._rows_of_ids.of(folded, self.rows - 1, self._id_and_row))
            self._mistake(row, "id", f"{text!r} is the id of {place} already (large and small letters are one)")
        return text, folded

    # --- the combinations of a row ---

    def _combinations(self, row: Row) -> list[dict[str, Scalar]]:
        """What the row is made with: the top sweep as the row leaves it, continued by the row's own."""
        shared = self.document.shared.sweep
        found = self._shared_combinations(row)
        own = replace(
            row.sweep,
            axes={name: values for name, values in row.sweep.axes.items() if name not in shared.axes},
            zips=tuple(walked for walked in row.sweep.zips if shared.axes.keys().isdisjoint(walked)),
        )
        if own:
            self._check_size(own, len(found), row)
            for at in unmatched(own, found):
                message, line = "this entry takes nothing away", own.exclude_lines[at]
                if row.record is None:
                    self._warn(row, message, "exclude", line)
                else:
                    self.mistakes.warn(f"{message} ({self._place(self.rows)})", column="exclude", line=line)
            found = combinations(own, found, self._brought)
        if not found:
            self._warn(row, "every combination is excluded: the row asks for nothing")
        return found

    def _shared_combinations(self, row: Row) -> list[dict[str, Scalar]]:
        """The combinations of the top sweep, where the row's own values and axes stand for those of the same name."""
        shared = self.document.shared.sweep
        added = {name for entry in shared.include for name in entry}
        pinned = {name: row.cells[name] for name in (*shared.axes, *added) if name in row.cells}
        replaced = {name: row.sweep.axes[name] for name in shared.axes if name in row.sweep.axes}
        walked = tuple(each for each in row.sweep.zips if not shared.axes.keys().isdisjoint(each))
        said = added & {*pinned, *row.sweep.names()} - shared.axes.keys()
        key = (
            tuple((name, shown(value)) for name, value in pinned.items()),
            frozenset(said),
            tuple(replaced.items()),
            tuple(tuple(each.items()) for each in walked),
        )
        if (known := self._shared.get(key)) is not None:
            return known
        axes = {name: (pinned[name],) if name in pinned else values for name, values in shared.axes.items()} | replaced
        axes = {name: values for name, values in axes.items() if not any(name in each for each in walked)}
        fixed = {name: value for name, value in pinned.items() if name in axes}
        include = (entry for entry in shared.include if not contradicts(fixed, entry))
        # What the row says itself is nearer than what an entry would add.
        include = ({name: entry[name] for name in entry if name not in said} for entry in include)
        sweep = Sweep(axes, (*shared.zips, *walked), tuple(filter(None, include)), shared.exclude)
        self._check_size(sweep, 1, row)
        found = combinations(sweep)
        self._idle &= set(unmatched(sweep))
        if len(self._shared) < MAX_SHAPES:
            self._shared[key] = found
        return found

    def _check_size(self, sweep: Sweep, bases: int, row: Row) -> None:
        """Count before anything is made: a small file can ask for more than a machine holds."""
        if sweep.size() * bases > MAX_ENTRIES:
            raise self._too_many(row)
        self._work += sweep.work(bases)
        if self._work > MAX_WORK:
            message = "has too many combinations for so many entries of include and exclude; write rows of their own"
            raise self.mistakes.final(message, row.line)

    def _too_many(self, row: Row) -> ManifestError:
        place = row.line if row.file in (None, self.mistakes.file) else None
        return self.mistakes.final(f"asks for more than {MAX_ENTRIES:,} videos, which are the most", place)

    # --- variables, parameters, jobs ---

    def _request(
        self, row: Row, cells: Cells, combination: Cells, tags: tuple[str, ...]
    ) -> tuple[str, Form, Cells] | None:
        """The prompt in normal form, the other parameters and the variables, or None if there are mistakes.

        What rows have in common besides the prompt is looked through once, and shared by them.
        """
        layout = self._sharing.layout(cells)
        values = layout.pick(cells)
        types = tuple(map(type, values))
        form: Form | None
        is_common = True
        if (known := self._sharing.common(layout, values, types, tags)) is not None:
            form, variables = known
        else:
            form = self._sharing.form(layout, values, types)
            variables, is_good = self._variables(row, cells, layout, tags)
            # Equal numbers can look different, as 0.0 and -0.0 do.
            is_common = is_good and float not in types[len(layout.settings) :]
        prompt = None if form is None else self._prompt(row, cells, combination, variables)
        if prompt is None:
            found = self._looked_through(row, cells, layout, combination, variables)
            if found is None:
                return None
            prompt, form = found
            if known is None and form is not None and form.is_common:
                self._sharing.remember_form(layout, values, types, form)
        self._characters += len(prompt)
        if self._characters > MAX_PROMPT_TEXT:
            raise self.mistakes.final(f"asks for prompts of more than {MAX_PROMPT_TEXT:,} characters together")
        if form is None:
            return None
        if known is None and is_common and form.is_common:
            self._sharing.remember(layout, values, types, tags, (form, variables))
        if len(prompt) > self.model.usual_prompt_length:
            self._warn(
                row,
                f"is {len(prompt):,} characters long; the model is known to take in {self.model.usual_prompt_length:,}",
                "prompt",
                row.line_of("prompt"),
            )
        return prompt, form, variables

    def _prompt(self, row: Row, cells: Cells, combination: Cells, variables: Cells) -> str | None:
        """The prompt in normal form; None if there is anything wrong with it."""
        text = cells.get("prompt")
        if isinstance(text, str) and "{" in text:
            text = self._rendered(row, "prompt", text, self._given(cells), variables, combination)
        try:
            return self.model.normal_prompt(text)
        except ValueError:
            return None

    def _variables(self, row: Row, cells: Cells, layout: Layout, tags: tuple[str, ...]) -> tuple[Cells, bool]:
        """The variables, and whether nothing is wrong with them."""
        variables, is_good = {name: cells[name] for name in layout.variables}, True
        for name, value in variables.items():
            if not isinstance(value, str):
                continue
            if len(value) > MAX_VALUE:
                problem = f"is longer than {MAX_VALUE:,} characters"
            elif not value.isprintable() and _UNWANTED.search(value):
                problem = "has a control character in it; remove it"
            elif is_template(value):
                problem = "is a variable, and a variable is not rendered; templates work in the prompt"
            else:
                variables[name] = from_text(value)
                continue
            self._mistake(row, name, problem)
            is_good = False
        if tags:
            variables["tags"] = ", ".join(tags)
        return variables or _NO_VARIABLES, is_good

    def _given(self, cells: Cells) -> dict[str, Scalar]:
        return {name: value for name, value in cells.items() if name in self._parameters}

    def _looked_through(
        self, row: Row, cells: Cells, layout: Layout, combination: Cells, variables: Cells
    ) -> tuple[str, Form | None] | None:
        """The prompt in normal form and the other parameters, None for these or for both if there are mistakes."""
        given = self._given(cells)
        braced = [name for name in layout.texts if isinstance(text := given[name], str) and "{" in text]
        for name in braced:
            rendered = self._rendered(row, name, str(given[name]), given, variables, combination)
            if rendered is None:
                return None
            given[name] = rendered
        is_common = "start_image" not in given and all(name == "prompt" for name in braced)
        unusable = self._with_image(given) if "start_image" in given else []
        params, problems = self.model.normalise(given)
        problems += unusable
        for name, message in problems:
            self._mistake(row, name, message)
        if "start_image" in params:
            self._note_shape(row, params)
        prompt = str(params.pop("prompt"))
        return prompt, None if problems else Form(self.model.name, params, is_common)

    def _with_image(self, given: dict[str, Scalar]) -> list[Problem]:
        """Put the hash of a start image that is a file in the place of its path; the problem with it, if any."""
        written = given["start_image"]
        if not isinstance(written, str) or not (path := written.strip()) or not is_local(path):
            return []
        try:
            given["start_image"] = self.images.find(path).hashed
        except ValueError as problem:
            del given["start_image"]
            return [("start_image", str(problem))]
        return []

    def _note_shape(self, row: Row, params: Mapping[str, Scalar]) -> None:
        """Warn, once a row, of a start image whose shape is not the one that the row asks for."""
        image = self.images.by_hash.get(str(params["start_image"]))
        frame = self.model.frame_size({name: value for name, value in params.items() if name != "start_image"})
        if image is None or frame is None or image.has_shape_of(*frame) or self._misshapen == self.rows:
            return
        self._misshapen = self.rows
        message = (
            f"{image.path.name} has {image.width}x{image.height} pixels, which is not the shape of aspect_ratio "
            f"{params['aspect_ratio']}; give an image of {frame[0]}x{frame[1]}, or the aspect_ratio that it has"
        )
        self._warn(row, message, "start_image", row.line_of("start_image"))

    def _rendered(
        self,
        row: Row,
        name: str,
        text: str,
        given: Mapping[str, Scalar],
        variables: Mapping[str, Scalar],
        combination: Mapping[str, Scalar],
    ) -> str | None:
        """The text with its templates filled in; None if it has a mistake."""
        try:
            if braced := single_braced(text, variables):
                raise BadTemplateError(f"has {{{braced}}} in single braces; write {{{{ {braced} }}}}")
            if not is_template(text):
                return text
            rendered = render(text, self._visible(row, text, given, variables, combination), row.columns)
            if row.record is not None and is_template(rendered):
                raise BadTemplateError(
                    "gives a text with a template in it, and what a record brings is not rendered; "
                    "without `each`, a column `prompt` is a template itself"
                )
            return rendered
        except BadTemplateError as problem:
            self._mistake(row, name, str(problem))
            return None

    def _visible(
        self,
        row: Row,
        text: str,
        given: Mapping[str, Scalar],
        variables: Mapping[str, Scalar],
        combination: Mapping[str, Scalar],
    ) -> dict[str, Any]:
        """What templates see: the variables, the parameters that are not text, and the record behind the row.

        The parameters are in normal form, so that a default said and a default left out give the same text. The nearest
        wins: what the row says, then its record, then axes and defaults.
        """
        variables = seen(variables)
        others = {name: value for name, value in given.items() if name not in self.model.text_parameters}
        params, _ = self.model.normalise(others)
        visible: dict[str, Any] = {name: params[name] for name in params if name not in self.model.text_parameters}
        if row.record is None:
            return visible | self._row_in_sight(row, text) | dict(variables)
        near = {
            name: value
            for name, value in variables.items()
            if name in row.cells or name in row.sweep.axes or name not in row.record
        }
        own = {name: variables[name] for name in combination if name in variables and name in set(row.sweep.names())}
        return {**scope(row.record), **visible, **near, **own}

    def _row_in_sight(self, row: Row, text: str) -> dict[str, Any]:
        """The row under the name `row`, where a template asks for it."""
        return {"row": scope(row.as_record())["row"]} if "row" in text else {}

    def _job(self, row: Row, prompt: str, form: Form, replicate: int, label: str) -> Job:
        """The job for a prompt; the one that is there already if it was asked for before."""
        if len(form.kinds) < replicate:
            form.add_kind()
        kind, identify = form.kinds[replicate - 1]
        identity = identify(prompt)
        job = self._jobs.get(identity)
        if job is None:
            job = self._jobs[identity] = Job(identity, prompt, kind, label)
        elif (first := self._rows_of_jobs.of(identity, len(self.entries), self._job_and_row)) == self.rows:
            self._warn(row, "two combinations of this row ask for the very same video; they share one job and one bill")
        else:
            place = self._place(first)
            self._warn(row, f"asks for the very same video as {place}; they share one job and one bill")
        return job

    def _id_and_row(self, at: int) -> tuple[str | None, int]:
        return self._row_ids[at], at + 1

    def _job_and_row(self, at: int) -> tuple[str, int]:
        entry = self.entries[at]
        return entry.job.job_id, entry.row

    def _place(self, row: int) -> str:
        """A row, counted through all files, as messages name it."""
        place = self._places.get(row, row)
        return f"row {place}" if isinstance(place, int) else f"row {place[0]} of {place[1]}"

    def _mistake(self, row: Row, name: str, message: str) -> None:
        shared = name not in row.lines and name in self.document.shared.lines and name not in row.cells
        if (line := row.outright.get(name)) is not None:
            self.mistakes.add(f"{message} ({self._place(self.rows)})", column=name, line=line)
        elif shared and row.file not in (None, self.mistakes.file):
            # The value stands in the manifest, the row elsewhere: say the one, and name the other.
            line = self.document.shared.lines[name]
            self.mistakes.add(f"{message} ({self._place(self.rows)})", column=name, line=line)
        else:
            at = self.document.shared.lines[name] if shared else row.line_of(name)
            self.mistakes.add(message, row=row.number, column=name, line=at, file=row.file)

    def _warn(self, row: Row, message: str, column: str | None = None, line: int | None = None) -> None:
        self.mistakes.warn(message, row=row.number, column=column, line=line or row.line, file=row.file)


def _label(prompt: str) -> str:
    """The readable part of file names for a row without an id."""
    return slug(prompt, SLUG_LENGTH) or "row"


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
