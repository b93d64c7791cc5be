"""The lines of a campaign as its manifest makes them, and the mark by which a later run knows the same ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa

from pipeline.kernel.arrow import array_of
from pipeline.report.jobs_format import VERSION, lines_table, settings_text, settings_texts, variables_texts
from pipeline.report.lines import LINES_AT_ONCE, Keys, Lines

if TYPE_CHECKING:
    # Types only: a command that just looks at a run directory must not wait for the import of what reads manifests.
    from pipeline.manifest import Entry
    from pipeline.manifest.campaign import Entries


def lines_of(entries: Sequence[Entry]) -> Lines:
    """The lines of a campaign, in the order of its manifest."""
    from pipeline.manifest.campaign import by_columns

    columns = by_columns(entries)
    rows = pa.chunked_array([array_of(np.frombuffer(columns.rows, columns.rows.typecode))])
    keys = Keys(rows, columns.row_ids, columns.job_ids)
    return Lines(functools.partial(_made_of, columns), keys=keys)


def _made_of(columns: Entries) -> pa.Table:
    parts = [
        _part_of(columns, slice(first, first + LINES_AT_ONCE))
        for first in range(0, max(1, len(columns.jobs)), LINES_AT_ONCE)
    ]
    return pa.concat_tables(parts).unify_dictionaries()


def _part_of(columns: Entries, part: slice) -> pa.Table:
    """A part of the lines: the texts of a million at once would take a quarter of a gigabyte."""
    jobs = columns.jobs[part]
    kinds = [job.kind for job in jobs]
    return lines_table(
        {
            "row": columns.rows[part],
            "id": columns.row_ids[part],
            "replicate": [kind.replicate for kind in kinds],
            "job_id": [job.job_id for job in jobs],
            "model": [kind.model for kind in kinds],
            "priority": columns.priorities[part],
            "prompt": [job.prompt for job in jobs],
            "settings": settings_texts(kinds),
            "variables": variables_texts(columns.variables[part]),
        }
    )


def mark_of(entries: Sequence[Entry]) -> bytes:
    """A hash of everything that the lines of a campaign are made of: equal marks mean equal lines.

    It takes a tenth of the time that making the lines takes: the ids of jobs stand for prompts and parameters.
    """
    from pipeline.manifest.campaign import by_columns

    hashed = hashlib.sha256()
    for part in _marks(by_columns(entries)):
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.digest()


def _marks(columns: Entries) -> Iterator[bytes]:
    yield b"%d" % VERSION
    kinds = dict.fromkeys([job.kind for job in columns.jobs])
    yield orjson.dumps([(kind.model, kind.replicate, settings_text(kind.params)) for kind in kinds])
    yield orjson.dumps(columns.job_ids)
    yield orjson.dumps(columns.row_ids)
    yield columns.rows.tobytes()
    yield columns.priorities.tobytes()
    each = dict(zip(map(id, columns.variables), columns.variables, strict=True))
    # `repr`, not JSON: JSON writes NaN and None both as null, and the mark must tell them apart.
    texts = {number: repr(dict(mine)) for number, mine in each.items()}
    all_of_them = map(texts.__getitem__, map(id, columns.variables))
    yield "\n".join([*texts.values()] * len(columns) if len(texts) == 1 else all_of_them).encode()


def mark_with(mark: bytes, sha256: str) -> str:
    """The mark of a campaign together with the hash of the file that keeps its lines.

    If it equals the mark in the last `run_started`, `save_lines` would write the same bytes again, so the file is left
    alone.
    """
    return hashlib.sha256(mark + bytes.fromhex(sha256)).hexdigest()
