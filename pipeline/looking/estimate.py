"""How long a run will still take: an estimate from what is known before anything is done, and better with each end.

Generation times are taken for lognormal, as the engine takes them. The last of many that run side by side ends much
later than the middle one, so what is estimated is the end of the last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

LONGEST_WINDOW_S = 3600.0
"""The rate at which jobs end is taken over at most the last so many seconds."""

FEW = 10
"""Fewer ends than this say nothing of the rate."""

_FORGOTTEN = 1e-9
"""A generation older than all but this share of generations is treated as overdue, not by the lognormal."""

_STEPS = 30
"""Bisections in the search for the end: to a billionth of the interval in which it may lie."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a run, and what is known of how fast it goes. Seconds."""

    to_start: int
    ages_s: Collection[float]
    """The ages of the generations in flight."""
    slots: int
    """How many may be in flight at once."""
    starts_per_s: float
    """How fast jobs can start at the given rate of calls."""
    median_s: float
    sigma: float
    ends_per_s: float | None = None
    """How fast jobs were seen to come to their end, once that can be told."""
    starts_end_s: float | None = None
    """How long from now on jobs may start, where there is a deadline."""

    @property
    def mean_s(self) -> float:
        """The mean generation time."""
        return self.median_s * math.exp(self.sigma**2 / 2)


def left_s(work: Work) -> float:
    """About how long until all is done; 0 where nothing is left."""
    starts_s = starts_take_s(work)
    side_by_side = min(work.slots, work.to_start + len(work.ages_s)) if work.to_start else len(work.ages_s)
    # Ages at the moment of the last start: by then, each earlier job has aged by the starts that came after it. Where
    # slots are scarce, new jobs take the places of the oldest.
    fresh = min(work.to_start, side_by_side)
    between_s = starts_s / work.to_start if work.to_start else 0.0
    ages_s = [number * between_s for number in range(fresh)]
    ages_s += [age_s + starts_s for age_s in sorted(work.ages_s)[: side_by_side - fresh]]
    return starts_s + last_end_s(ages_s, work.median_s, work.sigma)


def starts_take_s(work: Work) -> float:
    """How long until the last job has started."""
    if not work.to_start:
        return 0.0
    if work.ends_per_s:
        takes_s = work.to_start / work.ends_per_s
    else:
        under_way_s = sum(max(work.mean_s - age_s, work.mean_s / 10) for age_s in work.ages_s)
        by_slots_s = (under_way_s + work.to_start * work.mean_s) / work.slots - work.mean_s
        takes_s = max(0.0, by_slots_s, (work.to_start - 1) / work.starts_per_s)
    return takes_s if work.starts_end_s is None else min(takes_s, max(0.0, work.starts_end_s))


def last_end_s(ages_s: Collection[float], median_s: float, sigma: float) -> float:
    """The median of the time until the last of several generations ends."""
    if not ages_s:
        return 0.0
    # Ages are rounded to steps, so that a thousand generations take no longer than twenty.
    step_s = median_s / 20
    alike = Counter(round(age_s / step_s) * step_s for age_s in ages_s)
    alive = {age_s: _share_above(age_s, median_s, sigma) for age_s in alike}
    overdue = [age_s for age_s, share in alive.items() if share < _FORGOTTEN]
    waited_for = {age_s: share for age_s, share in alive.items() if share >= _FORGOTTEN}

    def all_ended(by_s: float) -> float:
        logs = (
            alike[age_s] * math.log1p(-min(1 - 1e-12, _share_above(age_s + by_s, median_s, sigma) / share))
            for age_s, share in waited_for.items()
        )
        return math.exp(sum(logs))

    low_s, high_s = 0.0, median_s * math.exp(8 * sigma)
    for _ in range(_STEPS if waited_for else 0):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (middle_s, high_s) if all_ended(middle_s) < 0.5 else (low_s, middle_s)
    return max(low_s, *(age_s / 10 for age_s in overdue), 0.0)


def _share_above(age_s: float, median_s: float, sigma: float) -> float:
    """The share of generations that take longer than this."""
    return math.erfc(math.log(age_s / median_s) / sigma / math.sqrt(2)) / 2 if age_s > 0 else 1.0


def ends_per_s(ended_s: Sequence[float], began_s: float, now_s: float, usual_s: float) -> float | None:
    """How fast jobs come to their end; None while that cannot be told.

    Before the first generations can be over nothing is counted: a rate that contains that wait is too low.

    Args:
        ended_s: when jobs of this run came to their end, in order.
        began_s: when the run began.
        usual_s: how long a generation usually takes.
    """
    since_s = max(began_s + usual_s, now_s - max(LONGEST_WINDOW_S, 2 * usual_s))
    ended = sum(since_s < each <= now_s for each in ended_s)
    return ended / (now_s - since_s) if ended >= FEW and now_s - since_s >= usual_s / 2 else None
