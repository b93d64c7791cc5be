"""Options that several verbs share, and how they become a configuration."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.manifest import Campaign
    from pipeline.runner import RunOptions

MANY_ENTRIES = 100_000

Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST", help="The manifest: YAML, CSV, JSONL, Parquet, or a .txt of prompts.", show_default=False
    ),
]
RunDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="A run directory, like outputs/quickstart.", show_default=False)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="The config file; ./kling-batch.yaml if it is there."),
]
Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="DIR", help="The run directory; outputs/<name> without it.")
]
Budget = Annotated[
    str | None,
    typer.Option("--budget-usd", metavar="N", help="The cap in dollars, over the directory's whole life."),
]
Rpm = Annotated[str | None, typer.Option("--rpm", metavar="N", help="Calls a minute that the provider allows.")]
MaxInFlight = Annotated[str | None, typer.Option("-j", "--max-in-flight", metavar="N", help="Generations at once.")]
For = Annotated[
    str | None,
    typer.Option("--for", metavar="TIME", help="Start nothing that would not be done after so long: 8h, 90m."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="HH:MM", help="Start nothing that would not be done by this time: 06:30."),
]
Limit = Annotated[
    int | None, typer.Option("-n", "--limit", min=1, metavar="N", help="Start at most so many jobs in this run.")
]
Canary = Annotated[
    str | None,
    typer.Option(
        "--canary",
        metavar="N",
        help="So many jobs first; the rest only if they are stored and cost what was quoted.",
    ),
]
Ids = Annotated[str | None, typer.Option("--ids", metavar="A,B", help="Only these rows or jobs, by id.")]
Order = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="ORDER",
        help="In which order jobs start: balanced (over rows and variants evenly), file or cheapest.",
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the config: --set limits.max_in_flight=10. Repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def make_config(
    file: Path | None,
    setting: list[str] | None,
    *,
    budget_usd: str | None = None,
    rpm: str | None = None,
    max_in_flight: str | None = None,
    after: str | None = None,
    until: str | None = None,
    canary: str | None = None,
) -> Config:
    """The configuration from file, environment and flags."""
    from pipeline.config import load_config

    flags = {
        "budget.cap_usd": budget_usd,
        "limits.requests_per_minute": rpm,
        "limits.max_in_flight": max_in_flight,
        "stop.after": after,
        "stop.until": until,
        "canary.jobs": canary,
    }
    return load_config(file, flags, setting or [])


def make_run_options(
    limit: int | None,
    ids: str | None,
    order: str | None,
    retry_failed: str | None = None,
    *,
    canary_approve: bool = False,
) -> RunOptions:
    """What a run is asked besides its configuration."""
    from pipeline.runner import RunOptions

    return RunOptions(
        limit=limit,
        ids=frozenset() if ids is None else _split("--ids", ids, "hero,closing"),
        retry_classes=None if retry_failed is None else _error_classes(retry_failed),
        order=None if order is None else _order(order),
        canary_approve=canary_approve,
    )


def read_manifest(path: Path, *, json: bool, one_line: bool = False) -> Campaign:
    """The campaign of a manifest. With `json`, its mistakes are told on standard output as the rest would be.

    Args:
        one_line: as an event, on one line.
    """
    from pipeline.cli.screen import places_json, say_event, say_json
    from pipeline.kernel.errors import ManifestError
    from pipeline.manifest import load_manifest

    try:
        campaign = load_manifest(path)
        if len(campaign.entries) > MANY_ENTRIES:
            # They stay until the command ends: nobody need look for garbage among a million rows again and again.
            gc.freeze()
        return campaign
    except ManifestError as error:
        if not json:
            raise
        told = {"mistakes": places_json(error.mistakes)}
        if one_line:
            say_event("mistakes", told)
        else:
            say_json(told)
        raise typer.Exit(error.exit_code) from None


def _order(text: str) -> str:
    from pipeline.kernel.errors import InputError
    from pipeline.manifest.campaign import ORDERS

    if text not in ORDERS:
        raise InputError(f"--order: there is no order {text[:40]!r}; known: {', '.join(ORDERS)}")
    return text


def _split(flag: str, text: str, example: str) -> frozenset[str]:
    from pipeline.kernel.errors import InputError

    parts = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        # An empty shell variable must never widen a run to everything.
        raise InputError(f"{flag}: names nothing; write it like {flag} {example}")
    return parts


def _error_classes(text: str) -> frozenset[str]:
    """The error classes to try anew; empty for all."""
    import difflib

    from pipeline.kernel.errors import ERROR_CLASSES, InputError, Reaction

    wanted = _split("--retry-failed", text, "all")
    if "all" in wanted:
        return frozenset()
    given_up = (Reaction.RETRY_COUNTED, Reaction.FAIL_ROW)
    for name in sorted(wanted - ERROR_CLASSES.keys())[:1]:
        near = difflib.get_close_matches(name, ERROR_CLASSES, n=1)
        final = [each.label for each in ERROR_CLASSES.values() if each.reaction in given_up]
        advice = f"did you mean {near[0]}?" if near else f"known: all, {', '.join(final)}"
        raise InputError(f"--retry-failed: there is no error class {name[:40]!r}; {advice}")
    return wanted
