"""The strict sliding window."""

import random

from pipeline.sandbox.limits import RateWindow


def test_no_window_of_a_minute_lets_in_more_than_the_limit() -> None:
    """Whatever the arrival times, any 60 seconds hold at most the limit, and the reset time is the first that works."""
    for seed in range(20):
        source, window, admitted, now = random.Random(seed), RateWindow(7), [], 0.0
        for _ in range(400):
            now += source.expovariate(0.3)
            reset_at = window.call(now)
            recent = [at for at in admitted if at > now - 60]
            assert (reset_at is None) == (len(recent) < 7)
            if reset_at is None:
                admitted.append(now)
            else:
                assert reset_at == recent[0] + 60
        assert all(sum(at - 60 < other <= at for other in admitted) <= 7 for at in admitted)


def test_refused_calls_are_seen_but_do_not_use_up_the_limit() -> None:
    """A client that hammers gets in again as soon as its last admitted calls are a minute old."""
    window = RateWindow(2)
    assert [window.call(at) for at in (0.0, 1.0, 2.0, 59.9, 60.0)] == [None, None, 60.0, 60.0, None]
    assert window.most_seen == 4


def test_calls_of_an_earlier_process_count() -> None:
    """A restart does not make room in the window."""
    window = RateWindow(1)
    window.remember(5.0)
    assert window.call(6.0) == 65.0


def test_without_a_limit_everything_is_let_in_and_counted() -> None:
    """The busiest minute is known even when nothing is refused."""
    window = RateWindow(None)
    assert [window.call(float(at)) for at in range(120)] == [None] * 120
    assert window.most_seen == 60
