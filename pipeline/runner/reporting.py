"""When the report of a run directory is written: by a run, and again when somebody asks for it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.kernel.clock import Clock, SystemClock
from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import LOCK_PAUSE_S, hold_folder
from pipeline.kernel.garbage import no_garbage_collector
from pipeline.ledger.fold import State
from pipeline.looking.view import Look, look
from pipeline.report.jobs_file import load_lines
from pipeline.report.lines import Line
from pipeline.report.summary import is_complete, read_summary, says_the_same, write_summary

LONGEST_WAIT_S = 10.0
"""How long a report waits for another that is being written: one that hangs keeps no run from its end for long."""

MOST_ROUNDS = 3
"""How often a report is written at most, if each time a run has ended while it was being written."""


def write_report(folder: Path, lines: Sequence[Line], state: State, summary: dict[str, Any]) -> None:
    """Write the report of a run directory whose run goes on; left out where another is being written just now."""
    # It never waits: meanwhile its summary would grow old, but not the state that its tables are made of.
    with _turn(folder, 0) as is_ours:
        if is_ours:
            _write(folder, lines, state, summary, live=True)


def renew_report(
    folder: Path, lines: Sequence[Line], state: State, summary: dict[str, Any], shown_seq: int | None
) -> None:
    """Write the report of a run directory whose run has ended, or its summary alone where the rest would be the same.

    Args:
        shown_seq: the event up to which a report must reach to show all that has happened; None if none can.
    """
    report = folder / "report"
    with _turn(folder, LONGEST_WAIT_S):
        shown = read_summary(report)
        is_current = shown_seq is not None and shown.get("events") == shown_seq
        if is_current and says_the_same(shown, summary) and is_complete(report):
            # A million rows take long to write, so what would be the same again is left as it is. The summary was read
            # only now: a report that was written during this run shows a run that goes on, and names no last event.
            write_summary(report, summary)
        else:
            _write(folder, lines, state, summary, live=False)


@contextlib.contextmanager
def _turn(folder: Path, wait_s: float) -> Iterator[bool]:
    """Hold the folder of a report, so that its files are of one moment; False if another report is being written.

    If the folder is not there yet, or cannot be locked, the report is written without a lock.

    Args:
        wait_s: how long to wait for another report.
    """
    with contextlib.ExitStack() as stack:
        is_ours = True
        try:
            stack.enter_context(hold_folder(folder / "report", 1 + round(wait_s / LOCK_PAUSE_S)))
        except BlockingIOError:
            is_ours = False
        except OSError:
            pass
        yield is_ours


def _write(folder: Path, lines: Sequence[Line], state: State, summary: dict[str, Any], *, live: bool) -> None:
    # Imported here, because it takes long to load and few commands write a report.
    from pipeline.report.write import write_report as write

    write(folder, lines, state, summary, live=live)


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
    clock = clock or SystemClock()
    # It takes its turn before it reads, so that it never writes an older state over a newer report.
    with no_garbage_collector(), _turn(folder, LONGEST_WAIT_S):
        seen = None
        for _ in range(MOST_ROUNDS):
            seen, summary = _read_and_write(folder, clock, seen, bom=bom, xlsx=xlsx)
            # A run that ends waits for this report at most `LONGEST_WAIT_S`, and then writes its own beside it: it may
            # just have been written over, so look again.
            after = look(folder, clock.now_us(), seen)
            if after.is_live or (after.names == seen.names and not seen.is_live):
                break
    return summary


def _read_and_write(
    folder: Path, clock: Clock, before: Look | None, *, bom: bool, xlsx: bool
) -> tuple[Look, dict[str, Any]]:
    """Write the report as the ledger is now; returns what it shows, and its summary."""
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(load_lines, folder)
        seen = look(folder, clock.now_us(), before)
    lines = reading.result()
    # The summary counts the rows that the tables show: beside a run, the two may have read different ones.
    summary = dataclasses.replace(seen, keys=lines.keys).summary()
    try:
        _write(folder, lines, seen.state, summary, live=seen.is_live)
        _write_for_desk(seen, lines, summary, bom=bom, xlsx=xlsx)
    except OSError as error:
        raise MachineError(f"{folder / 'report'} cannot be written: {error.strerror}") from None
    return seen, summary


def _write_for_desk(seen: Look, lines: Sequence[Line], summary: dict[str, Any], *, bom: bool, xlsx: bool) -> None:
    """What people with a spreadsheet ask for."""
    if bom:
        from pipeline.report.write import mark_utf8

        mark_utf8(seen.folder)
        write_summary(seen.folder / "report", summary)  # it is always the last
    if xlsx:
        from pipeline.report.workbook import write_workbook

        write_workbook(seen.folder, lines, seen.state, summary, live=seen.is_live)


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
