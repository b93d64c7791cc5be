"""The composition root: opens a run's lock, ledger, provider and engine, lets it run, and closes them in order."""

from pipeline.runner.choice import (
    RunOptions,
    choose,
    chosen_entries,
    plan_run,
    price_of,
    run_address,
    run_folder,
    trial_of,
)
from pipeline.runner.continuity import check_ids, check_part, check_provider
from pipeline.runner.ending import RunResult
from pipeline.runner.opening import SANDBOX_FOLDER, SANDBOX_KEY, Stage, log_to, open_context, open_provider, signals_to
from pipeline.runner.reporting import rewrite_report, write_contact_sheets
from pipeline.runner.running import run
from pipeline.runner.watching import LiveRun, Watcher

__all__ = [
    "SANDBOX_FOLDER",
    "SANDBOX_KEY",
    "LiveRun",
    "RunOptions",
    "RunResult",
    "Stage",
    "Watcher",
    "check_ids",
    "check_part",
    "check_provider",
    "choose",
    "chosen_entries",
    "log_to",
    "open_context",
    "open_provider",
    "plan_run",
    "price_of",
    "rewrite_report",
    "run",
    "run_address",
    "run_folder",
    "signals_to",
    "trial_of",
    "write_contact_sheets",
]
