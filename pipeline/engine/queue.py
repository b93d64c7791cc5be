"""The jobs that wait to be started: in which order, and which of them fits under the cap."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container, Iterable

from pipeline.engine.context import RunContext
from pipeline.jobs import Job

AHEAD = 2**62
"""Subtracted from the place in the queue of a job that goes first, so that it sorts before every other job."""


class Queue:
    """Jobs that wait to be started, in their order; those to be tried again wait for their time.

    Grouped by price, so that a job that no longer fits under the cap does not hide a cheaper one behind it. Jobs whose
    ids are in `ahead` go before all others, whenever they are added.
    """

    def __init__(self, run: RunContext, jobs: Iterable[Job], ahead: Container[str] = ()) -> None:
        self._run = run
        self._ahead = ahead
        self._order = itertools.count()
        self._places: dict[str, int] = {}
        """The place of each job that was taken and may be put back, because its image may have to be uploaded first."""
        self._ready: dict[tuple[int, str], list[tuple[int, Job]]] = {}
        """By price, and by which one it is: a heap of places and jobs."""
        self._later: list[tuple[float, int, Job]] = []
        for job in jobs:
            self.add(job)

    def add(self, job: Job, delay_s: float = 0.0) -> None:
        """Queue a job, to be started `delay_s` from now at the earliest."""
        order = next(self._order)
        if delay_s > 0:
            heapq.heappush(self._later, (self._run.clock.monotonic_s() + delay_s, order, job))
        else:
            self._put(order - AHEAD if job.job_id in self._ahead else order, job)

    def put_back(self, job: Job) -> None:
        """Give a job that was taken its old place back; one without a remembered place goes to the end."""
        place = self._places.pop(job.job_id, None)
        if place is None:
            self.add(job)
        else:
            self._put(place, job)

    def _put(self, order: int, job: Job) -> None:
        heapq.heappush(self._ready.setdefault(self._price(job), []), (order, job))

    def _price(self, job: Job) -> tuple[int, str]:
        return self._run.price(job), job.price_key

    def __len__(self) -> int:
        return len(self._later) + sum(map(len, self._ready.values()))

    def first(self, free: int) -> Job | None:
        """The first job whose quote fits into `free` micro-dollars; None if there is none."""
        self._bring_due()
        books = self._run.ledger.state.books
        fitting = [(jobs[0][0], price) for price, jobs in self._ready.items() if jobs and books.quote(*price) <= free]
        return self._ready[min(fitting)[1]][0][1] if fitting else None

    def take(self, job: Job) -> None:
        """Remove the job that `first` has named."""
        place, taken = heapq.heappop(self._ready[self._price(job)])
        assert taken is job, "only the first job of its price may be taken"
        if job.image is not None:
            self._places[job.job_id] = place

    def prices(self) -> set[tuple[int, str]]:
        """The prices of all that wait, and by which one it is."""
        return {price for price, jobs in self._ready.items() if jobs} | {self._price(job) for *_, job in self._later}

    def next_due_s(self) -> float | None:
        """Seconds until the next job that is to be tried again is due; None if none waits."""
        return max(0.0, self._later[0][0] - self._run.clock.monotonic_s()) if self._later else None

    def _bring_due(self) -> None:
        now_s = self._run.clock.monotonic_s()
        while self._later and self._later[0][0] <= now_s:
            _, _, job = heapq.heappop(self._later)
            self.add(job)
