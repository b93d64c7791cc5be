"""The tables: a line for every row and replicate, and a line for every attempt that did not end well. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.kernel.arrow import by_name, pc, values_of
from pipeline.kernel.clock import duration, iso
from pipeline.kernel.errors import ERROR_CLASSES, Charge, Reaction
from pipeline.kernel.usd import format_usd
from pipeline.ledger.distinct import are_distinct
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.records import Found
from pipeline.models import find_model
from pipeline.report.columns import Column, iso_texts, joined, mapped, typed, unless_zero
from pipeline.report.lines import LINES_AT_ONCE, Key, Line, Lines, as_lines, keys_of

STATUS = {
    JobState.STORED: "stored",
    JobState.FAILED: "failed",
    JobState.IN_DOUBT: "in_doubt",
    JobState.RESERVED: "running",
    JobState.SUBMITTED: "running",
    JobState.POSTED: "unfetched",
    JobState.VOIDED: "pending",
}
"""The word in the tables for where a job stands; a job without any attempt is `pending`."""

RESULT_COLUMNS = {
    "row": "Int64",
    "id": "string",
    "replicate": "Int64",
    "job_id": "string",
    "status": "string",
    "video": "string",
    "sha256": "string",
    "bytes": "Int64",
    "duration_s": "Float64",
    "width": "Int64",
    "height": "Int64",
    "cost_usd": "string",
    "attempts": "Int64",
    "request_id": "string",
    "submitted_at": "string",
    "finished_at": "string",
    "queue_s": "Float64",
    "inference_s": "Float64",
    "error_class": "string",
    "error": "string",
}
"""The fixed columns of results.csv, in order, with their pandas types."""

OF_ONE_LINE = frozenset(
    {"row", "id", "job_id", "video", "sha256", "request_id", "submitted_at", "finished_at", "prompt"}
)
"""Columns whose values hardly any two lines have in common."""

ERROR_COLUMNS = {
    "row": "Int64",
    "id": "string",
    "job_id": "string",
    "attempt": "Int64",
    "at": "string",
    "http_status": "Int64",
    "error_class": "string",
    "billed": "string",
    "request_id": "string",
    "error": "string",
    "next": "string",
}
"""The columns of errors.csv, in order, with their pandas types."""


def status_of(state: State, job_id: str, *, live: bool = False) -> str:
    """The status of a job, in the word of the tables.

    Args:
        live: whether a run holds the directory now. At rest nobody waits for an answer: what is reserved is in doubt.
    """
    return status_word(state.state_of(job_id), live=live)


def status_word(state: JobState | None, *, live: bool) -> str:
    """The word of the tables for where a job stands; None is before its first attempt."""
    if state is None:
        return "pending"
    return STATUS[JobState.IN_DOUBT if state is JobState.RESERVED and not live else state]


def _outcomes(lines: Lines, bills: Any, found: Found, *, live: bool) -> pa.Table:
    """The fixed columns of results.csv: a row per row and replicate, in the order of the manifest.

    Args:
        bills: for each line whether it is the first that asks for its job: the cost stands there, so that the column
            adds up to the bill.
        found: where the job of each line is kept.
        live: whether a run holds the directory now.
    """
    facts = found.columns(_FACTS)
    stands = facts["state"]
    is_stored = pc.equal(stands, JobState.STORED.name)
    is_paid = pc.or_kleene(is_stored, pc.equal(stands, JobState.POSTED.name))
    is_over = pc.or_kleene(is_stored, pc.equal(stands, JobState.FAILED.name))

    def where(holds: object, column: str) -> Any:
        # Without a copy where it holds for all, as in most parts.
        is_all = pc.all(holds, skip_nulls=False).as_py()
        return facts[column] if is_all else pc.if_else(holds, facts[column], None)

    paid_here = pc.and_(pc.fill_null(is_paid, fill_value=False), bills)
    columns: dict[str, Any] = {
        "row": lines.column("row"),
        "id": lines.column("id"),
        "replicate": lines.column("replicate").cast(pa.int64()),
        "job_id": lines.column("job_id"),
        "status": mapped(stands, lambda name: status_word(JobState[name] if name else None, live=live)),
        "video": where(is_stored, "path"),
        "sha256": where(is_stored, "sha256"),
        "bytes": where(is_stored, "bytes"),
        "duration_s": where(is_stored, "duration_s"),
        "width": unless_zero(where(is_stored, "width")),
        "height": unless_zero(where(is_stored, "height")),
        "cost_usd": mapped(pc.if_else(paid_here, facts["cost_microusd"], 0), lambda micro: format_usd(micro or 0)),
        "attempts": pc.fill_null(facts["attempt"], 0),
        "request_id": facts["request_id"],
        "submitted_at": iso_texts(facts["submitted_us"]),
        "finished_at": iso_texts(where(is_over, "ended_us")),
        "queue_s": where(is_paid, "queue_s"),
        "inference_s": where(is_paid, "inference_s"),
        "error_class": facts["error_class"],
        "error": where(pc.is_valid(facts["error_class"]), "error"),
    }
    return pa.table({name: columns[name] for name in RESULT_COLUMNS})


_FACTS = (
    *("state", "attempt", "cost_microusd", "request_id", "error_class", "error", "submitted_us", "ended_us", "path"),
    *("sha256", "bytes", "duration_s", "width", "height", "queue_s", "inference_s"),
)


def are_first(job_ids: pa.ChunkedArray[Any], state: State) -> pa.Array[Any]:
    """For each line whether it is the first that asks for its job."""
    if state.jobs.are(job_ids) or are_distinct(job_ids):
        return pa.array(np.ones(len(job_ids), dtype=bool))
    # Jobs are numbered in the order of first mention, so a first mention has a number above all before it.
    numbers = np.asarray(job_ids.combine_chunks().dictionary_encode().indices)
    highest_before = np.concatenate([[-1], np.maximum.accumulate(numbers)[:-1]])
    return pa.array(numbers > highest_before[: len(numbers)], pa.bool_())


def results_in_parts(
    lines: Sequence[Line], state: State, *, live: bool = False
) -> Iterator[tuple[dict[str, Column], pa.Table]]:
    """The columns of results.csv, some ten thousand lines at a time: as they are, and each of one type.

    The fixed ones come first, then every parameter, then every variable, as the rows have it. There is always a part.

    Args:
        live: whether a run holds the directory now.
    """
    known = as_lines(lines)
    names = extra_columns(known.models, known.variables, RESULT_COLUMNS)
    asked = {names[name]: column for name, column in known.asked(list(names)).items()}
    of_one_type = typed(asked)
    bills = are_first(known.column("job_id"), state)
    found = state.jobs.find(known.column("job_id"))
    for first in range(0, max(1, len(known)), LINES_AT_ONCE):
        part = slice(first, first + LINES_AT_ONCE)
        fixed = _outcomes(known.part(first), bills[part], found[part], live=live)
        others = {name: column[part] for name, column in asked.items()}
        typed_others = of_one_type.slice(first, LINES_AT_ONCE)
        yield (
            by_name(fixed) | others,
            pa.table(by_name(fixed) | by_name(typed_others)),
        )


def results_by_columns(lines: Sequence[Line], state: State, *, live: bool = False) -> dict[str, Column]:
    """The columns of `results_in_parts`, as they are, of all lines.

    Args:
        live: whether a run holds the directory now.
    """
    parts = [columns for columns, _ in results_in_parts(lines, state, live=live)]
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def results(lines: Sequence[Line], state: State, *, live: bool = False) -> list[dict[str, Any]]:
    """The lines of results.csv as they are before they are text, whatever became of each.

    Args:
        live: whether a run holds the directory now.
    """
    columns = results_by_columns(lines, state, live=live)
    return [dict(zip(columns, row, strict=True)) for row in zip(*map(values_of, columns.values()), strict=True)]


def result_columns(lines: Sequence[Line]) -> list[str]:
    """The name of every column of the results, in order."""
    known = as_lines(lines)
    return [*RESULT_COLUMNS, *extra_columns(known.models, known.variables, RESULT_COLUMNS).values()]


def extra_columns(models: Iterable[str], variables: Collection[str], fixed: Collection[str]) -> dict[str, str]:
    """Every parameter, then every variable, to the column that shows it; fixed columns keep their names."""
    names: dict[str, str] = {}
    for model in models:
        names |= {name: name for name in find_model(model).parameters}
    variables = [name for name in variables if name not in names]
    for name in variables:
        column = name
        while column in fixed or (column != name and (column in variables or column in names)):
            column = f"variable_{column}"
        names[name] = column
    return names


def errors(lines: Sequence[Line] | Sequence[Key], state: State) -> list[dict[str, Any]]:
    """A line per attempt that did not end well, oldest first, with what happened next and what to do."""
    latest: dict[tuple[str | None, int], Event] = {}
    for trouble in state.troubles:
        if trouble.event is not EventKind.FAILED:
            latest[trouble.job_id, trouble.attempt] = trouble
    first_line = _first_lines(lines, {job_id for job_id, _ in latest})
    held = why_in_doubt(state)
    again = _how_to_try_again(state)
    rows = []
    for trouble in latest.values():
        assert trouble.job_id is not None
        record = state.jobs[trouble.job_id]
        if _ended_well(record, trouble):
            continue
        mine = first_line.get(trouble.job_id)
        rows.append(
            {
                "row": mine.row if mine else None,
                "id": mine.id if mine else None,
                "job_id": trouble.job_id,
                "attempt": trouble.attempt,
                "at": iso(trouble.at_us),
                "http_status": trouble.http_status or None,
                "error_class": trouble.error_class,
                "billed": _billed(record, trouble),
                "request_id": trouble.request_id,
                "error": trouble.detail,
                "next": _next(
                    record, trouble, state.tried_again_us.get((trouble.job_id, trouble.attempt + 1)), held, again
                ),
            }
        )
    return rows


def why_in_doubt(state: State) -> dict[str, str]:
    """What held those in doubt that still are, when the last run ended, by `JobRecord.attempt_name`."""
    said = state.runs[-1].outcome.get("why_in_doubt") if state.runs else None
    if not isinstance(said, dict):
        return {}
    doubted = [record.attempt_name for record in state.in_state(JobState.IN_DOUBT)]
    return {name: str(said[name]) for name in doubted if name in said}


def _first_lines(lines: Sequence[Line] | Sequence[Key], job_ids: Collection[str | None]) -> dict[str, Key]:
    """The first line that asks for each of these jobs."""
    first: dict[str, Key] = {}
    if job_ids:
        for key in keys_of(lines).asking([each for each in job_ids if each is not None]):
            first.setdefault(key.job_id, key)
    return first


def _ended_well(record: JobRecord, trouble: Event) -> bool:
    """A doubt that was settled, or a download that was made good, is no error any more."""
    went_on = record.state in (JobState.SUBMITTED, JobState.POSTED, JobState.STORED)
    return record.attempt == trouble.attempt and went_on and record.error_class is None


def _billed(record: JobRecord, trouble: Event) -> str:
    if record.attempt != trouble.attempt or record.state in (JobState.VOIDED, JobState.FAILED):
        return Charge.NO.value
    if record.state in (JobState.POSTED, JobState.STORED):
        return Charge.YES.value
    return Charge.UNKNOWN.value


TRIED_AGAIN = "Tried again"
"""How it begins what came after an attempt that another one followed."""

_TRY_AGAIN = {
    "cap": "Another attempt is left: raise the cap, then run again.",
    "deadline": "Another attempt is left: run again, with a later deadline.",
    "credits": "Another attempt is left: top the account up, then run again.",
}
"""What to do about an attempt that waits for another, by what stopped the last run."""


def _how_to_try_again(state: State) -> str:
    """What brings another attempt to those that have one left."""
    last = state.runs[-1] if state.runs else None
    if last is None or last.ended_us is None:
        return "Not tried again yet: the run does so while it lasts; once it has ended, run again."
    return _TRY_AGAIN.get(str(last.outcome.get("stopped_by")), "Another attempt is left: run again.")


def _next(record: JobRecord, trouble: Event, again_us: int | None, held: Mapping[str, str], try_again: str) -> str:
    """What the pipeline did after this attempt, and what the user can do.

    Args:
        again_us: when the next one began.
        held: see `why_in_doubt`.
        try_again: what is said where no attempt has followed and one is left.
    """
    error_class = ERROR_CLASSES.get(trouble.error_class or "")
    advice = error_class.advice if error_class else "See run.log for what happened."
    if again_us is not None:
        # Negative where the wall clock was set back.
        waited_s = (again_us - trouble.at_us) / 1e6
        when = f"after {duration(waited_s)}" if waited_s >= 1 else "at once"
        return f"{TRIED_AGAIN} {when}: attempt {trouble.attempt + 1} followed."
    reaction = error_class.reaction if error_class else None
    if record.state is JobState.FAILED:
        again = "Run again with --retry-failed to try it anew."
        return f"Given up. {again if reaction is Reaction.RETRY_COUNTED else advice}"
    if record.state is JobState.VOIDED and reaction is not Reaction.STOP_ACCOUNT:
        return try_again
    why = held.get(record.attempt_name)
    return f"{advice} When the last run ended, {why}." if why else advice
