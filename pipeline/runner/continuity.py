"""What runs of one directory owe each other: what each says when it begins, what the next must match, and the pace."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from pipeline.config import Config
from pipeline.difference import bought_again, paid_and_unasked
from pipeline.engine.settings import EngineSettings
from pipeline.forecast import starts_per_minute
from pipeline.jobs import is_of_this_scheme
from pipeline.kernel.errors import InputError, RunDirectoryError
from pipeline.kernel.usd import dollars
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord
from pipeline.ledger.reading import each_request
from pipeline.manifest import Campaign
from pipeline.manifest.campaign import job_ids_of, jobs_of
from pipeline.mirror.places import mirrored
from pipeline.report.jobs_file import load_lines
from pipeline.report.lines import Line
from pipeline.report.summary import FILE, FILES, read_summary

if TYPE_CHECKING:
    from pipeline.provider.client import Client

NAMED = 5
"""How many videos a refusal names."""


def identity(config: Config) -> dict[str, str]:
    """Which provider a run directory belongs to, for life."""
    if config.is_live:
        return {"provider": "segmind", "base_url": config.provider.base_url.rstrip("/")}
    return {"provider": "sandbox", "base_url": "embedded"}


def run_started(
    config: Config,
    campaign: Campaign,
    settings: EngineSettings,
    jobs: int,
    to_start: int,
    mark: str,
    *,
    tells: bool,
    key: Mapping[str, str],
) -> Event:
    """What a run says of itself when it begins; who looks at it later knows its limits from here."""
    limits, deadline_us = settings.limits, settings.bounds.deadline_us
    facts = {
        **identity(config),
        "manifest": campaign.source.name,
        **({"part": campaign.part} if campaign.part else {}),
        "jobs": jobs,
        "to_start": to_start,
        "cap_microusd": config.cap,
        "requests_per_minute": limits.requests_per_minute,
        "starts_per_minute": starts_per_minute(limits.requests_per_minute, count_polls=limits.count_polls),
        "max_in_flight": limits.max_in_flight,
        "expected_s": settings.polling.expected_s,
        "pid": os.getpid(),
        **({"deadline_us": deadline_us} if deadline_us is not None else {}),
        **({"tells": True} if tells else {}),
        "rows": mark,
        **key,
    }
    return Event(event=EventKind.RUN_STARTED, detail=orjson.dumps(facts).decode())


def key_facts(state: State, client: Client) -> dict[str, str]:
    """By which later runs know whether they have the same key; never the key itself."""
    salt = state.key_salt or secrets.token_hex(8)
    return {"key_salt": salt, "key_mark": client.key_mark(salt)}


def check_folder(folder: Path, campaign: Campaign) -> None:
    """Refuse a folder without a ledger that has files which a run would write over.

    A directory that is mirrored has its ledger in the storage, too, and gets it back from there.

    Raises:
        RunDirectoryError: the files are another's; or the ledger was removed, and with it what it had paid for.
        InputError: it can be no run directory: a file is in its way, or it is the root of the disk.
    """
    if os.path.realpath(folder) == os.path.realpath("/"):
        raise InputError(f"{folder} is the root of the disk: name a folder for the run (-o). Nothing was sent.")
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    if there is not None and not os.path.exists(there):
        raise InputError(f"{there} is a link that leads nowhere: name another run directory (-o). Nothing was sent.")
    if there is not None and not there.is_dir():
        raise InputError(f"{there} is a file, not a folder: name another run directory (-o). Nothing was sent.")
    ledger = folder / "ledger"
    if any(ledger.glob("*.parquet")) or mirrored(folder) is not None:
        return
    kept = ("jobs.parquet", "config.yaml", f"manifest{campaign.source.suffix.lower()}")
    found = [name for name in (*kept, *(f"report/{name}" for name in FILES)) if os.path.lexists(folder / name)]
    if os.path.lexists(ledger):
        # A run may have died before its first event; one that had sent something has said so in its report.
        found = [f"report/{FILE}"] if read_summary(folder / "report").get("attempts") else []
    if found and not all((folder / name).exists() and campaign.source.samefile(folder / name) for name in found):
        raise RunDirectoryError(
            f"{folder} has {', '.join(found)} but no ledger: a run would write over what is another's, or pay again "
            "for what a lost ledger had paid for; use another directory (-o). Nothing was sent."
        )


def check_provider(state: State, config: Config, folder: Path) -> None:
    """Refuse a run directory that belongs to another provider.

    Raises:
        RunDirectoryError: it does; its money belongs there too.
    """
    for record in state.runs[:1]:
        theirs = {name: record.facts.get(name) for name in ("provider", "base_url")}
        if theirs != identity(config):
            raise RunDirectoryError(
                f"{folder} belongs to {theirs['provider']} ({theirs['base_url']}), and its money with it: "
                "use another directory (-o) or the same provider. Nothing was sent."
            )


def check_part(folder: Path, campaign: Campaign, state: State) -> None:
    """Refuse to make another part of a manifest in a directory that was begun with one.

    Raises:
        InputError: it was: what this directory has paid for could belong to another directory by the new division.
    """
    for record in state.runs[:1]:
        theirs = record.facts.get("part", "")
        if theirs != campaign.part:
            was, now = (
                f"part {part} of its manifest" if part else "all of its manifest" for part in (theirs, campaign.part)
            )
            remedy = f"say --part {theirs}" if theirs else "leave --part out"
            raise InputError(
                f"{folder} was begun with {was}, not with {now}: a job could be made and paid for in two directories; "
                f"{remedy}, or use another directory (-o). Nothing was sent."
            )


def check_ids(folder: Path, campaign: Campaign, state: State) -> None:
    """Refuse to buy finished work again because the ids of jobs are made differently by now.

    Raises:
        InputError: that would happen; it names the videos and their price.
    """
    if not state.jobs:
        return
    paid = paid_and_unasked(job_ids_of(campaign.entries), state)
    if not paid:
        return
    jobs = {job.job_id: job for job in jobs_of(campaign.entries)}
    lines: Sequence[Line] = []
    # Rows that cannot be read must not keep anybody from what is paid: then the ledger alone decides.
    with contextlib.suppress(RunDirectoryError):
        lines = load_lines(folder, only=paid)
    again = bought_again(jobs, state, paid, lines, _foreign_requests(folder, paid))
    if again:
        names = ", ".join(each.name for each in again[:NAMED]) + (", …" if len(again) > NAMED else "")
        videos = "1 finished video" if len(again) == 1 else f"{len(again):,} finished videos"
        raise InputError(
            f"{videos} ({dollars(sum(each.liability for each in again))}) would be bought again, because job ids "
            f"are made differently now: {names}; use the version that made them, or another directory (-o). "
            "Nothing was sent."
        )


def _foreign_requests(folder: Path, paid: Mapping[str, JobRecord]) -> dict[str, str]:
    """The request bodies of the jobs whose ids are of another scheme; the fold has forgotten those of stored jobs."""
    foreign = {job_id for job_id in paid if not is_of_this_scheme(job_id)}
    requests: dict[str, str] = {}

    def take(job_id: str, request: str) -> None:
        if job_id in foreign:
            requests[job_id] = request

    if foreign:
        each_request(folder / "ledger", take)
    return requests


def noted_rows(state: State) -> str | None:
    """What the last run has noted of the rows that it kept."""
    noted = state.runs[-1].facts.get("rows") if state.runs else None
    return noted if isinstance(noted, str) else None


def is_tidy(state: State) -> bool:
    """Whether nothing half-made can lie among the videos: the last run had nothing to do, looked, and came to its end.

    A run that made videos does not check the folders again at its end, so a deletion may have been lost by the disk, or
    a cluster's worker may have started a file too late.
    """
    if not state.runs:
        return False
    last = state.runs[-1]
    return last.was_idle and last.outcome.get("stopped_by") is None


def pace_owed_s(state: State, interval_s: float, now_us: int) -> float:
    """How long the first call must wait so that the pace holds across the restart, in seconds.

    The run that held the lock before has made its last call by now, so one interval from now is soon enough: calls that
    are evenly spaced before and after a restart are so across it. Nothing is owed if that run ended longer ago.
    """
    if not state.runs:
        return 0.0
    ended_us = state.runs[-1].ended_us
    since_s = (now_us - ended_us) / 1e6 if ended_us is not None else 0.0
    return interval_s if since_s < 0 else max(0.0, interval_s - since_s)
