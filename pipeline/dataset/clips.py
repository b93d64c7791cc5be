"""Which clips are exported, under which names, and what is said of each. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.kernel.arrow import pc, values_of
from pipeline.kernel.errors import InputError
from pipeline.kernel.suggestion import suggestion
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.report import tables
from pipeline.report.columns import iso_texts, mapped, typed, unless_zero
from pipeline.report.lines import LINES_AT_ONCE, Line, Lines, as_lines

MAX_STEM = 90
"""Characters of a file's stem: with its ending it fits the plain header of a tar archive, 100 bytes."""

COLUMNS = {
    "video": "string",
    "id": "string",
    "replicate": "Int64",
    "job_id": "string",
    "model": "string",
    "sha256": "string",
    "bytes": "Int64",
    "duration_s": "Float64",
    "width": "Int64",
    "height": "Int64",
    "cost_usd": "string",
    "finished_at": "string",
    "not_as_asked": "string",
}
"""The fixed columns of a data set, in order, with their pandas types; then every parameter and variable."""

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ExportedClip(NamedTuple):
    """A stored video that is to be exported: the first row that asked for it, and the stem of its file there."""

    id: str
    job_id: str
    stem: str
    path: str | None
    poster: str | None
    sha256: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Clips(Iterable[ExportedClip]):
    """The clips of an export, kept in columns: a million of them as objects would take five gigabytes."""

    lines: Lines
    """The first line that asks for each."""
    facts: pa.Table
    """What the ledger says of each, in columns of `ledger.records.COLUMNS`."""
    stems: list[str]

    def __len__(self) -> int:
        return len(self.stems)

    def __iter__(self) -> Iterator[ExportedClip]:
        for first in range(0, len(self), LINES_AT_ONCE):
            keys = self.lines.part(first).keys
            facts = self.facts.slice(first, LINES_AT_ONCE)
            columns = (facts[name].to_pylist() for name in ExportedClip._fields[3:])
            yield from map(ExportedClip, keys.ids, keys.job_ids, self.stems[first : first + LINES_AT_ONCE], *columns)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is exported, and what is not. Counts are jobs of the manifest."""

    clips: Clips
    not_stored: Mapping[str, int]
    """Jobs that the conditions let through and that have no video, by their status."""
    passed_over: int
    """Stored videos that the conditions leave out."""


Conditions = Mapping[str, Sequence[str]]
"""For each column the values that are wanted: its cell must be one of them."""


def parse_conditions(texts: Iterable[str]) -> Conditions:
    """Conditions as they are given, `column=value` each.

    Raises:
        InputError: one is not of this form.
    """
    wanted: dict[str, list[str]] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise InputError(f"--where: {text[:60]!r} is no condition; write it like --where mood=cozy")
        wanted.setdefault(column.strip(), []).append(value.strip())
    return wanted


def choose_clips(lines: Sequence[Line], state: State, where: Conditions, *, dots: bool = True) -> Choice:
    """The clips for which `where` is true, each once, in the order of the manifest.

    Args:
        dots: whether a file's stem may have dots in it.

    Raises:
        InputError: a condition names a column that the results do not have.
    """
    known = as_lines(lines)
    _check_columns(where, {"model", *tables.result_columns(known)})
    job_ids = known.keys.job_ids
    first: dict[str, int] = {}
    passed_over: set[str] = set()
    for number, (job_id, is_wanted) in enumerate(zip(job_ids, _are_wanted(known, state, where), strict=True)):
        if is_wanted:
            first.setdefault(job_id, number)
        else:
            passed_over.add(job_id)
    stands = state.states_of(list(first))
    stored = [job_id for job_id, stand in zip(first, stands, strict=True) if stand is JobState.STORED]
    facts = state.jobs.columns(_FACTS, stored)
    # Mostly all lines are exported. Then they are used as they are: a copy of a million would only take memory.
    asked = known if len(stored) == len(known) else known.take([first[job_id] for job_id in stored])
    return Choice(
        clips=Clips(asked, facts, _stems(stored, facts["path"], dots=dots)),
        not_stored=Counter(tables.status_word(each, live=False) for each in stands if each is not JobState.STORED),
        passed_over=state.count(list(passed_over - first.keys()))[JobState.STORED],
    )


_FACTS = (
    *("path", "poster", "sha256", "bytes", "duration_s", "width", "height", "cost_microusd", "ended_us"),
    *("error_class", "error"),
)


def _are_wanted(lines: Lines, state: State, where: Conditions) -> Iterable[bool]:
    """For each line whether every condition is true; of several for one column, one is enough."""
    if not where:
        return itertools.repeat(True, len(lines))
    columns = tables.results_by_columns(lines, state)
    # The results have no column for the model, because there is only one; a condition may name it all the same.
    columns["model"] = lines.column("model")
    cells = [values_of(columns[name]) for name in where]
    return [
        all(_is_one_of(name, cell, texts) for (name, texts), cell in zip(where.items(), row, strict=True))
        for row in zip(*cells, strict=True)
    ]


def _is_one_of(column: str, cell: object, texts: Sequence[str]) -> bool:
    return any(_is_equal(column, cell, text) for text in texts)


def _check_columns(where: Conditions, known: Collection[str]) -> None:
    for column in where:
        if column not in known:
            names = sorted(known)
            advice = suggestion(column, names, quote="'", otherwise=f"known: {', '.join(names)[:300]}")
            raise InputError(f"--where: the results have no column {column[:60]!r}; {advice}")


def _is_equal(column: str, cell: object, text: str) -> bool:
    """Whether a cell is what a person wrote: numbers by value, tags one by one; an empty cell equals an empty text."""
    if cell is None:
        return not text
    if isinstance(cell, bool):
        return str(cell).lower() == text.lower()
    if isinstance(cell, int | float):
        try:
            return float(text) == cell
        except ValueError:
            return False
    return cell == text or (column == "tags" and text in str(cell).split(", "))


def _stems(job_ids: Iterable[str], paths: pa.ChunkedArray[Any], *, dots: bool) -> list[str]:
    """The stems that the videos have in the run directory; the job id where one cannot be used or is taken."""
    stems: list[str] = []
    taken: set[str] = set()
    for job_id, path in zip(job_ids, paths.to_pylist(), strict=True):
        stem = PurePosixPath(path or "").stem
        if not dots:
            # A reader of the archives takes everything behind the first dot for the ending.
            stem = stem.replace(".", "_")
        # Names that differ in nothing but case are one file on some disks.
        if len(stem) > MAX_STEM or not _STEM.fullmatch(stem) or stem.lower() in taken:
            stem = job_id
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def clips_table(clips: Clips, lead: str) -> pa.Table:
    """The table of the clips. Each column has one type, so that every reader finds the same one.

    Args:
        lead: what the path of each video begins with.
    """
    lines, facts = clips.lines, clips.facts
    names = tables.extra_columns(lines.models, lines.variables, {*COLUMNS, "file_name", "status"})
    fixed = {
        "video": pa.array([f"{lead}{stem}.mp4" for stem in clips.stems], pa.string()),
        "id": lines.column("id"),
        "replicate": lines.column("replicate").cast(pa.int64()),
        "job_id": lines.column("job_id"),
        "model": lines.column("model"),
        "sha256": facts["sha256"],
        "bytes": facts["bytes"],
        "duration_s": facts["duration_s"],
        "width": unless_zero(facts["width"]),
        "height": unless_zero(facts["height"]),
        "cost_usd": mapped(facts["cost_microusd"], format_usd),
        "finished_at": iso_texts(facts["ended_us"]),
        "not_as_asked": pc.if_else(pc.is_valid(facts["error_class"]), facts["error"], None),
    }
    asked = lines.asked(list(names))
    return typed(fixed | {column: asked[name] for name, column in names.items()})
