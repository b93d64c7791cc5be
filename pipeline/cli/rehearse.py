"""`kling-batch rehearse`: a run against the sandbox in virtual time, before it is run for money."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli import INTERRUPTED, options
from pipeline.cli.rehearse_screen import night_screen
from pipeline.cli.screen import printable, say, say_json


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
@options.setting
@options.json
def rehearse(
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
    after: str | None,
    until: str | None,
    fault: tuple[str, ...],
    seed: int,
    mean_s: float | None,
    sigma: float,
    svg: Path | None,
    setting: tuple[str, ...],
    json: bool,
) -> None:
    """Play a whole run in seconds: no request leaves, no money moves.

    The same engine works against the sandbox, in virtual time. It starts from a copy of the run directory, if there is
    one, so that it plays what is left; nothing is touched there. However the night would end, the exit code is 0.

    Example: kling-batch rehearse campaign.csv --for 8h --fault submit_500=0.02
    """
    from pipeline.cli.progress import Played

    _check_target(svg, manifest, config)
    settings = options.make_config(
        config, setting, budget_usd=budget_usd, rpm=rpm, max_in_flight=max_in_flight, after=after, until=until
    )
    only, faults = options.split_ids(ids), _faults(fault)
    prepared = options.prepare(manifest, settings, json=json, out=out, limit=limit, part=part, ids=only, order=order)
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
