"""How like the real thing a rehearsal is: beside a run over sockets on a real clock, and wire beside wire."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rehearse_doubles import MIDNIGHT_US, live_config
from support import KEY, campaign, fast_config

from pipeline.jobs import Job
from pipeline.kernel.virtual_time import VirtualClock, run_virtually
from pipeline.ledger.events import Event, EventKind
from pipeline.provider.client import Client
from pipeline.provider.settings import ProviderSettings
from pipeline.rehearsal import Scenario, rehearse
from pipeline.rehearsal.wire import MemoryConnector
from pipeline.runner.running import run
from pipeline.runner.watching import Watcher
from pipeline.sandbox import Sandbox, SandboxSettings

SCALE = 250.0
SEED = 14
FAILURES = {"gen_failed": 0.15}

CANNOT_TELL_S = 50.0
"""What a busy machine may take for a call, in the provider's seconds: a fifth of a real one."""


class Told(Watcher):
    """The events of each job in their order, and all of them in theirs."""

    def __init__(self) -> None:
        self.of_job: dict[str, list[EventKind]] = defaultdict(list)
        self.all: list[tuple[int, str, int]] = []

    def event(self, event: Event) -> None:
        if event.job_id is not None:
            self.of_job[event.job_id].append(event.event)
            if event.event in (EventKind.RESERVED, EventKind.SUBMITTED):
                self.all.append((event.at_us, f"{event.event.value} {event.job_id}", event.attempt))

    def first_reservations(self) -> list[str]:
        """The dispatcher makes them one by one, so no machine is too slow to keep their order."""
        return [name for _, name, attempt in self.all if attempt == 1 and name.startswith("reserved")]


def test_a_rehearsal_is_what_the_same_run_is_over_sockets(tmp_path: Path) -> None:
    """Twenty jobs, some of which fail at first: for each the same events; they begin in the same order, and so do all
    attempts and their submissions, but for those so close together that a busy machine can swap them."""
    made, played, really = campaign(tmp_path, 20), Told(), Told()
    rehearse(made, live_config(), tmp_path / "none", scenario=Scenario(SEED, faults=FAILURES), started_us=MIDNIGHT_US,
             watcher=played)  # fmt: skip

    async def over_sockets() -> None:
        provider = SandboxSettings(time_scale=SCALE, clips="tiny", seed=SEED, faults=FAILURES)
        async with Sandbox(provider) as sandbox:
            config = fast_config(
                sandbox.url,
                limits__requests_per_minute=str(50 * SCALE),
                limits__max_in_flight="40",
                polling__expected_s=str(317 / SCALE),
                polling__min_interval_s=str(2 / SCALE),
                polling__max_interval_s=str(30 / SCALE),
                retry__base_delay_s=str(2 / SCALE),
                retry__max_delay_s=str(120 / SCALE),
                timeouts__submit_s="60",
                timeouts__read_s="60",
            )
            await run(made, config, tmp_path / "run", key=KEY, watcher=really)

    asyncio.run(over_sockets())
    assert played.of_job == really.of_job
    # A third attempt would depend upon the order of the second ones.
    assert {attempt for _, _, attempt in played.all} == {1, 2}
    assert played.first_reservations() == really.first_reservations()
    places = {(name, attempt): place for place, (_, name, attempt) in enumerate(really.all)}
    for (at, *one), (later, *other) in combinations(played.all, 2):
        if later - at > CANNOT_TELL_S * 1e6:
            assert places[tuple(one)] < places[tuple(other)]


Connect = Callable[[Sandbox], Callable[..., aiohttp.BaseConnector]]


def over_memory(sandbox: Sandbox) -> Callable[..., aiohttp.BaseConnector]:
    return lambda **how: MemoryConnector(sandbox.connection, **how)


def over_tcp(_: Sandbox) -> Callable[..., aiohttp.BaseConnector]:
    return aiohttp.TCPConnector


def outcomes(job: Job, fault: str, connect: Connect) -> list[Any]:
    """What the client makes of two submissions, and of a poll and a credits call after each, under one fault."""

    async def ask() -> list[Any]:
        clock = VirtualClock()
        told = SandboxSettings(clips="tiny", faults={fault: 1.0}, clock=clock.wall_s, hang_s=90)
        async with Sandbox(told) as sandbox:
            settings = ProviderSettings(sandbox.url, sandbox.url, sandbox.url)
            async with Client(settings, KEY, clock, connect(sandbox)) as client:
                replies: list[Any] = []
                for _ in range(2):
                    replies.append(await client.submit(job))
                    request_id = sandbox.requests()[-1]["request_id"] if sandbox.requests() else "0" * 36
                    replies += [await client.poll(request_id), await client.credits()]
        return [type(reply).__name__ + getattr(reply, "message", "") for reply in replies]

    return run_virtually(ask())


@pytest.mark.parametrize(
    "fault",
    [
        "submit_drop_before",
        "submit_hang_after",
        "submit_half_reply_after",
        "submit_huge_header_after",
        "submit_empty_after",
        "submit_3xx_after",
        "poll_drop",
        "poll_hang",
        "poll_garbage",
    ],
)
def test_the_wire_in_memory_breaks_as_a_real_one_does(tmp_path: Path, fault: str) -> None:
    """Whatever is cut, reset or withheld, the client says the same of it as over sockets."""
    job = campaign(tmp_path, 1).jobs[0]
    told = outcomes(job, fault, over_memory)
    assert told == outcomes(job, fault, over_tcp)
    assert len(set(told)) > 1
