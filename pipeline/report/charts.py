"""The numbers behind the gallery's charts: money and videos over the hours of running, and how long generations took.

Pure, and exact: the last point of a series is the total, whatever was left out before it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.kernel.arrow import pc
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState

Values = npt.NDArray[Any]

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
    paid = _paid(state, "posted_us", "cost_microusd", "ended_us")
    ended_us = paid["ended_us"][paid["is_stored"]]
    at_us = np.concatenate([paid["posted_us"], ended_us])
    order = np.argsort(at_us, kind="stable")
    at_us = at_us[order]
    spans = _spans(state, at_us, now_us)
    # Each line starts at zero and goes on to the end of the last run, which may be after the last known moment.
    ends = [_ran_s(spans)] if spans else []
    # Where the wall clock was set back, the line stands still instead of going back.
    running_s = np.maximum.accumulate(np.concatenate([[0.0], _running_s(spans, at_us), ends]))
    posted = np.concatenate([paid["cost_microusd"], np.zeros_like(ended_us)])[order]
    is_end = order >= len(paid["posted_us"])
    drawn = _thinned(len(running_s))
    at_s = running_s[drawn].tolist()
    micro, stored = (np.cumsum(np.pad(each, (1, len(ends))))[drawn].tolist() for each in (posted, is_end))
    return {
        "at_s": [round(each, 1) for each in at_s],
        "micro": list(map(int, micro)),
        "stored": list(map(int, stored)),
        "breaks_s": [span.before_s for span in spans[1 : MOST_BREAKS + 1]],
    }


def _paid(state: State, *names: str) -> dict[str, Values]:
    """Columns of the jobs that are paid for. What is not known is NaN in a column of floats, else 0."""
    table = state.jobs.columns(("state", *names))
    is_stored, is_posted = (
        pc.equal(table["state"], stand.name).to_numpy() for stand in (JobState.STORED, JobState.POSTED)
    )
    is_paid = is_stored | is_posted
    columns: dict[str, Values] = {"is_stored": is_stored[is_paid]}
    for name in names:
        column: Any = table[name]
        unknown = math.nan if column.type == pa.float64() else 0
        columns[name] = column.fill_null(unknown).to_numpy()[is_paid]
    return columns


class _Span(NamedTuple):
    """One run: when it began and ended, and how long those before it took."""

    begun_us: int
    ended_us: int
    before_s: float


def _spans(state: State, moments_us: Values, now_us: int | None) -> list[_Span]:
    """The runs; one that was killed counts as ended at the last moment that is known of it."""
    spans: list[_Span] = []
    before_s = 0.0
    for run, after in zip_longest(state.runs, state.runs[1:]):
        known = len(moments_us) if after is None else bisect_right(moments_us, after.started_us)
        last_known_us = int(moments_us[known - 1]) if known else run.started_us
        present_us = now_us if after is None else None
        ended_us = run.ended_us or present_us or last_known_us
        spans.append(_Span(run.started_us, max(run.started_us, ended_us), before_s))
        before_s = _ran_s(spans)
    return spans


def _ran_s(spans: Sequence[_Span]) -> float:
    last = spans[-1]
    return round(last.before_s + (last.ended_us - last.begun_us) / 1e6, 1)


def _running_s(spans: Sequence[_Span], at_us: Values) -> Values:
    """Seconds of running until each moment; what was settled between two runs counts at the end of the earlier one."""
    if not spans:
        return np.zeros(len(at_us))
    begun_us, ended_us = (np.array([getattr(span, name) for span in spans]) for name in ("begun_us", "ended_us"))
    numbers = np.searchsorted(begun_us, at_us, side="right") - 1
    before_s = np.array([span.before_s for span in spans])[numbers]
    return np.where(numbers < 0, 0.0, before_s + (np.minimum(at_us, ended_us[numbers]) - begun_us[numbers]) / 1e6)


def _thinned(points: int) -> list[int]:
    """The indices of the points that are drawn: at most about `MOST_POINTS`, always with the last."""
    step = max(1, math.ceil(points / MOST_POINTS))
    return [*range(0, points - 1, step), points - 1]


def generation_times(state: State) -> dict[str, Any] | None:
    """How many generations took how long, as the provider says, in bars of `step_s` seconds from `from_s` on.

    None while nothing is known.
    """
    times = _paid(state, "inference_s")["inference_s"]
    times = times[(times >= 0) & (times < LONGEST_S)]
    if not len(times):
        return None
    step_s = _step(float(times.max() - times.min()))
    bars = np.floor(times / step_s).astype(np.int64)
    first = int(bars.min())
    return {
        "from_s": first * step_s,
        "step_s": step_s,
        "counts": np.bincount(bars - first).tolist(),
        "median_s": round(float(np.median(times)), 1),
        "least_s": round(float(times.min()), 1),
        "most_s": round(float(times.max()), 1),
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
