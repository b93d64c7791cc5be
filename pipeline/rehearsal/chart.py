"""The rehearsed night as a picture: a self-contained SVG that reads on light paper and on a dark screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pipeline.rehearsal.night import Night, Sample

WIDTH, LEFT, RIGHT, TOP = 760, 84, 24, 100
PANEL, GAP = 116, 56
"""Height of a panel, and the room between two, in pixels."""

PLOT = WIDTH - LEFT - RIGHT
MOST_TICKS = 8
VALUE_TICKS = 4
HEADROOM = 1.08
NEAR = 3.0
"""A bound is drawn only if it is at most this many times the largest value."""

NAME_LENGTH = 40
MOST_POINTS = 360
STEPS_S = (60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Distances between two times on the axis; beyond the last, its multiples."""

TITLE = "REHEARSAL: no request leaves this machine and no money moves"

STYLE = """
  svg { color: #22262e; background: #ffffff; font: 13px system-ui, sans-serif; }
  text { fill: currentColor; } .quiet { fill: currentColor; opacity: .65; }
  .title { font-size: 15px; font-weight: 600; } .name { font-weight: 600; }
  .grid { stroke: currentColor; opacity: .14; } .axis { stroke: currentColor; opacity: .5; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; } .area { opacity: .16; stroke: none; }
  .flight { stroke: #1f6fd0; fill: #1f6fd0; } .money { stroke: #a8580a; fill: #a8580a; }
  .done { stroke: #16805a; fill: #16805a; } .line.flight, .line.money, .line.done { fill: none; }
  .bound { stroke: #c0303a; stroke-width: 1.5; stroke-dasharray: 5 4; } .told { fill: #c0303a; }
  @media (prefers-color-scheme: dark) {
    svg { color: #e4e7ec; background: #16191f; }
    .flight { stroke: #6aaefc; fill: #6aaefc; } .money { stroke: #f0a54a; fill: #f0a54a; }
    .done { stroke: #4fce9c; fill: #4fce9c; } .line.flight, .line.money, .line.done { fill: none; }
    .bound { stroke: #ff7b84; } .told { fill: #ff7b84; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the plots: its values, how they are written, and a line that they must not pass, if it has one."""

    name: str
    colour: str
    """Its class in `STYLE`."""
    value: Callable[[Sample], float]
    shown: Callable[[float], str]
    bound: float | None = None


def night_svg(name: str, night: Night) -> str:
    """The picture of a night."""
    panels = (
        Panel("In flight", "flight", lambda sample: sample.in_flight, _number),
        Panel("Spent", "money", lambda sample: sample.spent_microusd, _dollars, night.free_microusd),
        Panel("Stored", "done", lambda sample: sample.stored, _number),
    )
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img">',
        f"<title>{escape(f'{name}: {TITLE}')}</title>",
        f"<style>{STYLE}</style>",
        _text(20, 30, TITLE, "title"),
        _text(20, 52, _words(name, night), "quiet"),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, night, TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _words(name: str, night: Night) -> str:
    shown = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
    return (
        f"{shown}: {night.stored:,} stored for ${night.spent_microusd / 1e6:,.2f} in {clock_time(night.makespan_s)}, "
        f"seed {night.scenario.seed}"
    )


def _panel(panel: Panel, night: Night, top: float) -> list[str]:
    """One plot with its name, its grid and its axes."""
    samples, end_s = thinned(night.samples), night.makespan_s or 1.0
    values = [panel.value(sample) for sample in samples]
    most = max(values) or 1.0
    # A bound that is far away would only press the line down.
    bound = panel.bound if panel.bound is not None and most <= panel.bound <= NEAR * most else None
    ceiling = max(most, bound or 0.0) * HEADROOM
    bottom = top + PANEL

    def x(at_s: float) -> float:
        return LEFT + at_s / end_s * PLOT

    def y(value: float) -> float:
        return bottom - value / ceiling * PANEL

    parts = [_text(20, top - 10, panel.name, "name")]
    for tick in ticks(ceiling, VALUE_TICKS):
        parts.append(_line(LEFT, y(tick), LEFT + PLOT, y(tick), "axis" if tick == 0 else "grid"))
        parts.append(_text(LEFT - 8, y(tick) + 4, panel.shown(tick), "quiet", "end"))
    for tick in time_ticks(end_s):
        parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 17, clock_time(tick), "quiet", "middle"))
    points = " ".join(f"{x(sample.at_s):.1f},{y(value):.1f}" for sample, value in zip(samples, values, strict=True))
    last = x(samples[-1].at_s)
    parts.append(f'<polygon class="area {panel.colour}" points="{LEFT},{bottom} {points} {last:.1f},{bottom}"/>')
    parts.append(f'<polyline class="line {panel.colour}" points="{points}"/>')
    if bound is not None:
        parts.append(_line(LEFT, y(bound), LEFT + PLOT, y(bound), "bound"))
        parts.append(_text(LEFT + 6, y(bound) + 15, "the cap", "told"))
    if night.stopped_s is not None:
        at = x(night.stopped_s)
        parts.append(_line(at, top, at, bottom, "bound"))
        side = "end" if at > LEFT + PLOT / 2 else "start"
        word = f"stopped: {night.result.summary['stopped_by']}"
        parts.append(_text(at, top - 4, word, "told", side))
    return parts


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """So few samples that each has about two pixels; the last is always among them."""
    step = max(1, math.ceil(len(samples) / MOST_POINTS))
    return [*samples[:-1:step], samples[-1]]


def ticks(most: float, wanted: int) -> list[float]:
    """About `wanted` round numbers from 0 up to `most`: 1, 2 or 5 times a power of ten apart, and whole."""
    rough = most / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(1.0, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))
    return [step * number for number in range(int(most / step) + 1)]


def time_ticks(end_s: float) -> list[float]:
    """Round times from 0 up to the end."""
    day = STEPS_S[-1]
    fitting = [step for step in STEPS_S if end_s / step <= MOST_TICKS]
    step = fitting[0] if fitting else day * math.ceil(end_s / day / MOST_TICKS)
    return [float(step * number) for number in range(int(end_s / step) + 1)]


def clock_time(seconds: float) -> str:
    """A time since the beginning: 0, 40 min, 2 h, 2 h 30, 3 days."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s" if seconds else "0"
    if minutes >= 72 * 60:
        return f"{minutes / (24 * 60):.3g} days"
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes // 60} h {minutes % 60:02d}"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _dollars(value: float) -> str:
    return f"${value / 1e6:,.2f}" if value and value < 10e6 else f"${value / 1e6:,.0f}"


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
