"""A run directory, looked at: how it stands, how fast it goes, what expires, what went wrong, how long it will take."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.engine.expiry import expires_us, file_expires_us, record_expires_us
from pipeline.engine.polling import Durations
from pipeline.kernel.clock import iso
from pipeline.kernel.errors import ERROR_CLASSES, ErrorClass, MachineError, RunDirectoryError
from pipeline.ledger.budget import ImpossibleMoveError
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import RunRecord, State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.lock import lock_holder
from pipeline.ledger.reading import Reader
from pipeline.looking.estimate import Work, ends_per_s, left_s
from pipeline.looking.missing import missing_videos
from pipeline.looking.moments import Moments
from pipeline.report.jobs_file import has_entries, load_keys, load_lines
from pipeline.report.lines import Keys, Lines
from pipeline.report.summary import summarise
from pipeline.report.tables import status_word

IN_FLIGHT = (JobState.RESERVED, JobState.SUBMITTED)
UNSETTLED = (JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED, JobState.IN_DOUBT)

MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
LATEST_ERRORS = 5
NEXT_EXPIRIES = 5

SHORTEST_RATE_S = 60.0
"""A run younger than this has no rate yet: the first job would make it a thousand an hour."""


def read_ledger(folder: Path) -> Reader:
    """What the ledger of a run directory says, read beside a live run; nothing if there is none yet.

    Raises:
        RunDirectoryError: it is damaged.
        MachineError: the disk refused.
    """
    ledger = folder / "ledger"
    reader = Reader(ledger)
    if ledger.is_dir():
        _read(ledger, reader)
    return reader


def require_ledger(folder: Path) -> Path:
    """The folder of a run directory's ledger.

    Raises:
        RunDirectoryError: there is none, so it is no run directory.
    """
    ledger = folder / "ledger"
    if not ledger.is_dir():
        raise RunDirectoryError(f"{folder} is not a run directory: it has no ledger")
    return ledger


def _read(ledger: Path, reader: Reader) -> None:
    try:
        reader.read()
    except ImpossibleMoveError as error:
        raise RunDirectoryError(f"the ledger in {ledger} contradicts itself: {error}") from None
    except OSError as error:
        raise MachineError(f"the ledger in {ledger} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Look:
    """A run directory at one moment. Times in microseconds since 1970, ages in seconds, money in micro-dollars."""

    folder: Path
    keys: Keys
    moments: Moments
    state: State
    holder: dict[str, Any] | None
    now_us: int
    reader: Reader
    """Reads on where this look has ended."""
    names: tuple[str, ...]
    """The names of the files in the ledger's folder: while they stay the same, nothing has happened."""

    @property
    def cap_microusd(self) -> int:
        """The cap of the last run; 0 before the first."""
        return int(self.state.runs[-1].facts.get("cap_microusd", 0)) if self.state.runs else 0

    @property
    def run(self) -> RunRecord | None:
        """The run that is going on; None at rest, and where another verb holds the directory."""
        return run_of(self.state, self.holder)

    @property
    def is_live(self) -> bool:
        """Whether a run goes on. One that closes, and another verb that holds the directory, await no answer."""
        return self.run is not None

    @property
    def is_cut_off(self) -> bool:
        """Whether the last run died before its end."""
        return bool(self.state.runs) and self.state.runs[-1].ended_us is None and self.holder is None

    @property
    def last_activity_us(self) -> int | None:
        """When the latest event was recorded."""
        return self.moments.last_us

    @cached_property
    def row_ids(self) -> dict[str, str]:
        """The id of the row that asked for each job first."""
        return dict(zip(reversed(self.keys.job_ids), reversed(self.keys.ids), strict=True))

    def lines(self) -> Lines:
        """All that the rows asked for.

        Raises:
            RunDirectoryError: the directory has no rows, or they cannot be read.
        """
        return load_lines(self.folder)

    def summary(self) -> dict[str, Any]:
        """The summary as the directory stands now."""
        return self.of_ledger(missing_videos(self.folder, self.state))

    def of_ledger(self, missing: Sequence[str] = ()) -> dict[str, Any]:
        """The summary without a look for the videos; those that are `missing` may be told."""
        cap, live = self.cap_microusd, self.is_live
        return summarise(self.keys, self.state, cap_microusd=cap, live=live, now_us=self.now_us, missing=missing)

    def age_s(self, record: JobRecord) -> float:
        """How long ago the latest attempt of a job was accepted, or reserved if it was not."""
        return max(0.0, (self.now_us - record.accepted_us) / 1e6)

    @property
    def unsettled(self) -> list[JobRecord]:
        """The jobs that are running, paid and not on disk, or in doubt; the one that expires next comes first."""
        return sorted(self.state.in_state(*UNSETTLED), key=expires_us)

    @cached_property
    def durations(self) -> Durations | None:
        """What is known of generation times: the run's expectation, and what this run has seen."""
        expected_s = _number(self.run, "expected_s")
        if self.run is None or expected_s is None:
            return None
        durations = Durations(expected_s)
        for record in self.state.in_state(JobState.POSTED, JobState.STORED):
            if record.posted_us and record.submitted_us and record.submitted_us >= self.run.started_us:
                durations.note((record.posted_us - record.submitted_us) / 1e6)
        return durations

    def details(self) -> dict[str, Any]:
        """All that `status --json` says beside the summary."""
        return {
            "at": iso(self.now_us),
            "state": standing(self),
            "held_by": self.holder,
            "last_activity_at": iso(self.last_activity_us),
            "in_flight": self._in_flight(),
            "pace": self._pace(),
            "stored_per_hour": self._stored_per_hour(),
            **self._eta(),
            "next_expiries": self._next_expiries(),
            "troubles": dict(Counter(str(event.error_class) for event in self._troubles).most_common()),
            "last_errors": [self._error(event) for event in reversed(self._troubles[-LATEST_ERRORS:])],
            "unsettled": [self._unsettled(record) for record in self.unsettled],
        }

    def _in_flight(self) -> dict[str, Any] | None:
        """The generations at the provider; None at rest, when nobody looks after them."""
        if self.run is None:
            return None
        ages = [self.age_s(record) for record in self.state.in_state(*IN_FLIGHT)]
        return {
            "now": len(ages),
            "max": _whole(self.run, "max_in_flight"),
            "oldest_age_s": round(max(ages), 1) if ages else None,
            "usual_s": round(self.durations.mean_s, 1) if self.durations else None,
        }

    def _pace(self) -> dict[str, Any] | None:
        """The calls of the last minute that the ledger knows of. It records no polls and no downloads."""
        if self.run is None:
            return None
        lately = self.moments.since(self.now_us - MINUTE_US)
        return {
            "requests_per_minute": _number(self.run, "requests_per_minute"),
            "submissions": lately.count(EventKind.RESERVED),
            "results": lately.count(EventKind.POSTED),
            "rate_limited": lately.refused(ErrorClass.RATE_LIMITED),
            "polls": None,
        }

    def _stored_per_hour(self) -> dict[str, Any] | None:
        """How many jobs were stored: in the last hour, and an hour since the run began; None where that is too soon."""
        if self.run is None:
            return None
        began_us = self.run.started_us
        since_us = [at_us for at_us in self.moments.of(EventKind.STORED) if at_us >= began_us]
        ran_s = (self.now_us - began_us) / 1e6
        last_hour = sum(at_us > self.now_us - HOUR_US for at_us in since_us)
        return {
            "last_hour": last_hour if ran_s >= 3600 else None,
            "this_run": round(len(since_us) * 3600 / ran_s, 1) if ran_s >= SHORTEST_RATE_S else None,
        }

    @property
    def work(self) -> Work | None:
        """What is left of the run that is going on; None at rest, and where the run did not say its limits."""
        run, durations = self.run, self.durations
        slots, starts_per_minute = _whole(run, "max_in_flight"), _number(run, "starts_per_minute")
        if run is None or durations is None or slots is None or starts_per_minute is None:
            return None
        began_s, now_s = run.started_us / 1e6, self.now_us / 1e6
        ended_s = [at_us / 1e6 for at_us in self.moments.of(EventKind.STORED, EventKind.FAILED)]
        deadline_us = _whole(run, "deadline_us")
        return Work(
            to_start=self._to_start(run),
            ages_s=[self.age_s(record) for record in self.state.in_state(*IN_FLIGHT)],
            slots=slots,
            starts_per_s=starts_per_minute / 60,
            median_s=durations.median_s,
            sigma=durations.sigma,
            ends_per_s=ends_per_s([each for each in ended_s if each >= began_s], began_s, now_s, durations.mean_s),
            starts_end_s=None if deadline_us is None else (deadline_us - self.now_us) / 1e6 - durations.expected_s,
        )

    def _to_start(self, run: RunRecord) -> int:
        """How many jobs the run has yet to start: those it has not begun, and those that wait for another try."""
        begun = sum(record.reserved_us >= run.started_us for record in self.state.jobs.values())
        again = sum(record.reserved_us >= run.started_us for record in self.state.in_state(JobState.VOIDED))
        wanted = max(0, (_whole(run, "to_start") or 0) - begun) + again
        return min(wanted, affordable(self.state, self.cap_microusd, wanted))

    def _eta(self) -> dict[str, Any]:
        work = self.work
        if work is None or not (work.to_start or work.ages_s):
            return {"eta_s": None, "eta_at": None}
        seconds = left_s(work)
        return {"eta_s": round(seconds), "eta_at": iso(self.now_us + int(seconds * 1e6))}

    def _next_expiries(self) -> list[dict[str, Any]]:
        """What the provider deletes next: a request's record, or, where that is gone or not needed, the file."""
        expiries = sorted((*_expiry(record, self.now_us), record.job_id, record.attempt) for record in self.unsettled)
        return [
            {
                "id": self.row_ids.get(job_id),
                "job_id": job_id,
                "attempt": attempt,
                "what": what,
                "at": iso(at_us),
                "in_s": round((at_us - self.now_us) / 1e6, 1),
            }
            for at_us, what, job_id, attempt in expiries[:NEXT_EXPIRIES]
        ]

    @cached_property
    def _troubles(self) -> list[Event]:
        """What went wrong, in order. `failed` is left out: it only says that a job was given up after its trouble."""
        return [event for event in self.state.troubles if event.event is not EventKind.FAILED]

    def _error(self, event: Event) -> dict[str, Any]:
        known = ERROR_CLASSES.get(event.error_class or "")
        return {
            "at": iso(event.at_us),
            "age_s": round(max(0, self.now_us - event.at_us) / 1e6, 1),
            "id": self.row_ids.get(event.job_id or ""),
            "job_id": event.job_id,
            "attempt": event.attempt,
            "event": event.event.value,
            "error_class": event.error_class,
            "http_status": event.http_status or None,
            "error": event.detail,
            "billed": known.charge.value if known else None,
        }

    def _unsettled(self, record: JobRecord) -> dict[str, Any]:
        return {
            "id": self.row_ids.get(record.job_id),
            "job_id": record.job_id,
            "attempt": record.attempt,
            "status": status_word(record.state, live=self.is_live),
            "request_id": record.request_id,
            "age_s": round(self.age_s(record), 1),
            "record_expires_in_s": round((record_expires_us(record) - self.now_us) / 1e6, 1),
            "file_expires_in_s": round((file_expires_us(record) - self.now_us) / 1e6, 1),
            "quote_microusd": record.quote_microusd,
            "error": record.error,
        }


def run_of(state: State, holder: Mapping[str, Any] | None) -> RunRecord | None:
    """The run that is going on, of a directory that `holder` has locked; None where it is another verb's."""
    if holder is None or not state.runs or state.runs[-1].ended_us is not None:
        return None
    last, since = state.runs[-1], holder["since"]
    return last if since is None or since <= (iso(last.started_us) or "") else None


def affordable(state: State, cap_microusd: int, most: int) -> int:
    """About how many more jobs fit under the cap, at the mean of what is committed so far; `most` where none is."""
    carrying = (JobState.STORED, JobState.POSTED, JobState.SUBMITTED, JobState.RESERVED, JobState.IN_DOUBT)
    jobs = sum(state.counts[each] for each in carrying)
    if not jobs or not state.books.committed:
        return most
    return int(max(0, state.books.free(cap_microusd)) * jobs / state.books.committed + 1e-9)


def _expiry(record: JobRecord, now_us: int) -> tuple[int, str]:
    if record.state is JobState.POSTED or record_expires_us(record) <= now_us:
        return file_expires_us(record), "file"
    return record_expires_us(record), "record"


def _number(run: RunRecord | None, name: str) -> float | None:
    """A positive number among the facts of a run; None where an older run did not say it."""
    value = run.facts.get(name) if run is not None else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _whole(run: RunRecord | None, name: str) -> int | None:
    value = _number(run, name)
    return None if value is None else int(value)


def look(folder: Path, now_us: int, before: Look | None = None) -> Look:
    """Look at a run directory without disturbing a run that holds it.

    Args:
        now_us: the present, microseconds since 1970.
        before: an earlier look, which ends with this one: what was read then is not read again.

    Raises:
        RunDirectoryError: it is none, or it is damaged.
        MachineError: the disk refused.
    """
    ledger = require_ledger(folder)
    try:
        names = tuple(sorted(os.listdir(ledger)))
    except OSError as error:
        raise MachineError(f"{ledger} cannot be read: {error.strerror}") from None
    holder = lock_holder(ledger)
    if before is not None and names == before.names:
        return dataclasses.replace(before, holder=holder, now_us=now_us)
    reader = before.reader if before is not None else Reader(ledger, moments=True)
    _read(ledger, reader)
    state = reader.state
    # A run that died before its first event may not have kept its rows yet.
    keys = load_keys(folder) if state.last_seq or has_entries(folder) else Keys([], [], [])
    return Look(folder, keys, Moments(reader.moments), state, holder, now_us, reader, names)


def standing(seen: Look) -> str:
    """How a run directory stands, in one word or two: `running`, `in use`, `cut off`, `at rest`, `not begun`."""
    if seen.run is not None:
        return "running"
    if seen.holder is not None:
        return "in use"
    if seen.is_cut_off:
        return "cut off"
    return "at rest" if seen.state.runs else "not begun"


def row_of(seen: Look) -> Mapping[str, Any]:
    """A run directory as a line of the list of all."""
    summary = seen.of_ledger()
    kept = ("stored", "jobs", "failed", "in_doubt", "posted_usd", "in_doubt_usd", "cap_usd")
    return {
        "name": seen.folder.name,
        "directory": str(seen.folder),
        "state": standing(seen),
        "pid": seen.holder["pid"] if seen.holder else None,
        **{name: summary[name] for name in kept},
        "last_activity_at": iso(seen.last_activity_us),
        "provider": summary["provider"],
        "error": None,
    }
