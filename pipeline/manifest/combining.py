"""The combinations of each row: the manifest's sweep as the row leaves it, continued by the row's own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from pipeline.manifest.document import NO_SWEEP, Row
from pipeline.manifest.rows import Rows
from pipeline.manifest.sizes import Sizes
from pipeline.manifest.sweep import Sweep, combinations, contradicts, unmatched
from pipeline.models.base import Scalar
from pipeline.models.values import spelled

MAX_SHAPES = 1_000
"""How many different changes of the top sweep by rows are remembered."""

_ONCE: list[dict[str, Scalar]] = [{}]


@dataclass(slots=True)
class Combining:
    """The combinations of rows. Rows that change the top sweep in the same way share its combinations."""

    rows: Rows
    sizes: Sizes
    _is_swept: bool = False
    """Whether there is a top sweep."""
    _brought: frozenset[str] = frozenset()
    """What entries of the top `include` bring: names that are no axes."""
    _shared: dict[Hashable, list[dict[str, Scalar]]] = field(default_factory=dict)
    """The combinations of the top sweep, by what rows have changed of it."""
    _idle: set[int] = field(default_factory=set)
    """The positions of those entries of the top `exclude` that have not taken anything away yet."""

    def __post_init__(self) -> None:
        shared = self.rows.shared.sweep
        self._is_swept = bool(shared)
        self._idle = set(range(len(shared.exclude)))
        if axes := set(shared.names()):
            self._brought = frozenset(name for entry in shared.include for name in entry if name not in axes)

    def of(self, row: Row) -> list[dict[str, Scalar]]:
        """Every combination that the latest row is made with: one without any value where nothing is swept."""
        return self._combinations(row) if self._is_swept or row.sweep is not NO_SWEEP else _ONCE

    def warn_idle(self) -> None:
        """Say which entries of the top `exclude` took nothing away from any row."""
        for at in sorted(self._idle) if self.rows.count else ():
            line = self.rows.shared.sweep.exclude_lines[at]
            self.rows.mistakes.warn("this entry takes nothing away", column="exclude", line=line)

    def _combinations(self, row: Row) -> list[dict[str, Scalar]]:
        shared = self.rows.shared.sweep
        found = self._shared_combinations(row)
        own = replace(
            row.sweep,
            axes={name: values for name, values in row.sweep.axes.items() if name not in shared.axes},
            zips=tuple(walked for walked in row.sweep.zips if shared.axes.keys().isdisjoint(walked)),
        )
        if own:
            self.sizes.check_sweep(own, len(found), row)
            for at in unmatched(own, found):
                self._warn_of_idle_entry(row, own.exclude_lines[at])
            found = combinations(own, found, self._brought)
        if not found:
            self.rows.warn(row, "every combination is excluded: the row asks for nothing")
        return found

    def _shared_combinations(self, row: Row) -> list[dict[str, Scalar]]:
        """The combinations of the top sweep, a row's own values and axes replacing its axes of the same name."""
        shared = self.rows.shared.sweep
        added = {name for entry in shared.include for name in entry}
        pinned = {name: row.cells[name] for name in (*shared.axes, *added) if name in row.cells}
        replaced = {name: row.sweep.axes[name] for name in shared.axes if name in row.sweep.axes}
        walked = tuple(each for each in row.sweep.zips if not shared.axes.keys().isdisjoint(each))
        said = added & {*pinned, *row.sweep.names()} - shared.axes.keys()
        key = (
            tuple((name, spelled(value)) for name, value in pinned.items()),
            frozenset(said),
            tuple(replaced.items()),
            tuple(tuple(each.items()) for each in walked),
        )
        if (known := self._shared.get(key)) is not None:
            return known
        axes = {name: (pinned[name],) if name in pinned else values for name, values in shared.axes.items()} | replaced
        axes = {name: values for name, values in axes.items() if not any(name in each for each in walked)}
        fixed = {name: value for name, value in pinned.items() if name in axes}
        include = (entry for entry in shared.include if not contradicts(fixed, entry))
        # What the row says itself is nearer than what an entry would add.
        include = ({name: entry[name] for name in entry if name not in said} for entry in include)
        sweep = Sweep(axes, (*shared.zips, *walked), tuple(filter(None, include)), shared.exclude)
        self.sizes.check_sweep(sweep, 1, row)
        found = combinations(sweep)
        self._idle &= set(unmatched(sweep))
        if len(self._shared) < MAX_SHAPES:
            self._shared[key] = found
        return found

    def _warn_of_idle_entry(self, row: Row, line: int) -> None:
        message = "this entry takes nothing away"
        if row.record is None:
            self.rows.warn(row, message, "exclude", line)
        else:
            # The entry stands in the manifest's `each`, not in the record's file.
            place = self.rows.place(self.rows.count)
            self.rows.mistakes.warn(f"{message} ({place})", column="exclude", line=line)
