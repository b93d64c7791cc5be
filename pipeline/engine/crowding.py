"""How many generations at once the provider's own queue bears: more than it works on only wait there, and grow old.

A provider that works on `c` at once lets the `n`-th wait for `n / c - 1` generation times. A queue time that is there
even when few of our jobs are in flight is caused by other customers: to lower our ceiling for it would only give our
place to them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

ROUND = 12
"""This many generations that were accepted since the last change show what it has done."""

CROWDED, CALM = 1.0, 0.5
"""Shares of a generation's own time in the queue above which the ceiling falls, and below which it rises."""

KEPT = 2.0
"""The ceiling falls to this multiple of what the provider seems to work on at once, so that it is never idle."""

RISE = 0.05
"""The ceiling rises again by this share of the configured one."""

HELPED = 0.9
"""A fall has helped if queue times are below this share of what they were."""


class _Wait(NamedTuple):
    """How many were in flight when a generation was accepted, and its time in the queue as a share of its own."""

    in_flight: int
    share: float


class _Fall(NamedTuple):
    """The ceiling and the queue before the last change, if that was a fall."""

    ceiling: int
    share: float


class Crowding:
    """The ceiling that queue times allow, at most the configured one."""

    def __init__(self, most: int, now_s: Callable[[], float]) -> None:
        self.ceiling = most
        self._most = most
        self._now_s = now_s
        self._round: list[_Wait] = []
        self._always = math.inf
        """The share that generations wait even when few are in flight; unknown until the first round is over."""
        self._changed_s = -math.inf
        self._fall: _Fall | None = None

    def note(self, age_s: float, in_flight: int, queue_s: float, inference_s: float) -> None:
        """Take in how long a generation was queued that has just ended; it was accepted `age_s` ago. Seconds.

        Args:
            in_flight: how many were in flight when it was accepted, itself included.
        """
        if queue_s < 0 or inference_s <= 0 or self._now_s() - age_s < self._changed_s:
            return
        if math.isfinite(self._always) and in_flight < self.ceiling / 2:
            return  # a queue while few are in flight says nothing about many
        self._round.append(_Wait(in_flight, queue_s / inference_s))
        if len(self._round) == ROUND:
            share = statistics.median(wait.share for wait in self._round)
            in_flight = int(statistics.median(wait.in_flight for wait in self._round))
            self._round.clear()
            self._decide(_Wait(in_flight, share))

    def _decide(self, usual: _Wait) -> None:
        if math.isinf(self._always):
            self._always = usual.share
            return
        self._always = min(self._always, usual.share)
        ours = usual.share - self._always
        if self._fall is not None and usual.share > HELPED * self._fall.share:
            self._always = usual.share
            self._change(self._fall.ceiling, None)
        elif ours > CROWDED:
            worked_on = usual.in_flight / (1 + ours)
            self._change(max(1, int(KEPT * worked_on)), _Fall(self.ceiling, usual.share))
        elif ours < CALM and self.ceiling < self._most:
            self._change(min(self._most, self.ceiling + max(1, round(RISE * self._most))), None)

    def _change(self, ceiling: int, fall: _Fall | None) -> None:
        self.ceiling, self._fall, self._changed_s = ceiling, fall, self._now_s()
