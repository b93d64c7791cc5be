"""How things look on a terminal: short tables, money with its cents, times that people read."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.outlet import wait_until_taken
from pipeline.kernel.clock import duration

if TYPE_CHECKING:
    from pipeline.kernel.errors import Mistake
    from pipeline.kernel.usd import MicroUsd

SANDBOX_NOTE = "SANDBOX: no money moves; the videos are drawn on this machine."

TOLD_EVERY_S = 1.0
"""How often a line says that something is still being done."""

STATUS_WORDS = {
    "stored": "stored",
    "failed": "failed",
    "in_doubt": "in doubt",
    "running": "running",
    "unfetched": "paid, not yet on disk",
    "pending": "pending",
}
"""What each status is called on a screen."""

NARROW = 80
"""Columns of a terminal below which things stand closer together."""

MOST_NAMED = 3
"""At most so many of a kind are named on a screen."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(text: str, *, lines: bool = False) -> str:
    """Text that cannot move a terminal's cursor or turn its writing; on one line unless `lines`."""
    cleaned = _UNPRINTABLE.sub("�", text)
    return cleaned if lines else cleaned.replace("\n", " ").replace("\t", " ")


def sentence(text: str) -> str:
    """A message as one printable sentence, with one full stop at its end."""
    return f"{printable(text).rstrip('. ')}."


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 job`, `2 jobs`, `1,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


def say(text: str = "") -> None:
    """Print a line; text of others must have passed `printable`. A reader that has closed the pipe is no error.

    Raises:
        OSError: it cannot be printed for another reason, such as a full disk.
    """
    say_raw(f"{text}\n")


def say_raw(text: str) -> None:
    """Print text without ending the line; otherwise as `say`."""
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        hush()


def say_if_possible(text: str = "") -> bool:
    """Print a line about work that goes on even if nobody can be told of it. Returns whether it was printed."""
    try:
        click.echo(text)
        wait_until_taken(sys.stdout)
    except TimeoutError:
        return False
    except OSError:
        hush()
        return False
    return True


def say_json(value: object) -> None:
    """Print a value for scripts."""
    import orjson

    say(safe_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()))


def say_event(event: str, facts: Mapping[str, Any]) -> None:
    """Print what happened now on one line, for scripts."""
    import orjson

    from pipeline.kernel.clock import SystemClock, iso

    say(safe_json(orjson.dumps({"event": event, "at": iso(SystemClock().now_us()), **facts}).decode()))


def hush() -> None:
    """Send all further standard output to the null device: its reader is gone, or its disk is full."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def safe_json(text: str) -> str:
    """JSON with escapes for what moves a terminal's cursor or turns its writing, which it may hold as it is."""
    return re.sub(r"[^\n -~]", lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if _UNPRINTABLE.match(character) else character


def places_json(mistakes: Iterable[Mistake]) -> list[dict[str, Any]]:
    """Mistakes or warnings for scripts, each with its place; null where it has none."""
    names = ("file", "line", "row", "column", "message")
    return [{name: getattr(mistake, name) for name in names} for mistake in mistakes]


def dollars(micro: int) -> str:
    """An amount as people read it: `$1,234.50`."""
    from pipeline.kernel import usd as money

    return money.dollars(micro)


def usd(amount: str) -> str:
    """An amount as a summary has it, as people read it: `1234.50` is `$1,234.50`."""
    from decimal import Decimal

    return f"${Decimal(amount):,}"


@contextlib.contextmanager
def working(what: str, *, shown: bool = True) -> Iterator[None]:
    """Say on a terminal what is being done, and for how long by now, where it takes more than a second.

    It stands on the error stream, on a line that is empty again at the end.
    """
    if not shown or not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(printable(what), done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(what: str, done: threading.Event) -> None:
    began_s = time.monotonic()
    told = ""
    # A terminal that is closed meanwhile is no trouble.
    with contextlib.suppress(OSError, ValueError):
        while not done.wait(TOLD_EVERY_S):
            told = f"{what} … {duration(time.monotonic() - began_s)}"
            sys.stderr.write(f"\r{told}")
            sys.stderr.flush()
        if told:
            sys.stderr.write(f"\r{' ' * len(told)}\r")
            sys.stderr.flush()


def shortened(text: str, length: int) -> str:
    """Text on one printable line of at most `length` characters."""
    line = printable(text)
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: int = 3) -> str:
    """Rows as aligned columns, `gap` characters apart; those numbered in `right` align to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + (" " * gap).join(cells).rstrip())
    return "\n".join(lines)


def wrap(text: str, width: int, lead: str = "") -> list[str]:
    """A text as lines of at most `width` characters, those behind the first indented as far as the lead is wide."""
    room = max(width - len(lead), 20)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{lead if index == 0 else ' ' * len(lead)}{line}".rstrip() for index, line in enumerate(lines)]


def terminal_width() -> int:
    """How wide the lines may be: as the terminal, or as a page where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def about(seconds: float) -> str:
    """A guess at a duration: about 7 min, less than 1 s."""
    return duration(seconds) if seconds < 1 else f"about {duration(seconds)}"


def local_hour(at: datetime, now: datetime) -> str:
    """The time of day at `at` on this machine's clock, with its day where that is not today."""
    moment = at.astimezone()
    days = (moment.date() - now.astimezone().date()).days
    return f"{moment:%H:%M}" + ("" if days == 0 else " tomorrow" if days == 1 else f" on {moment:%a %d %b}")


def summary_screen(summary: Mapping[str, Any], width: int = 80) -> str:
    """How a run directory stands: jobs, money, time; the money below the jobs where `width` has no room beside them."""
    jobs = [
        [f"{summary[key]:,}", word] for key, word in STATUS_WORDS.items() if summary[key] or key in ("stored", "failed")
    ]
    above = usd(summary["above_quotes_usd"])
    money = [
        ["posted", usd(summary["posted_usd"])],
        *([["above quotes", above]] if above != "$0.00" else []),
        ["reserved", usd(summary["reserved_usd"])],
        ["in doubt", usd(summary["in_doubt_usd"])],
        ["free", usd(summary["free_usd"])],
        ["cap", usd(summary["cap_usd"])],
    ]
    rows = [["jobs", "", "money", ""]]
    for index in range(max(len(jobs), len(money))):
        number, word = jobs[index] if index < len(jobs) else ("", "")
        name, amount = money[index] if index < len(money) else ("", "")
        rows.append([number, word, name, amount])
    lines = [table(rows, right=frozenset({0, 3}))]
    if max(map(len, lines[0].split("\n"))) > width:
        lines = [
            table([["jobs", ""], *jobs], right=frozenset({0})),
            "",
            table([["money", ""], *money], right=frozenset({1})),
        ]
    if summary.get("wall_s") is not None:
        work = f"{count(summary['attempts'], 'attempt')}, {count(summary['polls'], 'poll')}"
        lines += ["", f"  {duration(summary['wall_s'])} of running, {work}"]
    return "\n".join(lines)


def doubts(summary: Mapping[str, Any]) -> list[str]:
    """What held attempts in doubt when the last run ended, a sentence for each reason, the most frequent first."""
    from collections import Counter

    reasons = Counter(summary["why_in_doubt"].values())
    return [f"{number:,} in doubt: {sentence(why)}" for why, number in reasons.most_common()]


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """What the counts do not show, each in a sentence: jobs that no row asks for, and videos that are gone."""
    return [*filter(None, (_no_longer_asked(summary["no_longer_asked"]), _missing(summary)))]


def _no_longer_asked(others: Mapping[str, Any]) -> str | None:
    """Jobs whose rows were edited or removed: their money is in the sums, and they are in no count."""
    counts = [f"{others[key]:,} {word}" for key, word in STATUS_WORDS.items() if others[key]]
    money = [
        f"{usd(others[f'{key}_usd'])} {word}"
        for key, word in (("posted", "posted"), ("reserved", "reserved"), ("in_doubt", "in doubt"))
        if others[f"{key}_usd"] != "0.00"
    ]
    if not others["stored"] and not money:
        return None
    return f"{count(others['jobs'], 'job')} that the manifest no longer asks for: {', '.join(counts + money)}."


def _missing(summary: Mapping[str, Any]) -> str | None:
    """Stored videos that are not on the disk any more, and what to do."""
    number = summary["missing"]
    if not number:
        return None
    names = [printable(each) for each in summary["missing_videos"][:MOST_NAMED]]
    named = ", ".join(names) + (f" and {number - len(names):,} more" if number > len(names) else "")
    return (
        f"{count(number, 'stored video')} {'is' if number == 1 else 'are'} not on the disk any more: {named}. The "
        "provider keeps a file for 7 days; its address is in the ledger, `url` of its `posted` event."
    )


def above_quotes_screen(summary: Mapping[str, Any]) -> str:
    """The attempts that were charged more than their quote; empty where there are none."""
    rows = [
        [printable(name), usd(each["charged_usd"]), usd(each["quoted_usd"])]
        for name, each in summary["above_quotes"].items()
    ]
    head = ["charged above its quote", "charged", "quoted"]
    return table([head, *rows], right=frozenset({1, 2})) if rows else ""


def errors_screen(by_class: Sequence[Mapping[str, Any]], width: int = 120) -> str:
    """The attempts that did not end well, by class: what they cost and what to do next.

    The class and what to do stand below the numbers where `width` has no room beside them.
    """
    head = ["attempts", "jobs", "open", "billed", "unknown"]
    numbers = [
        [
            f"{each['attempts']:,}",
            f"{each['jobs']:,}",
            f"{each['jobs_open']:,}",
            usd(each["billed_usd"]),
            usd(each["unknown_usd"]),
        ]
        for each in by_class
    ]
    said = [(printable(each["error_class"]), each["next"]) for each in by_class]
    right = frozenset(range(5))
    whole = table([[*head, "", "next"], *([*row, *told] for row, told in zip(numbers, said, strict=True))], right=right)
    if max(map(len, whole.split("\n"))) <= width:
        return whole
    first, *lines = table([head, *numbers], right=right, gap=3 if width >= NARROW else 2).split("\n")
    pairs = [[line, *wrap(": ".join(told), width, "      ")] for line, told in zip(lines, said, strict=True)]
    return "\n".join([first, *(line for pair in pairs for line in pair)])


def bill_screen(bill: MicroUsd, summary: Mapping[str, Any]) -> str:
    """What the sandbox has on its own bill, held against what the ledger has posted."""
    from decimal import Decimal

    from pipeline.kernel.usd import format_usd

    said, posted = f"The sandbox's own bill says {dollars(bill)}", usd(summary["posted_usd"])
    if format_usd(bill) == summary["posted_usd"]:
        return f"{said}, the same to the cent."
    if summary["in_doubt_usd"] != "0.00":
        return f"{said}, but {posted} is posted: see what is in doubt."
    if Decimal(format_usd(bill)) < Decimal(summary["posted_usd"]):
        why = "its folder .sandbox was removed or replaced since the first run, so its bill is not complete"
        return f"{said}, but {posted} is posted: {why}."
    return f"{said}, but {posted} is posted, and nothing is in doubt: `kling-batch reconcile` shows where they differ."


def _what_is_left(summary: Mapping[str, Any]) -> str:
    """What an exit 5 is for. Of rows that are not asked for any more there is no count, so that both may be."""
    is_on_its_way = summary.get("running") or summary.get("unfetched")
    if bool(summary["in_doubt"]) == bool(is_on_its_way):
        return f"Money is in doubt {'and' if is_on_its_way else 'or'} paid work is not yet on disk"
    return "Money is in doubt" if summary["in_doubt"] else "Paid work is not yet on disk"


def _are_all_refused(summary: Mapping[str, Any]) -> bool:
    """Whether every failed job was refused for what its row says: unchanged, it would fail again."""
    from pipeline.kernel.errors import ERROR_CLASSES, Reaction

    classes = [ERROR_CLASSES.get(each["error_class"]) for each in summary["errors_by_class"] if each["jobs_open"]]
    return bool(classes) and all(found is not None and found.reaction is Reaction.FAIL_ROW for found in classes)


def next_command(
    summary: Mapping[str, Any],
    folder: str,
    again: str,
    needed: MicroUsd | None = None,
    short_s: float | None = None,
) -> str:
    """What to do next, and the one command for it.

    Args:
        again: the command that goes on with this run.
        needed: the cap that would cover all that is left, where the cap has stopped it.
        short_s: how long one generation takes, where the deadline had left less from the beginning.
    """
    from pipeline.kernel.usd import format_usd

    code, pending = summary.get("exit_code"), summary["pending"]
    undone = ("pending", "in_doubt", "running", "unfetched", "failed")
    if (code == 0 and not pending) or (code == 130 and not any(map(summary.get, undone))):
        said = "Everything was stored" if summary.get("missing") else "Everything is stored"
        return f"{said}. Open {folder}/report/index.html to watch the clips."
    if code == 0:
        left = f"{count(pending, 'job')} of the manifest {'is' if pending == 1 else 'are'} not made yet"
        return f"All that was asked for is stored, see {folder}/videos; {left}."
    errors = f"{folder}/report/errors.csv"
    if code == 1 and _are_all_refused(summary):
        return f"See {errors}: what failed was refused for what it asks; change its rows, then\n  {again}"
    if code == 1:
        return f"See {errors}; to try the failed ones anew:\n  {again} --retry-failed"
    if code == 4:
        return f"Nothing is lost. Once the account is in order, run again to go on:\n  {again}"
    is_settled = not any(map(summary.get, ("in_doubt", "running", "unfetched", "stopped_by")))
    if code == 5 and is_settled and summary.get("message"):
        return f"What no attempt owns is shown by\n  kling-batch reconcile {folder}"
    if code == 5:
        is_told = not summary["in_doubt"] or summary.get("why_in_doubt")
        late = "" if is_told else " The history may take two hours to show what is in doubt."
        return f"{_what_is_left(summary)}.{late} Run again to settle and collect it:\n  {again}"
    if code == 6:
        return f"Nothing is lost. Once this machine is in order, run again to go on:\n  {again}"
    if needed is not None:
        return f"A higher cap goes on; this one covers all that is left:\n  {again} --budget-usd {format_usd(needed)}"
    if summary.get("stopped_by") == "failure_rate":
        return f"See {errors}; once the cause is cured, run again to go on:\n  {again}"
    if summary.get("stopped_by") == "canary":
        return f"Look at what the canary brought, in {folder}; run again to go on:\n  {again}"
    if summary.get("stopped_by") == "deadline":
        how = "with a later --until or a longer --for"
        if short_s is None:
            return f"Run again to go on, {how} if it is to be bounded again:\n  {again}"
        return f"One generation takes {about(short_s)}, and the deadline left less; run again {how}:\n  {again}"
    if summary.get("stopped_by") == "credits":
        return f"Top up, or lower budget.stop_below_credits_usd; then run again to go on:\n  {again}"
    return f"Run again to go on:\n  {again}"
