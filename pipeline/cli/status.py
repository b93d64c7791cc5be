"""`kling-batch status`: how a run directory stands, beside a live run or at rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.screen import SANDBOX_NOTE, duration, printable, say, say_json, sentence, summary_screen, table

if TYPE_CHECKING:
    from pipeline.runner import RunView

SHOWN = 12


def status(
    directory: options.RunDirectory,
    json: options.Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
) -> None:
    """Show how a run directory stands, beside a live run or at rest. Jobs, money, what runs and when it expires.

    Example: kling-batch status outputs/quickstart
    """
    import time

    while True:
        _show(directory, json=json)
        if not watch:
            return
        try:
            time.sleep(2)
        except KeyboardInterrupt:
            return
        if sys.stdout.isatty() and not json:
            say("\x1b[2J\x1b[H")


def _show(directory: options.RunDirectory, *, json: bool) -> None:
    from pipeline.kernel.clock import SystemClock
    from pipeline.runner import open_view

    view = open_view(directory)
    now_us = SystemClock().now_us()
    summary = view.summary(now_us) | {"held_by": view.holder, "unsettled": _unsettled(view, now_us)}
    if json:
        say_json(summary)
        return
    if summary["provider"] == "sandbox":
        say(SANDBOX_NOTE)
    holder = view.holder
    live = f"running (process {holder['pid']} since {holder['since']})" if holder else "at rest"
    say(f"{printable(str(directory))}: {live}")
    say()
    say(summary_screen(summary))
    if summary["unsettled"]:
        say()
        say(_unsettled_screen(summary["unsettled"]))
    if summary["message"]:
        say()
        say(f"The last run stopped: {sentence(summary['message'])}")
    elif summary["started_at"] and not summary["finished_at"] and not holder:
        say()
        say("The last run was cut off before its end. Nothing is lost: run it again to settle and collect.")


def _unsettled(view: RunView, now_us: int) -> list[dict[str, Any]]:
    """Every job that is running, paid and not on disk, or in doubt: its age, and what expires when. Seconds."""
    from pipeline.engine.expiry import expires_us, file_expires_us, record_expires_us
    from pipeline.ledger.fold import JobState
    from pipeline.report.tables import status_word

    states = (JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED, JobState.IN_DOUBT)
    row_ids: dict[str, str] = {}
    for line in view.lines:
        row_ids.setdefault(line.job_id, line.id)
    rows = []
    for record in sorted(view.state.in_state(*states), key=expires_us):
        age_s = max(0.0, (now_us - (record.submitted_us or record.reserved_us)) / 1e6)
        rows.append(
            {
                "id": row_ids.get(record.job_id),
                "job_id": record.job_id,
                "attempt": record.attempt,
                "status": status_word(record.state, live=view.holder is not None),
                "request_id": record.request_id,
                "age_s": round(age_s, 1),
                "record_expires_in_s": round((record_expires_us(record) - now_us) / 1e6, 1),
                "file_expires_in_s": round((file_expires_us(record) - now_us) / 1e6, 1),
                "quote_microusd": record.quote_microusd,
                "error": record.error,
            }
        )
    return rows


def _unsettled_screen(rows: list[dict[str, Any]]) -> str:
    head = ["row", "attempt", "", "age", "record expires in", "file expires in", "request"]
    lines = [
        [
            row["id"] or "-",
            f"{row['job_id']}/{row['attempt']}",
            row["status"].replace("_", " "),
            duration(row["age_s"]),
            _left(row["record_expires_in_s"]),
            _left(row["file_expires_in_s"]),
            row["request_id"] or "-",
        ]
        for row in rows[:SHOWN]
    ]
    more = f"\n  … and {len(rows) - SHOWN} more (--json lists all)" if len(rows) > SHOWN else ""
    forgotten = any(row["record_expires_in_s"] <= 0 and row["file_expires_in_s"] > 0 for row in rows)
    note = "\n  What is past its record is found in the history; until its file expires, fetching is free."
    return table([head, *lines], right=frozenset({3, 4, 5})) + more + (note if forgotten else "")


def _left(seconds: float) -> str:
    return duration(seconds) if seconds > 0 else "past"
