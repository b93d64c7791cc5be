"""`kling-batch plan`: what a run would do and cost. No request leaves, unless the account is to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from pipeline.cli import options
from pipeline.cli.plan_json import plan_json
from pipeline.cli.plan_screen import credits_line, screen_of
from pipeline.cli.screen import printable, say, say_json, working

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.asked import AskedOfRun
    from pipeline.api.types import Difference, Plan, Trial
    from pipeline.kernel.usd import MicroUsd


@click.command()
@options.of_a_run
@options.run_for
@options.until
@options.canary
@click.option(
    "--expand", type=Path, metavar="FILE", help="Write every job, prompts filled in, to a .csv or .parquet file."
)
@click.option(
    "--check-account",
    is_flag=True,
    help="Ask the account for its credits: one free call, the only one that plan ever makes.",
)
@options.settings
@options.json
def plan(
    manifest: Path,
    config: Path | None,
    *,
    expand: Path | None,
    check_account: bool,
    json: bool,
    **asked: Unpack[AskedOfRun],
) -> None:
    """Show what a run would do and what it would cost. No request leaves this machine, unless --check-account.

    Example: kling-batch plan manifests/quickstart.yaml --expand jobs.csv
    """
    if expand is not None:
        _check_table(expand, manifest, config)
    prepared = options.prepare(manifest, config, json=json, **asked)
    with working(f"Looking at {prepared.folder}"):
        changes, made = prepared.changes(), prepared.plan()
        canary = prepared.canary() if prepared.config.canary.jobs else None
    if expand is not None:
        with working(f"Writing {expand}"):
            prepared.write_jobs(expand, made)
    credits_ = _credits(prepared) if check_account else None
    if json:
        say_json(_as_json(prepared, made, changes, canary, credits_))
        return
    for warning in prepared.campaign.warnings:
        say(f"Warning: {printable(str(warning))}")
    say(screen_of(prepared, made, changes, canary, whole=True))
    if credits_ is not None:
        say(credits_line(made, credits_))
    if expand is not None:
        say(f"Every job is in {printable(str(expand))}.")


def _credits(prepared: Prepared) -> MicroUsd:
    import asyncio

    return asyncio.run(prepared.credits())


def _as_json(
    prepared: Prepared, made: Plan, changes: Difference | None, canary: Trial | None, credits_microusd: MicroUsd | None
) -> dict[str, Any]:
    campaign = prepared.campaign
    return plan_json(
        campaign.name,
        made,
        str(prepared.folder),
        live=prepared.config.is_live,
        order=prepared.options.order or campaign.order,
        changes=changes,
        canary=canary,
        credits_microusd=credits_microusd,
        warnings=campaign.warnings,
        address=prepared.address,
    )


def _check_table(path: Path, manifest: Path, config: Path | None) -> None:
    """Refuse a file that no table can be written to, or must not be, before any work is done for it."""
    from pipeline.api.running import check_table

    check_table(path)
    options.check_target("--expand", path, "the plan", made_of=(manifest, config))
