"""`kling-batch plan`: what a run would do and cost. No request leaves."""

from __future__ import annotations

from pipeline.cli import options
from pipeline.cli.screen import plan_json, plan_screen, printable, say, say_json


def plan(
    manifest: options.Manifest,
    config: options.ConfigFile = None,
    out: options.Out = None,
    budget_usd: options.Budget = None,
    rpm: options.Rpm = None,
    max_in_flight: options.MaxInFlight = None,
    limit: options.Limit = None,
    ids: options.Ids = None,
    after: options.For = None,
    until: options.Until = None,
    setting: options.Setting = None,
    json: options.Json = False,
) -> None:
    """Show what a run would do and what it would cost. No request leaves this machine.

    Example: kling-batch plan manifests/quickstart.yaml --budget-usd 50
    """
    from pipeline.manifest import load_manifest
    from pipeline.runner import check_provider, plan_run, read_state, run_folder

    settings = options.make_config(
        config, setting, budget_usd=budget_usd, rpm=rpm, max_in_flight=max_in_flight, after=after, until=until
    )
    campaign = load_manifest(manifest)
    folder = run_folder(settings, campaign, out)
    state = read_state(folder)
    check_provider(state, settings, folder)
    made = plan_run(campaign, settings, state, options.make_run_options(limit, ids))
    warnings = [printable(str(warning)) for warning in campaign.warnings]
    if json:
        say_json(plan_json(campaign.name, made, str(folder), live=settings.is_live, warnings=warnings))
        return
    for warning in warnings:
        say(f"Warning: {warning}")
    say(plan_screen(campaign.name, made, str(folder), live=settings.is_live))
