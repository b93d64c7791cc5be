"""A rehearsal: a whole run against the sandbox in virtual time. Nothing but time and transport is simulated."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.engine.room import Room
from pipeline.kernel.clock import SystemClock, iso
from pipeline.kernel.files import free_bytes
from pipeline.kernel.usd import format_usd
from pipeline.kernel.virtual_time import VirtualClock, run_virtually
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobState
from pipeline.manifest import Campaign
from pipeline.rehearsal.before import copy_run, known_to_provider, lognormal
from pipeline.rehearsal.wire import MemoryConnector
from pipeline.runner.choice import RunOptions
from pipeline.runner.ending import RunResult
from pipeline.runner.opening import Stage
from pipeline.runner.running import run
from pipeline.runner.watching import LiveRun, Watcher

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - a rehearsal's own folder in it has a fresh name
"""A disk in memory: where there is one, a rehearsal waits for no other."""

ENOUGH_BYTES = 2**30
"""More than a rehearsal writes: its ledger, its report, and the few tiny videos that are not yet thrown away."""

SAMPLES = 480
"""The series has at most twice as many points."""

FIRST_INTERVAL_S = 5.0

SPARE_CREDITS_MICROUSD = 10**12
"""What the account holds beyond the cap: a rehearsal shows what the cap buys, and no account is asked for it."""

PRICED = (5, 10)
"""The lengths that the sandbox knows, in seconds."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the night is like. `mean_s` without a value is what the configuration expects.

    `faults` are names of the sandbox's with their rates; the same `seed` gives the same night.
    """

    seed: int = 1
    mean_s: float | None = None
    sigma: float = 0.3
    faults: Mapping[str, float] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    """What the provider is besides, such as limits that nobody has configured: fields of `SandboxSettings`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The night at one moment: seconds since it began, generations in flight, micro-dollars spent, videos stored."""

    at_s: float
    in_flight: int
    spent_microusd: int
    stored: int


@dataclass(frozen=True, slots=True)
class Night:
    """How a rehearsal went. Money is micro-dollars; counts are those of this night alone, `result` is the run's own."""

    scenario: Scenario
    result: RunResult
    started_us: int
    makespan_s: float
    asked: int
    stored: int
    failed: int
    stored_before: int
    """How many of the jobs that are asked for were there when the night began."""
    posted_before_microusd: int
    spent_microusd: int
    cap_microusd: int
    free_microusd: int
    """What the cap left free when the night began."""
    left_microusd: int
    """What it leaves free when the night is over."""
    calls: Mapping[str, int]
    rate_limited: int
    troubles: Mapping[str, int]
    """By error class, how often it was met."""
    stopped_s: float | None
    """When it was decided that nothing new starts; None if nothing but the end of the work stopped it."""
    last_start_s: float | None
    """When the last attempt began; None if there was none."""
    samples: tuple[Sample, ...]

    @property
    def stored_per_hour(self) -> float:
        """How many videos were stored in an hour of this night."""
        return self.stored / self.makespan_s * 3600 if self.makespan_s else 0.0

    def as_json(self) -> dict[str, Any]:
        """All numbers and the series."""
        summary = self.result.summary
        return {
            "rehearsal": True,
            "seed": self.scenario.seed,
            "mean_s": self.scenario.mean_s,
            "sigma": self.scenario.sigma,
            "faults": dict(self.scenario.faults),
            "started_at": iso(self.started_us),
            "makespan_s": round(self.makespan_s, 3),
            "asked": self.asked,
            "stored": self.stored,
            "failed": self.failed,
            "stored_before": self.stored_before,
            "posted_before_usd": format_usd(self.posted_before_microusd),
            "stored_per_hour": round(self.stored_per_hour, 2),
            "cost_usd": format_usd(self.spent_microusd),
            "left_usd": format_usd(self.left_microusd),
            "cap_usd": summary["cap_usd"],
            "calls": dict(self.calls),
            "rate_limited": self.rate_limited,
            "troubles": dict(self.troubles),
            "stopped_by": summary["stopped_by"],
            "stopped_s": self.stopped_s,
            "last_start_s": self.last_start_s,
            "message": summary["message"],
            "exit_code": self.result.exit_code,
            "summary": summary,
            "series": {
                "at_s": [round(sample.at_s, 3) for sample in self.samples],
                "in_flight": [sample.in_flight for sample in self.samples],
                "spent_usd": [format_usd(sample.spent_microusd) for sample in self.samples],
                "stored": [sample.stored for sample in self.samples],
            },
        }


def rehearse(
    campaign: Campaign,
    config: Config,
    real: Path,
    *,
    scenario: Scenario,
    options: RunOptions | None = None,
    started_us: int | None = None,
    watcher: Watcher | None = None,
) -> Night:
    """Play what a run would do with the run directory `real`, which is read and never touched.

    Args:
        started_us: when the night begins, microseconds since 1970; now without it.
        watcher: told what happens, in virtual time.

    Raises:
        InputError: what a run would be refused for.
        ValueError: a fault or a number that the sandbox does not know.
    """
    config, scenario = _on_stage(config), _with_mean(scenario, config)
    if started_us is None:
        # The next whole second, because all that is in the directory must have been before it.
        started_us = (SystemClock().now_us() // 1_000_000 + 1) * 1_000_000
    with tempfile.TemporaryDirectory(prefix="kling-rehearsal-", dir=roomy_folder()) as name:
        stage = Path(name) / campaign.name
        before = copy_run(real, stage)
        playing = _play(campaign, config, real, stage, before, scenario, options, started_us, watcher or Watcher())
        return run_virtually(playing, threads=False)


def roomy_folder() -> Path | None:
    """Where a rehearsal writes: memory where there is room, else where temporary files go (None)."""
    is_roomy = os.access(MEMORY_DISK, os.W_OK) and (free_bytes(MEMORY_DISK) or 0) >= ENOUGH_BYTES
    return MEMORY_DISK if is_roomy else None


def _on_stage(config: Config) -> Config:
    """The configuration of a rehearsal: at the provider's real pace, and with the least check, as no video is real."""
    return config.model_copy(
        update={
            "provider": config.provider.model_copy(update={"time_scale": 1.0}),
            "media": config.media.model_copy(update={"verify": "container"}),
        }
    )


def _with_mean(scenario: Scenario, config: Config) -> Scenario:
    mean_s = config.polling.expected_s if scenario.mean_s is None else scenario.mean_s
    return replace(scenario, mean_s=mean_s)


async def _play(
    campaign: Campaign,
    config: Config,
    real: Path,
    folder: Path,
    before: State,
    scenario: Scenario,
    options: RunOptions | None,
    started_us: int,
    watcher: Watcher,
) -> Night:
    clock, rng = VirtualClock(started_us), random.Random(scenario.seed)  # noqa: S311 - chance of a play
    recorder = Recorder(clock, folder, real, watcher)
    assert scenario.mean_s is not None
    draw_s = lognormal(rng, scenario.mean_s, scenario.sigma)
    sandbox = {
        "port": None,
        "seed": scenario.seed,
        "mean_s": scenario.mean_s,
        "sigma": scenario.sigma,
        "faults": scenario.faults,
        "clips": "tiny",
        "state_dir": None,
        "clock": clock.wall_s,
        "prices_microusd": {length: config.price(str(length)) for length in PRICED},
        "credits_microusd": config.cap + SPARE_CREDITS_MICROUSD,
        "accepted": known_to_provider(before, started_us, draw_s, rng),
        **scenario.provider,
    }
    stage = Stage(sandbox, recorder.join, rng)
    result = await run(campaign, config, folder, options=options, watcher=recorder, clock=clock, stage=stage)
    return recorder.night(scenario, result, before)


class Recorder(Watcher):
    """Writes down how the night goes, and throws each video away as soon as it is stored."""

    def __init__(self, clock: VirtualClock, folder: Path, real: Path, watcher: Watcher) -> None:
        self._clock = clock
        self._folder = folder
        self._real = real
        self._watcher = watcher
        self._provider: Any = None
        self._live: LiveRun | None = None
        self._sampler: asyncio.Task[None] | None = None
        self._samples: list[Sample] = []
        self._troubles: Counter[str] = Counter()
        self._kinds: Counter[EventKind] = Counter()
        self._posted_before_microusd = 0
        self._stopped_s: float | None = None
        self._last_start_s: float | None = None
        self._told: dict[str, Any] = {}
        self._ended_s = 0.0

    def join(self, provider: Any) -> Any:
        """What makes connectors to the provider of this rehearsal."""
        self._provider = provider

        def connect(**how: Any) -> MemoryConnector:
            return MemoryConnector(provider.connection, **how)

        return connect

    def started(self, live: LiveRun) -> None:
        self._live = live
        context = live.context
        # The disk that would have to take the real videos is looked at, not that of the rehearsal.
        context.room = Room(self._real, self._clock, context.room.largest)
        self._posted_before_microusd = context.ledger.state.books.posted
        self._sampler = asyncio.get_running_loop().create_task(self._sample())
        self._watcher.started(live)

    async def _sample(self) -> None:
        """Take samples at even distances; when there are too many, keep every other one and take half as many."""
        interval_s = FIRST_INTERVAL_S
        while True:
            self._look()
            if len(self._samples) >= 2 * SAMPLES:
                del self._samples[1::2]
                interval_s *= 2
            await self._clock.sleep(interval_s)

    def _look(self) -> None:
        assert self._live is not None
        context = self._live.context
        books = context.ledger.state.books
        now_s = self._clock.monotonic_s()
        spent_microusd = books.posted - self._posted_before_microusd
        self._samples.append(Sample(now_s, context.slots.in_flight, spent_microusd, self._kinds[EventKind.STORED]))
        self._note_stop()

    def _note_stop(self) -> None:
        assert self._live is not None
        if self._stopped_s is None and self._live.context.stopping.is_stopping:
            self._stopped_s = self._clock.monotonic_s()

    def event(self, event: Event) -> None:
        self._kinds[event.event] += 1
        if event.error_class is not None and event.event is not EventKind.FAILED:
            self._troubles[event.error_class] += 1
        if event.event is EventKind.RESERVED:
            self._last_start_s = (event.at_us - self._clock.started_us) / 1e6
        if event.event is EventKind.STORED and event.path is not None:
            (self._folder / event.path).unlink(missing_ok=True)
        if self._live is not None:
            self._note_stop()
        self._watcher.event(event)

    def ended(self) -> None:
        if self._sampler is not None:
            self._sampler.cancel()
        self._look()
        self._ended_s = self._clock.monotonic_s()
        self._told = self._provider.state()
        self._watcher.ended()

    def _calls(self, counted: Mapping[str, int]) -> dict[str, int]:
        """The calls that the client has counted, and the downloads, which it does not count."""
        first = {name: counted.get(name, 0) for name in ("submit", "poll", "result")}
        return {
            **first,
            "file": self._told["calls"].get("file", 0),
            **{n: c for n, c in counted.items() if n not in first},
        }

    def night(self, scenario: Scenario, result: RunResult, before: State) -> Night:
        """The night as it was written down."""
        assert self._live is not None
        context = self._live.context
        return Night(
            scenario=scenario,
            result=result,
            started_us=self._clock.started_us,
            makespan_s=self._ended_s,
            asked=len(self._live.asked),
            stored=self._kinds[EventKind.STORED],
            failed=self._kinds[EventKind.FAILED],
            stored_before=before.count(self._live.asked)[JobState.STORED],
            posted_before_microusd=before.books.posted,
            spent_microusd=context.ledger.state.books.posted - before.books.posted,
            cap_microusd=context.settings.bounds.cap,
            free_microusd=before.books.free(context.settings.bounds.cap),
            left_microusd=context.ledger.state.books.free(context.settings.bounds.cap),
            calls=self._calls(context.provider.calls),
            rate_limited=self._told["rate_limited"],
            troubles=dict(self._troubles),
            stopped_s=self._stopped_s if result.summary.get("stopped_by") else None,
            last_start_s=self._last_start_s,
            samples=tuple(self._samples),
        )
