"""The report's files: written whole or not at all, and safe to open in a spreadsheet."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.kernel.files import make_folder, write_file, write_parts
from pipeline.ledger.fold import State
from pipeline.report import classes, tables
from pipeline.report.columns import by_columns, csv_bytes, csv_parts, parquet_bytes
from pipeline.report.entries import Line
from pipeline.report.gallery import gallery_page
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
    write_file(report / classes.FILE, csv_bytes(by_columns(classes.errors_by_class(lines, state), classes.COLUMNS)))
    results = tables.results_by_columns(lines, state, live=live)
    write_file(report / "results.parquet", parquet_bytes(results))
    write_parts(report / "results.csv", csv_parts(results))
    del results  # a million rows of it are most of a gigabyte
    errors = tables.errors(lines, state)
    write_file(report / "errors.csv", csv_bytes(by_columns(errors, tables.ERROR_COLUMNS)))
    name = folder.absolute().name
    write_file(report / "index.html", gallery_page(name, lines, state, summary, errors, live=live))
    # Last: by what it says of itself, the next run may leave all the others as they are.
    write_summary(report, summary)


def mark_utf8(folder: Path) -> None:
    """Begin the CSV files of a run directory's report with a byte order mark, by which Excel knows UTF-8.

    Raises:
        OSError: the disk refused; each file is then either the old one or the new one.
    """
    for name in ("results.csv", "errors.csv", classes.FILE):
        path = folder / "report" / name
        write_file(path, codecs.BOM_UTF8 + path.read_bytes().removeprefix(codecs.BOM_UTF8))
