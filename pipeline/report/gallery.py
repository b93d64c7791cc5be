"""The gallery: one page, complete in itself, that shows what a run directory holds. Pure: facts in, bytes out.

The page opens from the disk without a server. What is in it comes from the manifest and the provider, so it is data:
the facts travel as JSON that no HTML parser can misread, and the page's script writes them as text and nothing else.
The policy in its head allows this one script and this one style, by their hashes, and files beside the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from pipeline.kernel.arrow import array_of, values_of
from pipeline.kernel.errors import ERROR_CLASSES, ErrorClass
from pipeline.kernel.usd import parse_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.records import Found
from pipeline.models import find_model
from pipeline.models.values import spelled
from pipeline.report.charts import generation_times, money_over_time
from pipeline.report.lines import Line, Lines, as_lines
from pipeline.report.tables import are_first, status_word

MOST_LINES = 20_000
"""The most lines that a page holds. Of more, those that have something to show are kept."""

TEXT_LENGTHS = (1_000, 200, 40)
"""Characters of a text that a page holds; the first length that keeps all texts within `MOST_CHARACTERS`."""
MOST_CHARACTERS = 24_000_000
MOST_FIELDS = 60
"""Parameters and variables that a page holds."""

STATUSES = ("stored", "failed", "in_doubt", "unfetched", "running", "pending")
"""The words of results.csv, in the order in which the page shows them."""

_TEMPLATES = ("gallery.html", "gallery.css", "gallery.js")
_SLOT = re.compile(rb"@([A-Z]+)@")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
_IN_HTML = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
RECORDS_AT_ONCE = 1_000
"""Lines whose records are in memory at once: the records of all would take more room than the page."""

PageColumn = orjson.Fragment | dict[str, Any]
"""A value for each line; or each different value once, and for each line which: `{"v": values, "i": indexes}`.

Each becomes JSON as soon as it is made: all of them together as lists take ten times as much room.
"""


@dataclass(frozen=True, slots=True)
class _Stand:
    """How a line stands, in words: what went wrong and what to do, where there is something to say."""

    status: str
    error_class: str | None = None
    says: str | None = None
    advice: str | None = None


_WELL = _Stand(STATUSES[0])
"""A stored job to which nothing else ever happened."""


def gallery_page(
    name: str,
    lines: Sequence[Line],
    state: State,
    summary: Mapping[str, Any],
    errors: Iterable[Mapping[str, Any]],
    *,
    live: bool = False,
) -> bytes:
    """The page of a run directory.

    Args:
        name: what the directory is called.
        summary: the content of summary.json; its counts and its money are the page's.
        errors: the rows of errors.csv.
        live: whether a run holds the directory now.
    """
    page, style, script = _templates()
    parts = {
        b"TITLE": html.escape(_clean(name, TEXT_LENGTHS[1])).encode(),
        b"POLICY": _policy(style, script).encode(),
        b"STYLE": style,
        b"SCRIPT": script,
        b"DATA": _json_in_html(_facts(name, lines, state, summary, errors, live=live)),
    }
    # One pass: slots in the inserted text are not replaced.
    return _SLOT.sub(lambda slot: parts[slot[1]], page)


@functools.cache
def _templates() -> tuple[bytes, bytes, bytes]:
    page, style, script = ((Path(__file__).parent / name).read_bytes() for name in _TEMPLATES)
    return page, style, script


def _policy(style: bytes, script: bytes) -> str:
    # `file:` is for a page from the disk, `'self'` for one that somebody serves.
    here = "'self' file:"
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src {here}; media-src {here}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


def _json_in_html(value: object) -> bytes:
    """JSON that ends no element and no line of a script."""
    text = orjson.dumps(value)
    for found, written in _IN_HTML.items():
        text = text.replace(found.encode(), written.encode())
    return text


def _facts(
    name: str,
    lines: Sequence[Line],
    state: State,
    summary: Mapping[str, Any],
    errors: Iterable[Mapping[str, Any]],
    *,
    live: bool,
) -> dict[str, Any]:
    latest = {(row["job_id"], row["attempt"]): row for row in errors}
    known = as_lines(lines)
    job_ids = known.column("job_id")
    found = state.jobs.find(job_ids)
    stands, others = _stands(found, latest, summary, live=live)
    chosen = np.array(_chosen(stands), dtype=np.int64)
    bills = values_of(are_first(job_ids, state).take(array_of(chosen)))
    mine = known.take(chosen)
    money = {each: parse_usd(summary[f"{each}_usd"], zero_allowed=True) for each in _MONEY}
    money["no_longer_asked"] = parse_usd(summary["no_longer_asked"]["posted_usd"], zero_allowed=True)
    run = {each: _plain(summary.get(each)) for each in _RUN}
    return {
        "name": _clean(name, TEXT_LENGTHS[1]),
        **run,
        "live": live,
        "money": money,
        "counts": {status: summary[status] for status in STATUSES},
        "trouble": _troubles(others),
        "mended": Counter(str(row["error_class"]) for row in latest.values()).most_common(),
        "series": money_over_time(state, _now_us(summary) if live else None),
        "times": generation_times(state),
        "total": len(lines),
        "statuses": STATUSES,
        "fields": _fields(mine),
        "lines": _columns(mine, [stands[index] for index in chosen.tolist()], bills, found[chosen]),
    }


_MONEY = ("posted", "above_quotes", "reserved", "in_doubt", "cap")
_RUN = (
    *("rows", "jobs", "attempts", "started_at", "finished_at", "as_of", "wall_s", "exit_code", "stopped_by"),
    *("message", "provider"),
)


def _now_us(summary: Mapping[str, Any]) -> int | None:
    as_of = summary.get("as_of")
    return None if as_of is None else round(datetime.fromisoformat(as_of).timestamp() * 1e6)


def _stands(
    found: Found,
    latest: Mapping[tuple[str, int], Mapping[str, Any]],
    summary: Mapping[str, Any],
    *,
    live: bool,
) -> tuple[list[_Stand], dict[str, tuple[_Stand, JobRecord]]]:
    """How every line stands, and by job id how each job stands that was begun and is not a row, with its record."""
    others: dict[str, tuple[_Stand, JobRecord]] = {}
    # Of a job without an attempt nothing is known, but the run may have said why it stopped.
    has_stopped = summary.get("stopped_by") and summary.get("message") and not live
    waits = f"Not started: {summary['message']}" if has_stopped else "Not started yet."
    waiting = _Stand(status_word(None, live=live), says=waits)
    stands = [known or waiting for known in found.of_rows(_WELL)]
    for place, record in found.beside_rows():
        if record.job_id not in others:
            others[record.job_id] = _stand(record, latest, live=live), record
        stands[place], _ = others[record.job_id]
    return stands, others


def _stand(record: JobRecord, latest: Mapping[tuple[str, int], Mapping[str, Any]], *, live: bool) -> _Stand:
    status = status_word(record.state, live=live)
    if record.state is JobState.RESERVED and not live:
        return _Stand(status, ErrorClass.INTERRUPTED.label, advice=ErrorClass.INTERRUPTED.advice)
    row = latest.get((record.job_id, record.attempt))
    if row is not None:
        return _Stand(status, row["error_class"], row["error"], row["next"])
    if record.error_class is None:
        return _Stand(status, advice=None if live else _AT_REST.get(record.state))
    error_class = ERROR_CLASSES.get(record.error_class)
    return _Stand(status, record.error_class, record.error, error_class.advice if error_class else None)


_AT_REST = {
    JobState.SUBMITTED: "It was at the provider when the run ended. Run again to collect it.",
    JobState.POSTED: "It is paid and not yet on disk. Run again within 7 days: downloading is free.",
    JobState.VOIDED: "It was certainly not billed. Run again to try it anew.",
}
"""What to do about a job to which nothing happened but the end of the run."""


def _chosen(stands: Sequence[_Stand]) -> list[int]:
    """Which lines the page holds, in the order of the manifest: those with most to show, if there are too many."""
    chosen: list[int] = []
    for status in STATUSES:
        others = (index for index, stand in enumerate(stands) if stand.status == status)
        chosen += itertools.islice(others, MOST_LINES - len(chosen))
    return sorted(chosen)


def _troubles(others: Mapping[str, tuple[_Stand, JobRecord]]) -> list[dict[str, Any]]:
    """What is not well now, by status and class: how many jobs, how much money is at stake, what to do about it.

    What is said is what most of them say; `otherwise` counts those that say something else.
    """
    groups: dict[tuple[str, str | None], dict[str, Any]] = {}
    told: dict[tuple[str, str | None], Counter[tuple[str | None, str | None]]] = {}
    for stand, record in others.values():
        if not (stand.error_class or stand.advice):
            continue
        key = stand.status, stand.error_class
        group = groups.setdefault(key, {"status": stand.status, "class": stand.error_class, "jobs": 0, "micro": 0})
        group["jobs"] += 1
        group["micro"] += record.liability_microusd
        told.setdefault(key, Counter())[stand.says, stand.advice] += 1
    for key, group in groups.items():
        (says, advice), _ = told[key].most_common(1)[0]
        alike = sum(number for (other, _), number in told[key].items() if other == says)
        group |= {"says": _plain(says), "otherwise": group["jobs"] - alike, "advice": _plain(advice)}
    return sorted(groups.values(), key=lambda group: (STATUSES.index(group["status"]) or 9, -group["jobs"]))


def _fields(lines: Lines) -> list[dict[str, Any]]:
    """Every variable and every parameter with its value in each line, as text."""
    kinds = _kinds(lines)
    columns = lines.asked(list(kinds))
    for length in TEXT_LENGTHS:
        fields = []
        for name, kind in kinds.items():
            coded = _coded(values_of(columns[name]), length)
            fields.append({"name": _clean(name, TEXT_LENGTHS[1]), "kind": kind, **coded})
        if sum(len(value or "") for field in fields for value in field["v"]) <= MOST_CHARACTERS:
            break
    return fields


def _kinds(lines: Lines) -> dict[str, str]:
    """What a sweep varies first: variables, then parameters. A parameter hides a variable of its name."""
    parameters = {name: "parameter" for model in lines.models for name in find_model(model).parameters}
    variables = {name: "variable" for name in lines.variables if name not in parameters}
    if "tags" in variables:
        variables["tags"] = "tags"
    return dict(list(variables.items())[: MOST_FIELDS - len(parameters)]) | parameters


def _columns(lines: Lines, stands: Sequence[_Stand], bills: Sequence[bool], found: Found) -> dict[str, PageColumn]:
    """What is known of each line, a column for each fact. Money in micro-dollars, times in seconds."""
    keys, short = lines.keys, TEXT_LENGTHS[0]
    return {
        "row": _json(keys.rows),
        "id": _coded(keys.ids, short),
        "take": _json(values_of(lines.column("replicate"))),
        "job": _json(keys.job_ids),
        "status": _json([STATUSES.index(stand.status) for stand in stands]),
        "class": _coded((stand.error_class for stand in stands), short),
        "says": _coded((stand.says for stand in stands), short),
        "advice": _coded((stand.advice for stand in stands), short),
        "shares": _json([int(not pays) for pays in bills]),
        **_of_records(found, bills),
    }


def _of_records(found: Found, bills: Sequence[bool]) -> dict[str, PageColumn]:
    """The facts of each line, a column for each."""
    texts: dict[str, list[bytes]] = {}
    for first in range(0, len(found), RECORDS_AT_ONCE):
        part = slice(first, first + RECORDS_AT_ONCE)
        facts = [
            _of_record(record, bills=pays) for record, pays in zip(found[part].records(), bills[part], strict=True)
        ]
        for name in facts[0]:
            texts.setdefault(name, []).append(orjson.dumps([each[name] for each in facts])[1:-1])
    return {name: orjson.Fragment(b"[" + b",".join(parts) + b"]") for name, parts in texts.items()}


def _of_record(record: JobRecord | None, *, bills: bool) -> dict[str, Any]:
    """The facts of one line. Lines that share a job: the first has the money, so that sums are the bill."""
    record = record or _NO_RECORD
    stored = record.state is JobState.STORED
    paid = record.state in (JobState.STORED, JobState.POSTED)
    return {
        "video": _address(record.path) if stored else None,
        "poster": _address(record.poster) if stored else None,
        "micro": record.cost_microusd if paid and bills else 0,
        "held": record.liability_microusd if not paid and bills else 0,
        "quoted": record.quote_microusd if paid and bills and record.cost_microusd > record.quote_microusd else 0,
        "attempts": record.attempt,
        "request": record.request_id,
        "submitted": _seconds(record.submitted_us),
        "ended": _seconds(record.ended_us),
        "queue_s": _tenths(record.queue_s) if paid else None,
        "took_s": _tenths(record.inference_s) if paid else None,
        "length_s": _tenths(record.duration_s) if stored else None,
        "width": record.width if stored else 0,
        "height": record.height if stored else 0,
        "bytes": record.bytes if stored else 0,
    }


_NO_RECORD = JobRecord("", JobState.VOIDED)


def _json(values: Sequence[Any]) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(values))


def _coded(values: Iterable[Any], length: int) -> dict[str, Any]:
    """Each different text once, and for each line its number: most columns say few things many times."""
    numbers: dict[Any, int] = {}
    indexes = [numbers.setdefault((type(value), value), len(numbers)) for value in values]
    return {"v": [None if value is None else _clean(value, length) for _, value in numbers], "i": _json(indexes)}


def _address(path: str | None) -> str | None:
    """The address of a file of the run directory, as seen from the page's own folder."""
    return None if path is None else "../" + quote(path.encode("utf-8", "replace"))


def _seconds(at_us: int | None) -> int | None:
    return None if at_us is None else at_us // 1_000_000


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _plain(value: Any) -> Any:
    return _clean(value, TEXT_LENGTHS[0]) if isinstance(value, str) else value


def _clean(value: Any, length: int) -> str:
    """A value as text that is fit for UTF-8 and cannot turn the writing around it; shortened, it ends in `…`."""
    text = spelled(value)
    if len(text) > length:
        text = f"{text[: length - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub("�", text.encode("utf-8", "replace").decode())
