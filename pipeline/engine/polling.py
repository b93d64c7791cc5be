"""When to ask next how a generation stands: a pure function of what is known."""

from __future__ import annotations

from pipeline.engine.settings import Polling

EARLIEST_SHARE = 0.55
"""Asking before this share of the expected time is nearly always in vain."""

ASKS_PER_EXPECTED = 20
"""From then on, a question for each of so many parts of the expected time."""

SHARE_OF_PACE = 0.7
"""At most this share of the pace goes into polls, however many generations there are; the rest starts new ones."""


def wait_before_poll_s(polling: Polling, age_s: float, in_flight: int, call_interval_s: float) -> float:
    """Seconds until the next question about a generation that was submitted `age_s` ago.

    `in_flight` generations share one call each `call_interval_s` seconds: the more there are, the rarer each is asked
    about.
    """
    first_s = EARLIEST_SHARE * polling.expected_s
    if age_s < first_s:
        return max(first_s - age_s, polling.min_interval_s)
    usual_s = min(max(polling.expected_s / ASKS_PER_EXPECTED, polling.min_interval_s), polling.max_interval_s)
    fair_s = in_flight * call_interval_s / SHARE_OF_PACE
    return max(usual_s, fair_s)
