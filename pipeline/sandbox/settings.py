"""What a sandbox can be told, checked when it is said."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.sandbox.faults import check_fault_name

MICRO: Final = 1_000_000
PLENTY_MICROUSD: Final = 1_000_000 * MICRO  # the balance when none is given: more than any test spends

EventHook = Callable[[str, dict[str, Any]], None]


def _prices() -> dict[int, int]:
    return {5: 1_750_000, 10: 3_500_000}


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """All of a sandbox's behaviour. Provider seconds are divided by `time_scale`; other seconds are real.

    Raises ValueError on a value that makes no sense.
    """

    port: int | None = 0
    """Loopback port; 0 takes a free one (the one of last time when `state_dir` remembers it), None takes none at all:
    then `Sandbox.connection` is the only way in."""
    seed: int = 1
    """With a request's ordinal, the source of all randomness."""
    time_scale: float = 1.0
    """How many provider seconds pass in one real second."""
    rpm: int | None = None
    """Calls with the key in any sliding 60 real seconds; None is no limit."""
    max_in_flight: int | None = None
    """Generations that may run at once before a submission gets 429; None is no limit."""
    capacity: int | None = None
    """Generations that are worked on at once; what is accepted beyond them waits in the queue. None is no limit."""
    credits_microusd: int | None = None
    """Opening balance; None is a million dollars."""
    prices_microusd: Mapping[int, int] = field(default_factory=_prices)
    """Price by duration in seconds."""
    charge_at: str = "accept"
    """When the balance falls: `accept` (given back on FAILED) or `complete`."""
    mean_s: float = 317.0
    """Mean time of a generation, queue included, provider seconds; 0 finishes at once."""
    sigma: float = 0.3
    """Spread of the lognormal generation time."""
    clips: str = "own"
    """`own` draws each request, `shared` one clip a shape, `tiny` a minimal clip a shape; all differ in bytes."""
    render_workers: int = 1
    """Processes that draw own clips."""
    v1_body: str = "video"
    """What the blocking call answers with: `video` (raw bytes) or `json` (with a URL)."""
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault name to rate, 0 to 1."""
    fault_limit: Mapping[str, int] = field(default_factory=dict)
    """Fault name to how often it may fire at most."""
    hang_s: float = 90.0
    """How long a hanging call stays open, real seconds."""
    file_slow_s: float = 3.0
    """How long a slow download takes, real seconds."""
    history_lag_s: float = 0.0
    """How late after submission a row shows in the history, provider seconds."""
    history_repeats: int = 1
    """How many times the history lists each request."""
    record_ttl_s: float = 3600.0
    """How long after submission a request's URLs answer, provider seconds."""
    file_ttl_s: float = 604_800.0
    """How long after completion a video is served, provider seconds."""
    keys: tuple[str, ...] = ()
    """Keys that are let in; empty lets in every well-formed one."""
    state_dir: Path | None = None
    """Where the provider remembers across restarts; None keeps all in memory and a temporary folder."""
    on_event: EventHook | None = None
    """Called at each of the `INSTANTS` with its name and facts, in the server's own loop, which waits for it."""
    accepted: Sequence[Mapping[str, Any]] = ()
    """What was accepted before this sandbox began, in the journal's words."""
    clock: Callable[[], float] = time.time
    """Wall time, seconds since the epoch."""

    def __post_init__(self) -> None:
        for name, low in (("mean_s", 0), ("sigma", 0), ("hang_s", 0), ("file_slow_s", 0), ("history_lag_s", 0)):
            _number(name, getattr(self, name), low, allow_low=True)
        for name in ("time_scale", "record_ttl_s", "file_ttl_s"):
            _number(name, getattr(self, name), 0, allow_low=False)
        for name in ("rpm", "max_in_flight", "capacity", "render_workers", "history_repeats"):
            value = getattr(self, name)
            optional = name in ("rpm", "max_in_flight", "capacity")
            if not (optional and value is None) and (not _is_int(value) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.port is not None and (not _is_int(self.port) or not 0 <= self.port <= 65_535):
            raise ValueError(f"port must be 0 to 65535, not {self.port!r}")
        if self.credits_microusd is not None and (not _is_int(self.credits_microusd) or self.credits_microusd < 0):
            raise ValueError(f"credits_microusd must be a whole number of at least 0, not {self.credits_microusd!r}")
        if set(self.prices_microusd) != {5, 10}:
            raise ValueError("prices_microusd must have a price for 5 and for 10 seconds, and no other")
        for duration, price in self.prices_microusd.items():
            if not _is_int(price) or price < 0:
                raise ValueError(
                    f"prices_microusd: the price of {duration} s must be whole micro-dollars, not {price!r}"
                )
        for name, choices in (
            ("charge_at", ("accept", "complete")),
            ("clips", ("own", "shared", "tiny")),
            ("v1_body", ("video", "json")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for fault, rate in self.faults.items():
            check_fault_name(fault)
            _number(f"the rate of {fault}", rate, 0, allow_low=True)
            if rate > 1:
                raise ValueError(f"the rate of {fault} must be 0 to 1, not {rate!r}")
        for fault, limit in self.fault_limit.items():
            check_fault_name(fault)
            if not _is_int(limit) or limit < 0:
                raise ValueError(f"the limit of {fault} must be a whole number of at least 0, not {limit!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(name: str, value: object, low: float, *, allow_low: bool) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < low or (value == low and not allow_low):  # type: ignore[operator]
        bound = "at least" if allow_low else "more than"
        raise ValueError(f"{name} must be a finite number, {bound} {low:g}, not {value!r}")
