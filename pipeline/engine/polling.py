"""When to ask how a generation stands: pure functions of what is known of generation times.

A question costs a call; not asking costs the time in which a finished generation is not known to be so. With `h` the
hazard (the chance that a generation of some age ends in the next second), questions should lie `sqrt(2 c / h)` apart,
where `c` is what a call may cost in seconds of delay: seldom while an end is unlikely, densely where it is likely. So
with `G(age)` the integral of `sqrt(h / 2)`, the saving that a question brings for its call is the square of what G has
grown since the last one. Where calls are scarce, the next one goes to the generation whose saving is the greatest.

After J. B. Keller, "Optimum Checking Schedules for Systems Subject to Random Failure", Management Science 21 (1974).
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.engine.settings import Polling

PRICE_OF_A_CALL = 0.25 / 317
"""What a call may cost where calls are plentiful, in mean generation times of delay: about 18 questions a job."""

USUAL_SIGMA = 0.3
"""The spread of the logarithm of generation times, before any is known."""

PRIOR_WEIGHT = 5.0
"""The configured expectation counts as much as this many observations."""

KEPT_OF_OLD = 0.995
"""How much an observation still counts when the next one comes: times may change, and the last 200 or so decide."""

LEAST_SIGMA, MOST_SIGMA = 0.05, 1.0
_SIGMA_STEP = 0.05

URGENT_SHARE = 0.75
"""A generation older than this share of `give_up_s` is asked about and collected before anything else is done."""

_POINTS = 400
_TOP = 4.0
"""How far the curve goes, in standard deviations above the mean of the logarithm."""


@dataclass(slots=True)
class Durations:
    """What is known of generation times: the configured expectation, moved by every one that was seen.

    Lognormal, as times that are a product of many small accidents are.
    """

    expected_s: float
    median_s: float = field(init=False)
    """Half of all generations take longer."""
    sigma: float = field(init=False)
    """The spread of the logarithm, in steps that make a curve worth keeping."""
    mean_s: float = field(init=False)
    """The mean generation time."""
    _seen: float = 0.0
    _sum: float = 0.0
    _squares: float = 0.0

    def __post_init__(self) -> None:
        self._learn()

    def note(self, seconds: float) -> None:
        """Take in how long a generation took."""
        if seconds > 0:
            far = math.log(seconds / self.expected_s)
            self._seen = KEPT_OF_OLD * self._seen + 1
            self._sum = KEPT_OF_OLD * self._sum + far
            self._squares = KEPT_OF_OLD * self._squares + far * far
            self._learn()

    def _learn(self) -> None:
        prior = -USUAL_SIGMA * USUAL_SIGMA / 2
        centre = (PRIOR_WEIGHT * prior + self._sum) / (PRIOR_WEIGHT + self._seen)
        spread = self._squares - 2 * centre * self._sum + self._seen * centre * centre
        variance = (PRIOR_WEIGHT * USUAL_SIGMA**2 + spread) / (PRIOR_WEIGHT + self._seen)
        sigma = min(MOST_SIGMA, max(LEAST_SIGMA, math.sqrt(max(0.0, variance))))
        self.sigma = round(sigma / _SIGMA_STEP) * _SIGMA_STEP
        self.median_s = self.expected_s * math.exp(centre)
        self.mean_s = self.median_s * math.exp(self.sigma**2 / 2)

    @property
    def outlook(self) -> Outlook:
        """The expectation as it is now, for looking at many generations at once."""
        return Outlook(self.median_s, curve(self.sigma))


@dataclass(frozen=True, slots=True)
class Curve:
    """G for a median of one second and a sigma: ages in medians, and how far G has grown there."""

    ages: list[float] = field(repr=False)
    grown: list[float] = field(repr=False)

    def at(self, age: float) -> float:
        """G at an age; beyond the end it goes on as steeply."""
        index = min(max(bisect_right(self.ages, age), 1), len(self.ages) - 1)
        share = (age - self.ages[index - 1]) / (self.ages[index] - self.ages[index - 1])
        return self.grown[index - 1] + share * (self.grown[index] - self.grown[index - 1])

    def age_at(self, grown: float) -> float:
        """The age at which G has grown so far."""
        index = min(max(bisect_right(self.grown, grown), 1), len(self.grown) - 1)
        share = (grown - self.grown[index - 1]) / (self.grown[index] - self.grown[index - 1])
        return self.ages[index - 1] + share * (self.ages[index] - self.ages[index - 1])


@functools.lru_cache(maxsize=64)
def curve(sigma: float) -> Curve:
    """The curve of a lognormal with median 1."""
    lowest, highest = math.exp(-_TOP * sigma), math.exp(_TOP * sigma)
    step = (highest - lowest) / _POINTS
    ages, grown = [0.0, lowest], [0.0, 1e-9]
    for point in range(1, _POINTS + 1):
        age = lowest + point * step
        z = math.log(age - step / 2) / sigma
        density = math.exp(-z * z / 2) / ((age - step / 2) * sigma * math.sqrt(2 * math.pi))
        alive = max(math.erfc(z / math.sqrt(2)) / 2, 1e-6)
        ages.append(age)
        grown.append(grown[-1] + step * math.sqrt(density / alive / 2))
    return Curve(ages, grown)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of generation times at one moment."""

    median_s: float
    line: Curve

    def saving_s(self, asked_s: float, age_s: float) -> float:
        """What a question brings now, in seconds of delay saved, for a generation last asked about at `asked_s`."""
        grown = self.line.at(age_s / self.median_s) - self.line.at(asked_s / self.median_s)
        return self.median_s * grown * grown if grown > 0 else 0.0


def next_age_s(durations: Durations, polling: Polling, asked_s: float) -> float:
    """The age at which a generation is worth a question where calls are plentiful; last asked about at `asked_s`.

    At least `min_interval_s` after the last question, and, once there was one, at most `max_interval_s` after it.
    """
    median_s, line = durations.median_s, curve(durations.sigma)
    price = PRICE_OF_A_CALL * durations.mean_s
    due_s = median_s * line.age_at(line.at(asked_s / median_s) + math.sqrt(price / median_s))
    if asked_s > 0:
        due_s = min(due_s, asked_s + polling.max_interval_s)
    return max(due_s, asked_s + polling.min_interval_s)


def is_urgent(polling: Polling, age_s: float) -> bool:
    """Whether a generation is so old that its record may soon be forgotten."""
    return age_s > URGENT_SHARE * polling.give_up_s
