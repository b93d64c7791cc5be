"""`kling-batch run`: bring a run directory to what the manifest says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.plan_screen import plan_screen
from pipeline.cli.screen import (
    bill_screen,
    count,
    dollars,
    doubts,
    next_command,
    printable,
    say_if_possible,
    sentence,
    summary_screen,
    table,
    working,
)
from pipeline.kernel.usd import MicroUsd

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.types import Config, Difference, Plan, RunResult, Trial

OWN_SCREEN_FLAGS = {"--yes", "--json", "--no-progress"}
APPROVE_FLAG = "--canary-approve"
RETRY_FLAG = "--retry-failed"
_CLASSES = re.compile(r"[a-z_]+(,[a-z_]+)*")


def with_retry_value(arguments: list[str]) -> list[str]:
    """`--retry-failed` may stand alone: then it means all. Its value is taken from the next word if that can be one."""
    joined: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == RETRY_FLAG:
            value = left.pop(0) if left and _CLASSES.fullmatch(left[0]) and not Path(left[0]).exists() else "all"
            word = f"{RETRY_FLAG}={value}"
        joined.append(word)
    return joined


class RunCommand(click.Command):
    """`run`, with an option whose value may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_retry_value(args))


@click.command(cls=RunCommand)
@options.of_a_run
@click.option(
    RETRY_FLAG,
    metavar="[CLASS,…]",
    help="Try failed jobs anew: all, or those of some error classes, like generation_failed.",
)
@options.run_for
@options.until
@options.canary
@click.option(APPROVE_FLAG, is_flag=True, help="Ask a person before the rest starts; --yes does not answer that.")
@click.option("--yes", is_flag=True, help="Do not ask before a live run.")
@click.option("--json", is_flag=True, help="Print JSON for scripts: each event on a line, the summary on the last.")
@click.option("--no-progress", is_flag=True, help="Show no progress; with --json, the summary alone.")
@options.setting
def run(
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
    retry_failed: str | None,
    after: str | None,
    until: str | None,
    canary: str | None,
    canary_approve: bool,
    yes: bool,
    json: bool,
    no_progress: bool,
    setting: tuple[str, ...],
) -> None:
    """Make what the manifest asks for. Always resumes: what is there already costs nothing again.

    Example: kling-batch run campaign.csv -c configs/live.yaml --budget-usd 50
    """
    import asyncio

    from pipeline.cli.lines import EventLines
    from pipeline.cli.progress import Progress
    from pipeline.kernel.clock import SystemClock

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
        manifest,
        settings,
        json=json,
        one_line=True,
        shown=not no_progress,
        out=out,
        limit=limit,
        part=part,
        ids=options.split_ids(ids),
        order=order,
        retry_failed=options.split_classes(retry_failed),
        canary_approve=canary_approve,
    )
    key, webhook = prepared.secrets()
    campaign, folder = prepared.campaign, str(prepared.folder)
    with working(f"Looking at {folder}", shown=not no_progress):
        made = prepared.plan()
    is_shown = True
    if not json:
        for warning in campaign.warnings:
            say_if_possible(f"Warning: {printable(str(warning))}")
        changes, now_us, live = _changes(prepared), SystemClock().now_us(), settings.is_live
        tried = prepared.canary()
        address = prepared.address
        is_shown = say_if_possible(
            plan_screen(
                campaign.name, made, folder, live=live, changes=changes, canary=tried, now_us=now_us, address=address
            )
        )
        say_if_possible()
    _ask_before_spending(settings, yes=yes, json=json, anything=made.may_spend, is_shown=is_shown)

    def go(prepared: Prepared) -> RunResult:
        with Progress(shown=not no_progress) as progress:
            return asyncio.run(prepared.run(progress))

    if json:
        with EventLines(key, webhook, events=not no_progress) as lines:
            result = asyncio.run(prepared.run(lines))
            lines.summary(result.summary)
        raise click.exceptions.Exit(result.exit_code)
    result = go(prepared)
    awaited = prepared.after_canary(result)
    if awaited is not None and sys.stdin.isatty() and _approved(folder, awaited.canary(), awaited.plan()):
        prepared, awaited = awaited, None
        result = go(prepared)
    say_if_possible(summary_screen(result.summary))
    say_if_possible()
    if result.sandbox_bill is not None:
        say_if_possible(bill_screen(result.sandbox_bill, result.summary))
    for doubt in doubts(result.summary):
        say_if_possible(doubt)
    if result.message:
        say_if_possible(f"Stopped: {sentence(result.message)}")
    needed = None
    if result.summary.get("stopped_by") == "cap":
        left = prepared.again().plan()
        needed = MicroUsd(left.committed + left.cost)
    again = _again(manifest, keep_budget=needed is None, keep_approval=awaited is None)
    say_if_possible(next_command(result.summary, folder, again, needed))
    raise click.exceptions.Exit(result.exit_code)


def _changes(prepared: Prepared) -> Difference | None:
    """What changed since the last run. Where that cannot be told, nobody is kept from what is paid already."""
    from pipeline.kernel.errors import RunDirectoryError

    try:
        return prepared.changes()
    except RunDirectoryError as error:
        say_if_possible(f"Warning: {printable(str(error))}: what changed since the last run is not known.")
        return None


def _ask_before_spending(config: Config, *, yes: bool, json: bool, anything: bool, is_shown: bool) -> None:
    """A live run spends only after a yes: from a person who has seen the plan, or from the command line."""
    from pipeline.kernel.errors import InputError

    if not config.is_live or yes or not anything:
        return
    if json:
        raise InputError("a live run with --json asks nobody, so it needs --yes. Nothing was sent.")
    if not sys.stdin.isatty():
        raise InputError("a live run without a terminal needs --yes. Nothing was sent.")
    if not is_shown:
        raise InputError("a live run of which nobody can see the plan needs --yes. Nothing was sent.")
    try:
        # Where errors go, for what the plan goes to may be a pipe: nobody would see what they agree to.
        confirmed = click.confirm("Real money will be spent. Go on?", err=True)
    except click.Abort:
        say_if_possible()
        confirmed = False
    if not confirmed:
        raise InputError("not confirmed. Nothing was sent.")


def _approved(folder: str, tried: Trial, plan: Plan) -> bool:
    """Show a person what the canary has brought and what it cost, and ask whether to go on."""
    if not plan.allowed:
        return False
    rows = [[printable(f"{folder}/{record.path}"), dollars(record.cost_microusd)] for record in tried.proven]
    if not say_if_possible(f"The canary is stored:\n{table(rows, right=frozenset({1}))}"):
        return False
    others = f"the other {count(plan.allowed, 'job')}" if plan.allowed > 1 else "the other job"
    try:
        return click.confirm(f"Go on with {others} for at most {dollars(plan.allowed_cost)}?", err=True)
    except click.Abort:
        say_if_possible()
        return False


def _again(manifest: Path, *, keep_budget: bool, keep_approval: bool) -> str:
    """The command that goes on with this run: the one that was typed, less what only concerned this time."""
    dropped = OWN_SCREEN_FLAGS if keep_approval else OWN_SCREEN_FLAGS | {APPROVE_FLAG}
    arguments = [argument for argument in sys.argv[1:] if argument not in dropped]
    left = with_retry_value(arguments if "run" in arguments else ["run", str(manifest)])
    kept = []
    while left:
        word = left.pop(0)
        if word == "--budget-usd" and not keep_budget:
            left = left[1:]
        elif not word.startswith(f"{RETRY_FLAG}=") and (keep_budget or not word.startswith("--budget-usd=")):
            kept.append(word)
    return shlex.join(["kling-batch", *kept])
