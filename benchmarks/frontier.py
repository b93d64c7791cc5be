"""Polls against delay: the least mean delay that any schedule of polls has, for a lognormal that is known.

By dynamic programming over the age at which a generation was asked about last, for many prices of a call: the price in
seconds of delay decides how many polls a job gets. Ages lie a fixed step apart, so the figures are a little above the
true ones where polls are many.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

STEP_S = 1.0
LOWEST_PRICE_S, HIGHEST_PRICE_S, PRICES = 0.05, 5000.0, 64
REACH = 5.0
"""How far ages go, in standard deviations of the logarithm above its mean."""


class Point(NamedTuple):
    """Polls a job, the last one included, and the mean delay with which its end is known."""

    polls: float
    delay_s: float


@functools.cache
def frontier(mean_s: float, sigma: float) -> tuple[Point, ...]:
    """The points of the frontier, from many polls to few."""
    centre = math.log(mean_s) - sigma * sigma / 2
    ages = np.arange(0.0, math.exp(centre + REACH * sigma), STEP_S)
    z = np.concatenate(([-np.inf], (np.log(ages[1:]) - centre) / sigma))
    ended, sooner = _normal(z), mean_s * _normal(z - sigma)
    prices = np.geomspace(LOWEST_PRICE_S, HIGHEST_PRICE_S, PRICES)
    return tuple(_point(float(price_s), ages, ended, sooner) for price_s in prices)


def _normal(z: np.ndarray) -> np.ndarray:
    return np.array([math.erfc(-each / math.sqrt(2)) / 2 for each in z])


def _point(price_s: float, ages: np.ndarray, ended: np.ndarray, sooner: np.ndarray) -> Point:
    """Polls and delay where a poll costs `price_s`; from the last age backwards.

    `ended` is the share of generations that have ended by each age, `sooner` the part of the mean that they make.
    """
    cost, polls = np.zeros(len(ages)), np.zeros(len(ages))
    for index in range(len(ages) - 2, -1, -1):
        alive = 1 - ended[index]
        later = slice(index + 1, None)
        late = ages[later] * (ended[later] - ended[index]) - (sooner[later] - sooner[index])
        total = price_s * alive + late + cost[later]
        best = int(np.argmin(total))
        cost[index], polls[index] = total[best], alive + polls[index + 1 + best]
    return Point(float(polls[0]), float(cost[0] - price_s * polls[0]))


def least_delay_s(polls: float, mean_s: float, sigma: float) -> float:
    """The frontier between its points; beyond its ends as at the nearest, in proportion where polls are more."""
    points = frontier(mean_s, sigma)
    if polls >= points[0].polls:
        return points[0].delay_s * points[0].polls / polls
    for more, fewer in itertools.pairwise(points):
        if fewer.polls <= polls:
            share = (more.polls - polls) / (more.polls - fewer.polls)
            return more.delay_s + share * (fewer.delay_s - more.delay_s)
    return points[-1].delay_s
