"""The numbers behind the gallery's charts: money and videos over the hours of running, and how long generations took.

Pure, and exact: the last point of a series is the total, whatever was left out before it.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from pipeline.ledger.fold import JobRecord, JobState, State

MOST_POINTS = 300
MOST_BARS = 24
MOST_BREAKS = 50
LONGEST_S = 1e6
"""Seconds that no generation takes, whatever a provider says."""


def money_over_time(state: State, now_us: int | None) -> dict[str, list[Any]]:
    """Micro-dollars posted (`micro`) and videos stored (`stored`) by each second of running (`at_s`), from zero.

    The pauses between runs are left out; `breaks_s` says where the first of them were.

    Args:
        now_us: the present, where the last run is live.
    """
    paid = _paid(state)
    moves = [(record.posted_us or 0, record.cost_microusd, 0) for record in paid]
    moves += [(record.ended_us or 0, 0, 1) for record in paid if record.state is JobState.STORED]
    moves.sort()
    spans = _spans(state, [at_us for at_us, *_ in moves], now_us)
    points: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for at_us, micro, stored in moves:
        at_s, micro_before, stored_before = points[-1]
        # A wall clock that was set back does not turn the line back.
        points.append((max(at_s, _running_s(spans, at_us)), micro_before + micro, stored_before + stored))
    if spans:
        points.append((max(points[-1][0], _ran_s(spans)), *points[-1][1:]))
    thinned = _thinned(points)
    return {
        "at_s": [at_s for at_s, _, _ in thinned],
        "micro": [micro for _, micro, _ in thinned],
        "stored": [stored for _, _, stored in thinned],
        "breaks_s": [span.before_s for span in spans[1 : MOST_BREAKS + 1]],
    }


def _paid(state: State) -> list[JobRecord]:
    # A copy first: beside a live run, jobs are added while this is read.
    return [record for record in list(state.jobs.values()) if record.state in (JobState.POSTED, JobState.STORED)]


class _Span(NamedTuple):
    """One run: when it began and ended, and how long those before it took."""

    begun_us: int
    ended_us: int
    before_s: float


def _spans(state: State, moments_us: Sequence[int], now_us: int | None) -> list[_Span]:
    """The runs; one that was killed is taken to have ended with the last that is known of it."""
    spans: list[_Span] = []
    before_s = 0.0
    for run, after in zip_longest(state.runs, state.runs[1:]):
        known = len(moments_us) if after is None else bisect_right(moments_us, after.started_us)
        last_known_us = moments_us[known - 1] if known else run.started_us
        present_us = now_us if after is None else None
        ended_us = run.ended_us or present_us or last_known_us
        spans.append(_Span(run.started_us, max(run.started_us, ended_us), before_s))
        before_s = _ran_s(spans)
    return spans


def _ran_s(spans: Sequence[_Span]) -> float:
    last = spans[-1]
    return round(last.before_s + (last.ended_us - last.begun_us) / 1e6, 1)


def _running_s(spans: Sequence[_Span], at_us: int) -> float:
    """Seconds of running until a moment; what was settled between two runs counts at the end of the earlier one."""
    number = bisect_right(spans, at_us, key=lambda span: span.begun_us) - 1
    if number < 0:
        return 0.0
    span = spans[number]
    return round(span.before_s + (min(at_us, span.ended_us) - span.begun_us) / 1e6, 1)


def _thinned(points: Sequence[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """So few points that each has some pixels; the last is always among them."""
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    return [*points[:-1:step], points[-1]]


def generation_times(state: State) -> dict[str, Any] | None:
    """How many generations took how long, as the provider says, in bars of `step_s` seconds from `from_s` on.

    None while nothing is known.
    """
    times = [
        record.inference_s
        for record in _paid(state)
        if record.inference_s is not None and 0 <= record.inference_s < LONGEST_S
    ]
    if not times:
        return None
    step_s = _step(max(times) - min(times))
    first = math.floor(min(times) / step_s)
    counts = [0] * (math.floor(max(times) / step_s) - first + 1)
    for each in times:
        counts[math.floor(each / step_s) - first] += 1
    return {
        "from_s": first * step_s,
        "step_s": step_s,
        "counts": counts,
        "median_s": round(statistics.median(times), 1),
        "least_s": round(min(times), 1),
        "most_s": round(max(times), 1),
    }


def _step(span_s: float) -> int:
    """A round number of seconds, at least one, of which about `MOST_BARS` make up the span."""
    rough = span_s / MOST_BARS
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= rough:
                return factor * power
        power *= 10
