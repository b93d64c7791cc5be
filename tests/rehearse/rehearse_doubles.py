"""The nights of these tests: when they begin, and the configuration of a live run that is never made."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config import Config, load_config
from pipeline.rehearsal import Night

MIDNIGHT_US = 1_800_000_000_000_000

LIVE = {"provider.kind": "segmind", "budget.cap_usd": "1000"}

Rehearse = Callable[..., Night]


def live_config(**changes: str) -> Config:
    """The defaults of a live run; `changes` are keys with `__` for the dot."""
    return load_config(None, LIVE | {name.replace("__", "."): text for name, text in changes.items()}, [])
