"""The rows of a campaign as the run directory keeps them, so that a report needs neither manifest nor provider."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from pipeline.kernel.errors import RunDirectoryError
from pipeline.kernel.files import keep_file, open_regular_file
from pipeline.ledger.records import Numbers, array_of
from pipeline.models import MODELS
from pipeline.report.columns import Column, column_of, joined, taken, values_of

if TYPE_CHECKING:
    # At run time whoever only looks at a run directory need not wait for what reads manifests.
    from pipeline.jobs import Kind
    from pipeline.manifest import Entry
    from pipeline.manifest.campaign import Entries

T = TypeVar("T")

pc: Any = pyarrow.compute
"""Its types do not say what it takes beside arrays."""

FILE = "jobs.parquet"

_FIELDS: list[pa.Field[Any]] = [
    pa.field("row", pa.int64()),
    pa.field("id", pa.string()),
    pa.field("replicate", pa.int32()),
    pa.field("job_id", pa.string()),
    pa.field("model", pa.string()),
    pa.field("priority", pa.int64()),
    pa.field("prompt", pa.string()),
    pa.field("settings", pa.string()),
    pa.field("variables", pa.string()),
]
_SCHEMA = pa.schema(_FIELDS)
_FORM = 2
"""Of what is kept, in the mark of a campaign: another number for each change in what is made of the same entries."""
_KEY = ("row", "id", "job_id")
_NOTHING = "{}"
_BROKEN = (ValueError, TypeError, RecursionError)
"""All that reading texts which are no parameters or variables can raise."""
LINES_AT_ONCE = 2**14
"""Lines of which something is made together."""


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
    """The keys of many lines, by columns: lists, or Arrow's, of which lists are made when somebody asks for them."""

    def __init__(self, rows: Column, ids: Column, job_ids: Column, *, sha256: str | None = None) -> None:
        self._columns: dict[str, Column] = {"row": rows, "id": ids, "job_id": job_ids}
        self.sha256 = sha256
        """That of the jobs.parquet which keeps these lines and no others; None where none is known to."""

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
        """`row`, `id` or `job_id` of each as Arrow has it: a million as lists take a sixth of a gigabyte."""
        column = self._columns[name]
        return pa.chunked_array([pa.array(column, _SCHEMA.field(name).type)]) if isinstance(column, list) else column

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
        """Those that ask for one of these jobs."""
        theirs = _are_among(self.column("job_id"), job_ids)
        return Keys(*(self.column(name).filter(theirs) for name in _KEY))


class Lines(Sequence[Line]):
    """The lines of a campaign by columns, as jobs.parquet has them. A `Line` is made when somebody asks for it.

    As objects, a million lines take a gigabyte, and seconds to make.
    """

    def __init__(
        self, table: pa.Table | Callable[[], pa.Table], folder: Path | None = None, keys: Keys | None = None
    ) -> None:
        self._given = table
        """The columns, or what makes them when somebody asks for more than the keys."""
        self._folder = folder
        """The run directory that they were read from."""
        self._keys = keys
        """Where they are lists already."""

    @cached_property
    def _table(self) -> pa.Table:
        return self._given() if callable(self._given) else self._given

    @property
    def keys(self) -> Keys:
        """Which row asked for which job, in the order of the lines."""
        if self._keys is None:
            self._keys = Keys(*map(self.column, _KEY))
        return self._keys

    def column(self, name: str) -> pa.ChunkedArray[Any]:
        """A column of jobs.parquet: `row`, `id`, `replicate`, `job_id` or `model`."""
        return self._table[name]

    def part(self, first: int) -> Lines:
        """`LINES_AT_ONCE` of the lines, from number `first` on."""
        return Lines(self._table.slice(first, LINES_AT_ONCE), self._folder)

    @cached_property
    def variables(self) -> list[str]:
        """The name of each variable, in order of first mention.

        Raises:
            RunDirectoryError: they cannot be read.
        """
        found = self._read(lambda: _objects(json.loads, self._table["variables"].unique()))
        return list(dict.fromkeys(name for each in found for name in each))

    @property
    def models(self) -> list[str]:
        """Each different model, in order of first mention.

        Raises:
            RunDirectoryError: this version does not know one. Who wants no parameters shown need not ask.
        """
        names = [str(name) for name in self._table["model"].unique().to_pylist()]
        for name in names:
            if name not in MODELS:
                raise _unreadable(self._folder or Path(), f"this version knows no model {name[:60]!r}")
        return names

    def asked(self, names: Collection[str]) -> dict[str, Column]:
        """The values of parameters and variables; a parameter hides a variable of its name.

        Raises:
            RunDirectoryError: they cannot be read.
        """
        parts = [
            self._read(functools.partial(_asked, self._table.slice(first, LINES_AT_ONCE), names))
            for first in range(0, len(self), LINES_AT_ONCE)
        ]
        return {name: joined([part[name] for part in parts]) for name in names}

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except _BROKEN as error:
            raise _unreadable(self._folder or Path(), error) from None

    def _lines(self, table: pa.Table) -> Iterator[Line]:
        columns = (values_of(table[name]) for name in (*_KEY[:2], "replicate", "job_id", "model"))
        settings = self._read(lambda: _objects(_settings, table["settings"]))
        params = map(_together, values_of(table["prompt"]), settings)
        variables = self._read(lambda: _objects(json.loads, table["variables"]))
        return map(Line, *columns, params, variables)

    def take(self, numbers: Sequence[int] | Numbers) -> Lines:
        """Some of the lines, by their numbers from 0."""
        return Lines(self._table.take(array_of(np.array(numbers, dtype=np.int64))), self._folder)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Line]:
        for first in range(0, len(self), LINES_AT_ONCE):
            yield from self._lines(self._table.slice(first, LINES_AT_ONCE))

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Line | Lines:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return self.take(numbers)
        return next(self._lines(self._table.slice(numbers, 1)))

    def save(self, folder: Path) -> str:
        """Keep the lines in a run directory; what is there already is left as it is. Returns the file's SHA-256."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        keep_file(folder / FILE, data)
        return hashlib.sha256(data).hexdigest()


def lines_of(entries: Sequence[Entry]) -> Lines:
    """The lines of a campaign, in the order of its manifest."""
    from pipeline.manifest.campaign import by_columns

    columns = by_columns(entries)
    rows = pa.chunked_array([array_of(np.frombuffer(columns.rows, columns.rows.typecode))])
    keys = Keys(rows, list(columns.row_ids), list(columns.job_ids))
    return Lines(functools.partial(_made_of, columns), keys=keys)


def mark_of(entries: Sequence[Entry]) -> bytes:
    """A number made of all that the lines of a campaign are made of: where it is the same, so are they.

    It takes a tenth of the time that the lines of a million jobs do: of prompt and parameters, it is made of the ids.
    """
    from pipeline.manifest.campaign import by_columns

    hashed = hashlib.sha256()
    for part in _marks(by_columns(entries)):
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.digest()


def _marks(columns: Entries) -> Iterator[bytes]:
    yield b"%d" % _FORM
    kinds = dict.fromkeys([job.kind for job in columns.jobs])
    yield orjson.dumps([(kind.model, kind.replicate, _settings_text(kind.params)) for kind in kinds])
    yield orjson.dumps(columns.job_ids)
    yield orjson.dumps(columns.row_ids)
    yield columns.rows.tobytes()
    yield columns.priorities.tobytes()
    each = dict(zip(map(id, columns.variables), columns.variables, strict=True))
    # Not JSON, in which what is no number and nothing at all are one.
    texts = {number: repr(dict(mine)) for number, mine in each.items()}
    all_of_them = map(texts.__getitem__, map(id, columns.variables))
    yield "\n".join([*texts.values()] * len(columns) if len(texts) == 1 else all_of_them).encode()


def mark_with(mark: bytes, sha256: str) -> str:
    """The mark of a campaign together with the hash of the file that keeps its lines.

    Where it is what the run noted that has written the file, that is the one which `Lines.save` would write again.
    """
    return hashlib.sha256(mark + bytes.fromhex(sha256)).hexdigest()


def kept_sha256(folder: Path) -> str | None:
    """The SHA-256 of the file that keeps lines in a run directory; None without such a file."""
    path = folder / FILE
    try:
        if path.is_symlink():
            return None
        descriptor = open_regular_file(path)
        with open(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _made_of(columns: Entries) -> pa.Table:
    parts = [
        _part_of(columns, slice(first, first + LINES_AT_ONCE))
        for first in range(0, max(1, len(columns.jobs)), LINES_AT_ONCE)
    ]
    return pa.concat_tables(parts)


def _part_of(columns: Entries, part: slice) -> pa.Table:
    """Some of the lines: the texts of a million at once take a quarter of a gigabyte."""
    jobs = columns.jobs[part]
    kinds = [job.kind for job in jobs]
    return _table_of(
        {
            "row": columns.rows[part],
            "id": columns.row_ids[part],
            "replicate": [kind.replicate for kind in kinds],
            "job_id": [job.job_id for job in jobs],
            "model": [kind.model for kind in kinds],
            "priority": columns.priorities[part],
            "prompt": [job.prompt for job in jobs],
            "settings": _settings_texts(kinds),
            "variables": _variables_texts(columns.variables[part]),
        }
    )


def as_lines(lines: Sequence[Line]) -> Lines:
    """Lines by columns, whatever they were before."""
    if isinstance(lines, Lines):
        return lines
    parted = [_parted(line.params) for line in lines]
    return Lines(
        _table_of(
            {
                **{name: [getattr(line, name) for line in lines] for name in (*_KEY, "replicate", "model")},
                "priority": [0] * len(lines),
                "prompt": [prompt for prompt, _ in parted],
                "settings": [settings for _, settings in parted],
                "variables": [_variables_text(line.variables) for line in lines],
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


def _are_among(texts: pa.ChunkedArray[Any], wanted: Collection[str]) -> Any:
    return pc.is_in(texts, value_set=pa.array(list(wanted), pa.string()))


def _table_of(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    arrays = [pa.array(columns[field.name], type=field.type) for field in _FIELDS]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _settings_texts(kinds: Sequence[Kind]) -> list[str]:
    """What `_settings_text` makes of each; what jobs of a kind share is written once."""
    texts = {kind: _settings_text(kind.params) for kind in dict.fromkeys(kinds)}
    return list(map(texts.__getitem__, kinds))


def _settings_text(settings: Mapping[str, Any]) -> str:
    plain = settings if type(settings) is dict else dict(settings)
    try:
        return orjson.dumps(plain).decode()
    except TypeError:
        return json.dumps(plain)


def _parted(params: Mapping[str, Any]) -> tuple[str | None, str]:
    """The prompt, and the text of all other parameters. What is no proper text stays among these."""
    prompt = params.get("prompt")
    if isinstance(prompt, str):
        with contextlib.suppress(UnicodeEncodeError):
            prompt.encode()
            return prompt, _settings_text({name: value for name, value in params.items() if name != "prompt"})
    return None, _settings_text(params)


def _together(prompt: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a line, the prompt first."""
    return settings if prompt is None else {"prompt": prompt, **settings}


def _asked(table: pa.Table, names: Collection[str]) -> dict[str, Column]:
    """The values of parameters and variables in a part of the lines.

    What lines have in common is read once, and most are alike in all but the prompt.
    """
    settings = table["settings"].combine_chunks().dictionary_encode()
    variables = table["variables"].combine_chunks().dictionary_encode()
    known_settings = _objects(_settings, settings.dictionary)
    known_variables = _objects(json.loads, variables.dictionary)
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
    """The texts, and the others where there is none."""
    if not isinstance(others, list) and others.type in (pa.string(), pa.null()):
        return pc.coalesce(texts, others.cast(pa.string()))
    pairs = zip(texts.to_pylist(), values_of(others), strict=True)
    return [other if text is None else text for text, other in pairs]


def _objects(read: Callable[[str], Any], texts: Any) -> list[dict[str, Any]]:
    values = list(map(read, texts.to_pylist()))
    if not set(map(type, values)) <= {dict}:
        raise TypeError("no JSON object")
    return values


def _settings(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)


def _variables_texts(variables: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `_variables_text` makes of each; those that rows share are written once."""
    each = dict(zip(map(id, variables), variables, strict=True))
    texts = {number: _variables_text(mine) for number, mine in each.items()}
    return list(map(texts.__getitem__, map(id, variables)))


def _variables_text(variables: Mapping[str, Any]) -> str:
    # Not orjson: a variable may be a number of any size, and half a character.
    return json.dumps(dict(variables)) if variables else _NOTHING


def has_entries(folder: Path) -> bool:
    """Whether a run directory keeps the rows of a campaign."""
    return (folder / FILE).exists()


def load_lines(folder: Path, only: Collection[str] | None = None) -> Lines:
    """The lines of a run directory's campaign.

    Args:
        only: the ids of the jobs whose lines are wanted; all without it.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, sha256 = _read(folder, _SCHEMA.names)
    if only is not None:
        return Lines(table.filter(_are_among(table["job_id"], only)), folder)
    return Lines(table, folder, Keys(*table.select(_KEY).columns, sha256=sha256))


def are_of(folder: Path, job_ids: pa.ChunkedArray[Any]) -> bool:
    """Whether the lines of a run directory's campaign ask for these jobs, in their order.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, _ = _read(folder, ["job_id"])
    return bool(table["job_id"].equals(job_ids))


def load_keys(folder: Path) -> Keys:
    """The lines of a run directory's campaign without what they ask for, which is most of the reading.

    Raises:
        RunDirectoryError: it has none, or they cannot be read.
    """
    table, sha256 = _read(folder, list(_KEY))
    return Keys(*table.columns, sha256=sha256)


def _read(folder: Path, columns: list[str]) -> tuple[pa.Table, str]:
    """These columns, and the SHA-256 of the file that has them."""
    try:
        with open(open_regular_file(folder / FILE), "rb") as opened:
            data = opened.read()
        # Without threads: a command that ends while Arrow's are still being started is aborted.
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        if "prompt" in columns and "prompt" not in names and names.count("params") == 1:
            table = _of_older(file.read(use_threads=False))
        else:
            table = file.read(columns=columns, use_threads=False)
        # A damaged text would go into the tables as it is.
        table.validate(full=True)
    except FileNotFoundError:
        raise RunDirectoryError(f"{folder} is not a run directory: it has no {FILE}") from None
    except (pa.ArrowException, OSError, *_BROKEN) as error:
        raise _unreadable(folder, error) from None
    for name in columns:
        if (count := table.column_names.count(name)) != 1:
            raise _unreadable(folder, f"it has {'no' if not count else 'more than one'} column {name}")
        if table[name].type != _SCHEMA.field(name).type or (table[name].null_count and name != "prompt"):
            raise _unreadable(folder, f"its column {name} is none of a run directory's")
    return table.select(columns), hashlib.sha256(data).hexdigest()


def _of_older(table: pa.Table) -> pa.Table:
    """The columns of today, where a run of an older version has kept the prompt among the other parameters."""
    parts = [table.slice(first, LINES_AT_ONCE) for first in range(0, max(1, len(table)), LINES_AT_ONCE)]
    return pa.concat_tables(map(_part_of_older, parts))


def _part_of_older(table: pa.Table) -> pa.Table:
    parted = [_parted(params) for params in _objects(_settings, table["params"])]
    return table.append_column("prompt", pa.array([prompt for prompt, _ in parted], pa.string())).append_column(
        "settings", pa.array([settings for _, settings in parted], pa.string())
    )


def _unreadable(folder: Path, why: Exception | str) -> RunDirectoryError:
    if not isinstance(why, str):
        why = (isinstance(why, OSError) and why.strerror) or type(why).__name__
    return RunDirectoryError(f"{folder / FILE} cannot be read ({why})")
