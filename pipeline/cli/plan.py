"""`kling-batch plan`: what a run would do and cost. No request leaves, unless the account is to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.plan_screen import credits_line, plan_json, plan_screen
from pipeline.cli.screen import printable, say, say_json, working

if TYPE_CHECKING:
    from pipeline.api import Prepared
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
@options.setting
@options.json
def plan(
    manifest: Path,
    config: Path | None,
    out: str | None,
    budget_usd: str | None,
    rpm: str | None,
    max_in_flight: str | None,
    limit: int | None,
    ids: str | None,
    part: str | None,
    order: str | None,
    after: str | None,
    until: str | None,
    canary: str | None,
    expand: Path | None,
    check_account: bool,
    setting: tuple[str, ...],
    json: bool,
) -> None:
    """Show what a run would do and what it would cost. No request leaves this machine, unless --check-account.

    Example: kling-batch plan manifests/quickstart.yaml --expand jobs.csv
    """
    from pipeline.kernel.clock import SystemClock

    if expand is not None:
        _check_target(expand, manifest, config)
    settings = options.make_config(
        config,
        setting,
        budget_usd=budget_usd,
        rpm=rpm,
        max_in_flight=max_in_flight,
        after=after,
        until=until,
        canary=canary,
    )
    prepared = options.prepare(
        manifest, settings, json=json, out=out, limit=limit, part=part, ids=options.split_ids(ids), order=order
    )
    campaign, folder, live = prepared.campaign, str(prepared.folder), settings.is_live
    with working(f"Looking at {folder}"):
        changes, made = prepared.changes(), prepared.plan()
        tried = prepared.canary() if settings.canary.jobs else None
    if expand is not None:
        with working(f"Writing {expand}"):
            prepared.write_jobs(expand, made)
    credits_ = _credits(prepared) if check_account else None
    if json:
        say_json(
            plan_json(
                campaign.name,
                made,
                folder,
                live=live,
                order=prepared.options.order or campaign.order,
                changes=changes,
                canary=tried,
                credits_microusd=credits_,
                warnings=campaign.warnings,
                address=prepared.address,
            )
        )
        return
    for warning in campaign.warnings:
        say(f"Warning: {printable(str(warning))}")
    now_us = SystemClock().now_us()
    say(
        plan_screen(
            campaign.name,
            made,
            folder,
            live=live,
            changes=changes,
            canary=tried,
            now_us=now_us,
            whole=True,
            address=prepared.address,
        )
    )
    if credits_ is not None:
        say(credits_line(made, credits_))
    if expand is not None:
        say(f"Every job is in {printable(str(expand))}.")


def _credits(prepared: Prepared) -> MicroUsd:
    import asyncio

    return asyncio.run(prepared.credits())


def _check_target(path: Path, manifest: Path, config: Path | None) -> None:
    """Refuse a file that cannot be written, or that must not be, before any work is done for it."""
    from pipeline.api.running import check_table
    from pipeline.kernel.errors import InputError

    check_table(path)
    if not path.parent.is_dir():
        raise InputError(f"--expand: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"--expand: {path} is a folder")
    if path.exists() and any(other.exists() and path.samefile(other) for other in (manifest, config) if other):
        raise InputError(f"--expand: {path} is what the plan is made of; name another file")
