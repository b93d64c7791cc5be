"""The queue of jobs: by place, under the cap, and as if all of them lay in it from the beginning."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engine.queue import Queue
from pipeline.jobs import Job, Kind

PRICES = {"5": 1, "10": 2}


def _job(name: str, price_key: str = "5") -> Job:
    return Job(name, name, Kind("kling-2", {"duration": int(price_key)}, 1), name)


def _queue(ahead: frozenset[str] = frozenset()) -> Queue:
    books = SimpleNamespace(quote=lambda price, _: price)
    run = SimpleNamespace(
        price=lambda job: PRICES[job.price_key],
        ledger=SimpleNamespace(state=SimpleNamespace(books=books)),
        clock=SimpleNamespace(monotonic_s=lambda: 0.0),
    )
    return Queue(cast(Any, run), ahead)


def _drained(queue: Queue, free: int = 9) -> list[str]:
    names = []
    while (job := queue.first(free)) is not None:
        queue.take(job)
        names.append(job.job_id)
    return names


def test_jobs_are_started_in_their_order() -> None:
    queue = _queue()
    queue.add_all(map(_job, "abc"))
    assert len(queue) == 3
    assert _drained(queue) == ["a", "b", "c"]
    assert len(queue) == 0


def test_a_job_that_is_tried_again_waits_behind_those_that_nobody_has_looked_at_yet() -> None:
    queue = _queue()
    queue.add_all(map(_job, "abc"))
    first = queue.first(9)
    assert first is not None
    queue.take(first)
    queue.add(first)
    assert _drained(queue) == ["b", "c", "a"]


def test_what_was_queued_before_all_others_goes_first() -> None:
    queue = _queue()
    queue.add(_job("z"))
    queue.add_all(map(_job, "ab"))
    assert _drained(queue) == ["z", "a", "b"]


def test_the_canary_goes_first_wherever_it_stands() -> None:
    queue = _queue(frozenset("c"))
    queue.add_all(map(_job, "abcd"))
    assert _drained(queue) == ["c", "a", "b", "d"]


def test_a_job_that_does_not_fit_hides_no_cheaper_one_and_keeps_its_place() -> None:
    queue = _queue()
    queue.add_all([_job("a", "10"), _job("b", "10"), _job("c"), _job("d", "10")])
    cheap = queue.first(1)
    assert cheap is not None
    assert cheap.job_id == "c"
    queue.take(cheap)
    assert queue.first(1) is None
    assert queue.prices() == {(2, "10")}
    assert _drained(queue) == ["a", "b", "d"]


def test_the_prices_of_those_that_nobody_has_looked_at_are_known() -> None:
    queue = _queue()
    queue.add_all([_job("a"), _job("b", "10")])
    assert queue.prices() == {(1, "5"), (2, "10")}


@pytest.mark.parametrize("seed", range(50))
def test_it_is_as_if_all_of_them_were_looked_at_each_time(seed: int) -> None:
    rng = random.Random(seed)
    jobs = [_job(f"{number}", rng.choice(["5", "10"])) for number in range(30)]
    ahead = frozenset(rng.sample([job.job_id for job in jobs], 3))
    queue = _queue(ahead)
    queue.add_all(jobs)
    waiting = sorted(jobs, key=lambda job: job.job_id not in ahead)
    while waiting:
        free = rng.choice([0, 1, 2])
        fitting = [job for job in waiting if PRICES[job.price_key] <= free]
        found = queue.first(free)
        assert found is (fitting[0] if fitting else None)
        assert len(queue) == len(waiting)
        if found is not None:
            queue.take(found)
            waiting.remove(found)
            if rng.random() < 0.2 and found.job_id not in ahead:
                queue.add(found)
                waiting.append(found)
