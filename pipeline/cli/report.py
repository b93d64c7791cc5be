"""`kling-batch report`: write the report files again from the ledger."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.screen import errors_screen, say, say_json, summary_screen


def report(
    directory: options.RunDirectory,
    bom: Annotated[
        bool, typer.Option("--bom", help="Begin the CSV files with a byte order mark, by which Excel knows UTF-8.")
    ] = False,
    xlsx: Annotated[
        bool, typer.Option("--xlsx", help="Write results.xlsx as well: a workbook with pictures and filters.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write the report files again from the ledger.

    Example: kling-batch report outputs/quickstart
    """
    from pipeline.runner import rewrite_report

    summary = rewrite_report(directory, bom=bom, xlsx=xlsx)
    if json:
        say_json(summary)
        return
    say(summary_screen(summary))
    if summary["errors_by_class"]:
        say()
        say(errors_screen(summary["errors_by_class"]))
    say()
    workbook = ", results.xlsx" if xlsx else ""
    files = f"results.csv, results.parquet, errors.csv, errors-by-class.csv, summary.json{workbook}"
    say(f"Written: {directory}/report/{files}")
