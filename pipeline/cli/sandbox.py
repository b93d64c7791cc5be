"""`kling-batch sandbox`: serve the provider's double on a loopback port."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.screen import say

if TYPE_CHECKING:
    from pipeline.sandbox import SandboxSettings


@click.command()
@click.option("--port", default=0, metavar="N", help="The port; 0 takes a free one.")
@click.option("--fault", multiple=True, metavar="NAME=RATE", help="A fault and how often, 0 to 1. Repeatable.")
@click.option("--seed", default=1, metavar="N", help="Seed of times and faults.")
@click.option("--time-scale", default=1.0, metavar="N", help="How many times faster than the real provider.")
@click.option("--rpm", type=int, metavar="N", help="Calls a minute before a 429; none without it.")
@click.option("--credits", "credits_usd", metavar="N", help="The account's balance in dollars.")
@click.option(
    "--clips", default="own", metavar="KIND", help="own: each its own picture; shared: one a shape, for load."
)
@click.option("--state-dir", type=Path, metavar="DIR", help="Keep requests and bill here over a restart.")
@click.option("--history-lag-s", default=0.0, metavar="N", help="How late requests show in the history, in seconds.")
@click.option("--list-faults", is_flag=True, help="Name every fault, and exit.")
def sandbox(
    port: int,
    fault: tuple[str, ...],
    seed: int,
    time_scale: float,
    rpm: int | None,
    credits_usd: str | None,
    clips: str,
    state_dir: Path | None,
    history_lag_s: float,
    list_faults: bool,
) -> None:
    """Serve the provider's double on this machine: no key, no money. Prints its URL, then serves until Ctrl-C.

    Example: kling-batch sandbox --time-scale 100 --fault submit_504_after=0.05
    """
    import asyncio

    from pipeline.kernel.errors import InputError
    from pipeline.kernel.usd import parse_usd
    from pipeline.sandbox import FAULTS, SandboxSettings

    if list_faults:
        width = max(map(len, FAULTS))
        for name, meaning in FAULTS.items():
            say(f"{name:{width}}   {meaning}")
        return
    try:
        credits_microusd = None if credits_usd is None else parse_usd(credits_usd, zero_allowed=True)
    except ValueError as error:
        raise InputError(f"--credits: {error}") from None
    try:
        settings = SandboxSettings(
            port=port,
            faults=dict(parse_fault(text) for text in fault),
            seed=seed,
            time_scale=time_scale,
            rpm=rpm,
            credits_microusd=credits_microusd,
            clips=clips,
            state_dir=state_dir,
            history_lag_s=history_lag_s,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    try:
        asyncio.run(_serve(settings))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(f"the sandbox cannot be served: {where}{error.strerror}") from None


def parse_fault(text: str) -> tuple[str, float]:
    """A fault and its rate as typed: `submit_500=0.05`.

    Raises:
        ValueError: there is no such fault, or no rate.
    """
    from pipeline.kernel.suggestion import suggestion
    from pipeline.sandbox import FAULTS

    name, _, rate = text.partition("=")
    if name not in FAULTS:
        advice = suggestion(name, FAULTS, otherwise="--list-faults names them")
        raise ValueError(f"--fault {text}: there is no such fault; {advice}")
    try:
        return name, float(rate or "1")
    except ValueError:
        raise ValueError(f"--fault {text}: write it as NAME=RATE, like submit_500=0.05") from None


async def _serve(settings: SandboxSettings) -> None:
    import asyncio

    from pipeline.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(settings) as server:
        print(server.url, flush=True)  # noqa: T201
        await stop.wait()
