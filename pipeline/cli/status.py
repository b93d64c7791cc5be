"""`kling-batch status`: how a run directory stands, beside a live run or at rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.screen import SANDBOX_NOTE, duration, printable, say, say_json, sentence, summary_screen, table

if TYPE_CHECKING:
    from pipeline.runner import RunView

RECORD_KEPT_S = 3600
FILE_KEPT_S = 7 * 24 * 3600
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
    from pipeline.ledger.fold import JobState
    from pipeline.report.tables import status_word

    states = (JobState.RESERVED, JobState.SUBMITTED, JobState.POSTED, JobState.IN_DOUBT)
    rows = []
    for record in view.state.in_state(*states):
        age_s = max(0.0, (now_us - (record.submitted_us or record.reserved_us)) / 1e6)
        kept_s = FILE_KEPT_S if record.state is JobState.POSTED else RECORD_KEPT_S
        rows.append(
            {
                "job_id": record.job_id,
                "attempt": record.attempt,
                "status": status_word(record.state, live=view.holder is not None),
                "request_id": record.request_id,
                "age_s": round(age_s, 1),
                "expires_in_s": round(kept_s - age_s, 1),
                "quote_microusd": record.quote_microusd,
                "error": record.error,
            }
        )
    return sorted(rows, key=lambda row: row["expires_in_s"])


def _unsettled_screen(rows: list[dict[str, Any]]) -> str:
    lines = [["job", "attempt", "", "age", "provider forgets in", "request"]]
    for row in rows[:SHOWN]:
        left = row["expires_in_s"]
        expired = "expired" if row["status"] == "unfetched" else "expired: the history still knows it"
        forgets = duration(left) if left > 0 else expired
        word = row["status"].replace("_", " ")
        lines.append(
            [row["job_id"], str(row["attempt"]), word, duration(row["age_s"]), forgets, row["request_id"] or "-"]
        )
    more = f"\n  … and {len(rows) - SHOWN} more (--json lists all)" if len(rows) > SHOWN else ""
    return table(lines, right=frozenset({1, 3})) + more
