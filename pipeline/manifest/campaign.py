"""A campaign: every generation that a manifest asks for, in its order."""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from pipeline.jobs import Job
from pipeline.kernel.errors import Mistake
from pipeline.models.base import Scalar

if TYPE_CHECKING:
    import pyarrow as pa

ORDERS = ("balanced", "file", "cheapest")
"""In which order jobs of one priority start: over the variants evenly, as written, or by price."""

_NO_AXES: Mapping[str, Any] = MappingProxyType({})


class Entry(NamedTuple):
    """One line of results.csv: a row with one combination of its axes and one replicate.

    `row` counts from 1 as written, `row_id` is the row's own id or a readable one from its prompt (then not unique).
    `axes` are the values of the sweep's axes in this combination, parameters and variables alike.
    """

    row: int
    row_id: str
    job: Job
    variables: Mapping[str, Scalar]
    priority: int
    axes: Mapping[str, Scalar] = _NO_AXES
    tags: tuple[str, ...] = ()


class Entries(Sequence[Entry]):
    """The entries of a manifest, in its order.

    They are kept in columns, and an `Entry` is made when somebody asks for it: a million objects would take
    100 MB more. The columns of axes and tags, which few manifests have, stay empty until the first of them.
    """

    def __init__(self) -> None:
        self._rows = array("I")
        self._row_ids: list[str] = []
        self._jobs: list[Job] = []
        self._variables: list[Mapping[str, Scalar]] = []
        self._priorities = array("i")
        self._axes: list[Mapping[str, Scalar]] = []
        self._tags: list[tuple[str, ...]] = []
        self._job_ids: list[str] = []
        self._job_texts: pa.ChunkedArray[Any] | None = None
        self.distinct: int | None = None
        """How many different jobs there are; None where whoever made the entries did not count them."""

    def add(
        self,
        row: int,
        row_id: str,
        job: Job,
        variables: Mapping[str, Scalar],
        priority: int,
        axes: Mapping[str, Scalar],
        tags: tuple[str, ...],
    ) -> None:
        """Append an entry."""
        if axes or self._axes:
            self._axes += [_NO_AXES] * (len(self) - len(self._axes))
            self._axes.append(axes)
        if tags or self._tags:
            self._tags += [()] * (len(self) - len(self._tags))
            self._tags.append(tags)
        self._rows.append(row)
        self._row_ids.append(row_id)
        self._jobs.append(job)
        self._variables.append(variables)
        self._priorities.append(priority)

    def extend_plain(
        self, row: int, row_ids: Sequence[str], jobs: Collection[Job], variables: Sequence[Mapping[str, Scalar]]
    ) -> None:
        """Append one entry for each of the rows from `row` on: without priority, axes and tags."""
        count = len(jobs)
        self._rows.extend(range(row, row + count))
        self._row_ids += row_ids
        self._jobs += jobs
        self._variables += variables
        self._priorities.extend(itertools.repeat(0, count))
        if self._axes:
            self._axes += [_NO_AXES] * count
        if self._tags:
            self._tags += [()] * count

    def __len__(self) -> int:
        return len(self._jobs)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        return Entry(
            self._rows[at],
            self._row_ids[at],
            self._jobs[at],
            self._variables[at],
            self._priorities[at],
            self._axes[at] if self._axes else _NO_AXES,
            self._tags[at] if self._tags else (),
        )

    def __iter__(self) -> Iterator[Entry]:
        tags = self._tags or itertools.repeat((), len(self))
        columns = (self._rows, self._row_ids, self._jobs, self._variables, self._priorities, self.axes, tags)
        # `tuple.__new__` makes each entry without a call of Python code.
        return map(tuple.__new__, itertools.repeat(Entry), zip(*columns, strict=True))

    @property
    def jobs(self) -> Sequence[Job]:
        """The job of each."""
        return self._jobs

    @property
    def job_ids(self) -> Sequence[str]:
        """The id of the job of each."""
        if len(self._job_ids) != len(self._jobs):
            self._job_ids = [job.job_id for job in self._jobs]
        return self._job_ids

    @property
    def job_texts(self) -> pa.ChunkedArray[Any]:
        """The id of the job of each as an Arrow column. It is kept, because making it of a million takes long."""
        import pyarrow as pa

        if self._job_texts is None or len(self._job_texts) != len(self._jobs):
            self._job_texts = pa.chunked_array([pa.array(self.job_ids, pa.string())])
        return self._job_texts

    @property
    def rows(self) -> array[int]:
        """The row of each."""
        return self._rows

    @property
    def row_ids(self) -> Sequence[str]:
        """The id of the row of each."""
        return self._row_ids

    @property
    def variables(self) -> Sequence[Mapping[str, Scalar]]:
        """The variables of each."""
        return self._variables

    @property
    def priorities(self) -> array[int]:
        """The priority of each."""
        return self._priorities

    @property
    def axes(self) -> Sequence[Mapping[str, Scalar]]:
        """The values of each on the axes of its sweep."""
        return self._axes or [_NO_AXES] * len(self)


def by_columns(entries: Sequence[Entry]) -> Entries:
    """The same entries by columns."""
    if isinstance(entries, Entries):
        return entries
    columns = Entries()
    for entry in entries:
        columns.add(*entry)
    return columns


def jobs_of(entries: Sequence[Entry]) -> Sequence[Job]:
    """The job of each entry, in their order."""
    return entries.jobs if isinstance(entries, Entries) else [entry.job for entry in entries]


def job_ids_of(entries: Sequence[Entry]) -> pa.ChunkedArray[Any]:
    """The id of the job of each entry, in their order."""
    return by_columns(entries).job_texts


def count_rows(entries: Sequence[Entry]) -> int:
    """How many rows these entries belong to. The entries of a row stand together."""
    rows = by_columns(entries).rows
    return sum(map(operator.ne, rows, itertools.islice(rows, 1, None)), start=1) if rows else 0


def has_axes(entries: Sequence[Entry]) -> bool:
    """Whether there is any axis."""
    return any(by_columns(entries).axes)


@dataclass(frozen=True, slots=True)
class Campaign:
    """A manifest without mistakes. `warnings` name what is allowed but probably not meant.

    `order` is one of `ORDERS`; `seed` decides which variant comes first where the order is free. `images` are the
    files of the start images that are files, by `sha256:` and the hash of their bytes, as the jobs name them. `part`
    says which part of the manifest this is, like `2/5`; empty for all of it.
    """

    name: str
    source: Path
    entries: Sequence[Entry]
    warnings: tuple[Mistake, ...] = ()
    order: str = ORDERS[0]
    seed: int = 0
    images: Mapping[str, Path] = field(default_factory=dict)
    part: str = ""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job once, in order of first mention."""
        return tuple({job.job_id: job for job in jobs_of(self.entries)}.values())
