"""kling-batch: paid video generation in bulk, where no dollar is lost, spent twice or left unexplained.

What is listed here is the Python interface. Each name is loaded when it is first used, so that importing this costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import (
        Following,
        Prepared,
        RunDirectory,
        export,
        find_runs,
        list_runs,
        load_config,
        load_manifest,
        open_run,
        plan,
        prepare,
        reconcile,
        rehearse,
        resolve,
        run,
        run_sync,
    )
    from pipeline.config import Config
    from pipeline.forecast import Plan
    from pipeline.kernel.errors import (
        InputError,
        KlingBatchError,
        MachineError,
        ManifestError,
        Mistake,
        RunDirectoryError,
    )
    from pipeline.ledger.events import Event
    from pipeline.manifest import Campaign
    from pipeline.runner.choice import RunOptions
    from pipeline.runner.ending import RunResult
    from pipeline.runner.watching import LiveRun, Watcher

__all__ = [
    "Campaign",
    "Config",
    "Event",
    "Following",
    "InputError",
    "KlingBatchError",
    "LiveRun",
    "MachineError",
    "ManifestError",
    "Mistake",
    "Plan",
    "Prepared",
    "RunDirectory",
    "RunDirectoryError",
    "RunOptions",
    "RunResult",
    "Watcher",
    "export",
    "find_runs",
    "list_runs",
    "load_config",
    "load_manifest",
    "open_run",
    "plan",
    "prepare",
    "reconcile",
    "rehearse",
    "resolve",
    "run",
    "run_sync",
]

_HOMES = {
    "Campaign": "manifest",
    "Config": "config",
    "Event": "ledger.events",
    "LiveRun": "runner.watching",
    "Plan": "forecast",
    "RunOptions": "runner.choice",
    "RunResult": "runner.ending",
    "Watcher": "runner.watching",
    **dict.fromkeys(
        ("InputError", "KlingBatchError", "MachineError", "ManifestError", "Mistake", "RunDirectoryError"),
        "kernel.errors",
    ),
}
"""Where a name is at home; the functions, and what is not named here, in `api`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
