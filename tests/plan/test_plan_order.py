"""In which order jobs start: by priority, and inside one evenly over rows and variants."""

from __future__ import annotations

import itertools
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_doubles import make_job

from pipeline.jobs import Job
from pipeline.manifest.campaign import ORDERS, Entry
from pipeline.manifest.order import in_order

Axes = Mapping[str, Any]


def entry(row: int, axes: Axes | None = None, replicate: int = 1, priority: int = 0, duration: int = 5) -> Entry:
    params = {"prompt": f"{row} {sorted((axes or {}).items())}", "duration": duration}
    return Entry(row, f"row-{row}", make_job("kling-2", params, replicate, f"row-{row}"), {}, priority, axes or {})


def grid(**axes: Sequence[Any]) -> list[Axes]:
    """Every combination, as a matrix writes them."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def ordered(entries: Sequence[Entry], order: str = "balanced", seed: int = 0) -> list[Entry]:
    """The entries in the order of their jobs; each has a job of its own."""
    by_id = {each.job.job_id: each for each in entries}
    return [by_id[job.job_id] for job in in_order(entries, order, seed, price)]


def price(job: Job) -> int:
    return int(str(job.params["duration"]))


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
SEEDS = st.integers(0, 3)


@st.composite
def campaigns(draw: st.DrawFn) -> list[Entry]:
    """Rows with and without a sweep, with missing combinations, values of any kind, takes and priorities."""
    values = st.sampled_from(["a", "b", "", 0, 1, True, False, 1.0, None, 2.5])
    axes = st.dictionaries(st.sampled_from("xyz"), values)
    entries = []
    for row in range(1, draw(st.integers(0, 6)) + 1):
        priority = draw(st.integers(-1, 1))
        for combination in draw(st.lists(axes, min_size=1, max_size=8)):
            takes = draw(st.integers(1, 3))
            entries += [
                entry(row, combination, take, priority, draw(st.sampled_from([5, 10]))) for take in range(takes)
            ]
    return entries


@settings(deadline=None)
@given(campaigns(), st.sampled_from(ORDERS), SEEDS)
def test_every_job_once_and_by_priority(entries: list[Entry], order: str, seed: int) -> None:
    """An order is a permutation, whatever the combinations, and no job starts before one of a higher priority."""
    jobs = in_order(entries, order, seed, price)
    assert Counter(job.job_id for job in jobs) == Counter({each.job.job_id for each in entries})
    priorities = {each.job.job_id: each.priority for each in reversed(entries)}
    started = [priorities[job.job_id] for job in jobs]
    assert started == sorted(started, reverse=True)


@settings(deadline=None)
@given(SIZES, SEEDS, st.integers(0, 8))
def test_any_prefix_of_a_full_sweep_has_used_each_value_equally(sizes: list[int], seed: int, before: int) -> None:
    """To within one, on every axis, also where the row is not the first of its shape and begins elsewhere."""
    sweep = grid(**{f"axis{number}": range(size) for number, size in enumerate(sizes)})
    rows = [entry(row, axes) for row in range(before + 1) for axes in sweep]
    row = [each.axes for each in ordered(rows, seed=seed) if each.row == before]
    assert len(row) == math.prod(sizes)
    for name in sweep[0]:
        used = Counter(dict.fromkeys({axes[name] for axes in sweep}, 0))
        for axes in row:
            used[axes[name]] += 1
            assert max(used.values()) - min(used.values()) <= 1


@settings(deadline=None)
@given(SIZES, st.integers(1, 7), SEEDS)
def test_rows_take_turns_and_begin_at_different_variants(sizes: list[int], rows: int, seed: int) -> None:
    """After k rounds each row has k videos; in one round, no two of as many rows as variants show the same one."""
    sweep = grid(**{f"axis{number}": range(size) for number, size in enumerate(sizes)})
    made = ordered([entry(row, axes) for row in range(rows) for axes in sweep], seed=seed)
    for turn in range(len(sweep)):
        each_round = made[turn * rows : (turn + 1) * rows]
        assert [each.row for each in each_round] == list(range(rows))
        shown = Counter(str(each.axes) for each in each_round)
        assert max(shown.values()) <= math.ceil(rows / len(sweep))


def test_takes_come_after_all_combinations() -> None:
    """The second take of anything waits for the first of everything in its row."""
    entries = [entry(1, axes, take) for axes in grid(mood="ab", shape="xy") for take in (1, 2)]
    assert [each.job.replicate for each in ordered(entries)] == [1] * 4 + [2] * 4
    takes = [entry(row, None, take) for row in (1, 2) for take in (1, 2)]
    assert [(each.row, each.job.replicate) for each in ordered(takes)] == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_missing_combinations_are_skipped() -> None:
    """With a third of a grid gone, each axis still changes from one video to the next."""
    sweep = [axes for axes in grid(product="abc", mood="xyz") if axes not in grid(product="a", mood="xyz")[:2]]
    made = [each.axes for each in ordered([entry(1, axes) for axes in sweep])]
    assert Counter(axes["product"] for axes in made[:3]).most_common(1)[0][1] == 1
    assert Counter(axes["mood"] for axes in made[:5]).most_common(1)[0][1] == 2


def test_a_sparse_sweep_is_not_walked_cell_by_cell() -> None:
    """Forty axes would have a million million cells; the values of the first one take turns all the same."""
    rng = random.Random(1)
    sweep = [{"axis00": line & 1, **{f"axis{n:02}": rng.randrange(2) for n in range(1, 40)}} for line in range(256)]
    begun = time.process_time()
    made = [each.axes for each in ordered([entry(1, axes) for axes in sweep])]
    assert [axes["axis00"] for axes in made] == [0, 1] * 128
    assert time.process_time() - begun < 2


def test_the_three_orders() -> None:
    """As written; by price and then balanced; balanced."""
    entries = [
        *(entry(1, axes, duration=10 if axes["size"] == "l" else 5) for axes in grid(size="ls", mood="xy")),
        entry(2, None, duration=10),
        entry(3, None, priority=1),
    ]
    names = {
        order: ["".join(each.axes.values()) or str(each.row) for each in ordered(entries, order)] for order in ORDERS
    }
    assert names["file"] == ["3", "lx", "ly", "sx", "sy", "2"]
    assert names["balanced"] == ["3", "lx", "2", "sy", "ly", "sx"]
    assert names["cheapest"] == ["3", "sy", "sx", "lx", "2", "ly"]


def test_a_seed_decides_and_is_the_same_in_every_process() -> None:
    """Two seeds differ, one never does: not by the order of a mapping's keys, nor by the hashes of a process."""
    sweep = grid(mood="abcd", shape="wxyz")
    entries = [entry(1, axes) for axes in sweep]
    turned = [entry(1, dict(reversed(axes.items()))) for axes in sweep]
    by_seed = [[each.job.job_id for each in ordered(entries, seed=seed)] for seed in range(3)]
    assert len({tuple(ids) for ids in by_seed}) == 3
    assert [[each.job.job_id for each in ordered(turned, seed=seed)] for seed in range(3)] == by_seed
    code = (
        "import test_plan_order as t\n"
        "entries = [t.entry(1, axes) for axes in t.grid(mood='abcd', shape='wxyz')]\n"
        "print(*(each.job.job_id for each in t.ordered(entries, seed=2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == by_seed[2]


@pytest.mark.parametrize("rows", [20_000, 1])
def test_the_order_of_many_is_found_quickly(rows: int) -> None:
    """Twenty thousand rows of one job, or one row of as many: a fiftieth of the largest manifest, in no time."""
    job = entry(0).job
    sweep = grid(a=range(20), b=range(20), c=range(50)) if rows == 1 else [{}] * rows
    entries = [
        Entry(row if rows > 1 else 1, "x", Job(str(row), job.prompt, job.kind, "x"), {}, 0, axes)
        for row, axes in enumerate(sweep)
    ]
    begun = time.process_time()
    assert len(in_order(entries, "balanced", 0, price)) == 20_000
    assert time.process_time() - begun < 1


def test_axes_that_are_walked_together_are_one() -> None:
    """Six zipped columns times two axes: any prefix has used each of their values equally often, to within one."""
    steps = [{f"z{column}": f"{column}-{step}" for column in range(6)} for step in range(5)]
    swept = [{**step, "x": x, "y": y} for step in steps for x in "ab" for y in "cde"]
    found = ordered([entry(1, axes) for axes in swept])
    for end in range(1, len(found) + 1):
        for axis, size in (("z0", 5), ("x", 2), ("y", 3)):
            counts = Counter(each.axes[axis] for each in found[:end])
            assert max(counts.values()) - min(counts[value] for value in counts) <= 1
            assert len(counts) == min(end, size)
