"""`python -m pipeline.sandbox`: serve the provider's double until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pipeline.sandbox import FAULTS, Sandbox, SandboxSettings
from pipeline.sandbox.settings import MICRO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sandbox",
        description="Serve the provider's double on loopback. Prints its URL first.",
        epilog="example: python -m pipeline.sandbox --time-scale 100 --clips shared --fault submit_504_after=0.1",
    )
    add = parser.add_argument
    add("--port", type=int, help="0 takes a free one")
    add("--seed", type=int)
    add("--time-scale", type=float, help="provider seconds in a real second")
    add("--mean-s", type=float, help="mean generation time, provider seconds")
    add("--sigma", type=float, help="spread of the generation time")
    add("--rpm", type=int, help="calls with the key in any 60 seconds")
    add("--max-in-flight", type=int)
    add("--credits", metavar="USD", dest="credits_microusd", type=_usd, help="opening balance")
    add("--charge-at", choices=("accept", "complete"))
    add("--clips", choices=("own", "shared", "tiny"))
    add("--render-workers", type=int)
    add("--v1-body", choices=("video", "json"))
    add(
        "--fault", metavar="NAME=RATE", dest="faults", action="append", default=[], help="repeatable; see --list-faults"
    )
    add("--fault-limit", metavar="NAME=N", action="append", default=[], help="repeatable")
    add("--hang-s", type=float, help="how long a hanging call lasts, real seconds")
    add("--file-slow-s", type=float)
    add("--history-lag-s", type=float, help="provider seconds")
    add("--history-repeats", type=int)
    add("--record-ttl-s", type=float, help="provider seconds")
    add("--file-ttl-s", type=float, help="provider seconds")
    add("--key", dest="keys", action="append", default=[], help="repeatable; none lets in every well-formed key")
    add("--state-dir", type=Path, help="remember across restarts")
    add("--list-faults", action="store_true")
    return parser


def _usd(text: str) -> int:
    try:
        return int(Decimal(text) * MICRO)
    except (InvalidOperation, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"not an amount of dollars: {text}") from None


def settings_from(arguments: Sequence[str]) -> SandboxSettings | None:
    """The settings of a command line; None when only the catalogue was asked for."""
    parser = _parser()
    given: dict[str, Any] = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    if given.pop("list_faults"):
        return None
    given["keys"] = tuple(given["keys"])
    try:
        given["faults"] = {name: float(rate) for name, rate in map(_pair, given["faults"])}
        given["fault_limit"] = {name: int(limit) for name, limit in map(_pair, given["fault_limit"])}
        return SandboxSettings(**given)
    except ValueError as problem:
        parser.error(str(problem))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"expected NAME=VALUE, not {text!r}")
    return name, value


async def _serve(settings: SandboxSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Sandbox(settings) as sandbox:
        sys.stdout.write(f"{sandbox.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    settings = settings_from(sys.argv[1:] if arguments is None else arguments)
    if settings is None:
        sys.stdout.writelines(f"{name:26}{text}\n" for name, text in FAULTS.items())
        return 0
    asyncio.run(_serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
