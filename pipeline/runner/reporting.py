"""When the report of a run directory is written: by a run, and again when somebody asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import MachineError
from pipeline.kernel.garbage import no_garbage_collector
from pipeline.ledger.fold import State
from pipeline.looking.view import Look, look
from pipeline.report.entries import Line, load_lines


def write_report(
    folder: Path, lines: Sequence[Line], state: State, summary: dict[str, Any], *, live: bool = False
) -> None:
    """Write the report of a run directory; `live` while its run goes on."""
    # Only who writes a report waits for what that takes to load.
    from pipeline.report import write

    write.write_report(folder, lines, state, summary, live=live)


def rewrite_report(
    folder: Path, clock: Clock | None = None, *, bom: bool = False, xlsx: bool = False
) -> dict[str, Any]:
    """Write the report of a run directory again from its ledger; returns the summary.

    Args:
        bom: whether the CSV files begin with a byte order mark.
        xlsx: whether a workbook is written as well.

    Raises:
        RunDirectoryError: it is none, or it is damaged.
        MachineError: the disk refused.
    """
    with no_garbage_collector():
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(load_lines, folder)
            seen = look(folder, (clock or SystemClock()).now_us())
        lines = reading.result()
        # The rows that it shows are those that it counts: beside a run, each of the two may have found others.
        summary = dataclasses.replace(seen, keys=lines.keys).summary()
        try:
            write_report(folder, lines, seen.state, summary, live=seen.is_held)
            _write_for_desk(seen, lines, summary, bom=bom, xlsx=xlsx)
        except OSError as error:
            raise MachineError(f"{folder / 'report'} cannot be written: {error.strerror}") from None
    return summary


def _write_for_desk(seen: Look, lines: Sequence[Line], summary: dict[str, Any], *, bom: bool, xlsx: bool) -> None:
    """What people with a spreadsheet ask for."""
    if bom:
        from pipeline.report.summary import write_summary
        from pipeline.report.write import mark_utf8

        mark_utf8(seen.folder)
        write_summary(seen.folder / "report", summary)  # it is always the last
    if xlsx:
        from pipeline.report.workbook import write_workbook

        write_workbook(seen.folder, lines, seen.state, summary, live=seen.is_held)


def write_contact_sheets(folder: Path) -> list[str]:
    """Write the contact sheets of a run directory; returns their names.

    Raises:
        RunDirectoryError: it is none, or it is damaged.
        MachineError: the disk refused.
    """
    from pipeline.report import contact_sheet

    seen = look(folder, SystemClock().now_us())
    try:
        return contact_sheet.write_contact_sheets(folder, seen.lines(), seen.state)
    except OSError as error:
        raise MachineError(f"{folder / 'report'} cannot be written: {error.strerror}") from None
