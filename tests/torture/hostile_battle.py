"""One hostile reply against a real run: a life under attack, another with an honest provider, and what must hold."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import json
import os
import resource
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hostile_provider import PRICE_USD, Canary, HostileProvider, WatchedLoop
from hostile_replies import Reply, corpus
from reading import readers_that_remember
from support import KEY, check_liability, durable_state, fast_config, report_once
from traces import found_below
from virtual_time import VirtualClock

from pipeline.config import Config
from pipeline.ledger import segments
from pipeline.ledger.job import JobState
from pipeline.manifest import Campaign, load_manifest
from pipeline.media.settings import FetchSettings
from pipeline.runner.ending import RunResult
from pipeline.runner.running import run

TIMES = {
    "limits.requests_per_minute": "600",
    "polling.expected_s": "120",
    "polling.min_interval_s": "30",
    "polling.max_interval_s": "30",
    "polling.give_up_s": "600",
    "retry.base_delay_s": "5",
    "retry.max_delay_s": "120",
    "timeouts.submit_s": "30",
    "timeouts.read_s": "30",
    "timeouts.blocking_submit_s": "600",
    "timeouts.download_s": "120",
    "in_doubt.settle_after_s": "400",
    "in_doubt.wait_s": "200",
    "stop.after": "2h",
}
"""A patient run that has an end: waiting costs nothing, each question does."""

EXIT_CODES = frozenset({0, 1, 3, 4, 5, 6})
MOST_BYTES = 4 * 2**20
"""The ceiling of a download here, so that the endless one ends soon."""

MOST_MEMORY_KB = 300 * 1024
ROOM_BYTES = 4 * 2**30
"""What a life may map beyond what it began with: each thread maps much; a body without an end must find one here."""

NEXT_LIFE_S = 10_000.0
MICRO = 1_000_000


def assail(pairs: Sequence[tuple[str, str]], folder: Path) -> None:
    """The main function of a life that fights one battle after the other; writes a line for each to `told.jsonl`."""
    replies = corpus()
    report_once().start()
    vars(segments).update(readers_that_remember())
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    with (folder / "told.jsonl").open("w") as told:
        for name, place in pairs:
            ground = folder / f"{len(os.listdir(folder))}"
            ground.mkdir()
            wrong = None
            try:
                facts = _Battle(replies[name], place, ground).fight()
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                wrong, facts = f"{type(error).__name__}: {error} ({frame.name}:{frame.lineno})", {}
            print(json.dumps({"reply": name, "place": place, "wrong": wrong, **facts}), file=told, flush=True)


class _Battle:
    def __init__(self, reply: Reply, place: str, ground: Path) -> None:
        self.reply = reply
        self.place = place
        self.folder = ground / "run"
        self.screen = ground / "screen"
        self.campaign = _campaign(ground)
        self.clock = VirtualClock()
        self.provider = HostileProvider(self.clock, place, reply.say, accepts=_is_accepted(reply, place))
        self.codes: list[int] = []

    def fight(self) -> dict[str, Any]:
        """A life under attack; a life with an honest provider, if anything was left to do; every check.

        Raises:
            AssertionError: a promise was broken.
        """
        with screen_to(self.screen), _fetching_by(self.fetch_settings):
            with asyncio.Runner(loop_factory=WatchedLoop) as runner:
                runner.run(self.first_life())
            if self.codes != [0]:
                self.clock.wall_offset_s += NEXT_LIFE_S
                with asyncio.Runner(loop_factory=WatchedLoop) as runner:
                    runner.run(self.second_life())
        self.check_rest()
        self.check_quiet()
        assert not (found := found_below(KEY, self.folder)), found[0]
        assert (memory := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) < MOST_MEMORY_KB, f"{memory} KB"
        return {"told": self.provider.told, "codes": self.codes, "posts": self.provider.posts}

    def fetch_settings(self, settings: FetchSettings) -> FetchSettings:
        """As a live provider's, where it is the address of the video that attacks: then loopback is refused."""
        is_address = self.provider.is_hostile and self.reply.family == "url"
        return dataclasses.replace(
            settings, allow_loopback=settings.allow_loopback and not is_address, max_bytes=MOST_BYTES
        )

    async def first_life(self) -> None:
        files, open_files = Path("/proc/self/fd"), len(os.listdir("/proc/self/fd"))
        async with Canary() as canary, self.provider as provider:
            provider.canary = canary.url
            result = await self.live()
            self.check_life(result)
            self.check_company(canary)
        await _until_closed(files, open_files)

    async def second_life(self) -> None:
        self.provider.is_hostile = False
        async with self.provider:
            result = await self.live()
        self.check_life(result)

    async def live(self) -> RunResult:
        result = await one_life(self.provider, self.campaign, self.folder)
        self.codes.append(result.exit_code)
        return result

    def check_life(self, result: RunResult) -> None:
        """After each life: a result is recorded, the money is covered, nothing was sent twice."""
        assert result.exit_code in EXIT_CODES, f"exit {result.exit_code}"
        exposed = [
            {"status": row["model_status"], "body": row["request_body"], "cost_microusd": int(PRICE_USD * MICRO)}
            for row in self.provider.accepted
        ]
        check_liability(self.folder, exposed)
        assert len(exposed) <= 1, f"{len(exposed)} submissions were accepted for one job"
        with (self.folder / "report" / "results.csv").open(newline="") as file:
            (line,) = csv.DictReader(file)
        assert (line["status"] == "stored") == (result.exit_code == 0), f"{line['status']} with exit {result.exit_code}"
        summary = json.loads((self.folder / "report" / "summary.json").read_bytes())
        assert summary["exit_code"] == result.exit_code
        assert exposed or summary["in_doubt"] or summary["posted_usd"] == "0.00"
        record = next(iter(durable_state(self.folder).jobs.values()))
        assert (result.exit_code == 5) <= (record.state in _UNSETTLED), f"exit 5, and the job is {record.state}"
        assert (record.state in _UNSETTLED) <= (result.exit_code in (4, 5, 6)), f"{record.state} is not told"

    def check_company(self, canary: Canary) -> None:
        """Nobody was talked to but the provider, and the key went to nobody else."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, WatchedLoop)
        assert not loop.strangers, f"tried to reach {loop.strangers[:3]}"
        may_fetch_there = self.reply.is_open_door and self.place == "file"
        if not may_fetch_there:
            assert not canary.connections, f"the canary had {canary.connections} connections"
            assert loop.ports <= {self.provider.port}
        assert KEY.encode() not in canary.heard
        for request in self.provider.requests:
            wears_key = b"x-api-key" in request.head.lower()
            is_file = not request.target.startswith(("/v1/", "/v2/", "/inference-request/"))
            assert wears_key != is_file, f"{request.method} {request.target} {'with' if wears_key else 'without'} key"

    def check_rest(self) -> None:
        """Once the provider is honest again: what was accepted is stored, at its price, for one submission."""
        provider = self.provider
        (record,) = durable_state(self.folder).jobs.values()
        if not _is_accepted(self.reply, self.place):
            assert record.state in (JobState.STORED, JobState.FAILED), record.state
            return
        assert provider.posts == 1, f"{provider.posts} submissions"
        assert record.state is JobState.STORED, f"{record.state.name}: {record.error}"
        assert self.codes[-1] == 0, f"exit {self.codes} in the end"
        if self.place in self.reply.places and self.reply.family == "cost":
            assert record.cost_microusd == self.reply.cost_microusd, f"posted {record.cost_microusd}"

    def check_quiet(self) -> None:
        """Nothing crashed: no traceback on the screen or in the log, and the log is JSON lines."""
        screen = self.screen.read_text(errors="replace")
        assert not screen, f"on the screen: {screen[-300:]}"
        for line in (self.folder / "run.log").read_bytes().splitlines():
            facts = json.loads(line)
            assert facts["event"] != "log" or "error" not in facts, f"in the log: {facts}"


_UNSETTLED = (JobState.RESERVED, JobState.IN_DOUBT, JobState.SUBMITTED, JobState.POSTED)


def _is_accepted(reply: Reply, place: str) -> bool:
    return reply.accepted or place not in ("submit", "delivery")


async def one_life(
    provider: HostileProvider, campaign: Campaign, folder: Path, key: str = KEY, **changes: str
) -> RunResult:
    """One run against an open provider; `changes` are keys of the configuration."""
    times = {name.replace(".", "__"): value for name, value in TIMES.items()}
    api = "v1" if provider.place == "delivery" else "v2"
    config = fast_config(provider.url, **(times | {"provider__api": api} | changes))
    return await run(campaign, config, folder, key=key, clock=provider.clock)


def _campaign(ground: Path) -> Campaign:
    path = ground / "one.jsonl"
    path.write_text('{"id": "lamp", "prompt": "a lamp"}\n')
    return load_manifest(path)


async def _until_closed(files: Path, before: int) -> None:
    """Wait until no more descriptors are open than before: sockets close a turn of the loop after they are let go."""
    for _ in range(50):
        if len(os.listdir(files)) <= before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(os.listdir(files)) - before} descriptors were left open")


@contextlib.contextmanager
def screen_to(path: Path) -> Iterator[None]:
    """Within the block, what is written to stderr goes into the file at `path`."""
    kept = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _fetching_by(change: Any) -> Iterator[None]:
    """Within the block, downloads have the bounds that `change` makes of the configuration's."""
    settings_of = Config.fetch_settings

    def changed(config: Config, *, allow_loopback: bool) -> FetchSettings:
        return change(settings_of(config, allow_loopback=allow_loopback))

    Config.fetch_settings = changed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Config.fetch_settings = settings_of  # type: ignore[method-assign]
