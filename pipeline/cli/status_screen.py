"""How `status` looks: one directory on one screen, or a line for each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline.cli.screen import (
    NARROW,
    SANDBOX_NOTE,
    about,
    count,
    doubts,
    local_hour,
    printable,
    remarks,
    sentence,
    shortened,
    summary_screen,
    table,
    usd,
    wrap,
)
from pipeline.kernel.clock import duration

SHOWN_LIVE, SHOWN_AT_REST = 5, 12
"""How many of the jobs that are not settled are shown: the nearest to their expiry."""

ERRORS_SHOWN = 4
NAME_WIDTH = 24
"""Columns for the name of a row or a run."""

NOT_BEGUN = "not begun"

WORDS = {"unfetched": "paid, not on disk", "in_doubt": "in doubt"}


def status_screen(directory: str, facts: Mapping[str, Any], width: int) -> list[str]:
    """A run directory on one screen, as lines of at most `width` characters where that can be.

    Args:
        facts: what `status --json` prints.
    """
    lines = [SANDBOX_NOTE] if facts["provider"] == "sandbox" else []
    lines += [*wrap(f"{printable(directory)}: {_state(facts)}", width), ""]
    if facts["state"] == NOT_BEGUN:
        return [*lines, *wrap("No run has started in this directory: nothing was sent, and nothing is owed.", width)]
    lines += summary_screen(_counted(facts), width).split("\n")
    blocks = (
        _going(facts, width),
        _unsettled(facts, width),
        [line for doubt in doubts(facts) for line in wrap(doubt, width)],
        [line for remark in remarks(facts) for line in wrap(remark, width)],
        _errors(facts, width),
        _ending(facts, width),
    )
    for block in blocks:
        lines += ["", *block] if block else []
    return lines


def _state(facts: Mapping[str, Any]) -> str:
    """Whether it runs, and since when; at rest, since when nothing has happened."""
    holder, last_at, now = facts["held_by"], facts["last_activity_at"], facts["at"]
    if holder is not None:
        doing = "running" if facts["state"] == "running" else "in use, not by a run"
        lasting = f" for {duration(_seconds(holder['since'], now))}" if holder["since"] else ""
        return f"{doing}{lasting} (process {holder['pid']})"
    since = f", last event {_ago(last_at, now)}" if last_at else ""
    return f"{facts['state']}{since}"


def _counted(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The summary without a count of polls that is not known while a run goes on."""
    return facts if facts["state"] != "running" else {**facts, "wall_s": None}


def _going(facts: Mapping[str, Any], width: int) -> list[str]:
    """How a run goes on: what is in flight, how fast, how long still."""
    flight, pace, rate = facts["in_flight"], facts["pace"], facts["stored_per_hour"]
    if flight is None:
        return []
    rows = {"in flight": _flight(flight), "calls": _calls(pace), "stored": _rate(rate), "time left": _left(facts)}
    return [line for name, text in rows.items() for line in wrap(text, width, f"  {name:9}   ")]


def _flight(flight: Mapping[str, Any]) -> str:
    usual = f" ({duration(flight['usual_s'])} is usual)" if flight["usual_s"] else ""
    oldest = f", the oldest for {duration(flight['oldest_age_s'])}{usual}" if flight["now"] else ""
    if flight["max"] and flight["now"] > flight["max"]:
        # A finished generation frees its place at once; in the ledger it is in flight until its result is there.
        return f"{flight['now']}{oldest}; {flight['max']} at once, the others are done and wait to be collected"
    most = f" of at most {flight['max']}" if flight["max"] else ""
    return f"{flight['now']}{most}{oldest}"


def _calls(pace: Mapping[str, Any]) -> str:
    """The calls of the last minute; polls are in no record, so their number is not known, and that is said."""
    limit = f", of at most {pace['requests_per_minute']:g} calls" if pace["requests_per_minute"] else ""
    refused = f"; {count(pace['rate_limited'], 'submission')} refused (429)" if pace["rate_limited"] else ""
    known = f"{count(pace['submissions'], 'submission')} and {count(pace['results'], 'result')}"
    return f"{known} in the last minute{limit}{refused}; polls are not recorded"


def _rate(rate: Mapping[str, Any]) -> str:
    if rate["this_run"] is None:
        return "too early for a rate"
    lately = f"{rate['last_hour']:,} in the last hour; " if rate["last_hour"] is not None else ""
    return f"{lately}{rate['this_run']:,.0f} an hour since this run began"


def _left(facts: Mapping[str, Any]) -> str:
    if facts["eta_s"] is None:
        return "waiting for the account's history" if facts["in_doubt"] else "not known"
    until = local_hour(datetime.fromisoformat(facts["eta_at"]), datetime.fromisoformat(facts["at"]))
    return f"{about(facts['eta_s'])}, until {until}"


def _unsettled(facts: Mapping[str, Any], width: int) -> list[str]:
    """What runs, is paid and not on disk, or in doubt; at rest it is what the next run begins with."""
    rows = facts["unsettled"]
    if not rows:
        return []
    most = SHOWN_LIVE if facts["state"] == "running" else SHOWN_AT_REST
    head = ["next to expire", "", "age", "what expires in", "known as"]
    lines = [
        [
            shortened(row["id"] or "-", NAME_WIDTH),
            WORDS.get(row["status"], row["status"]),
            duration(row["age_s"]),
            _kept(row, width),
            _known_as(row),
        ]
        for row in rows[:most]
    ]
    shown = _cut(table([head, *lines], right=frozenset({2})), width)
    if len(rows) > most:
        shown.append(f"  … and {len(rows) - most} more (--json lists all)")
    if any(row["record_expires_in_s"] <= 0 < row["file_expires_in_s"] for row in rows if row["status"] != "unfetched"):
        shown.append("  Where the record has expired, the history knows the request; fetching a video is free.")
    return shown


def _known_as(row: Mapping[str, Any]) -> str:
    """What the provider calls it; for what is in doubt, what `resolve` is to be told."""
    return f"{row['job_id']}/{row['attempt']}" if row["status"] == "in_doubt" else row["request_id"] or "-"


def _kept(row: Mapping[str, Any], width: int) -> str:
    """What the provider still keeps of a job, and how long; on a narrow screen only what expires first."""
    record_s, file_s = row["record_expires_in_s"], row["file_expires_in_s"]
    kept = [f"record {duration(record_s)}"] if record_s > 0 and row["status"] != "unfetched" else []
    kept += [f"video {duration(file_s)}"] if file_s > 0 else []
    return ", ".join(kept[: 1 if width < NARROW else 2]) or "all is expired"


def _errors(facts: Mapping[str, Any], width: int) -> list[str]:
    latest = facts["last_errors"][:ERRORS_SHOWN]
    if not latest:
        return []
    classes = ", ".join(f"{number:,} {name}" for name, number in facts["troubles"].items())
    rows = [
        [
            f"{duration(each['age_s'])} ago",
            shortened(each["id"] or each["job_id"] or "-", NAME_WIDTH),
            each["error_class"],
            shortened(each["error"] or "-", 200),
        ]
        for each in latest
    ]
    head = f"Trouble so far: {classes}. What is not counted as failed above is tried again or settled."
    return [*wrap(head, width), *_cut(table(rows), width)]


def _ending(facts: Mapping[str, Any], width: int) -> list[str]:
    if facts["held_by"] is None and facts["message"]:
        head = "The last run stopped" if facts.get("stopped_by") else "When the last run ended"
        return wrap(f"{head}: {sentence(facts['message'])}", width)
    if facts["state"] == "cut off":
        return wrap(
            "The last run was cut off before its end. Nothing is lost: run it again to settle and collect.", width
        )
    return []


def list_screen(facts: Mapping[str, Any], width: int) -> list[str]:
    """All runs of a folder, a line for each, and what to do next."""
    folder, rows = printable(facts["folder"]), facts["runs"]
    if not rows:
        return [
            f"There is no run in {folder} yet. To begin:",
            "  kling-batch plan MANIFEST   shows what a run would make and cost",
            "  kling-batch run MANIFEST    makes it; without a config in the sandbox, where no money moves",
        ]
    head = ["run", "state", "stored", "failed", "posted", "in doubt", "last event", "cap"]
    lines = [head, *(_listed(row, facts["at"]) for row in rows)]
    right, gap = frozenset({2, 3, 4, 5, 7}), 3
    if max(map(len, table(lines).split("\n"))) > width:
        lines, gap = [line[:-1] for line in lines], 2
    shown = _cut(table(lines, right=right, gap=gap), width)
    if facts["found"] > len(rows):
        shown.append(f"  … and {facts['found'] - len(rows):,} older ones (--json lists all)")
    for row in rows:
        if row["error"]:
            shown += ["", *wrap(f"{shortened(row['name'], NAME_WIDTH)}: {sentence(row['error'])}", width)]
    newest = next((row for row in rows if not row["error"]), None)
    if newest is not None:
        shown += ["", f"More of one: kling-batch status {printable(newest['directory'])}"]
    return shown


def _listed(row: Mapping[str, Any], now: str) -> list[str]:
    name, last = shortened(row["name"], NAME_WIDTH), _ago(row["last_activity_at"], now)
    if row["error"]:
        return [name, row["state"], "", "", "", "", last, ""]
    state = row["state"] + (f" (pid {row['pid']})" if row["pid"] else "")
    if row["provider"] == "sandbox":
        state += ", sandbox"
    stored = f"{row['stored']:,}/{row['jobs']:,}"
    posted, cap = usd(row["posted_usd"]), usd(row["cap_usd"]) if row["state"] != NOT_BEGUN else ""
    return [name, state, stored, f"{row['failed']:,}", posted, usd(row["in_doubt_usd"]), last, cap]


def _cut(text: str, width: int) -> list[str]:
    return [shortened(line, max(width, 1)) for line in text.split("\n")]


def _ago(at: str | None, now: str) -> str:
    return f"{duration(_seconds(at, now))} ago" if at else "never"


def _seconds(since: str, now: str) -> float:
    return max(0.0, (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())
