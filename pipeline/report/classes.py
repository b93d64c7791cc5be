"""Errors by their class: how many, what they cost, and what is to be done about each. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.kernel.errors import ERROR_CLASSES, Charge, Reaction
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.report.lines import Key, Line
from pipeline.report.tables import TRIED_AGAIN, errors

FILE = "errors-by-class.csv"

COLUMNS = {
    "error_class": "string",
    "attempts": "Int64",
    "jobs": "Int64",
    "jobs_open": "Int64",
    "billed": "Int64",
    "billed_usd": "string",
    "unknown": "Int64",
    "unknown_usd": "string",
    "not_billed": "Int64",
    "next": "string",
}
"""The columns of errors-by-class.csv, in order, with their pandas types."""

_RETRIES = (Reaction.RETRY_COUNTED, Reaction.RETRY_FREE, Reaction.PAUSE)

NOTHING_TO_DO = "Nothing: each of these jobs has its video by now."


def errors_by_class(lines: Sequence[Line] | Sequence[Key], state: State) -> list[dict[str, Any]]:
    """A line per class of the attempts that did not end well, the most frequent first.

    `attempts` are those of errors.csv: `billed` of them cost `billed_usd`, of `unknown` it is not known yet and at most
    `unknown_usd`, and `not_billed` cost nothing. `jobs_open` of the `jobs` still need something.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for error in errors(lines, state):
        found.setdefault(error["error_class"] or "", []).append(error)
    ordered = sorted(found.items(), key=lambda each: (-len(each[1]), each[0]))
    return [_summed(label, attempts, state) for label, attempts in ordered]


def _summed(label: str, attempts: Sequence[Mapping[str, Any]], state: State) -> dict[str, Any]:
    of = {charge: [each["job_id"] for each in attempts if each["billed"] == charge.value] for charge in Charge}
    jobs = {each["job_id"] for each in attempts}
    is_open = [job_id for job_id in jobs if _is_open(state, job_id)]
    known = ERROR_CLASSES.get(label)
    advice = known.advice if known else "See run.log for what happened."
    if known is not None and known.reaction in _RETRIES and state.runs and state.runs[-1].ended_us is not None:
        advice = _at_rest(advice, [each["next"] for each in attempts])
    return {
        "error_class": label,
        "attempts": len(attempts),
        "jobs": len(jobs),
        "jobs_open": len(is_open),
        "billed": len(of[Charge.YES]),
        # An attempt that is billed, or may be, is the latest of its job, so the cost or quote of the job is its money.
        "billed_usd": format_usd(sum(state.jobs[job_id].cost_microusd for job_id in of[Charge.YES])),
        "unknown": len(of[Charge.UNKNOWN]),
        "unknown_usd": format_usd(sum(state.jobs[job_id].quote_microusd for job_id in of[Charge.UNKNOWN])),
        "not_billed": len(of[Charge.NO]),
        "next": advice if is_open else NOTHING_TO_DO,
    }


def _at_rest(advice: str, nexts: Sequence[str]) -> str:
    """The advice without that it is tried again, which only a run that lasts does, and with what is needed instead."""
    left = Counter(each for each in nexts if not each.startswith(TRIED_AGAIN))
    if not left:
        return advice
    told, _ = left.most_common(1)[0]
    return " ".join([*(each for each in re.split(r"(?<=\.) ", advice) if "tried again" not in each), told])


def _is_open(state: State, job_id: str) -> bool:
    """Whether a job has no video, or one that is not as asked."""
    record = state.jobs[job_id]
    return record.state is not JobState.STORED or record.error_class is not None
