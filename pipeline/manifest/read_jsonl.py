"""Reads JSON lines: one object a line, one row an object."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pipeline.manifest.batches import Batch, in_batches
from pipeline.manifest.document import MAX_ENTRIES, Row, as_written
from pipeline.manifest.mistakes import Mistakes
from pipeline.manifest.sources import read_lines
from pipeline.models.base import Scalar

MAX_DIGITS = 300


def read_jsonl(path: Path, mistakes: Mistakes, needs_prompt: bool, size: int) -> Iterator[Batch]:  # noqa: ARG001 - each row
    """The rows of a JSON lines file; what is wrong goes to `mistakes`. A null is a value that is not given."""
    return in_batches(_rows(path, mistakes), size)


def _rows(path: Path, mistakes: Mistakes) -> Iterator[Row]:
    number, file = 0, mistakes.file
    # Only "\n" ends a line: a JSON text may have U+2028 and its like inside.
    for line, source in enumerate(read_lines(path, mistakes, newline="\n"), start=1):
        if source.isspace():
            continue
        number += 1
        if (found := _object_of(source, number, line, mistakes)) is None:
            continue
        cells = {name: value for name, value in found.items() if value is not None}
        yield Row(cells, number=number, line=line, file=file, columns=() if len(cells) == len(found) else tuple(found))
        if number > MAX_ENTRIES:
            mistakes.add(f"has more than {MAX_ENTRIES:,} rows; split it", line=line)
            break


def _object_of(source: str, number: int, line: int, mistakes: Mistakes) -> dict[str, Scalar] | None:
    """The object of a line, or None if it is none."""
    if number == 1 and source.lstrip().startswith("["):
        raise mistakes.final("is a JSON array, not JSON lines; write each object on a line of its own", line)
    try:
        found = _DECODER.decode(source)
    except json.JSONDecodeError as error:
        # The parser's own column begins anew behind the end of the line, where what is missing is noticed.
        column = min(error.pos, len(source.rstrip())) + 1
        what = error.msg.removesuffix(" at")  # some of the parser's messages expect the place behind them
        mistakes.add(f"is not JSON: {what} at column {column}", row=number, line=line)
        return None
    except (ValueError, RecursionError) as error:
        message = "is nested too deep" if isinstance(error, RecursionError) else str(error)
        mistakes.add(message, row=number, line=line)
        return None
    if not isinstance(found, dict):
        mistakes.add('is not an object; each line is one row: {"prompt": "…"}', row=number, line=line)
        return None
    for name, value in found.items():
        if name == "tags" and isinstance(value, list) and all(isinstance(tag, str) and "," not in tag for tag in value):
            found[name] = ", ".join(value)
        elif isinstance(value, list | dict):
            mistakes.add("is a list or an object; a row has single values", row=number, column=name, line=line)
    return {name: value for name, value in found.items() if not isinstance(value, list | dict)}


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice[:60]}` is given twice; keep one of them")
    return found


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not a finite number")


def _float(text: str) -> Scalar:
    value = float(text)
    return as_written(value, text) if math.isfinite(value) else _refused(text)


def _int(text: str) -> Scalar:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return as_written(int(text), text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refused, parse_float=_float, parse_int=_int)
