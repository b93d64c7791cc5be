"""Turns a manifest as written into its entries: every row times every combination times every replicate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline.jobs import Job
from pipeline.manifest.batches import Batch
from pipeline.manifest.campaign import ORDERS, Campaign, Entries
from pipeline.manifest.combining import Combining
from pipeline.manifest.document import Document, Row
from pipeline.manifest.images import LocalImages
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.names import Names
from pipeline.manifest.requests import Requests
from pipeline.manifest.row_ids import ID, ID_RULE, RowIds
from pipeline.manifest.row_settings import NO_SETTINGS, SETTINGS, Settings, settings_of
from pipeline.manifest.rows import FirstRows, Rows
from pipeline.manifest.sharing import Common, Form, Sharing
from pipeline.manifest.sizes import Sizes
from pipeline.models import DEFAULT_MODEL, Model, find_model

BATCH_ROWS = 300
SLUG_LENGTH = 40


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
        expansion.sizes.foresee(batch)
        if not names.are_known(batch) or not expansion.add_plain(batch):
            for row in batch.rows:
                names.check(row)
                expansion.add_row(row)
    if not expansion.rows.count and not len(mistakes):
        mistakes.add("asks for nothing; it needs a row with a prompt at least")
    names.finish()
    expansion.combining.warn_idle()
    mistakes.raise_if_any()
    expansion.entries.distinct = len(expansion.jobs)
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
                f"the file's name gives the run directory {name!r}, because only ASCII letters can be used, and "
                "another manifest may give the same; use --out, or `name:` in a YAML manifest"
            )
        return name
    if not ID.fullmatch(document.name):
        mistakes.add(f"{document.name[:70]!r} is no name; use {ID_RULE}", column="name", line=document.lines["name"])
    return document.name


def _model(document: Document, mistakes: Mistakes) -> Model | None:
    try:
        return find_model(DEFAULT_MODEL if document.model is None else document.model)
    except ValueError as error:
        mistakes.add(str(error), column="model", line=document.lines.get("model"))
        return None


# --- rows to entries ---


class _Expansion:
    """The entries of one manifest, made as its rows come by."""

    def __init__(self, document: Document, model: Model, mistakes: Mistakes, images: LocalImages) -> None:
        self.model = model
        self.images = images
        self.shared = document.shared
        self.entries = Entries()
        self.jobs: dict[str, Job] = {}
        self.rows = Rows(document.shared, mistakes)
        self.sizes = Sizes(self.rows)
        self.sharing = Sharing(model)
        self.combining = Combining(self.rows, self.sizes)
        self.requests = Requests(model, images, self.rows, self.sizes, self.sharing)
        self.ids = RowIds(self.rows)
        self._rows_of_jobs = FirstRows()
        self._is_plain = SETTINGS.isdisjoint(document.shared.cells)
        """Whether `defaults` sets none of `count`, `priority`, `model` and `tags`."""

    def add_row(self, row: Row) -> None:
        """Add all entries of a row."""
        self.rows.enter(row)
        is_plain = self._is_plain and SETTINGS.isdisjoint(row.cells)
        settings = NO_SETTINGS if is_plain else settings_of(row, self.rows, self.model)
        self._add_entries(row, self.ids.of(row), settings)

    def _add_entries(self, row: Row, row_id: str | None, settings: Settings) -> None:
        """Add all entries of the latest row."""
        found = self.combining.of(row)
        self.sizes.add_entries(len(found) * settings.count, row)
        shared = self.shared.cells
        for combination in found:
            cells = {**shared, **row.cells, **combination} if combination or shared else row.cells
            request = self.requests.of(row, cells, combination, settings.tags)
            if request is None:
                continue
            prompt, form, variables = request
            label = row_id or _label(prompt)
            for replicate in range(1, settings.count + 1):
                job = self._job(row, prompt, form, replicate, label)
                self.entries.add(self.rows.count, label, job, variables, settings.priority, combination, settings.tags)

    def _job(self, row: Row, prompt: str, form: Form, replicate: int, label: str) -> Job:
        """The job for a prompt; if an earlier entry asked for it, that entry's job, with a warning."""
        if len(form.kinds) < replicate:
            form.add_kind()
        kind, identify = form.kinds[replicate - 1]
        identity = identify(prompt)
        job = self.jobs.get(identity)
        if job is None:
            job = self.jobs[identity] = Job(identity, prompt, kind, label)
            return job
        first = self._rows_of_jobs.of(identity, len(self.entries), self._job_and_row)
        what = "two combinations of this row ask for the very same video"
        if first != self.rows.count:
            what = f"asks for the very same video as {self.rows.place(first)}"
        self.rows.warn(row, f"{what}; they share one job and one bill")
        return job

    def _job_and_row(self, at: int) -> tuple[str, int]:
        entry = self.entries[at]
        return entry.job.job_id, entry.row

    # --- many rows at once ---

    def add_plain(self, batch: Batch) -> bool:
        """Add all entries of a batch at once, as `add_row` would, if its rows are as plain as those of most tables.

        The caller has checked that `Names` knows them. Plain rows have values and an id only, no settings and no sweep,
        follow each other in the manifest's own file, and have nothing wrong with their ids and prompts. Returns whether
        the rows are plain; if not, nothing has changed.
        """
        shared = self.shared.cells
        if (
            not self._is_plain
            or self.shared.sweep
            or "{" in str(shared.get("prompt", ""))
            or not batch.has_none_of(SETTINGS)
            or not batch.follows(self.rows.count, self.rows.mistakes.file)
        ):
            return False
        try:
            prompts = self.model.normal_prompts(batch.column("prompt", shared.get("prompt")))
        except ValueError:
            return False
        has_room = self.sizes.have_room_for(len(batch), sum(map(len, prompts)))
        if not has_room or (ids := self.ids.of_each(batch)) is None:
            return False
        self._add_plain(batch, ids, prompts, self.sharing.common_of_each(batch, shared))
        return True

    def _add_plain(
        self, batch: Batch, ids: Sequence[str | None], prompts: Sequence[str], common: Sequence[Common | None]
    ) -> None:
        """Add the entries of the next rows, with prompts in normal form: together if no row needs a closer look."""
        labels = [row_id or _label(prompt) for row_id, prompt in zip(ids, prompts, strict=True)]
        usual_length = self.model.usual_prompt_length
        jobs = [
            None if each is None or len(prompt) > usual_length else each[0].first_job(prompt, label)
            for each, prompt, label in zip(common, prompts, labels, strict=True)
        ]
        new = {job.job_id: job for job in jobs if job is not None}
        if len(new) == len(batch) and self.jobs.keys().isdisjoint(new):
            variables = [each[1] for each in common if each is not None]
            self.jobs.update(new)
            self.entries.extend_plain(self.rows.count + 1, labels, new.values(), variables)
            self.rows.count += len(batch)
            self.sizes.add(len(batch), sum(map(len, prompts)))
            return
        for row, row_id, label, job, each in zip(batch.rows, ids, labels, jobs, common, strict=True):
            self.rows.count += 1
            if job is None or each is None or self.jobs.setdefault(job.job_id, job) is not job:
                self._add_entries(row, row_id, NO_SETTINGS)
                continue
            self.entries.extend_plain(self.rows.count, (label,), (job,), each[1:])
            self.sizes.add(1, len(job.prompt))


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
