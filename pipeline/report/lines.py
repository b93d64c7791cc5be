"""The lines of a campaign: a row with one combination and one replicate each, held by columns."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import pyarrow as pa

from pipeline.kernel.arrow import Numbers, pc, rows_of, values_of
from pipeline.kernel.errors import RunDirectoryError
from pipeline.models import MODELS
from pipeline.report.columns import Column, column_of, joined, taken
from pipeline.report.jobs_format import (
    BROKEN,
    FILE,
    SCHEMA,
    SHARED,
    lines_table,
    objects,
    parted,
    read_settings,
    together,
    unreadable,
    variables_text,
)

T = TypeVar("T")

KEY = ("row", "id", "job_id")
LINES_AT_ONCE = 2**13
"""How many lines are worked on at once, so that no step holds the texts of a million."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of results.csv before anything became of it."""

    row: int
    id: str
    replicate: int
    job_id: str
    model: str
    params: Mapping[str, Any]
    variables: Mapping[str, Any]


class Key(NamedTuple):
    """Which row asked for which job."""

    row: int
    id: str
    job_id: str


class Keys(Sequence[Key]):
    """The keys of many lines by columns. Columns of Arrow become lists only when somebody asks for lists."""

    def __init__(self, rows: Column, ids: Column, job_ids: Column, *, sha256: str | None = None) -> None:
        self._columns: dict[str, Column] = {"row": rows, "id": ids, "job_id": job_ids}
        self.sha256 = sha256
        """SHA-256 of the jobs.parquet that holds exactly these lines; None if there is none, or it is not known."""

    @cached_property
    def rows(self) -> list[int]:
        """The number of the row of each."""
        return values_of(self._columns["row"])

    @cached_property
    def ids(self) -> list[str]:
        """The id of the row of each."""
        return values_of(self._columns["id"])

    @cached_property
    def job_ids(self) -> list[str]:
        """The job that each asks for."""
        return values_of(self._columns["job_id"])

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """The column `row`, `id` or `job_id` in Arrow: as lists, a million keys take a sixth of a gigabyte."""
        column = self._columns[name]
        return pa.chunked_array([pa.array(column, SCHEMA.field(name).type)]) if isinstance(column, list) else column

    def __len__(self) -> int:
        return len(self._columns["job_id"])

    def __iter__(self) -> Iterator[Key]:
        return map(Key, self.rows, self.ids, self.job_ids)

    @overload
    def __getitem__(self, index: int) -> Key: ...
    @overload
    def __getitem__(self, index: slice) -> Keys: ...
    def __getitem__(self, index: int | slice) -> Key | Keys:
        if isinstance(index, slice):
            return Keys(self.rows[index], self.ids[index], self.job_ids[index])
        return Key(self.rows[index], self.ids[index], self.job_ids[index])

    def asking(self, job_ids: Collection[str]) -> Keys:
        """The keys that ask for one of these jobs."""
        theirs = are_among(self.column("job_id"), job_ids)
        return Keys(*(self.column(name).filter(theirs) for name in KEY))


class Lines(Sequence[Line]):
    """The lines of a campaign by columns, as jobs.parquet has them. A `Line` is made when somebody asks for it.

    As objects, a million lines take a gigabyte, and seconds to make.
    """

    def __init__(
        self, table: pa.Table | Callable[[], pa.Table], folder: Path | None = None, keys: Keys | None = None
    ) -> None:
        self._given = table
        """The table, or a function that makes it when somebody asks for more than the keys."""
        self._folder = folder
        """The run directory that they were read from."""
        self._keys = keys
        """The keys, where they are known without the table."""

    @cached_property
    def table(self) -> pa.Table:
        """The lines, with the columns `IN_MEMORY`."""
        return self._given() if callable(self._given) else self._given

    @property
    def keys(self) -> Keys:
        """Which row asked for which job, in the order of the lines."""
        if self._keys is None:
            self._keys = Keys(*map(self.column, KEY))
        return self._keys

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """A column of jobs.parquet: `row`, `id`, `replicate`, `job_id` or `model`."""
        column = self.table[name]
        return column.cast(pa.string()) if name in SHARED else column

    def part(self, first: int) -> Lines:
        """`LINES_AT_ONCE` of the lines, from number `first` on."""
        return Lines(self.table.slice(first, LINES_AT_ONCE), self._folder)

    @cached_property
    def variables(self) -> list[str]:
        """The name of each variable, in order of first mention.

        Raises:
            RunDirectoryError: they cannot be read.
        """
        found = self._read(lambda: objects(json.loads, self.table["variables"].unique()))
        return list(dict.fromkeys(name for each in found for name in each))

    @property
    def models(self) -> list[str]:
        """Each different model, in order of first mention.

        Raises:
            RunDirectoryError: this version does not know one of them.
        """
        names = [str(name) for name in self.table["model"].unique().to_pylist()]
        for name in names:
            if name not in MODELS:
                where = (self._folder or Path()) / FILE
                raise RunDirectoryError(f"{where} asks for model {name[:60]!r}, which this version does not know")
        return names

    def asked(self, names: Collection[str]) -> dict[str, Column]:
        """The values of parameters and variables; a parameter hides a variable of its name.

        Raises:
            RunDirectoryError: they cannot be read.
        """
        parts = [
            self._read(functools.partial(_asked, self.table.slice(first, LINES_AT_ONCE), names))
            for first in range(0, len(self), LINES_AT_ONCE)
        ]
        return {name: joined([part[name] for part in parts]) for name in names}

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except BROKEN as error:
            raise unreadable(self._folder or Path(), error) from None

    def _lines(self, table: pa.Table) -> Iterator[Line]:
        columns = (values_of(table[name]) for name in (*KEY[:2], "replicate", "job_id", "model"))
        settings = self._read(lambda: objects(read_settings, table["settings"]))
        params = map(together, values_of(table["prompt"]), settings)
        variables = self._read(lambda: objects(json.loads, table["variables"]))
        return map(Line, *columns, params, variables)

    def take(self, numbers: Sequence[int] | Numbers) -> Lines:
        """Some of the lines, by their numbers from 0."""
        return Lines(rows_of(self.table, np.array(numbers, dtype=np.int64)), self._folder)

    def afresh(self) -> Lines:
        """The same lines without the table, if it can be made again: nobody holds it when they are done with these."""
        return Lines(self._given, self._folder, self._keys)

    def __len__(self) -> int:
        return len(self.table) if self._keys is None else len(self._keys)

    def __iter__(self) -> Iterator[Line]:
        for first in range(0, len(self), LINES_AT_ONCE):
            yield from self._lines(self.table.slice(first, LINES_AT_ONCE))

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Line | Lines:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return self.take(numbers)
        return next(self._lines(self.table.slice(numbers, 1)))


def as_lines(lines: Sequence[Line]) -> Lines:
    """The same lines by columns."""
    if isinstance(lines, Lines):
        return lines
    pairs = [parted(line.params) for line in lines]
    return Lines(
        lines_table(
            {
                **{name: [getattr(line, name) for line in lines] for name in (*KEY, "replicate", "model")},
                "priority": [0] * len(lines),
                "prompt": [prompt for prompt, _ in pairs],
                "settings": [settings for _, settings in pairs],
                "variables": [variables_text(line.variables) for line in lines],
            }
        )
    )


def keys_of(lines: Sequence[Line] | Sequence[Key]) -> Keys:
    """Which row asked for which job, of lines in any form."""
    if isinstance(lines, Keys):
        return lines
    if isinstance(lines, Lines):
        return lines.keys
    return Keys([line.row for line in lines], [line.id for line in lines], [line.job_id for line in lines])


def are_among(texts: pa.ChunkedArray[Any], wanted: Collection[str]) -> Any:
    """For each text whether it is one of the `wanted`, as a column."""
    return pc.is_in(texts, value_set=pa.array(list(wanted), pa.string()))


def _asked(table: pa.Table, names: Collection[str]) -> dict[str, Column]:
    """The values of parameters and variables in a part of the lines.

    Equal texts are read once: most lines differ in nothing but the prompt.
    """
    # As texts first: a dictionary has the texts of all parts.
    settings, variables = (
        table[name].cast(pa.string()).combine_chunks().dictionary_encode() for name in ("settings", "variables")
    )
    known_settings = objects(read_settings, settings.dictionary)
    known_variables = objects(json.loads, variables.dictionary)
    if any(isinstance(value, dict | list) for each in (*known_settings, *known_variables) for value in each.values()):
        raise TypeError("no single values")
    count = max(1, len(known_variables))
    pairs = pc.add(pc.multiply(settings.indices.cast(pa.int64()), count), variables.indices).dictionary_encode()
    forms = [
        {**known_variables[pair % count], **known_settings[pair // count]} for pair in pairs.dictionary.to_pylist()
    ]
    columns = {name: taken(column_of([form.get(name) for form in forms]), pairs.indices) for name in names}
    if "prompt" in columns:
        columns["prompt"] = _either(table["prompt"].combine_chunks(), columns["prompt"])
    return columns


def _either(texts: Any, others: Column) -> Column:
    """The texts; where there is none, the other value."""
    if not isinstance(others, list) and others.type in (pa.string(), pa.null()):
        return pc.coalesce(texts, others.cast(pa.string()))
    pairs = zip(texts.to_pylist(), values_of(others), strict=True)
    return [other if text is None else text for text, other in pairs]
