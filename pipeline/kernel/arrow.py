"""Columns and tables of Arrow: to numpy and plain values and back, from their memory where that is quicker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute
"""Its types do not say what it takes beside arrays."""

Numbers = npt.NDArray[np.int64]
Texts: TypeAlias = "pa.ChunkedArray[Any]"


def by_name(table: pa.Table) -> dict[str, Any]:
    """The columns of a table by their names."""
    return dict(zip(table.column_names, table.columns, strict=True))


def values_of(column: Any) -> list[Any]:
    """The values of a column, of Arrow or a list already."""
    values: list[Any] = column if isinstance(column, list) else column.to_pylist()
    return values


def total(column: Any) -> Any:
    """What the numbers of a column add up to; 0 where there are none."""
    return pc.sum(column).as_py() or 0


def texts_of(parts: Iterable[Texts | pa.Array[Any] | Iterable[str]]) -> Texts:
    """Several lists of texts as one column."""
    chunks: list[pa.Array[Any]] = []
    for part in parts:
        if isinstance(part, pa.ChunkedArray):
            chunks += part.chunks
        else:
            listed = part if isinstance(part, pa.Array | list) else list(part)
            chunks.append(pa.array(listed, pa.string()) if isinstance(listed, list) else listed)
    return pa.chunked_array(chunks, pa.string())


def rows_of(table: pa.Table, numbers: Numbers) -> pa.Table:
    """Rows of a table by their numbers from 0; without a copy where these follow each other."""
    if not len(numbers):
        return table.slice(0, 0)
    first = int(numbers[0])
    if (numbers == np.arange(first, first + len(numbers))).all():
        return table.slice(first, len(numbers))
    return table.take(array_of(numbers))


def laid_out(texts: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The offset where each text begins and, last, where the last one ends; and the bytes of all texts."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return np.zeros(len(texts) + 1, dtype=np.int32), np.zeros(0, dtype=np.uint8)
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return ends - ends[0], np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]]


def numbers_of(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> Numbers:
    """The values of a column of whole numbers or times without nulls; from its memory: Arrow's own way loads pandas."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.zeros(0, dtype=np.int64), *map(numbers_of, column.chunks)])
    width: npt.DTypeLike = np.int64 if column.type.bit_width == 64 else np.int32
    data = column.buffers()[1]
    if data is None:
        return np.zeros(0, dtype=np.int64)
    values = np.frombuffer(memoryview(data), dtype=width)[column.offset : column.offset + len(column)]
    return values.astype(np.int64)


def whole_numbers(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[int]:
    """What `numbers_of` gives, as a list."""
    numbers: list[int] = numbers_of(column).tolist()
    return numbers


def are_null(column: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    """For each value whether it is missing."""
    missing: npt.NDArray[np.bool_] = numbers_of(pc.cast(pc.is_null(column), pa.int64())) != 0
    return missing


def array_of(numbers: npt.NDArray[Any]) -> pa.Array[Any]:
    """Whole numbers as a column, without a copy where they have 64 bits."""
    whole = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None, pa.py_buffer(whole.data)])
