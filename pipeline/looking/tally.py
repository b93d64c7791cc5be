"""Counts a live run from its events, so that a refresh of the screen costs the same however large the run is."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState

ENDS_KEPT = 10_000
"""The latest ends of jobs that are kept: enough for the fastest hour that a provider allows."""

_LEFT_FLIGHT = frozenset({EventKind.POSTED, EventKind.VOIDED, EventKind.IN_DOUBT})


class Tally:
    """What the jobs that a run was asked for have come to, and what is in flight. Times in microseconds since 1970."""

    def __init__(self, state: State, asked: Collection[str], to_start: int, began_us: int) -> None:
        self.began_us = began_us
        self._state = state
        self._asked = asked
        self._to_start = to_start
        standing = state.count(asked)
        self.stored, self.failed = standing[JobState.STORED], standing[JobState.FAILED]
        self.accepted_us: dict[str, int] = {
            record.job_id: record.accepted_us for record in state.in_state(JobState.RESERVED, JobState.SUBMITTED)
        }
        """By job in flight, when it was accepted, or reserved while it is not."""
        self.ended_us: deque[int] = deque(maxlen=ENDS_KEPT)
        """When jobs came to their end in this run, in order."""
        self._began_seq = state.last_seq
        self._begun = 0
        """Jobs that this run was the first to start, or has started again after an earlier run."""
        self._again: set[str] = set()
        """Those of this run that wait for another try."""

    @property
    def done(self) -> int:
        """How many of the jobs asked for are stored or have failed for good."""
        return self.stored + self.failed

    @property
    def to_start(self) -> int:
        """How many jobs this run has yet to start, those that wait for another try among them."""
        return max(0, self._to_start - self._begun) + len(self._again)

    def take(self, event: Event) -> None:
        """Take in an event that has become durable."""
        job_id = event.job_id
        if job_id is None:
            return
        self._count(event, job_id)
        if event.event in (EventKind.RESERVED, EventKind.SUBMITTED):
            record = self._state.jobs[job_id]
            self.accepted_us[job_id] = record.accepted_us
        elif event.event in _LEFT_FLIGHT:
            self.accepted_us.pop(job_id, None)

    def _count(self, event: Event, job_id: str) -> None:
        was_asked = job_id in self._asked
        match event.event:
            case EventKind.RESERVED if job_id in self._again:
                self._again.remove(job_id)
            case EventKind.RESERVED:
                self._begun += 1
            case EventKind.VOIDED if self._state.jobs[job_id].reserved_seq > self._began_seq:
                self._again.add(job_id)
            case EventKind.STORED | EventKind.FAILED as ended:
                self._again.discard(job_id)
                self.ended_us.append(event.at_us)
                self.stored += was_asked and ended is EventKind.STORED
                self.failed += was_asked and ended is EventKind.FAILED
            case EventKind.RETRY_GRANTED:
                self.failed -= was_asked
