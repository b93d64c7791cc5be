"""How things look on a terminal: short tables, money with its cents, times that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.plan import Plan

SANDBOX_NOTE = "SANDBOX: no money moves; the videos are drawn on this machine."

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(text: str, *, lines: bool = False) -> str:
    """Text that cannot move a terminal's cursor or turn its writing; on one line unless `lines`."""
    cleaned = _UNPRINTABLE.sub("�", text)
    return cleaned if lines else cleaned.replace("\n", " ").replace("\t", " ")


def say(text: str = "") -> None:
    """Print a line of our own making or one made printable."""
    typer.echo(text)


def say_json(value: object) -> None:
    """Print a value for scripts."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Rows as aligned columns; those numbered in `right` align to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "   ".join(cells).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 12 min, 3 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def plan_screen(name: str, plan: Plan, folder: str, *, live: bool) -> str:
    """The plan as a person reads it before saying yes."""
    from pipeline.kernel.usd import format_usd

    lines = [] if live else [SANDBOX_NOTE]
    shared = f", {plan.duplicates} shared with an earlier row" if plan.duplicates else ""
    lines += [f"{name}: {plan.rows} rows, {plan.jobs} jobs{shared}  ->  {folder}", ""]
    rows = [["length", "price", "jobs", "to do", "cost"]]
    for line in plan.lines:
        price, cost = format_usd(line.price), format_usd(line.cost)
        rows.append([f"{line.price_key} s", f"${price}", str(line.jobs), str(line.to_do), f"${cost}"])
    rows.append(["all", "", str(plan.jobs), str(len(plan.to_do)), f"${format_usd(plan.cost)}"])
    lines += [table(rows, right=frozenset({1, 2, 3, 4})), ""]
    done = {
        "stored": plan.stored,
        "failed": plan.failed,
        "in doubt": plan.in_doubt,
        "running": plan.running,
        "paid, not yet on disk": plan.unfetched,
    }
    if said := ", ".join(f"{count} {word}" for word, count in done.items() if count):
        lines.append(f"Already: {said}.")
    lines.append(
        f"Cap ${format_usd(plan.cap)}, of which ${format_usd(plan.committed)} is spent or set aside: "
        f"${format_usd(plan.free)} is free."
    )
    if not plan.to_do:
        lines.append("Nothing new to make.")
    elif plan.allowed < len(plan.to_do):
        left = len(plan.to_do) - plan.allowed
        lines.append(
            f"The cap lets {plan.allowed} of {len(plan.to_do)} jobs through, for ${format_usd(plan.allowed_cost)}; "
            f"{left} will have to wait for a higher one."
        )
    else:
        lines.append(f"The cap lets all {len(plan.to_do)} jobs through, for at most ${format_usd(plan.cost)}.")
    if plan.allowed:
        lines.append(f"Expected time at these limits: about {duration(plan.expected_s)}.")
    return "\n".join(lines)


def plan_json(name: str, plan: Plan, folder: str, *, live: bool, warnings: Sequence[str]) -> dict[str, Any]:
    """The plan for scripts. Money as text with exact cents."""
    from pipeline.kernel.usd import format_usd

    return {
        "name": name,
        "run_directory": folder,
        "live": live,
        "rows": plan.rows,
        "jobs": plan.jobs,
        "duplicates": plan.duplicates,
        "by_duration": [
            {
                "duration_s": int(line.price_key),
                "price_usd": format_usd(line.price),
                "jobs": line.jobs,
                "to_do": line.to_do,
                "cost_usd": format_usd(line.cost),
            }
            for line in plan.lines
        ],
        "stored": plan.stored,
        "failed": plan.failed,
        "in_doubt": plan.in_doubt,
        "running": plan.running,
        "unfetched": plan.unfetched,
        "to_do": len(plan.to_do),
        "cost_usd": format_usd(plan.cost),
        "cap_usd": format_usd(plan.cap),
        "committed_usd": format_usd(plan.committed),
        "free_usd": format_usd(plan.free),
        "allowed": plan.allowed,
        "allowed_cost_usd": format_usd(plan.allowed_cost),
        "expected_s": round(plan.expected_s, 1),
        "warnings": list(warnings),
    }


def summary_screen(summary: Mapping[str, Any]) -> str:
    """How a run directory stands: jobs, money, time."""
    words = {
        "stored": "stored",
        "failed": "failed",
        "in_doubt": "in doubt",
        "running": "running",
        "unfetched": "paid, not yet on disk",
        "pending": "pending",
    }
    jobs = [[str(summary[key]), word] for key, word in words.items() if summary[key] or key in ("stored", "failed")]
    money = [
        ["posted", f"${summary['posted_usd']}"],
        ["reserved", f"${summary['reserved_usd']}"],
        ["in doubt", f"${summary['in_doubt_usd']}"],
        ["free", f"${summary['free_usd']}"],
        ["cap", f"${summary['cap_usd']}"],
    ]
    rows = [["jobs", "", "money", ""]]
    for index in range(max(len(jobs), len(money))):
        count, word = jobs[index] if index < len(jobs) else ("", "")
        name, amount = money[index] if index < len(money) else ("", "")
        rows.append([count, word, name, amount])
    lines = [table(rows, right=frozenset({0, 3}))]
    if summary.get("wall_s") is not None:
        lines += ["", f"  {duration(summary['wall_s'])}, {summary['attempts']} attempts, {summary['polls']} polls"]
    return "\n".join(lines)


def next_command(summary: Mapping[str, Any], folder: str, again: str) -> str:
    """The one command to type next."""
    code = summary.get("exit_code")
    if code == 0:
        return f"Everything is stored: see {folder}/videos and {folder}/report/results.csv"
    if code == 1:
        return f"See {folder}/report/errors.csv; to try the failed ones anew:\n  {again} --retry-failed all"
    if code == 5:
        return f"Money is in doubt or paid work is not yet on disk. Run again to settle and collect it:\n  {again}"
    return f"Run again to go on:\n  {again}"
