"""How a rehearsed night looks on a terminal: its numbers, and three small plots over time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.cli.screen import count, dollars, printable, sentence, table
from pipeline.kernel.clock import duration

if TYPE_CHECKING:
    from pipeline.api.types import Night, Sample, Scenario

REHEARSAL_NOTE = "REHEARSAL: no request leaves this machine and no money moves."

COLUMNS = 64
"""Of a plot; with its labels it fits into 80."""

ROWS = 3
LABEL_WIDTH = 12
VALUE_WIDTH = 54
EIGHTHS = " ▁▂▃▄▅▆▇█"


def night_screen(name: str, night: Night) -> str:
    """The night as a person reads it."""
    lines = [REHEARSAL_NOTE, f"{printable(name)}: {count(night.asked, 'job')} asked for", ""]
    lines += [table(_wrapped([*_scenario(night.scenario), *_numbers(night)])), "", *_ending(night)]
    if night.makespan_s:
        lines += ["", *_plots(night)]
    return "\n".join(lines)


def _scenario(scenario: Scenario) -> list[list[str]]:
    """What the rehearsal assumed."""
    faults = ", ".join(f"{name} {rate:.3g}" for name, rate in scenario.faults.items())
    return [
        ["a generation takes", f"{scenario.mean_s:g} s ± {scenario.sigma:.0%} (seed {scenario.seed})"],
        ["faults", faults or "none"],
    ]


def _numbers(night: Night) -> list[list[str]]:
    """Its results: time, jobs, money, calls, trouble."""
    summary = night.result.summary
    rows = [["makespan", duration(night.makespan_s)]]
    if night.stored_before or night.posted_before_microusd:
        rows.append(["stored before", count(night.stored_before, "job")])
        rows.append(["posted before", f"{dollars(night.posted_before_microusd)}, by all runs here"])
    rows += [
        ["stored", f"{count(night.stored, 'job')}, {night.stored_per_hour:,.1f} an hour"],
        ["cost", dollars(night.spent_microusd)],
        ["left under the cap", f"{dollars(night.left_microusd)} of {dollars(night.cap_microusd)}"],
    ]
    left = {"failed": "failed", "in_doubt": "in doubt", "unfetched": "paid, not on disk", "running": "still running"}
    rows += [[word, count(summary[key], "job")] for key, word in left.items() if summary[key]]
    if summary["pending"]:
        rows.append(["not made", count(summary["pending"], "job")])
    rows.append(["calls", _counted(night.calls)])
    rows.append(["answered 429", f"{night.rate_limited:,}"])
    if night.troubles:
        rows.append(["went wrong", _counted(night.troubles)])
    return rows


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number) or "none"


def _wrapped(rows: list[list[str]]) -> list[list[str]]:
    """The same rows; a text that is too long for the second column goes on in rows of its own."""
    return [
        [name if number == 0 else "", part]
        for name, text in rows
        for number, part in enumerate(textwrap.wrap(text, VALUE_WIDTH))
    ]


def _ending(night: Night) -> list[str]:
    """What would stop it, and when."""
    words = ["Nothing would stop it."]
    if night.stopped_s is not None:
        words = [f"Stopped after {duration(night.stopped_s)}: {sentence(night.result.message)}"]
        if night.last_start_s is not None:
            words.append(f"The last job began after {duration(night.last_start_s)}.")
    words.append(f"A run would end with exit {night.result.exit_code}.")
    return textwrap.wrap(" ".join(words), 80)


def _plots(night: Night) -> list[str]:
    series: list[tuple[str, Callable[[Sample], float], Callable[[float], str]]] = [
        ("in flight", lambda sample: sample.in_flight, lambda value: f"{value:,.0f}"),
        ("spent", lambda sample: sample.spent_microusd, lambda value: dollars(int(value))),
        ("stored", lambda sample: sample.stored, lambda value: f"{value:,.0f}"),
    ]
    lines: list[str] = []
    for name, value, shown in series:
        values = by_column(night.samples, night.makespan_s, value)
        most = max(values)
        labels = [shown(most), *[""] * (ROWS - 2), shown(0)]
        lines += [f"{name:>{LABEL_WIDTH}}"]
        lines += [f"{label:>{LABEL_WIDTH}} ┤{row}" for label, row in zip(labels, plot(values, ROWS), strict=True)]
    end = duration(night.makespan_s)
    lines.append(f"{'':{LABEL_WIDTH}} └{'─' * COLUMNS}")
    lines.append(f"{'':{LABEL_WIDTH}}  0{end:>{COLUMNS - 1}}")
    return [line.rstrip() for line in lines]


def by_column(samples: Sequence[Sample], end_s: float, value: Callable[[Sample], float]) -> list[float]:
    """The value in each column of a plot: the latest one at the end of the column."""
    found, at = [], 0
    for column in range(COLUMNS):
        until_s = (column + 1) / COLUMNS * end_s
        while at + 1 < len(samples) and samples[at + 1].at_s <= until_s:
            at += 1
        found.append(float(value(samples[at])))
    return found


def plot(values: Sequence[float], rows: int) -> list[str]:
    """Values as a picture of so many lines, the top one first; the largest fills it."""
    most = max(values) or 1.0
    heights = [round(value / most * rows * 8) for value in values]
    return [
        "".join(EIGHTHS[min(max(height - 8 * below, 0), 8)] for height in heights) for below in reversed(range(rows))
    ]
