"""The jobs that wait to be started: in which order, and which of them fits under the cap."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
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

    def __init__(self, run: RunContext, ahead: Container[str] = ()) -> None:
        self._run = run
        self._ahead = ahead
        self._next_place = 0
        self._coming: deque[Job] = deque()
        """Jobs that nobody has looked at yet, in order. In a heap, each would take a hundred bytes, maybe for hours."""
        self._coming_place = 0
        """The place of the first of them; each has the place after the one before it."""
        self._places: dict[str, int] = {}
        """The place of each job that was taken and may be put back, because its image may have to be uploaded first."""
        self._ready: dict[tuple[int, str], list[tuple[int, Job]]] = {}
        """By price, and by which one it is: a heap of places and jobs."""
        self._later: list[tuple[float, int, Job]] = []

    def add_all(self, jobs: Iterable[Job]) -> None:
        """Queue many jobs in their order; only once for each queue."""
        assert not self._coming, "their places must follow each other"
        for job in jobs:
            if job.job_id in self._ahead:
                self.add(job)
            else:
                self._coming.append(job)
        self._coming_place = self._next_place
        self._next_place += len(self._coming)

    def add(self, job: Job, delay_s: float = 0.0) -> None:
        """Queue a job, to be started `delay_s` from now at the earliest."""
        place = self._next_place
        self._next_place += 1
        if delay_s > 0:
            heapq.heappush(self._later, (self._run.clock.monotonic_s() + delay_s, place, job))
        else:
            self._put(place - AHEAD if job.job_id in self._ahead else place, job)

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
        return len(self._coming) + len(self._later) + sum(map(len, self._ready.values()))

    def first(self, free: int) -> Job | None:
        """The first job whose quote fits into `free` micro-dollars; None if there is none."""
        self._bring_due()
        books = self._run.ledger.state.books
        while True:
            ready = ((jobs[0][0], price) for price, jobs in self._ready.items() if jobs)
            fitting = [(place, price) for place, price in ready if books.quote(*price) <= free]
            place, price = min(fitting, default=(AHEAD, None))
            if not self._coming or place < self._coming_place:
                return None if price is None else self._ready[price][0][1]
            self._put(self._coming_place, self._coming.popleft())
            self._coming_place += 1

    def take(self, job: Job) -> None:
        """Remove the job that `first` has named."""
        place, taken = heapq.heappop(self._ready[self._price(job)])
        assert taken is job, "only the first job of its price may be taken"
        if job.image is not None:
            self._places[job.job_id] = place

    def prices(self) -> set[tuple[int, str]]:
        """The prices of all that wait, and by which one it is."""
        others = itertools.chain(self._coming, (job for *_, job in self._later))
        return {price for price, jobs in self._ready.items() if jobs}.union(map(self._price, others))

    def next_due_s(self) -> float | None:
        """Seconds until the next job that is to be tried again is due; None if none waits."""
        return max(0.0, self._later[0][0] - self._run.clock.monotonic_s()) if self._later else None

    def _bring_due(self) -> None:
        now_s = self._run.clock.monotonic_s()
        while self._later and self._later[0][0] <= now_s:
            _, _, job = heapq.heappop(self._later)
            self.add(job)
