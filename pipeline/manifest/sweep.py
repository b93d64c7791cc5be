"""A sweep: from axes to combinations, by the rules of a matrix in GitHub Actions.

`exclude` takes combinations away that have all of an entry's values. `include` comes after it: an entry is added to
every combination whose axes it does not contradict, and where there is none, it is a combination of its own. So an
entry may overwrite what another entry has added, but never the value of an axis. `zip` walks its axes together, as one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.models.base import Scalar
from pipeline.models.values import spelled

Axes = Mapping[str, tuple[Scalar, ...]]
Combination = Mapping[str, Scalar]

MAX_WORK = 2_000_000
"""The most comparisons of combinations with entries of `include` and `exclude`, over all rows: some seconds."""

_NO_AXES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sweep:
    """Axes by name, axes that are walked together, and combinations to add and to leave out. Lines from 1."""

    axes: Axes = field(default_factory=lambda: _NO_AXES)
    zips: tuple[Axes, ...] = ()
    include: tuple[Combination, ...] = ()
    exclude: tuple[Combination, ...] = ()
    include_lines: tuple[int, ...] = ()
    exclude_lines: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.axes or self.zips or self.include or self.exclude)

    def names(self) -> Iterator[str]:
        """The names of all axes."""
        yield from self.axes
        for walked in self.zips:
            yield from walked

    def size(self) -> int:
        """How many combinations the axes have before anything is taken away or added."""
        zipped = (len(next(iter(walked.values()))) for walked in self.zips)
        return math.prod((*(len(values) for values in self.axes.values()), *zipped))

    def work(self, bases: int = 1) -> int:
        """How many comparisons of an entry with a combination `combinations` makes for this many bases."""
        return bases * self.size() * (len(self.include) + len(self.exclude))

    def values(self) -> Iterator[tuple[str, Scalar, int | None]]:
        """Every value that the sweep can give a name, with its line where it has one of its own."""
        for axes in (self.axes, *self.zips):
            for name, values in axes.items():
                yield from ((name, value, None) for value in values)
        for entry, line in zip(self.include, self.include_lines, strict=True):
            yield from ((name, value, line) for name, value in entry.items())


def combinations(
    sweep: Sweep, bases: Sequence[Combination] = ({},), brought: Container[str] = ()
) -> list[dict[str, Scalar]]:
    """Every combination, the last axis changing fastest; each base is continued by all axes.

    `brought` are the names in the bases that are no axes: an entry of `include` may overwrite them.
    """
    originals = [
        {**base, **dict(zip(sweep.axes, values, strict=True)), **_merged(walked)}
        for base in bases
        for values in itertools.product(*sweep.axes.values())
        for walked in itertools.product(*map(_steps, sweep.zips))
    ]
    originals = [each for each in originals if not any(_has(each, entry) for entry in sweep.exclude)]
    if originals == [{}] and sweep.include:
        originals = []  # without any axis, each entry of `include` is a combination of its own
    made = [dict(original) for original in originals]
    added: list[dict[str, Scalar]] = []
    for entry in sweep.include:
        fitting = [at for at, original in enumerate(originals) if not contradicts(original, entry, brought)]
        for at in fitting:
            made[at].update(entry)
        if not fitting:
            added.append(dict(entry))
    return made + added


def unmatched(sweep: Sweep, bases: Sequence[Combination] = ({},)) -> list[int]:
    """The positions of those entries of `exclude` that take nothing away."""
    everything = combinations(Sweep(sweep.axes, sweep.zips), bases)
    return [at for at, entry in enumerate(sweep.exclude) if not any(_has(each, entry) for each in everything)]


def _steps(walked: Axes) -> list[dict[str, Scalar]]:
    return [dict(zip(walked, values, strict=True)) for values in zip(*walked.values(), strict=True)]


def _merged(steps: Iterable[Combination]) -> dict[str, Scalar]:
    return {name: value for step in steps for name, value in step.items()}


def _has(combination: Combination, entry: Combination) -> bool:
    return all(name in combination and _same(combination[name], value) for name, value in entry.items())


def contradicts(combination: Combination, entry: Combination, free: Container[str] = ()) -> bool:
    """Whether an entry has another value for a name of the combination, those in `free` aside."""
    return any(
        name in combination and name not in free and not _same(combination[name], value)
        for name, value in entry.items()
    )


def _same(one: Scalar, other: Scalar) -> bool:
    """Whether two values have the same spelling: 5 and "5" have, as everywhere in a manifest."""
    return one is other or spelled(one) == spelled(other)
