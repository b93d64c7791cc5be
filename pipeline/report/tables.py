"""The tables: a line for every row and replicate, and a line for every attempt that did not end well. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pipeline.kernel.clock import iso
from pipeline.kernel.errors import ERROR_CLASSES, Charge, Reaction
from pipeline.kernel.usd import format_usd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import JobRecord, JobState, State
from pipeline.models import find_model
from pipeline.report.entries import Key, Line

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
    standing = state.state_of(job_id)
    return "pending" if standing is None else status_word(standing, live=live)


def status_word(state: JobState, *, live: bool) -> str:
    """The word of the tables for where a job stands."""
    return STATUS[JobState.IN_DOUBT if state is JobState.RESERVED and not live else state]


def results(lines: Sequence[Line], state: State, *, live: bool = False) -> list[dict[str, Any]]:
    """A line per row and replicate, in the order of the manifest, whatever became of it.

    Rows that share a job each have their line; the cost stands on the first, so that the column adds up to the bill.

    Args:
        live: whether a run holds the directory now.
    """
    extra = _extra_columns(lines)
    rows = []
    costed: set[str] = set()
    for line in lines:
        record = state.jobs.get(line.job_id)
        row: dict[str, Any] = {
            "row": line.row,
            "id": line.id,
            "replicate": line.replicate,
            "job_id": line.job_id,
            "status": status_of(state, line.job_id, live=live),
            "cost_usd": format_usd(0),
            "attempts": 0,
        }
        if record is not None:
            row |= _outcome(record)
            if line.job_id in costed:
                row["cost_usd"] = format_usd(0)
            costed.add(line.job_id)
        for name, column in extra.items():
            row[column] = line.params[name] if name in line.params else line.variables.get(name)
        rows.append(row)
    return rows


def _outcome(record: JobRecord) -> dict[str, Any]:
    stored = record.state is JobState.STORED
    paid = record.state in (JobState.STORED, JobState.POSTED)
    return {
        "video": record.path if stored else None,
        "sha256": record.sha256 if stored else None,
        "bytes": record.bytes if stored else None,
        "duration_s": record.duration_s if stored else None,
        "width": (record.width or None) if stored else None,
        "height": (record.height or None) if stored else None,
        "cost_usd": format_usd(record.cost_microusd) if paid else format_usd(0),
        "attempts": record.attempt,
        "request_id": record.request_id,
        "submitted_at": iso(record.submitted_us),
        "finished_at": iso(record.ended_us) if stored or record.state is JobState.FAILED else None,
        "queue_s": record.queue_s if paid else None,
        "inference_s": record.inference_s if paid else None,
        "error_class": record.error_class,
        "error": record.error if record.error_class else None,
    }


def _extra_columns(lines: Sequence[Line]) -> dict[str, str]:
    models = dict.fromkeys(line.model for line in lines)
    return extra_columns(models, dict.fromkeys(name for line in lines for name in line.variables), RESULT_COLUMNS)


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


def result_types(lines: Sequence[Line]) -> dict[str, str]:
    """Every column of the results with its pandas type; parameters and variables keep what they are."""
    return RESULT_COLUMNS | dict.fromkeys(_extra_columns(lines).values(), "object")


def errors(lines: Sequence[Line] | Sequence[Key], state: State) -> list[dict[str, Any]]:
    """A line per attempt that did not end well, oldest first, with what happened next and what to do."""
    first_line: dict[str, Line | Key] = {}
    for line in lines:
        first_line.setdefault(line.job_id, line)
    latest: dict[tuple[str | None, int], Event] = {}
    for trouble in state.troubles:
        if trouble.event is not EventKind.FAILED:
            latest[trouble.job_id, trouble.attempt] = trouble
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
                "request_id": record.request_id if record.attempt == trouble.attempt else trouble.request_id,
                "error": trouble.detail,
                "next": _next(record, trouble, state.tried_again_us.get((trouble.job_id, trouble.attempt + 1))),
            }
        )
    return rows


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


def _next(record: JobRecord, trouble: Event, again_us: int | None) -> str:
    """What the pipeline did after this attempt, and what the user can do; `again_us` is when the next one began."""
    error_class = ERROR_CLASSES.get(trouble.error_class or "")
    advice = error_class.advice if error_class else "See run.log for what happened."
    if again_us is not None:
        return f"Tried again after {_waited(again_us - trouble.at_us)}: attempt {trouble.attempt + 1} followed."
    reaction = error_class.reaction if error_class else None
    if record.state is JobState.FAILED:
        again = "Run again with --retry-failed to try it anew."
        return f"Given up. {again if reaction is Reaction.RETRY_COUNTED else advice}"
    if record.state is JobState.VOIDED and reaction is not Reaction.STOP_ACCOUNT:
        return "Not tried again yet: the run does so while it lasts; once it has ended, run again."
    return advice


def _waited(us: int) -> str:
    """How long the next attempt was waited for; no time at all where the wall clock was set back."""
    seconds = us / 1e6
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
