"""`kling-batch rehearse`: a run against the sandbox in virtual time, before it is run for money."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from pipeline.cli import INTERRUPTED, options
from pipeline.cli.rehearse_screen import night_screen
from pipeline.cli.screen import printable, say, say_json

if TYPE_CHECKING:
    from pipeline.api.asked import AskedOfRun


@click.command()
@options.of_a_run
@options.run_for
@options.until
@click.option(
    "--fault",
    multiple=True,
    metavar="NAME=RATE",
    help="What goes wrong, and how often, 0 to 1: `kling-batch sandbox --list-faults` names all. Repeatable.",
)
@click.option("--seed", default=1, metavar="N", help="Seed of times and faults: the same gives the same night.")
@click.option(
    "--mean-s", type=float, metavar="N", help="Mean time of a generation in seconds; polling.expected_s without it."
)
@click.option("--sigma", default=0.3, metavar="N", help="Spread of the generation times; 0.3 is the usual.")
@click.option("--svg", type=Path, metavar="FILE", help="Draw the night to an .svg file.")
@options.settings
@options.json
def rehearse(
    manifest: Path,
    config: Path | None,
    *,
    fault: tuple[str, ...],
    seed: int,
    mean_s: float | None,
    sigma: float,
    svg: Path | None,
    json: bool,
    **asked: Unpack[AskedOfRun],
) -> None:
    """Play a whole run in seconds: no request leaves, no money moves.

    The same engine works against the sandbox, in virtual time. It starts from a copy of the run directory, if there is
    one, so that it plays what is left; nothing is touched there. However the night would end, the exit code is 0.

    Example: kling-batch rehearse campaign.csv --for 8h --fault submit_500=0.02
    """
    from pipeline.cli.progress import Played

    if svg is not None:
        _check_drawing(svg, manifest, config)
    faults = _faults(fault)
    prepared = options.prepare(manifest, config, json=json, **asked)
    campaign, watcher = prepared.campaign, Played(shown=not json)
    night = prepared.rehearse(faults=faults, seed=seed, mean_s=mean_s, sigma=sigma, watcher=watcher)
    if svg is not None:
        prepared.draw(night, svg)
    ended = click.exceptions.Exit(INTERRUPTED if night.result.exit_code == INTERRUPTED else 0)
    if json:
        say_json(night.as_json())
        raise ended
    for warning in campaign.warnings:
        say(f"Warning: {printable(str(warning))}")
    say(night_screen(campaign.name, night))
    if svg is not None:
        say(f"\nThe night is drawn in {printable(str(svg))}.")
    raise ended


def _faults(fault: tuple[str, ...]) -> dict[str, float]:
    from pipeline.cli.sandbox import parse_fault
    from pipeline.kernel.errors import InputError

    try:
        return dict(parse_fault(text) for text in fault)
    except ValueError as error:
        raise InputError(str(error)) from None


def _check_drawing(path: Path, manifest: Path, config: Path | None) -> None:
    """Refuse a file that cannot be drawn to, or must not be, before the night is played for it."""
    from pipeline.kernel.errors import InputError

    if path.suffix.lower() != ".svg":
        raise InputError(f"--svg: {path} does not end in .svg")
    options.check_target("--svg", path, "the rehearsal", made_of=(manifest, config))
