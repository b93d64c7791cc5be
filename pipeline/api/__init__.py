"""What one can do with a manifest and a run directory, from Python. The command line is built on this alone.

Coroutines talk to the provider (`run`, `reconcile`, `Prepared.credits`); all else are plain functions, and send
nothing. Whatever is refused is an `InputError`, whose text is one clear sentence: nothing was sent. Trouble while a run
goes on is in its result. What is heavy is loaded by what needs it.
"""

from pipeline.api.configuring import config_of, load_config
from pipeline.api.directories import (
    RunDirectory,
    export,
    find_runs,
    list_runs,
    open_run,
    reconcile,
    resolve,
)
from pipeline.api.reading import json_schema, load_manifest
from pipeline.api.running import Prepared, plan, prepare, rehearse, run, run_sync
from pipeline.api.watching import Following, event_facts, json_line

__all__ = [
    "Following",
    "Prepared",
    "RunDirectory",
    "config_of",
    "event_facts",
    "export",
    "find_runs",
    "json_line",
    "json_schema",
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
