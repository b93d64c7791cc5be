"""A segment's bytes: events as a parquet table with their place in the chain, and back.

The chain is a hash over all events so far. Each segment holds the chain's hash before and after its own events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.kernel.arrow import whole_numbers
from pipeline.ledger.events import COLUMNS, FIELD_OF_COLUMN, Event, EventKind

_TYPES = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "string": pa.string(),
    "double": pa.float64(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}
SCHEMA = pa.schema([pa.field(name, _TYPES[kind]) for name, kind in COLUMNS.items()])
_REPEATED: Any = [name for name in COLUMNS if name not in {"seq", "at", "request", "url", "path", "poster", "sha256"}]
"""Columns whose values repeat: a merged segment has dictionaries of them. The others would be larger so, and slower."""
_NUMBERED = ["job_id", "event", "request_id", "error_class", "model"]
"""Columns of texts that are read as dictionaries, each text once and a number for each row, where events are many."""
_NUMBERED_SCHEMA = pa.schema(
    [field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in _NUMBERED else field for field in SCHEMA]
)
_in_columns = itemgetter(*(Event._fields.index(name) for name in FIELD_OF_COLUMN.values()))
"""An event's values in the order of the columns."""
_FEW_VALUES = frozenset({"event", "error_class", "model"})
_NEVER_NULL = tuple(name for name, kind in COLUMNS.items() if name == "event" or kind not in ("string", "double"))
_METADATA_KEY = b"kling-batch.chain"
UNREADABLE = (pa.ArrowException, KeyError, ValueError, TypeError, OSError)
"""Everything that reading a file's bytes as a segment can raise."""
ROWS_PER_GROUP = 2**16
"""Events in a row group of a merged segment: a query for one job skips the groups that do not have it."""

GENESIS = "0" * 64
"""What the first segment links to."""


def link(before: str, events: Sequence[Event]) -> str:
    """The chain's hash after `events`; `before` is its hash ahead of them."""
    return hashlib.sha256(before.encode() + orjson.dumps(list(map(_in_columns, events)))).hexdigest()


def table_of(events: Sequence[Event]) -> pa.Table:
    """Events as a table with the columns of every segment."""
    columns = zip(*map(_in_columns, events), strict=True) if events else [()] * len(SCHEMA)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class Content:
    """What a segment holds: its events as a table, and its place in the chain."""

    table: pa.Table
    before: str
    after: str


def encode(events: Sequence[Event], before: str, after: str) -> bytes:
    """The bytes of a segment with these events, whose place in the chain is between `before` and `after`."""
    return encode_content(Content(table_of(events), before, after))


def encode_content(content: Content) -> bytes:
    """The bytes of a segment with this content: plain and quick, for a commit."""
    table, ends = content.table, (content.before, content.after)
    return _encode([table], table.schema, len(table), ends, compress=False)


def encode_merged(tables: Iterable[pa.Table], rows: int, before: str, after: str) -> bytes:
    """The bytes of a merged segment: compact, and quick to ask about one job.

    Args:
        tables: its events in order, in tables of any size; `rows` is how many events they hold together.
    """
    return _encode(in_groups(tables, ROWS_PER_GROUP), SCHEMA, rows, (before, after), compress=True)


def _encode(
    tables: Iterable[pa.Table], schema: pa.Schema, rows: int, ends: tuple[str, str], *, compress: bool
) -> bytes:
    """Tables of one schema, with `rows` rows together, each in row groups of its own."""
    before, after = ends
    chain = orjson.dumps({"version": 1, "before": before, "after": after})
    # Made for the rows of a group: by default it is made for a million jobs, and takes a megabyte.
    bloom = {"job_id": {"ndv": min(rows, ROWS_PER_GROUP), "fpp": 0.01}}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata({_METADATA_KEY: chain}),
        compression="zstd" if compress else "none",
        use_dictionary=_REPEATED if compress else False,
        write_statistics=compress,
        bloom_filter_options=bloom if compress else None,
        write_page_checksum=True,
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            del table  # so that it is freed before the next one is made
    return sink.getvalue().to_pybytes()


def in_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows each. Holding a whole large merge in memory would be the peak of a run."""
    gathered: list[pa.Table] = []
    missing = rows
    for table in tables:
        while len(table) >= missing:
            group = [*gathered, table.slice(0, missing)]
            table, gathered, missing = table.slice(missing), [], rows
            yield pa.concat_tables(group)
        gathered.append(table)
        missing -= len(table)
    if missing < rows:
        yield pa.concat_tables(gathered)


def open_encoded(data: bytes, *, numbered: bool = False) -> tuple[pq.ParquetFile, str, str]:
    """A segment's bytes as a parquet file, and its place in the chain.

    Args:
        numbered: whether some texts are read as dictionaries, which is quick where the file has them so.

    Raises:
        Exception: they are none of a segment's; one of `UNREADABLE`.
    """
    # Neither page checksums nor threads that read ahead: the bytes are in memory, and proven whole.
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    if numbered:
        if not file.schema_arrow.equals(SCHEMA):
            raise ValueError("its columns are not those of a ledger")
        file = pq.ParquetFile(
            pa.BufferReader(data), metadata=file.metadata, pre_buffer=False, read_dictionary=_NUMBERED
        )
    chain = orjson.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
    return file, str(chain["before"]), str(chain["after"])


def check_columns(table: pa.Table) -> None:
    """Refuse a table whose columns, or the values in them, cannot be those of events.

    Raises:
        ValueError: they cannot; or what `pa.Table.validate` raises.
    """
    if not table.schema.equals(SCHEMA) and not table.schema.equals(_NUMBERED_SCHEMA):
        raise ValueError("its columns are not those of a ledger")
    if any(table[name].null_count for name in _NEVER_NULL):
        raise ValueError("something is missing in them")
    table.validate(full=True)
    for kind in pc.unique(table["event"]).to_pylist():
        EventKind(str(kind))


def decode(table: pa.Table) -> list[Event]:
    """The events of a table.

    Raises:
        ValueError: they are none of a ledger's.
    """
    check_columns(table)
    table = table.cast(SCHEMA)
    columns = {
        FIELD_OF_COLUMN[name]: _shared(column) if name in _FEW_VALUES else _values(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    kinds = {str(kind): EventKind(str(kind)) for kind in set(columns["event"])}
    columns["event"] = [kinds[str(kind)] for kind in columns["event"]]
    return list(map(Event._make, zip(*(columns[name] for name in Event._fields), strict=True)))


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values; quick for whole numbers, and for a column that is empty, as most are."""
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        return whole_numbers(column)
    return list(column.to_pylist())


def _shared(column: pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values where few are different: equal ones are one object in memory."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    return [values[index] for index in whole_numbers(encoded.indices)]
