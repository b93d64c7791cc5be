"""`kling-batch run`: bring a run directory to what the manifest says."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from pipeline.cli import INTERRUPTED, options
from pipeline.cli.outlet import asking, hurry, outlets
from pipeline.cli.plan_screen import screen_of
from pipeline.cli.screen import (
    bill_screen,
    count,
    dollars,
    doubts,
    next_command,
    printable,
    remarks,
    say_if_possible,
    sentence,
    summary_screen,
    table,
    working,
)
from pipeline.kernel.usd import MicroUsd

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.asked import AskedOfRun
    from pipeline.api.types import Config, Difference, Plan, RunResult, Trial

OWN_SCREEN_FLAGS = {"--yes", "--json", "--no-progress"}
APPROVE_FLAG = "--canary-approve"
RETRY_FLAG = "--retry-failed"
DEADLINE_FLAGS = ("--for", "--until")
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
    callback=options.comma_separated("all", False),
    help="Try failed jobs anew: all, or those of some error classes, like generation_failed.",
)
@options.run_for
@options.until
@options.canary
@click.option(APPROVE_FLAG, is_flag=True, help="Ask a person before the rest starts; --yes does not answer that.")
@click.option("--yes", is_flag=True, help="Do not ask before a live run.")
@click.option("--json", is_flag=True, help="Print JSON for scripts: each event on a line, the summary on the last.")
@click.option("--no-progress", is_flag=True, help="Show no progress; with --json, the summary alone.")
@options.settings
def run(
    manifest: Path, config: Path | None, *, yes: bool, json: bool, no_progress: bool, **asked: Unpack[AskedOfRun]
) -> None:
    """Make what the manifest asks for. Always resumes: what is there already costs nothing again.

    Example: kling-batch run campaign.csv -c configs/live.yaml --budget-usd 50
    """
    shown = not no_progress
    with outlets():
        prepared = options.prepare(manifest, config, json=json, one_line=True, shown=shown, **asked)
        secrets = prepared.secrets()
        with working(f"Looking at {prepared.folder}", shown=shown):
            made = prepared.plan()
        is_shown = json or _show_plan(prepared, made)
        _ask_before_spending(prepared.config, yes=yes, json=json, anything=made.may_spend, is_shown=is_shown)
        if json:
            result = _run_for_scripts(prepared, secrets, events=shown)
        else:
            result = _run_for_people(prepared, manifest, shown=shown)
    raise click.exceptions.Exit(result.exit_code)


def _show_plan(prepared: Prepared, made: Plan) -> bool:
    """Show what will be done; whether anybody could be shown it."""
    for warning in prepared.campaign.warnings:
        say_if_possible(f"Warning: {printable(str(warning))}")
    is_shown = say_if_possible(screen_of(prepared, made, _changes(prepared), prepared.canary()))
    say_if_possible()
    return is_shown


def _run_for_scripts(prepared: Prepared, secrets: Sequence[str], *, events: bool) -> RunResult:
    """Run with each event on a line of JSON, and the summary on the last."""
    from pipeline.api.loops import run_to_end
    from pipeline.cli.lines import EventLines

    with EventLines(*secrets, events=events) as lines:
        result = run_to_end(prepared.run(lines))
        lines.summary(result.summary)
    return result


def _run_for_people(prepared: Prepared, manifest: Path, *, shown: bool) -> RunResult:
    """Run with its progress on the screen, go on after a canary that a person approves, and say how it ended."""
    short = _short_deadline(prepared.config)
    result = _run_with_progress(prepared, shown=shown)
    awaited = prepared.after_canary(result)
    if awaited is not None and sys.stdin.isatty() and _approved(str(prepared.folder), awaited.canary(), awaited.plan()):
        prepared, awaited = awaited, None
        result = _run_with_progress(prepared, shown=shown)
    if result.exit_code == INTERRUPTED:
        hurry()
    _show_end(result)
    needed = _cap_needed(prepared, result)
    stopped_by = result.summary.get("stopped_by")
    gone = [*(["--budget-usd"] if needed is not None else []), *(DEADLINE_FLAGS if stopped_by == "deadline" else [])]
    again = _again(manifest, gone, keep_approval=awaited is None)
    say_if_possible(next_command(result.summary, str(prepared.folder), again, needed, short))
    return result


def _run_with_progress(prepared: Prepared, *, shown: bool) -> RunResult:
    from pipeline.api.loops import run_to_end
    from pipeline.cli.progress import Progress

    with Progress(shown=shown) as progress:
        return run_to_end(prepared.run(progress))


def _show_end(result: RunResult) -> None:
    """Say how the run ended: its summary, the sandbox's bill, what is in doubt, and what stopped it."""
    say_if_possible(summary_screen(result.summary))
    say_if_possible()
    if result.sandbox_bill is not None:
        say_if_possible(bill_screen(result.sandbox_bill, result.summary))
    for told in (*doubts(result.summary), *remarks(result.summary)):
        say_if_possible(told)
    if result.message:
        stopped = "Stopped: " if result.summary.get("stopped_by") else "Mind this: "
        say_if_possible(f"{stopped}{sentence(result.message)}")


def _cap_needed(prepared: Prepared, result: RunResult) -> MicroUsd | None:
    """The cap that would cover all that is left, where the cap has stopped the run."""
    if result.summary.get("stopped_by") != "cap":
        return None
    left = prepared.again().plan()
    return MicroUsd(left.committed + left.cost)


def _changes(prepared: Prepared) -> Difference | None:
    """What changed since the last run; None where it cannot be told, which keeps nobody from what is paid already."""
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
        # On the error stream: standard output may be a pipe, and nobody would see the question.
        with asking():
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
        with asking():
            return click.confirm(f"Go on with {others} for at most {dollars(plan.allowed_cost)}?", err=True)
    except click.Abort:
        say_if_possible()
        return False


def _short_deadline(config: Config) -> float | None:
    """How long one generation takes, in seconds, where the deadline leaves less from now on; else None."""
    from pipeline.kernel.clock import SystemClock, to_datetime

    now_us = SystemClock().now_us()
    settings = config.engine_settings(to_datetime(now_us).astimezone())
    deadline_us, expected_s = settings.bounds.deadline_us, settings.polling.expected_s
    return expected_s if deadline_us is not None and deadline_us - now_us < expected_s * 1e6 else None


def _again(manifest: Path, gone: Sequence[str] = (), *, keep_approval: bool) -> str:
    """The command that continues this run: the one that was typed, without what was meant for this time only.

    Args:
        gone: flags whose value would stop it again.
    """
    dropped = OWN_SCREEN_FLAGS if keep_approval else OWN_SCREEN_FLAGS | {APPROVE_FLAG}
    arguments = [argument for argument in sys.argv[1:] if argument not in dropped]
    left = with_retry_value(arguments if "run" in arguments else ["run", str(manifest)])
    without = tuple(f"{flag}=" for flag in (RETRY_FLAG, *gone))
    kept = []
    while left:
        word = left.pop(0)
        if word in gone:
            left = left[1:]
        elif not word.startswith(without):
            kept.append(word)
    return shlex.join(["kling-batch", *kept])
