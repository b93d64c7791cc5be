"""Options that several verbs share, and how they become a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.runner import RunOptions

Manifest = Annotated[Path, typer.Argument(help="The manifest: YAML, CSV or JSONL.", show_default=False)]
RunDirectory = Annotated[Path, typer.Argument(help="A run directory, like outputs/quickstart.", show_default=False)]
ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", help="The config file; ./kling-batch.yaml if it is there.")
]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="The run directory; outputs/<name> without it.")]
Budget = Annotated[
    str | None, typer.Option("--budget-usd", help="The cap in dollars, over the directory's whole life.")
]
Rpm = Annotated[str | None, typer.Option("--rpm", help="Calls a minute that the provider allows.")]
MaxInFlight = Annotated[str | None, typer.Option("-j", "--max-in-flight", help="Generations at once.")]
For = Annotated[str | None, typer.Option("--for", help="Start nothing that would not be done after so long: 8h, 90m.")]
Until = Annotated[str | None, typer.Option("--until", help="Start nothing that would not be done by this time: 06:30.")]
Limit = Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Start at most so many jobs.")]
Ids = Annotated[str | None, typer.Option("--ids", help="Only these rows or jobs, by id: a,b,c.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", help="Any key of the config: --set limits.max_in_flight=10. Repeatable.")
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
) -> Config:
    """The configuration from file, environment and flags."""
    from pipeline.config import load_config

    flags = {
        "budget.cap_usd": budget_usd,
        "limits.requests_per_minute": rpm,
        "limits.max_in_flight": max_in_flight,
        "stop.after": after,
        "stop.until": until,
    }
    return load_config(file, flags, setting or [])


def make_run_options(limit: int | None, ids: str | None, retry_failed: str | None = None) -> RunOptions:
    """What a run is asked besides its configuration."""
    from pipeline.runner import RunOptions

    return RunOptions(
        limit=limit,
        ids=frozenset(_split(ids)),
        retry_classes=None if retry_failed is None else frozenset(_split(retry_failed)) - {"all"},
    )


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
