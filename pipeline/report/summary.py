"""The summary: what the run comes to, in one small object."""

from __future__ import annotations

import itertools
import stat
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from pipeline.kernel.arrow import Texts, pc, total
from pipeline.kernel.clock import iso
from pipeline.kernel.files import read_regular_file, write_file
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.report.classes import errors_by_class
from pipeline.report.lines import Key, Line, keys_of
from pipeline.report.tables import status_word, why_in_doubt

FILE = "summary.json"

FILES = ("index.html", "results.csv", "results.parquet", "errors.csv", "errors-by-class.csv", FILE)
"""All that a report consists of; the summary is written last."""
_LONGEST = 2**24
"""Bytes of a summary: it has a line for each class of error, and nothing for each job."""

MOST_NAMED = 20
"""At most so many of a kind are named, since a summary has nothing for each job."""

_OF_THE_MOMENT = {"finished_at", "wall_s", "events"}
"""Keys that may differ from the summary before although nothing has happened."""


def summarise(
    lines: Sequence[Line] | Sequence[Key],
    state: State,
    *,
    cap_microusd: int,
    live: bool,
    requests_sent: int = 0,
    polls: int = 0,
    now_us: int | None = None,
    missing: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of summary.json. Money as text with exact cents; counts are jobs of the manifest.

    Args:
        live: whether a run holds the directory now. At rest nobody waits for an answer, so what is reserved then is
            money whose fate is not known: it counts as in doubt, and `reserved_usd` is zero.
        requests_sent: submissions of the run that is live, not yet in the ledger; `polls` likewise.
        now_us: the present, where a run is live.
        missing: the stored videos that are not on the disk any more.
    """
    keys = keys_of(lines)
    jobs = keys.column("job_id")
    if not state.jobs.are(jobs):
        jobs = jobs.unique()
    counts = _counted(state.count(jobs), live=live)
    books = state.books
    first, last = (state.runs[0], state.runs[-1]) if state.runs else (None, None)
    outcome: Mapping[str, Any] = last.outcome if last and not live else {}
    unknown = books.in_doubt if live else books.in_doubt + books.reserved
    return {
        "rows": len(keys.column("row").unique()),
        "rows_sha256": keys.sha256,
        "jobs": len(jobs),
        **counts,
        "missing": len(missing),
        "missing_videos": list(missing[:MOST_NAMED]),
        "posted_usd": format_usd(books.posted),
        "above_quotes_usd": format_usd(books.above_quotes),
        "above_quotes": {
            name: {"charged_usd": format_usd(charged), "quoted_usd": format_usd(quoted)}
            for name, (charged, quoted) in itertools.islice(state.above_quotes.items(), MOST_NAMED)
        },
        "reserved_usd": format_usd(books.reserved if live else 0),
        "in_doubt_usd": format_usd(unknown),
        "free_usd": format_usd(books.free(cap_microusd)),
        "cap_usd": format_usd(cap_microusd),
        "attempts": state.attempts,
        "no_longer_asked": no_longer_asked(jobs, state, live=live),
        "requests_sent": requests_sent + _over_all_runs(state, "requests_sent"),
        "polls": polls + _over_all_runs(state, "polls"),
        "started_at": iso(first.started_us) if first else None,
        "finished_at": iso(last.ended_us) if last and not live else None,
        "as_of": iso(now_us) if live else None,
        "wall_s": _wall_s(state, now_us if live else None),
        "exit_code": outcome.get("exit_code"),
        "stopped_by": outcome.get("stopped_by"),
        "message": outcome.get("message"),
        "why_in_doubt": why_in_doubt(state),
        "provider": last.facts.get("provider") if last else None,
        "errors_by_class": errors_by_class(lines, state),
        "events": None if live else state.last_seq,
    }


_HELD = (JobState.IN_DOUBT, JobState.RESERVED, JobState.SUBMITTED)
_COUNTED = ("stored", "failed", "in_doubt", "pending", "running", "unfetched")


def _counted(standings: Mapping[JobState, int] | Mapping[JobState | None, int], *, live: bool) -> dict[str, int]:
    """How many jobs have each status, by the words of the tables."""
    counts = dict.fromkeys(_COUNTED, 0)
    for standing, number in standings.items():
        counts[status_word(standing, live=live)] += number
    return counts


def no_longer_asked(job_ids: Collection[str] | Texts, state: State, *, live: bool) -> dict[str, Any]:
    """Counts and money of all jobs of the ledger but these, which are those of the manifest.

    The rows that asked for them were edited or removed. Their money is in the sums of the summary all the same, and
    no line of the results shows it.
    """
    others = state.jobs.find_beside(job_ids)
    # Rows are stored, and may be a million; what is otherwise is a record.
    facts = others.columns(("state", "cost_microusd"))
    paid = facts.filter(pc.is_in(facts["state"], value_set=pa.array([JobState.STORED.name, JobState.POSTED.name])))
    standings = {JobState[str(each)]: number for each, number in Counter(facts["state"].to_pylist()).items()}
    held = [record for _, record in others.beside_rows() if record.state in _HELD]
    doubted = sum(each.quote_microusd for each in held if not live or each.state is JobState.IN_DOUBT)
    return {
        "jobs": len(others),
        **_counted(standings, live=live),
        "posted_usd": format_usd(total(paid["cost_microusd"])),
        "reserved_usd": format_usd(sum(each.quote_microusd for each in held) - doubted),
        "in_doubt_usd": format_usd(doubted),
    }


def write_summary(report: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json into the folder of a report.

    Raises:
        OSError: the disk refused.
    """
    write_file(report / FILE, orjson.dumps(dict(summary), option=orjson.OPT_INDENT_2) + b"\n")


def read_summary(report: Path) -> dict[str, Any]:
    """The summary that stands in the folder of a report; empty where none can be read."""
    try:
        summary = orjson.loads(read_regular_file(report / FILE, _LONGEST) or b"")
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def is_complete(report: Path) -> bool:
    """Whether the files of a report are all there, and none came to be after the summary, which is written last.

    Compared by ctime. A file newer than the summary comes from another report that was written at the same time, or
    that died before its own summary; then the report is not of one moment.
    """
    try:
        *files, summary = [(report / name).lstat() for name in FILES]
    except OSError:
        return False
    return all(stat.S_ISREG(file.st_mode) and file.st_ctime_ns <= summary.st_ctime_ns for file in files)


def says_the_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a report that was written with the summary `before` shows all that one written now would show."""
    return all(before.get(name) == value for name, value in now.items() if name not in _OF_THE_MOMENT)


def _wall_s(state: State, now_us: int | None) -> float | None:
    """How long all runs took together, in seconds; one that was killed never said when, and counts nothing.

    Args:
        now_us: the present, where the last run is live.
    """
    spans = []
    for run in state.runs:
        ended_us = now_us if run is state.runs[-1] and now_us is not None else run.ended_us
        if ended_us is not None:
            spans.append(max(0, ended_us - run.started_us))
    return round(sum(spans) / 1e6, 3) if spans else None


def _over_all_runs(state: State, name: str) -> int:
    return sum(int(run.outcome.get(name, 0)) for run in state.runs)
