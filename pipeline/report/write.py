"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.kernel.ahead import one_ahead
from pipeline.kernel.files import make_folder, replacing, write_file
from pipeline.kernel.garbage import give_back_memory
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.columns import Table, columns_of_rows, csv_bytes, csv_head, csv_lines, for_pandas
from pipeline.report.gallery import gallery_page
from pipeline.report.lines import LINES_AT_ONCE, Line
from pipeline.report.summary import write_summary


def write_report(
    folder: Path, lines: Sequence[Line], state: State, summary: Mapping[str, Any], *, live: bool = False
) -> None:
    """Write all files of `<run directory>/report/`.

    Args:
        live: whether a run holds the directory now.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    report = folder / "report"
    make_folder(report)
    by_class = classes.errors_by_class(lines, state)
    write_file(report / classes.FILE, csv_bytes(columns_of_rows(by_class, classes.COLUMNS)))
    with one_ahead(tables.results_in_parts(lines, state, live=live)) as parts:
        _write_results(report, parts)
    if len(lines) > LINES_AT_ONCE:
        # What the page takes must not come on top of what the tables took.
        give_back_memory()
    errors = tables.errors(lines, state)
    write_file(report / "errors.csv", csv_bytes(columns_of_rows(errors, tables.ERROR_COLUMNS)))
    name = folder.absolute().name
    write_file(report / "index.html", gallery_page(name, lines, state, summary, errors, live=live))
    # Last, so that a summary tells the next run that all other files are whole.
    write_summary(report, summary)
    if len(lines) > LINES_AT_ONCE:
        # A run may go on for hours beside the memory that a report needs for a second.
        give_back_memory()


def _write_results(report: Path, parts: Iterator[tuple[Table, pa.Table]]) -> None:
    """Write results.csv and, beside it in a thread, results.parquet, part by part. The first part is never missing."""
    rows, table = first = next(parts)
    with contextlib.ExitStack() as stack:
        as_csv, as_parquet = (
            stack.enter_context(replacing(report / name)) for name in ("results.csv", "results.parquet")
        )
        as_csv(csv_head(rows))
        file = pa.PythonFile(_Sink(as_parquet), mode="w")
        # No dictionary for columns with nearly all values different: it would take more time and room than they do.
        alike: Any = [name for name in table.column_names if name not in tables.OF_ONE_LINE]
        parquet = stack.enter_context(pq.ParquetWriter(file, for_pandas(table.schema), use_dictionary=alike))
        # Entered last and so left first: its work has ended when the file is closed.
        beside = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="parquet"))
        for rows, table in itertools.chain([first], parts):
            writing = beside.submit(parquet.write_table, table)
            for lines in csv_lines(rows):
                as_csv(lines)
            writing.result()


class _Sink(io.RawIOBase):
    """A file for Arrow to write to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._write(data)
        return len(data)


def mark_utf8(folder: Path) -> None:
    """Begin the CSV files of a run directory's report with a byte order mark, by which Excel knows UTF-8.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    for name in ("results.csv", "errors.csv", classes.FILE):
        path = folder / "report" / name
        write_file(path, codecs.BOM_UTF8 + path.read_bytes().removeprefix(codecs.BOM_UTF8))
