"""`kling-batch report`: write the report files again from the ledger."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import api
from pipeline.cli import options
from pipeline.cli.screen import (
    above_quotes_screen,
    errors_screen,
    remarks,
    say,
    say_json,
    summary_screen,
    terminal_width,
    working,
    wrap,
)


@click.command()
@options.run_directory
@click.option("--bom", is_flag=True, help="Begin the CSV files with a byte order mark, by which Excel knows UTF-8.")
@click.option("--xlsx", is_flag=True, help="Write results.xlsx as well: a workbook with pictures and filters.")
@click.option("--contact-sheet", is_flag=True, help="Write contact-sheet.jpg as well: frames of every stored clip.")
@options.json
def report(directory: Path, bom: bool, xlsx: bool, contact_sheet: bool, json: bool) -> None:
    """Write the report files again from the ledger. Open report/index.html to look at every clip.

    Example: kling-batch report outputs/quickstart
    """
    run = api.open_run(directory)
    with working(f"Writing the report of {directory}"):
        summary = run.report(bom=bom, xlsx=xlsx)
        sheets = run.contact_sheets() if contact_sheet else []
    if json:
        say_json(summary | ({"contact_sheets": sheets} if contact_sheet else {}))
        return
    width = terminal_width()
    say(summary_screen(summary, width))
    for remark in remarks(summary):
        say()
        say("\n".join(wrap(remark, width)))
    if above := above_quotes_screen(summary):
        say()
        say(above)
    if summary["errors_by_class"]:
        say()
        say(errors_screen(summary["errors_by_class"], width))
    say()
    workbook = ", results.xlsx" if xlsx else ""
    files = f"index.html, results.csv, results.parquet, errors.csv, errors-by-class.csv, summary.json{workbook}"
    say(f"Written: {run.folder}/report/{files}")
    if contact_sheet:
        named = " to ".join(dict.fromkeys((sheets[0], sheets[-1]))) if sheets else "none, for nothing is stored"
        say(f"Contact sheets: {named}")
