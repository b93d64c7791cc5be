"""Options that several verbs share, and how they become a configuration."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from pipeline import api

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.running import Asked
    from pipeline.api.types import Config

MANY_ENTRIES = 100_000

Verb = TypeVar("Verb", bound=Callable[..., Any])

manifest = click.argument(
    "manifest", type=Path, metavar="MANIFEST", help="The manifest: YAML, CSV, JSONL, Parquet, or a .txt of prompts."
)
run_directory = click.argument("directory", type=Path, metavar="DIR", help="A run directory, like outputs/quickstart.")
config_file = click.option(
    "-c", "--config", type=Path, metavar="FILE", help="The config file; ./kling-batch.yaml if it is there."
)
out = click.option("-o", "--out", metavar="DIR", help="The run directory, or its address; outputs/<name> without it.")
budget = click.option("--budget-usd", metavar="N", help="The cap in dollars, over the directory's whole life.")
rpm = click.option("--rpm", metavar="N", help="Calls a minute that the provider allows.")
max_in_flight = click.option("-j", "--max-in-flight", metavar="N", help="Generations at once.")
run_for = click.option(
    "--for", "after", metavar="TIME", help="Start nothing that would not be done after so long: 8h, 90m."
)
until = click.option("--until", metavar="HH:MM", help="Start nothing that would not be done by this time: 06:30.")
limit = click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Start at most so many jobs in this run."
)
canary = click.option(
    "--canary", metavar="N", help="So many jobs first; the rest only if they are stored and cost what was quoted."
)
ids = click.option("--ids", metavar="A,B", help="Only these rows or jobs, by id.")
part = click.option(
    "--part", metavar="K/N", help="Only part K of N, by a hash of each job: one run directory and key for each part."
)
order = click.option(
    "--order",
    metavar="ORDER",
    help="In which order jobs start: balanced (over rows and variants evenly), file or cheapest.",
)
setting = click.option(
    "--set",
    "setting",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of the config: --set limits.max_in_flight=10. Repeatable.",
)
json = click.option("--json", is_flag=True, help="Print JSON for scripts.")


def of_a_run(verb: Verb) -> Verb:
    """What run, plan and rehearse take alike, in the order of their help."""
    for option in (order, part, ids, limit, max_in_flight, rpm, budget, out, config_file, manifest):
        verb = option(verb)
    return verb


def make_config(
    file: Path | None,
    setting: Sequence[str],
    *,
    budget_usd: str | None = None,
    rpm: str | None = None,
    max_in_flight: str | None = None,
    after: str | None = None,
    until: str | None = None,
    canary: str | None = None,
) -> Config:
    """The configuration from file, environment and flags."""
    return api.load_config(
        file,
        settings=setting,
        budget_usd=budget_usd,
        requests_per_minute=rpm,
        max_in_flight=max_in_flight,
        run_for=after,
        until=until,
        canary=canary,
    )


def prepare(
    manifest: Path,
    config: Config,
    *,
    json: bool,
    one_line: bool = False,
    shown: bool = True,
    **asked: Unpack[Asked],
) -> Prepared:
    """All that a verb works on, checked. With `json`, the manifest's mistakes are told on standard output as the rest.

    Args:
        one_line: as an event, on one line.
        shown: whether a terminal is told that it takes long.
    """
    from pipeline.cli.screen import places_json, say_event, say_json, working
    from pipeline.kernel.errors import ManifestError
    from pipeline.kernel.garbage import no_garbage_collector

    try:
        with working(f"Reading {manifest}", shown=shown), no_garbage_collector():
            prepared = api.prepare(manifest, config, **asked)
            if len(prepared.campaign.entries) > MANY_ENTRIES:
                # They stay until the command ends: nobody need look for garbage among a million rows, not even once.
                gc.freeze()
    except ManifestError as error:
        if not json:
            raise
        told = {"mistakes": places_json(error.mistakes)}
        if one_line:
            say_event("mistakes", told)
        else:
            say_json(told)
        raise click.exceptions.Exit(error.exit_code) from None
    return prepared


def split_ids(text: str | None) -> frozenset[str] | None:
    """The ids of `--ids`; None without it."""
    return None if text is None else _split("--ids", text, "hero,closing")


def split_classes(text: str | None) -> frozenset[str] | bool:
    """The error classes of `--retry-failed`; False without it."""
    return False if text is None else _split("--retry-failed", text, "all")


def _split(flag: str, text: str, example: str) -> frozenset[str]:
    from pipeline.kernel.errors import InputError

    parts = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        # An empty shell variable must never widen a run to everything.
        raise InputError(f"{flag}: names nothing; write it like {flag} {example}")
    return parts
