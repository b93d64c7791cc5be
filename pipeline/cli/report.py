"""`kling-batch report`: write the report files again from the ledger."""

from __future__ import annotations

from pipeline.cli import options
from pipeline.cli.screen import say, say_json, summary_screen


def report(directory: options.RunDirectory, json: options.Json = False) -> None:
    """Write the report files again from the ledger.

    Example: kling-batch report outputs/quickstart
    """
    from pipeline.runner import rewrite_report

    summary = rewrite_report(directory)
    if json:
        say_json(summary)
        return
    say(summary_screen(summary))
    say()
    say(f"Written: {directory}/report/results.csv, results.parquet, errors.csv, summary.json")
