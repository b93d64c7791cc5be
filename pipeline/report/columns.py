"""A table by columns: as CSV that is safe to open in a spreadsheet, and as Parquet. Pure.

A column is an Arrow array where its values are of one kind, and a list of plain values where they are not: a variable
may be a number in one row and text in another.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.kernel.arrow import laid_out, pc, values_of
from pipeline.models.values import spelled

if TYPE_CHECKING:
    import pandas as pd

Column = Any
Table = Mapping[str, Column]

_KINDS: dict[str, pa.DataType] = {"Int64": pa.int64(), "Float64": pa.float64(), "string": pa.string()}
"""Arrow's types by the names that pandas has for them."""
_ARROW_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset([str]): pa.string(),
    frozenset([int]): pa.int64(),
    frozenset([float]): pa.float64(),
    frozenset([bool]): pa.bool_(),
}
_FORMULA = re.compile(r"[\s\x00\u200b\ufeff]*[=+\-@＝＋－＠]|[\t\r\n\x00]")
"""A cell that a spreadsheet would take for a formula (in any locale), or whose start it would swallow."""

_PRINTABLE = "^([A-Za-z0-9][ -~]*)?$"
"""Printable ASCII that no spreadsheet takes for a formula."""
_IS_FIRST = np.array([byte < 128 and chr(byte).isalnum() for byte in range(256)])
"""For each byte, whether such a text may begin with it."""
_QUOTED = re.compile(r'[",\n]')
_LINE_ENDS = re.compile(r"\r\n?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ROWS_AT_ONCE = 2**13


def columns_of_rows(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> dict[str, Column]:
    """Rows as a table with exactly these columns, whether or not there are any rows.

    Args:
        types: the type of each column as pandas names it; `object` where it is whatever its values are.
    """
    columns = {name: [row.get(name) for row in rows] for name in types}
    return {
        name: column_of(columns[name]) if kind == "object" else pa.array(columns[name], _KINDS[kind])
        for name, kind in types.items()
    }


def column_of(values: list[Any]) -> Column:
    """The values as an Arrow array if they are of one kind, else as the list that they are."""
    kind = _ARROW_TYPES.get(frozenset(map(type, values)) - {type(None)})
    if kind is not None:
        # Half a character fits no array, and neither does a number of more than 64 bits.
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            return pa.array(values, kind, from_pandas=True)
    return values


def taken(column: Column, numbers: Any) -> Column:
    """The values with these numbers, counted from 0."""
    if isinstance(column, list):
        return [column[number] for number in numbers.to_pylist()]
    return column.take(numbers)


def joined(parts: Sequence[Column]) -> Column:
    """One column of several, one after the other."""
    types = {None if isinstance(part, list) else part.type for part in parts} - {pa.null()}
    kind = types.pop() if types else pa.null()
    if kind is None or types:
        return [value for part in parts for value in values_of(part)]
    return pa.chunked_array([part.cast(kind) for part in parts], kind)


def mapped(column: Any, word: Callable[[Any], str]) -> Any:
    """A column of the word for each value; `word` is called once for each different value."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return pa.array(list(map(word, encoded.dictionary.to_pylist())), pa.string()).take(encoded.indices)


def unless_zero(column: Any) -> Any:
    """A column of numbers with null instead of zero."""
    return pc.if_else(pc.equal(column, 0), None, column)


def iso_texts(at_us: Any) -> Any:
    """A column of times in microseconds as `kernel.clock.iso` writes each."""
    moments = at_us.cast(pa.timestamp("us")).cast(pa.timestamp("ms"), safe=False).cast(pa.string())
    # Cast to bytes, because replacing by position in texts must count characters.
    moments = pc.binary_replace_slice(moments.cast(pa.binary()), 10, 11, b"T").cast(pa.string())
    return pc.binary_join_element_wise(moments, "Z", "")


# --- Parquet and pandas ---


def parquet_bytes(table: Table) -> memoryview:
    """The table as Parquet, every column of one type; pandas finds its own types there."""
    arrow = typed(table)
    sink = pa.BufferOutputStream()
    pq.write_table(arrow.replace_schema_metadata(for_pandas(arrow.schema).metadata), sink)
    return memoryview(sink.getvalue())


def for_pandas(schema: pa.Schema) -> pa.Schema:
    """The schema with pandas' own metadata, so that pandas picks types that tell null from zero. See

    https://pandas.pydata.org/docs/development/developer.html#storing-pandas-dataframe-objects-in-apache-parquet-format
    """
    columns = [
        {"name": field.name, "field_name": field.name, "metadata": None, **_IN_PANDAS[field.type]} for field in schema
    ]
    said = {"index_columns": [], "column_indexes": [], "columns": columns}
    return schema.with_metadata({"pandas": orjson.dumps(said)})


_IN_PANDAS = {
    pa.int64(): {"pandas_type": "int64", "numpy_type": "Int64"},
    pa.float64(): {"pandas_type": "float64", "numpy_type": "Float64"},
    pa.string(): {"pandas_type": "unicode", "numpy_type": "string"},
    pa.bool_(): {"pandas_type": "bool", "numpy_type": "boolean"},
}
"""What pandas calls each type, as values and as a column."""


def in_pandas(table: pa.Table) -> pd.DataFrame:
    """The table in pandas, in types that know nothing from zero."""
    import pandas as pd

    types = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=types.get)
    return frame


def typed(table: Table) -> pa.Table:
    """The table with one type for each column."""
    return pa.table({name: _of_one_type(column) for name, column in table.items()})


def _of_one_type(column: Column) -> Any:
    """Numbers where all are numbers, else texts in the manifest's spelling."""
    if not isinstance(column, list):
        return column.cast(pa.string()) if pa.types.is_null(column.type) else column
    if set(map(type, column)) - {type(None)} == {int, float}:
        with contextlib.suppress(OverflowError):
            return pa.array([value if value is None else float(value) for value in column], pa.float64())
    texts = [value if value is None else spelled(value).encode("utf-8", "replace").decode() for value in column]
    return pa.array(texts, pa.string())


# --- CSV ---


def csv_bytes(table: Table) -> bytes:
    """The table as CSV, with text that a spreadsheet would run as a formula made harmless by a leading `'`."""
    return b"".join([csv_head(table), *csv_lines(table)])


def csv_head(names: Iterable[str]) -> bytes:
    """The first line of a table."""
    return f"{','.join(map(_cell, names))}\n".encode()


def csv_lines(table: Table) -> Iterator[memoryview]:
    """The other lines, some ten thousand at a time."""
    count = max(map(len, table.values()), default=0)
    for first in range(0, count, _ROWS_AT_ONCE):
        # Column by column: a million rows one by one take half a minute, most of it for texts with nothing to quote.
        cells = [_cells(column[first : first + _ROWS_AT_ONCE]) for column in table.values()]
        # A cell that is the same in all of these lines is joined with the separators around it into one constant piece.
        pieces: list[Any] = [""]
        for cell, after in zip(cells, [","] * (len(cells) - 1) + ["\n"], strict=True):
            if isinstance(cell, str):
                pieces[-1] += cell + after
            else:
                pieces += [cell, after]
        if len(pieces) == 1:
            yield memoryview((pieces[0] * min(_ROWS_AT_ONCE, count - first)).encode())
        else:
            # The texts all end in a newline, so the buffer that Arrow keeps them in is the lines.
            yield memoryview(pc.binary_join_element_wise(*pieces, "").buffers()[2])


def _cells(column: Column) -> Any:
    """A column's cells as texts: empty for null, made harmless and quoted where needed.

    Where all cells are the same, it is that one text.
    """
    if isinstance(column, list):
        return pa.array(list(map(_cell, column)), pa.string())
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if values.null_count == len(values):
        return ""
    if pa.types.is_string(values.type) or pa.types.is_integer(values.type):
        if _are_alike(values):
            return _cell(values[0].as_py())
        if pa.types.is_string(values.type):
            return _text_cells(pc.fill_null(values, ""))
        return pc.fill_null(values.cast(pa.string()), "")
    # Not by a cast: Arrow writes 5.0 as 5, and true as Python does not.
    encoded = values.dictionary_encode(null_encoding="encode")
    words = list(map(_cell, encoded.dictionary.to_pylist()))
    return words[0] if len(words) == 1 else pa.array(words, pa.string()).take(encoded.indices)


def _are_alike(values: Any) -> bool:
    """Whether all values are the same. They are texts or integers, so equal values are also spelled alike."""
    if values.null_count or not values[0].equals(values[len(values) - 1]):
        return False
    return bool(pc.all(pc.equal(values, values[0])).as_py())


def _text_cells(texts: Any) -> Any:
    """Texts as cells. Printable ASCII is quoted all at once, and only other texts are looked at one by one.

    The bytes of all texts are checked first, because a regular expression takes ten times as long.
    """
    ends, characters = laid_out(texts)
    if not len(characters):
        return texts
    firsts = characters[ends[:-1][ends[:-1] < ends[1:]]]
    cells = _quoted(texts, characters.tobytes())
    if characters.min() >= ord(" ") and characters.max() <= ord("~") and _IS_FIRST[firsts].all():
        return cells
    is_odd = pc.invert(pc.match_substring_regex(texts, _PRINTABLE))
    odd = pa.array(list(map(_cell, texts.filter(is_odd).to_pylist())), pa.string())
    return pc.replace_with_mask(cells, is_odd, odd)


def _quoted(texts: Any, together: bytes) -> Any:
    """Texts in quotation marks where they have a quotation mark or a comma; `together` are the bytes of all."""
    marks = [mark for mark in ('"', ",") if mark.encode() in together]
    if not marks:
        return texts
    has_marks = functools.reduce(pc.or_, [pc.match_substring(texts, mark) for mark in marks])
    around = pc.if_else(has_marks, '"', "")
    doubled = pc.replace_substring(texts, '"', '""') if '"' in marks else texts
    return pc.binary_join_element_wise(around, doubled, around, "")


def _cell(value: object) -> str:
    """A value as a cell, quoted as Python's own writer of CSV would."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = str(harmless(value))
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def harmless(value: Any) -> Any:
    """A cell's text, with `'` in front if a spreadsheet would take it for a formula. Numbers stay numbers.

    What is no writing (control characters, half characters) is shown as such, and a line ends in one way only: a lone
    carriage return would end the row for some readers.
    """
    if not isinstance(value, str) or not value or (value[0].isalnum() and value.isprintable()):
        return value
    shown = _UNPRINTABLE.sub("�", _LINE_ENDS.sub("\n", value))
    return f"'{shown}" if _FORMULA.match(value) else shown
