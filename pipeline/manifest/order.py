"""In which order jobs start: by priority, and inside a priority as the manifest's `order` says. Pure.

A run that stops early should leave something to choose from. `balanced` covers every row and every variant evenly,
instead of finishing the first product ten times before the second has a single video.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pipeline.jobs import Job
from pipeline.manifest.campaign import Entry, by_columns

T = TypeVar("T")

SPARSE = 4
"""A sweep is not walked cell by cell if its full grid has more than this many cells for each combination."""

MAX_SPREAD = 16
"""How many axes of a sparse sweep are spread evenly; the others keep the written order."""

_ABSENT = object()
"""The value of an axis that a combination does not have."""


class _Shape(NamedTuple):
    """What decides the order of a sweep: the axes with more than one value, and each combination's place on them."""

    size: int
    axes: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    """For each axis, and there for each combination: the number of its value, in order of first appearance."""


def in_order(entries: Sequence[Entry], order: str, seed: int, price: Callable[[Job], int]) -> tuple[Job, ...]:
    """Every job once, in the order in which a run starts them: higher priorities first, and inside a priority by
    `order`, one of `ORDERS`: `file` as written, `balanced` over rows and variants evenly, `cheapest` by list price and
    then balanced.

    Balanced means: the first replicate of all combinations comes before the second. Every row in turn gives its next
    combination, each row beginning at another one. A row's combinations are in an order in which every axis cycles
    through its values: along orbits of "one further on every axis". In a full grid, any prefix of a row has used the
    values of an axis equally often, to within one. Where combinations are missing they are skipped; where more than
    three of four are missing (`SPARSE`), the values of one axis after the other take turns instead, which is even for
    the first axis only. `seed` decides in which order an axis cycles; with 0 that is the written one.
    """
    if order != "cheapest" and (plain := _as_written(entries, order)) is not None:
        return plain
    by_priority: dict[int, list[Entry]] = {}
    for entry in entries:
        by_priority.setdefault(entry.priority, []).append(entry)
    jobs: dict[str, Job] = {}
    for priority in sorted(by_priority, reverse=True):
        mine = by_priority[priority]
        arranged: Iterable[Entry] = mine if order == "file" else _balanced(mine, seed)
        if order == "cheapest":
            arranged = sorted(arranged, key=lambda entry: price(entry.job))
        for entry in arranged:
            jobs.setdefault(entry.job.job_id, entry.job)
    return tuple(jobs.values())


def _as_written(entries: Sequence[Entry], order: str) -> tuple[Job, ...] | None:
    """Every job once in the order written; None where priorities or rows of several entries ask for another order.

    It makes no list of the entries, of which there may be a million.
    """
    columns = by_columns(entries)
    is_table = order == "file" or all(map(operator.lt, columns.rows, itertools.islice(columns.rows, 1, None)))
    if not is_table or len(set(columns.priorities)) > 1:
        return None
    if columns.distinct == len(columns):
        return tuple(columns.jobs)
    return tuple({job.job_id: job for job in columns.jobs}.values())


def _balanced(entries: list[Entry], seed: int) -> Iterable[Entry]:
    if len({entry.row for entry in entries}) == len(entries):
        return entries
    rows: dict[int, list[Entry]] = {}
    for entry in entries:
        rows.setdefault(entry.row, []).append(entry)
    known: dict[_Shape, _SharedOrbits] = {}
    return _in_turns([row if len(row) == 1 else _arranged(row, known, seed) for row in rows.values()])


def _in_turns(sequences: list[list[T]]) -> Iterator[T]:
    """The first of each, then the second of each that has one, and so on."""
    for turn in itertools.count():
        sequences = [each for each in sequences if len(each) > turn]
        if len(sequences) < 2:
            break
        yield from [each[turn] for each in sequences]
    for each in sequences:
        yield from each[turn:]


@dataclass(slots=True)
class _SharedOrbits:
    """The orbits that all rows of one shape share, and how many of these rows have begun."""

    orbits: list[list[int]]
    begun: int = 0


def _arranged(row: list[Entry], known: dict[_Shape, _SharedOrbits], seed: int) -> list[Entry]:
    """The entries of a row, replicate after replicate."""
    takes: dict[int, list[Entry]] = {}
    for entry in row:
        takes.setdefault(entry.job.replicate, []).append(entry)
    arranged: list[Entry] = []
    start: int | None = None
    for replicate in sorted(takes):
        take = takes[replicate]
        if len(take) > 1:
            shape = _shape(take)
            shared = known.get(shape)
            if shared is None:
                shared = known[shape] = _SharedOrbits(_orbits(shape, seed))
            if start is None:
                start = shared.begun
                shared.begun += 1
            take = [take[index] for index in _from(shared.orbits, start)]
        arranged += take
    return arranged


def _shape(take: Sequence[Entry]) -> _Shape:
    axes, places = [], []
    for name in sorted(set().union(*[entry.axes for entry in take])):
        values: list[Any] = [entry.axes.get(name, _ABSENT) for entry in take]
        if len(set(map(type, values))) > 1:
            # With their types, because True and 1 are the same key of a dict.
            values = list(zip(map(type, values), values, strict=True))
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        column = tuple(map(numbers.__getitem__, values))
        # Axes that change together count as one axis.
        if len(numbers) > 1 and column not in places:
            axes.append(name)
            places.append(column)
    return _Shape(len(take), tuple(axes), tuple(places))


def _orbits(shape: _Shape, seed: int) -> list[list[int]]:
    """The indices of a shape's combinations, orbit after orbit."""
    places = [_cycled(column, seed, axis) for axis, column in zip(shape.axes, shape.places, strict=True)]
    sizes = [max(column) + 1 for column in places]
    if math.prod(sizes) > SPARSE * shape.size:
        return [_spread(list(range(shape.size)), places[:MAX_SPREAD])]
    strides = [math.prod(sizes[:axis]) for axis in range(len(sizes))]
    scaled = [[place * stride for place in column] for column, stride in zip(places, strides, strict=True)]
    cells = list(map(sum, zip(*scaled, strict=True))) or [0] * shape.size
    # Built from the end, so that of several combinations in one cell the first one wins.
    left = dict(zip(reversed(cells), range(shape.size - 1, -1, -1), strict=True))
    again = [index for index, cell in enumerate(cells) if left[cell] != index]
    orbits = [
        [left.pop(cell) for cell in _orbit(start, sizes, strides) if cell in left]
        for start in sorted(left)
        if start in left
    ]
    return [*orbits, again] if again else orbits


def _cycled(places: Sequence[int], seed: int, axis: str) -> Sequence[int]:
    """Places on an axis by the order in which it cycles: the same for a seed in every process and version of Python."""
    if not seed:
        return places
    rng = random.Random(f"{seed}:{axis}")  # noqa: S311 - no secret
    order = sorted(range(max(places) + 1), key=lambda _place: rng.random())
    return [order[place] for place in places]


def _orbit(start: int, sizes: list[int], strides: list[int]) -> Iterator[int]:
    """The cells of a grid from `start` on, one further on every axis each time, until it comes back."""
    cycles = []
    for size, stride in zip(sizes, strides, strict=True):
        place = start // stride % size
        line = range(0, size * stride, stride)
        cycles.append(itertools.cycle((*line[place:], *line[:place])))
    if not cycles:
        return iter((start,))
    return map(sum, itertools.islice(zip(*cycles, strict=True), math.lcm(*sizes)))


def _spread(indices: list[int], places: Sequence[Sequence[int]]) -> list[int]:
    """The values of the first axis take turns, inside each of them those of the next, and so on."""
    if len(indices) < 3 or not places:
        return indices
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(places[0][index], []).append(index)
    spread = [_from([_spread(groups[value], places[1:])], start) for start, value in enumerate(sorted(groups))]
    return list(_in_turns(spread))


def _from(orbits: list[list[int]], start: int) -> list[int]:
    """All orbits, beginning at the `start`th index of them. Each stays whole, so that its values stay even."""
    at = start % sum(map(len, orbits))
    first = 0
    while at >= len(orbits[first]):
        at -= len(orbits[first])
        first += 1
    turned: list[int] = []
    for orbit in (*orbits[first:], *orbits[:first]):
        cut = at % len(orbit)
        turned += orbit[cut:] + orbit[:cut]
    return turned
