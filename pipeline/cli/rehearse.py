"""`kling-batch rehearse`: a run against the sandbox in virtual time, before it is run for money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options
from pipeline.cli.rehearse_screen import night_screen
from pipeline.cli.screen import printable, say, say_json

if TYPE_CHECKING:
    from pipeline.rehearsal import Night, Scenario

INTERRUPTED = 130


def rehearse(
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
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="NAME=RATE",
            help="What goes wrong, and how often, 0 to 1: `kling-batch sandbox --list-faults` names all. Repeatable.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of times and faults: the same gives the same night.")
    ] = 1,
    mean_s: Annotated[
        float | None,
        typer.Option(metavar="N", help="Mean time of a generation in seconds; polling.expected_s without it."),
    ] = None,
    sigma: Annotated[float, typer.Option(metavar="N", help="Spread of the generation times; 0.3 is the usual.")] = 0.3,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the night to an .svg file.")] = None,
    setting: options.Setting = None,
    json: options.Json = False,
) -> None:
    """Play a whole run in seconds: no request leaves, no money moves.

    The same engine works against the sandbox, in virtual time. It starts from a copy of the run directory, if there is
    one, so that it plays what is left; nothing is touched there. However the night would end, the exit code is 0.

    Example: kling-batch rehearse campaign.csv --for 8h --fault submit_500=0.02
    """
    from pipeline import rehearsal, runner
    from pipeline.cli.progress import Played

    _check_target(svg, manifest, config)
    settings = options.make_config(
        config, setting, budget_usd=budget_usd, rpm=rpm, max_in_flight=max_in_flight, after=after, until=until
    )
    asked = options.make_run_options(limit, ids, order)
    scenario = _scenario(fault, seed, mean_s, sigma)
    campaign = options.read_manifest(manifest, json=json)
    folder = runner.run_folder(settings, campaign, out)
    state = runner.read_state(folder)
    runner.check_provider(state, settings, folder)
    runner.check_ids(folder, campaign, state)
    night = rehearsal.rehearse(
        campaign, settings, folder, scenario=scenario, options=asked, watcher=Played(shown=not json)
    )
    if svg is not None:
        _draw(svg, campaign.name, night)
    ended = typer.Exit(INTERRUPTED if night.result.exit_code == INTERRUPTED else 0)
    if json:
        say_json(night.as_json())
        raise ended
    for warning in campaign.warnings:
        say(f"Warning: {printable(str(warning))}")
    say(night_screen(campaign.name, night))
    if svg is not None:
        say(f"\nThe night is drawn in {printable(str(svg))}.")
    raise ended


def _scenario(fault: list[str] | None, seed: int, mean_s: float | None, sigma: float) -> Scenario:
    """What the night is like, checked as the sandbox checks it."""
    from pipeline.cli.sandbox import parse_fault
    from pipeline.kernel.errors import InputError
    from pipeline.rehearsal import Scenario
    from pipeline.sandbox import SandboxSettings

    try:
        faults = dict(parse_fault(text) for text in fault or [])
        SandboxSettings(faults=faults, mean_s=1.0 if mean_s is None else mean_s, sigma=sigma)
    except ValueError as error:
        raise InputError(str(error)) from None
    return Scenario(seed, mean_s, sigma, faults)


def _check_target(path: Path | None, manifest: Path, config: Path | None) -> None:
    """Refuse a file that cannot be drawn to, or must not be, before the night is played for it."""
    from pipeline.kernel.errors import InputError

    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise InputError(f"--svg: {path} does not end in .svg")
    if not path.parent.is_dir():
        raise InputError(f"--svg: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"--svg: {path} is a folder")
    if path.exists() and any(other.exists() and path.samefile(other) for other in (manifest, config) if other):
        raise InputError(f"--svg: {path} is what the rehearsal is made of; name another file")


def _draw(path: Path, name: str, night: Night) -> None:
    from pipeline.kernel.errors import MachineError
    from pipeline.kernel.files import write_file
    from pipeline.rehearsal.chart import night_svg

    try:
        write_file(path, night_svg(name, night).encode())
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}") from None
