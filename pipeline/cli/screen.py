"""How things look on a terminal: short tables, money with its cents, times that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.kernel.usd import MicroUsd
    from pipeline.plan import Plan

SANDBOX_NOTE = "SANDBOX: no money moves; the videos are drawn on this machine."

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(text: str, *, lines: bool = False) -> str:
    """Text that cannot move a terminal's cursor or turn its writing; on one line unless `lines`."""
    cleaned = _UNPRINTABLE.sub("�", text)
    return cleaned if lines else cleaned.replace("\n", " ").replace("\t", " ")


def sentence(text: str) -> str:
    """A message as one printable sentence, with one full stop at its end."""
    return f"{printable(text).rstrip('. ')}."


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`, `1,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(text: str = "") -> None:
    """Print a line of our own making or one made printable."""
    typer.echo(text)


def say_json(value: object) -> None:
    """Print a value for scripts."""
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    # Outside of ASCII, JSON leaves raw what moves a terminal's cursor or turns its writing.
    typer.echo(re.sub(r"[^\n -~]", lambda found: _escaped(found[0]), text))


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if _UNPRINTABLE.match(character) else character


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
    """Seconds as people say them: 42 s, 12 min, 3 h 05 min, 7 days."""
    if 0 < seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 72 * 60 else f"{minutes / (24 * 60):.1f} days"


def about(seconds: float) -> str:
    """A guess at a duration: about 7 min, less than 1 s."""
    return duration(seconds) if seconds < 1 else f"about {duration(seconds)}"


def plan_screen(name: str, plan: Plan, folder: str, *, live: bool) -> str:
    """The plan as a person reads it before saying yes."""
    from pipeline.kernel.usd import format_usd

    lines = [] if live else [SANDBOX_NOTE]
    shared = f", {plan.duplicates} shared with an earlier row" if plan.duplicates else ""
    head = f"{printable(name)}: {count(plan.rows, 'row')}, {count(plan.jobs, 'job')}{shared}"
    lines += [f"{head}  ->  {printable(folder)}", ""]
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
    if said := ", ".join(f"{number:,} {word}" for word, number in done.items() if number):
        lines.append(f"Already: {said}.")
    lines.append(
        f"Cap ${format_usd(plan.cap)}, of which ${format_usd(plan.committed)} is spent or set aside: "
        f"${format_usd(plan.free)} is free."
    )
    lines += _allowance(plan)
    if plan.allowed:
        lines.append(f"Expected time at these limits: {about(plan.expected_s)}.")
    if plan.in_time is not None and plan.in_time < plan.allowed:
        lines.append(f"The deadline leaves time for about {plan.in_time:,} of {count(plan.allowed, 'job')}.")
    return "\n".join(lines)


def _allowance(plan: Plan) -> list[str]:
    """What limit and cap let through."""
    from pipeline.kernel.usd import format_usd

    if not plan.to_do:
        return ["Nothing new to make."]
    wanted, lines = len(plan.to_do) - plan.held_by_limit, []
    if plan.held_by_limit:
        lines.append(f"The limit starts {wanted:,} of {count(len(plan.to_do), 'job')}; the rest is for later runs.")
    if plan.held_by_cap:
        allowed = f"{plan.allowed:,}" if plan.allowed else "none"
        let = f"The cap lets {allowed} of {count(wanted, 'job')} through, for ${format_usd(plan.allowed_cost)}."
        lines.append(let if wanted > 1 else "The cap does not let the job through.")
        lines.append(f"A cap of ${format_usd(plan.committed + plan.cost)} would do for all that is left.")
    else:
        what = f"all {count(wanted, 'job')}" if wanted > 1 else "the job"
        lines.append(f"The cap lets {what} through, for at most ${format_usd(plan.allowed_cost)}.")
    return lines


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
        "in_time": plan.in_time,
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
        number, word = jobs[index] if index < len(jobs) else ("", "")
        name, amount = money[index] if index < len(money) else ("", "")
        rows.append([number, word, name, amount])
    lines = [table(rows, right=frozenset({0, 3}))]
    if summary.get("wall_s") is not None:
        work = f"{count(summary['attempts'], 'attempt')}, {count(summary['polls'], 'poll')}"
        lines += ["", f"  {duration(summary['wall_s'])} of running, {work}"]
    return "\n".join(lines)


def bill_screen(bill: MicroUsd, summary: Mapping[str, Any]) -> str:
    """What the sandbox has on its own bill, held against what the ledger has posted."""
    from pipeline.kernel.usd import format_usd

    agrees = format_usd(bill) == summary["posted_usd"]
    rest = "the same to the cent" if agrees else f"but ${summary['posted_usd']} is posted: see what is in doubt"
    return f"The sandbox's own bill says ${format_usd(bill)}, {rest}."


def next_command(summary: Mapping[str, Any], folder: str, again: str, needed: MicroUsd | None = None) -> str:
    """What to do next, and the one command for it.

    Args:
        again: the command that goes on with this run.
        needed: the cap that would cover all that is left, where the cap has stopped it.
    """
    from pipeline.kernel.usd import format_usd

    code, pending = summary.get("exit_code"), summary["pending"]
    if code == 0 and not pending:
        return f"Everything is stored: see {folder}/videos and {folder}/report/results.csv"
    if code == 0:
        left = f"{count(pending, 'job')} of the manifest {'is' if pending == 1 else 'are'} not made yet"
        return f"All that was asked for is stored, see {folder}/videos; {left}."
    if code == 1:
        return f"See {folder}/report/errors.csv; to try the failed ones anew:\n  {again} --retry-failed"
    if code == 4:
        return f"Nothing is lost. Once the account is in order, run again to go on:\n  {again}"
    if code == 5:
        return f"Money is in doubt or paid work is not yet on disk. Run again to settle and collect it:\n  {again}"
    if code == 6:
        return f"Nothing is lost. Once this machine is in order, run again to go on:\n  {again}"
    if needed is not None:
        return f"A higher cap goes on; this one covers all that is left:\n  {again} --budget-usd {format_usd(needed)}"
    if summary.get("stopped_by") == "failure_rate":
        return f"See {folder}/report/errors.csv; once the cause is cured, run again to go on:\n  {again}"
    return f"Run again to go on:\n  {again}"
