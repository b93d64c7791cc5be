"""How many generations at once, and how much failure is too much: separate objects."""

from __future__ import annotations

import math

from pipeline.engine.crowding import Crowding
from pipeline.engine.settings import Limits
from pipeline.kernel.clock import Clock

SHORTEST_PROBE_S, LONGEST_PROBE_S = 30.0, 1200.0
"""How long a lowered ceiling waits before more generations are tried; longer after each refused try."""


class Slots:
    """Generations at the provider, counted from their reservation until their end is known.

    The ceiling starts as configured. Where the provider refuses more, it is lowered to what is in flight, and from time
    to time more are tried: more of them after each time they are taken, more rarely after each time they are refused.
    Where the provider takes them all but lets them wait, `Crowding` lowers it.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._most = limits.max_in_flight
        self._ceiling = limits.max_in_flight
        self._is_adaptive = limits.adaptive
        self._clock = clock
        self._crowding = Crowding(limits.max_in_flight, clock.monotonic_s)
        self._taken: set[str] = set()
        self._then: dict[str, int] = {}
        """By job, how many were in flight when it was taken."""
        self._probe_s = SHORTEST_PROBE_S
        self._probed_s = 0.0
        self._step = 1
        """How many more are tried next; doubled after each time they were taken."""
        self._was_refused = False
        """Whether the provider has refused what was tried last."""

    @property
    def in_flight(self) -> int:
        """How many generations are counted as in flight."""
        return len(self._taken)

    @property
    def has_room(self) -> bool:
        """Whether one more may start now."""
        in_flight = len(self._taken)
        return in_flight < self._crowding.ceiling and (in_flight < self._ceiling or self._may_probe())

    @property
    def next_probe_s(self) -> float | None:
        """Seconds until one more generation than the ceiling is tried; None where there is nothing to try."""
        if self._ceiling >= self._most:
            return None
        return max(0.0, self._probed_s + self._probe_s - self._clock.monotonic_s())

    def take(self, job_id: str) -> None:
        """Count a job as in flight. Jobs found running at the start may exceed the ceiling."""
        if len(self._taken) >= self._ceiling and self._may_probe():
            if not self._was_refused:
                self._step *= 2
                self._probe_s = max(SHORTEST_PROBE_S, self._probe_s / 2)
            self._ceiling += self._step
            self._probed_s = self._clock.monotonic_s()
            self._was_refused = False
        self._taken.add(job_id)
        self._then[job_id] = len(self._taken)

    def release(self, job_id: str) -> None:
        """Count a job out of flight: the end of its generation is known."""
        self._taken.discard(job_id)

    def forget(self, job_id: str) -> None:
        """Drop all that is kept of a job: nothing more will be heard of it."""
        self._taken.discard(job_id)
        self._then.pop(job_id, None)

    def note(self, job_id: str, age_s: float, queue_s: float | None, inference_s: float | None) -> None:
        """Take in that a generation has ended: its age, and its times in the queue and being made, in seconds."""
        if self._is_adaptive and queue_s is not None and inference_s is not None and job_id in self._then:
            self._crowding.note(age_s, self._then[job_id], queue_s, inference_s)

    def refuse(self) -> None:
        """Lower the ceiling to what is in flight: the provider took no more. The refused job is no longer counted."""
        if self._is_adaptive:
            self._ceiling = max(1, min(self._ceiling, len(self._taken)))
            self._probed_s = self._clock.monotonic_s()
            self._probe_s = min(LONGEST_PROBE_S, 4 * self._probe_s)
            self._step, self._was_refused = 1, True

    def _may_probe(self) -> bool:
        return self.next_probe_s == 0.0


class _Latest:
    """How the latest attempts went, by `JobRecord.attempt_name`: whether each failed."""

    def __init__(self, failure_rate: float, window: int) -> None:
        self._failure_rate = failure_rate
        self._window = window
        self._failed: dict[str, bool] = {}

    def note(self, attempt: str, *, failed: bool) -> None:
        """Take in how an attempt went. What was thought of it before is replaced."""
        self._failed[attempt] = failed
        if len(self._failed) > self._window:
            del self._failed[next(iter(self._failed))]

    def correct(self, attempt: str) -> None:
        """An attempt went well, whatever was thought of it; one that is no longer among the latest stays away."""
        if attempt in self._failed:
            self._failed[attempt] = False

    @property
    def is_full_of_failures(self) -> bool:
        """Whether the window is full and the share of failures in it has reached the limit."""
        failures = sum(self._failed.values())
        return len(self._failed) == self._window and failures >= self._failure_rate * self._window

    def __str__(self) -> str:
        return f"{sum(self._failed.values())} of the last {len(self._failed)}"


class Breaker:
    """Trips when too many of the latest attempts failed: a broken night must not burn the whole manifest.

    Submissions and generations are counted apart. A submission is refused at once, and a generation ends only minutes
    later: in one count, a few refusals would stand beside no success yet, and stop a wide run at its beginning.

    A submission whose answer was lost counts as failed until more is known of it. Lost answers less than `moment_s`
    apart are one trouble and count as one: no two calls leave so close together, so it was not their answers that
    failed but something they share, such as the network.
    """

    def __init__(self, failure_rate: float, window: int, moment_s: float = 0.0) -> None:
        self._submissions = _Latest(failure_rate, window)
        self._generations = _Latest(failure_rate, window)
        self._moment_s = moment_s
        self._lost_s = -math.inf

    def note_start(self, attempt: str, *, failed: bool) -> None:
        """Take in whether an attempt was accepted."""
        self._submissions.note(attempt, failed=failed)

    def note_lost(self, attempt: str, now_s: float) -> None:
        """Take in that an attempt's answer was lost: it counts as failed until more is known of it."""
        is_news, self._lost_s = now_s - self._lost_s >= self._moment_s, now_s
        if is_news:
            self._submissions.note(attempt, failed=True)

    def note_accepted(self, attempt: str) -> None:
        """An attempt whose answer was lost was accepted all the same."""
        self._submissions.correct(attempt)

    def note_end(self, attempt: str, *, failed: bool) -> None:
        """Take in how a generation ended, whatever is still to be done for its video. It was accepted, then."""
        self.note_accepted(attempt)
        self._generations.note(attempt, failed=failed)

    @property
    def trouble(self) -> str | None:
        """What made it trip, in a few words; None while all is well."""
        for latest, what in ((self._submissions, "submissions"), (self._generations, "generations")):
            if latest.is_full_of_failures:
                return f"{latest} {what} failed"
        return None
