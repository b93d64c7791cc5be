"""`kling-batch run`: bring a run directory to what the manifest says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.screen import (
    next_command,
    plan_screen,
    printable,
    say,
    say_json,
    summary_screen,
)

if TYPE_CHECKING:
    from pipeline.config import Config

OWN_SCREEN_FLAGS = {"--yes", "--json", "--no-progress"}


def run(
    manifest: options.Manifest,
    config: options.ConfigFile = None,
    out: options.Out = None,
    budget_usd: options.Budget = None,
    rpm: options.Rpm = None,
    max_in_flight: options.MaxInFlight = None,
    limit: options.Limit = None,
    ids: options.Ids = None,
    retry_failed: Annotated[
        str | None,
        typer.Option("--retry-failed", help="Try failed jobs anew: `all`, or error classes: generation_failed,…"),
    ] = None,
    after: options.For = None,
    until: options.Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a live run.")] = False,
    json: options.Json = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress.")] = False,
    setting: options.Setting = None,
) -> None:
    """Make what the manifest asks for. Always resumes: what is there already costs nothing again.

    Example: kling-batch run manifests/quickstart.yaml -c configs/live.yaml --budget-usd 50
    """
    import asyncio

    from pipeline import runner
    from pipeline.cli.progress import Progress
    from pipeline.config import read_key
    from pipeline.manifest import load_manifest

    settings = options.make_config(
        config, setting, budget_usd=budget_usd, rpm=rpm, max_in_flight=max_in_flight, after=after, until=until
    )
    key = read_key(settings) if settings.is_live else runner.SANDBOX_KEY
    campaign = load_manifest(manifest)
    folder = runner.run_folder(settings, campaign, out)
    asked = options.make_run_options(limit, ids, retry_failed)
    made = runner.plan_run(campaign, settings, runner.read_state(folder), asked)
    if not json:
        for warning in campaign.warnings:
            say(f"Warning: {printable(str(warning))}")
        say(plan_screen(campaign.name, made, str(folder), live=settings.is_live))
        say()
    _ask_before_spending(settings, yes=yes, anything=bool(made.to_do))
    progress = Progress(shown=not no_progress and not json)
    with progress:
        result = asyncio.run(runner.run(campaign, settings, folder, key=key, options=asked, watcher=progress))
    if json:
        say_json(result.summary)
    else:
        say(summary_screen(result.summary))
        say()
        if result.message:
            say(f"Stopped: {printable(result.message)}")
        say(next_command(result.summary, str(folder), _again(manifest)))
    raise typer.Exit(result.exit_code)


def _ask_before_spending(config: Config, *, yes: bool, anything: bool) -> None:
    """A live run spends only after a yes: from a person, or from the command line."""
    from pipeline.kernel.errors import InputError

    if not config.is_live or yes or not anything:
        return
    if not sys.stdin.isatty():
        raise InputError("a live run without a terminal needs --yes. Nothing was sent.")
    if not typer.confirm("Real money will be spent. Go on?"):
        raise InputError("not confirmed. Nothing was sent.")


def _again(manifest: Path) -> str:
    """The command that goes on with this run: the one that was typed, less what only concerned this time."""
    arguments = [argument for argument in sys.argv[1:] if argument not in OWN_SCREEN_FLAGS]
    arguments = arguments if "run" in arguments else ["run", str(manifest)]
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--retry-failed":
            skip = True
        elif not argument.startswith("--retry-failed="):
            kept.append(argument)
    return shlex.join(["kling-batch", *kept])
