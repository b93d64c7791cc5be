"""What a run holds open while it goes on: folder, provider, what the engine works with, signals and log."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from pipeline.config import Config, dump_config
from pipeline.engine.context import Listener, RunContext
from pipeline.engine.stopping import LeavingError, Stopping
from pipeline.kernel.clock import Clock, to_datetime
from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import keep_file, make_folder, remove_leftovers
from pipeline.kernel.logger import LOGGER
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.store import Ledger
from pipeline.manifest import Campaign
from pipeline.media import Collector, collector_for
from pipeline.media.collect import until_done
from pipeline.mirror.mirror import Mirror
from pipeline.provider.client import Client
from pipeline.provider.settings import ProviderSettings
from pipeline.report.campaign_lines import lines_of, mark_of, mark_with
from pipeline.report.jobs_file import kept_sha256, save_lines
from pipeline.report.lines import Lines
from pipeline.runlog import RunLog
from pipeline.runner.choice import price_of

if TYPE_CHECKING:
    from pipeline.sandbox import SandboxSettings

T = TypeVar("T")

SANDBOX_KEY = "SG_0000000000000000"
"""What the embedded sandbox is given as a key: it takes any that is well formed."""

SANDBOX_FOLDER = ".sandbox"
"""Where in a run directory its embedded sandbox remembers."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rehearsal plays: what is there instead of the provider, the network and chance. All else is a run's own.

    Its ledger need not be durable, and no report is written while it goes on.
    """

    sandbox: Mapping[str, Any]
    """What its provider is told, over what a run's sandbox is: fields of `SandboxSettings`."""
    join: Callable[[Any], Callable[..., aiohttp.BaseConnector]]
    """Given that provider, what makes the connectors by which it is reached."""
    rng: random.Random
    """Draws the waits between two tries."""


@dataclass(frozen=True, slots=True)
class OpenProvider:
    """The provider of a run, open: its client, and the embedded double behind it, if there is one."""

    client: Client
    key: str
    is_loopback: bool
    sandbox: Any = None
    connect: Callable[..., aiohttp.BaseConnector] | None = None
    """What makes its connectors, where they are not those of the network."""

    def bill(self) -> MicroUsd | None:
        """What the embedded sandbox has on its own bill; None for the real provider, which sends none."""
        return MicroUsd(self.sandbox.invoice()["total_microusd"]) if self.sandbox is not None else None


def prepare_folder(
    folder: Path, campaign: Campaign, config: Config, *, untidy: bool, noted: str | None
) -> tuple[Lines, str]:
    """Lay the run directory out and keep in it what is being run.

    Args:
        untidy: whether something half-made may lie among its videos, or their posters.
        noted: what the last run has noted of its lines.

    Returns:
        Its lines, and what is to be noted of them.

    Raises:
        MachineError: the disk refused. Nothing was sent.
    """
    lines, mark = lines_of(campaign.entries), mark_of(campaign.entries)
    try:
        remove_leftovers(folder)
        for name in ("videos", "posters", "report", *(() if config.is_live else (SANDBOX_FOLDER,))):
            make_folder(folder / name)
            # Beside a million videos, a look takes longer than a second.
            if untidy or name not in ("videos", "posters"):
                remove_leftovers(folder / name)
        # The rows are written and compared only if they may have changed: for a million, that takes seconds.
        sha256 = kept_sha256(folder) if noted is not None else None
        if sha256 is None or mark_with(mark, sha256) != noted:
            sha256 = save_lines(lines.afresh(), folder)
        lines.keys.sha256 = sha256
        keep_file(folder / f"manifest{campaign.source.suffix.lower()}", campaign.source.read_bytes())
        keep_file(folder / "config.yaml", dump_config(config).encode())
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was sent.") from None
    return lines, mark_with(mark, sha256)


@contextlib.asynccontextmanager
async def opened_beside(opening: AbstractContextManager[T], *, asks: bool) -> AsyncIterator[T]:
    """What opens and closes by asking a storage, held for the block: a signal is heard while the storage is asked.

    Args:
        asks: whether it does; else it is opened and closed at once.
    """
    with contextlib.ExitStack() as held:
        if not asks:
            yield held.enter_context(opening)
            return
        opened = await _in_thread(lambda: held.enter_context(opening))
        try:
            yield opened
        finally:
            await _in_thread(held.close)


async def _in_thread(work: Callable[[], T]) -> T:
    """Do something in a thread, and wait for its end whoever cancels: what it opens must be closed."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await until_done(working)
        raise


@contextlib.asynccontextmanager
async def open_provider(
    config: Config, folder: Path, key: str, clock: Clock, looking: bool = False, stage: Stage | None = None
) -> AsyncIterator[OpenProvider]:
    """The client of the configured provider; in a sandbox run and in a rehearsal, the sandbox is served first.

    Args:
        looking: whether an embedded sandbox is only asked: then it draws nothing, and counts no calls.
        stage: where it is rehearsed: then whatever is configured, nobody else is reached.
    """
    settings, sandbox, connect = config.provider_settings(), None, None
    async with contextlib.AsyncExitStack() as stack:
        if stage is not None or not config.is_live:
            from pipeline.sandbox import Sandbox

            told = _sandbox_settings(config, folder, looking=looking)
            if stage is not None:
                told = dataclasses.replace(told, **stage.sandbox)
            sandbox = await stack.enter_async_context(Sandbox(told))
            settings, key = _at(settings, sandbox.url), SANDBOX_KEY
            connect = stage.join(sandbox) if stage is not None else None
        client = await stack.enter_async_context(Client(settings, key, clock, connect or aiohttp.TCPConnector))
        yield OpenProvider(client, key, settings.is_loopback, sandbox, connect)


def _sandbox_settings(config: Config, folder: Path, *, looking: bool) -> SandboxSettings:
    """An embedded sandbox that remembers in the run directory, so that a run can die and go on."""
    from pipeline.sandbox import SandboxSettings

    counts = not looking and config.limits.count_polls  # it cannot count submissions alone
    return SandboxSettings(
        time_scale=config.provider.time_scale,
        rpm=max(1, int(config.limits.requests_per_minute)) if counts else None,
        mean_s=config.polling.expected_s,
        clips="tiny" if looking else "own",
        state_dir=folder / SANDBOX_FOLDER,
    )


def _at(settings: ProviderSettings, url: str) -> ProviderSettings:
    return dataclasses.replace(settings, base_url=url, storage_url=url, history_url=url)


@contextlib.asynccontextmanager
async def open_context(
    config: Config,
    folder: Path,
    ledger: Ledger,
    provider: OpenProvider,
    clock: Clock,
    listener: Listener,
    stopping: Stopping,
    images: Mapping[str, Path] = MappingProxyType({}),
    mirror: Mirror | None = None,
) -> AsyncIterator[RunContext]:
    """All that an engine works with, open for the block; `images` are a campaign's, for those who submit."""
    fetch = config.fetch_settings(allow_loopback=provider.is_loopback)
    media = config.media_settings()
    deliver = mirror.files.deliver if mirror is not None else None
    async with contextlib.AsyncExitStack() as stack:
        try:
            opened = stack.enter_async_context(collector_for(fetch, media, folder, provider.connect, deliver))
            collector = await stopping.unless_leaving(opened)
        except LeavingError:  # the run is left before it began: no video will be asked for
            collector = await stack.enter_async_context(Collector(fetch, media, provider.connect, deliver))
        yield RunContext(
            folder=folder,
            ledger=ledger,
            provider=provider.client,
            collector=collector,
            clock=clock,
            settings=config.engine_settings(to_datetime(clock.now_us()).astimezone()),
            price=price_of(config),
            listener=listener,
            stopping=stopping,
            images=images,
        )


@contextlib.contextmanager
def signals_to(wish: Callable[[], None]) -> Iterator[None]:
    """Take Ctrl-C, SIGTERM and a closed terminal as wishes, for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    # Whoever ignores one for us wants us to go on: nohup a closed terminal, a script's `&` a Ctrl-C at something else.
    unless_ignored = [signal.SIGINT, signal.SIGHUP]
    wishes = [number for number in unless_ignored if signal.getsignal(number) is not signal.SIG_IGN]
    wishes.append(signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in wishes}
    caught = []
    for number in wishes:
        # Neither in a thread that may not catch signals, nor where the loop was told already what to do with one: a
        # program that embeds a run there stops it by other means.
        if getattr(before[number], "__module__", None) == "asyncio.unix_events":
            continue
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, wish)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            if callable(handler := before[number]):
                signal.signal(number, handler)  # a program around the run gets its own handler back


@contextlib.contextmanager
def log_to(path: Path, key: str, webhook: str | None = None) -> Iterator[RunLog]:
    """Have what kling-batch logs go to the file at `path`, and nowhere else, for the block.

    Args:
        key: never written to it, and neither is the address `webhook`.

    Raises:
        MachineError: it cannot be opened.
    """
    logger = logging.getLogger(LOGGER)
    try:
        handler = RunLog(path, "" if key == SANDBOX_KEY else key, webhook or "")
    except OSError as error:
        raise MachineError(f"{path} cannot be opened: {error.strerror}") from None
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        handler.close()
