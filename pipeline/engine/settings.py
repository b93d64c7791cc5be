"""The engine's own settings: frozen, small, and already in the units that the engine counts in."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.kernel.usd import MicroUsd


@dataclass(frozen=True, slots=True)
class Limits:
    """`requests_per_minute` holds for every call with the key; `max_in_flight` for generations at the provider.

    `adaptive`: after a 429 go on more slowly, or with fewer at once, and climb back. Without `count_polls`, only
    submissions are paced: the provider does not count what collects and asks.
    """

    requests_per_minute: float = 50.0
    max_in_flight: int = 40
    adaptive: bool = True
    count_polls: bool = True


@dataclass(frozen=True, slots=True)
class Polling:
    """When to ask how a generation stands. Seconds."""

    expected_s: float = 317.0
    min_interval_s: float = 2.0
    max_interval_s: float = 30.0
    give_up_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon to try again. `max_attempts` counts what reached the provider and failed."""

    max_attempts: int = 4
    base_delay_s: float = 2.0
    max_delay_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a run with work left. `credits_floor` is the account's.

    `after_s` counts from the beginning by the clock that only grows, so that setting the wall clock neither ends a run
    nor keeps it on. `until_us` is a time of day, by the wall clock. `deadline_us` is the earlier of both as it was
    foreseen when the run began, for those who look at it.
    """

    cap: MicroUsd
    deadline_us: int | None = None
    after_s: float | None = None
    until_us: int | None = None
    credits_floor: MicroUsd | None = None
    failure_rate: float = 0.5
    failure_window: int = 20


@dataclass(frozen=True, slots=True)
class Doubt:
    """How long the history may lag before "not listed" means "never accepted", and how long a run's end waits."""

    settle_after_s: float = 7200.0
    wait_s: float = 300.0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All that the engine can be told."""

    bounds: Bounds
    api: str = "v2"
    limits: Limits = field(default_factory=Limits)
    polling: Polling = field(default_factory=Polling)
    retry: Retry = field(default_factory=Retry)
    doubt: Doubt = field(default_factory=Doubt)
