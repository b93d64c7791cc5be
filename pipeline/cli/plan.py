"""`kling-batch plan`: what a run would do and cost. No request leaves, unless the account is to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.plan_screen import credits_line, plan_json, plan_screen
from pipeline.cli.screen import printable, say, say_json


def plan(
    manifest: options.Manifest,
    config: options.ConfigFile = None,
    out: options.Out = None,
    budget_usd: options.Budget = None,
    rpm: options.Rpm = None,
    max_in_flight: options.MaxInFlight = None,
    limit: options.Limit = None,
    ids: options.Ids = None,
    order: options.Order = None,
    after: options.For = None,
    until: options.Until = None,
    canary: options.Canary = None,
    expand: Annotated[
        Path | None,
        typer.Option(
            "--expand", metavar="FILE", help="Write every job, prompts filled in, to a .csv or .parquet file."
        ),
    ] = None,
    check_account: Annotated[
        bool,
        typer.Option(
            "--check-account", help="Ask the account for its credits: one free call, the only one that plan ever makes."
        ),
    ] = False,
    setting: options.Setting = None,
    json: options.Json = False,
) -> None:
    """Show what a run would do and what it would cost. No request leaves this machine, unless --check-account.

    Example: kling-batch plan manifests/quickstart.yaml --expand jobs.csv
    """
    import asyncio

    from pipeline import planning
    from pipeline.config import read_key
    from pipeline.kernel.clock import SystemClock
    from pipeline.ledger.store import lock_holder
    from pipeline.runner import SANDBOX_KEY, check_ids, check_provider, plan_run, read_state, run_folder, trial_of

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
    asked = options.make_run_options(limit, ids, order)
    key = read_key(settings) if settings.is_live and check_account else SANDBOX_KEY
    campaign = options.read_manifest(manifest, json=json)
    folder = run_folder(settings, campaign, out)
    state = read_state(folder)
    check_provider(state, settings, folder)
    check_ids(folder, campaign, state)
    live = lock_holder(folder / "ledger") is not None
    changes = planning.changes_since(folder, campaign, settings, state)
    made = plan_run(campaign, settings, state, asked, live=live)
    tried = trial_of(campaign, settings, state, asked) if settings.canary.jobs else None
    if expand is not None:
        planning.write_expansion(expand, campaign, settings, made, state, asked, live=live)
    credits_ = asyncio.run(planning.ask_credits(settings, folder, key)) if check_account else None
    if json:
        say_json(
            plan_json(
                campaign.name,
                made,
                str(folder),
                live=settings.is_live,
                order=asked.order or campaign.order,
                changes=changes,
                canary=tried,
                credits_microusd=credits_,
                warnings=campaign.warnings,
            )
        )
        return
    for warning in campaign.warnings:
        say(f"Warning: {printable(str(warning))}")
    now_us = SystemClock().now_us()
    live = settings.is_live
    say(
        plan_screen(
            campaign.name, made, str(folder), live=live, changes=changes, canary=tried, now_us=now_us, whole=True
        )
    )
    if credits_ is not None:
        say(credits_line(made, credits_))
    if expand is not None:
        say(f"Every job is in {printable(str(expand))}.")


def _check_target(path: Path, manifest: Path, config: Path | None) -> None:
    """Refuse a file that cannot be written, or that must not be, before any work is done for it."""
    from pipeline.kernel.errors import InputError
    from pipeline.report.expansion import FORMATS

    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--expand: {path} ends neither in {' nor in '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"--expand: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"--expand: {path} is a folder")
    if path.exists() and any(other.exists() and path.samefile(other) for other in (manifest, config) if other):
        raise InputError(f"--expand: {path} is what the plan is made of; name another file")
