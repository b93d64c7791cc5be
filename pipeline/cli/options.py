"""Options that several verbs share, each named as the Python interface names what it sets."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from pipeline import api

if TYPE_CHECKING:
    from pipeline.api import Prepared
    from pipeline.api.asked import AskedOfRun

MANY_ENTRIES = 100_000

T = TypeVar("T")
Verb = TypeVar("Verb", bound=Callable[..., Any])


def comma_separated(
    example: str, without: T
) -> Callable[[click.Context, click.Parameter, str | None], frozenset[str] | T]:
    """The callback of an option that takes names separated by commas; `without` is its value where it is not given."""

    def split(_ctx: click.Context, option: click.Parameter, text: str | None) -> frozenset[str] | T:
        from pipeline.kernel.errors import InputError

        if text is None:
            return without
        parts = frozenset(part.strip() for part in text.split(",") if part.strip())
        if not parts:
            # An empty shell variable must never widen a run to everything.
            flag = option.opts[0]
            raise InputError(f"{flag}: names nothing; write it like {flag} {example}")
        return parts

    return split


manifest = click.argument(
    "manifest", type=Path, metavar="MANIFEST", help="The manifest: YAML, CSV, JSONL, Parquet, or a .txt of prompts."
)
run_directory = click.argument("directory", type=Path, metavar="DIR", help="A run directory, like outputs/quickstart.")
config_file = click.option(
    "-c", "--config", type=Path, metavar="FILE", help="The config file; ./kling-batch.yaml if it is there."
)
out = click.option("-o", "--out", metavar="DIR", help="The run directory, or its address; outputs/<name> without it.")
budget = click.option("--budget-usd", metavar="N", help="The cap in dollars, over the directory's whole life.")
rpm = click.option("--rpm", "requests_per_minute", metavar="N", help="Calls a minute that the provider allows.")
max_in_flight = click.option("-j", "--max-in-flight", metavar="N", help="Generations at once.")
run_for = click.option(
    "--for", "run_for", metavar="TIME", help="Start nothing that would not be done after so long: 8h, 90m."
)
until = click.option("--until", metavar="HH:MM", help="Start nothing that would not be done by this time: 06:30.")
limit = click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Start at most so many jobs in this run."
)
canary = click.option(
    "--canary", metavar="N", help="So many jobs first; the rest only if they are stored and cost what was quoted."
)
ids = click.option(
    "--ids", metavar="A,B", callback=comma_separated("hero,closing", None), help="Only these rows or jobs, by id."
)
part = click.option(
    "--part", metavar="K/N", help="Only part K of N, by a hash of each job: one run directory and key for each part."
)
order = click.option(
    "--order",
    metavar="ORDER",
    help="In which order jobs start: balanced (over rows and variants evenly), file or cheapest.",
)
settings = click.option(
    "--set",
    "settings",
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


def prepare(
    manifest: Path,
    config: Path | None,
    *,
    json: bool,
    one_line: bool = False,
    shown: bool = True,
    **asked: Unpack[AskedOfRun],
) -> Prepared:
    """All that a verb works on, checked. With `json`, mistakes in the manifest are printed as JSON on standard output.

    Args:
        one_line: whether they are printed as an event, on one line.
        shown: whether a terminal is told that it takes long.
    """
    from pipeline.cli.screen import places_json, say_event, say_json, working
    from pipeline.kernel.errors import ManifestError
    from pipeline.kernel.garbage import no_garbage_collector

    try:
        with working(f"Reading {manifest}", shown=shown), no_garbage_collector():
            prepared = api.prepare(manifest, config, **asked)
            if len(prepared.campaign.entries) > MANY_ENTRIES:
                # The rows are in use until the command ends: the garbage collector need not look at a million of them.
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


def check_target(flag: str, path: Path, what: str, *, made_of: Iterable[Path | None]) -> None:
    """Refuse a file that cannot be written, or that the command itself reads, before any work is done for it.

    Args:
        flag: the option that names the file.
        what: the thing that is to be written there.
        made_of: the files that the command reads.

    Raises:
        InputError: its folder is not there, it is a folder, a device or a pipe, or it is one of those files.
    """
    from pipeline.kernel.errors import InputError

    if not path.parent.is_dir():
        raise InputError(f"{flag}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{flag}: {path} is a folder")
    if path.exists() and not path.is_file():
        raise InputError(f"{flag}: {path} is no file but a device or a pipe; name a file")
    if path.exists() and any(source.exists() and path.samefile(source) for source in made_of if source):
        raise InputError(f"{flag}: {path} is what {what} is made of; name another file")
