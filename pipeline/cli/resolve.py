"""`kling-batch resolve`: a person's word on an attempt in doubt."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import api
from pipeline.cli import options
from pipeline.cli.screen import printable, say, say_json


@click.command()
@options.run_directory
@click.argument(
    "attempt",
    metavar="ATTEMPT",
    help="JOB/NUMBER as `status` shows it; a job's or row's id where only one attempt is in doubt.",
)
@click.option("--billed", metavar="REQUEST_ID", help="It was accepted, under this name.")
@click.option("--not-billed", is_flag=True, help="It was not; its money is free and the job is sent again.")
@click.option("--note", metavar="TEXT", help="Why, for the ledger.")
@options.json
def resolve(directory: Path, attempt: str, billed: str | None, not_billed: bool, note: str | None, json: bool) -> None:
    """Record your word on an attempt in doubt. It is kept with the time and your name; nothing is sent.

    Example: kling-batch resolve outputs/spring lamp --not-billed
    """
    from pipeline.kernel.usd import format_usd

    done = api.resolve(directory, attempt, billed=billed, not_billed=not_billed, note=note)
    money = format_usd(done.quote_microusd)
    if json:
        say_json(
            {
                "job_id": done.job_id,
                "attempt": done.attempt,
                "billed": done.billed,
                "request_id": done.request_id,
                "quote_usd": money,
                "by": done.by,
            }
        )
        return
    name = f"{done.job_id}/{done.attempt}"
    if done.billed:
        say(f"{name} is request {done.request_id}, by your word; its ${money} stays reserved. Run again to collect it.")
    else:
        say(f"{name} was not billed, by your word; its ${money} is free again. The next run sends it anew.")
    say(f"Recorded for {printable(done.by)}.")
