"""What is seen of a run while it goes on: two lines that move on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from pipeline import Following, LiveRun, Watcher
from pipeline.cli.outlet import is_behind
from pipeline.cli.screen import about, dollars, printable, sentence, shortened, working
from pipeline.kernel.clock import duration

if TYPE_CHECKING:
    from pipeline import Event

PLAIN_INTERVAL_S = 30.0
REFRESH_INTERVAL_S = 0.5

BEHIND_FRAMES, BEHIND_LINES = 16_384, 262_144
"""With so many bytes waiting for a terminal that takes nothing, frames are left out, and with so many, lines too."""

PLAYED_INTERVAL_S = 10.0
"""How often, in real seconds, a long rehearsal says how far it is."""

LEAST_BAR, MOST_BAR = 8, 24
"""Columns for the bar; where there is no room for the smallest, there is none."""

USUAL_WIDTH = 80
ANY_WIDTH = 10_000
"""Wider than any terminal, so that tqdm shortens nothing: the lines are made to fit here."""


class Progress(Watcher):
    """Shows how a run goes on, from its own events; costs the run nothing that could be measured."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._stream: TextIO = sys.stderr
        self._on_terminal = sys.stderr.isatty()
        self._live: LiveRun | None = None
        self._far: Following | None = None
        self._bar: Any = None
        self._flight: Any = None
        self._ticker: Any = None
        self._told_stop = False
        self._working = contextlib.ExitStack()
        """The line that says what is done before and after the run itself."""

    def __enter__(self) -> Self:
        self._say_working("Opening the run directory")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._working.close()

    def started(self, live: LiveRun) -> None:
        self._working.close()
        if not self._shown:
            return
        import asyncio

        self._live, self._far = live, Following(live)
        if self._on_terminal:
            self._open_bars()
        for notice in live.notices:
            self.notice(notice)
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    def notice(self, message: str) -> None:
        if self._shown:
            self._print(sentence(f"Note: {message}"))

    def _open_bars(self) -> None:
        from tqdm import tqdm

        assert self._live is not None
        total = len(self._live.asked)
        # Not tqdm's own width: it shows nothing on a terminal that does not tell its width.
        shape: dict[str, Any] = {
            "file": self._stream,
            "leave": False,
            "bar_format": "{desc}",
            "ncols": ANY_WIDTH,
            "nrows": ANY_WIDTH,
        }
        self._bar = tqdm(total=total, position=0, **shape)
        self._flight = tqdm(total=total, position=1, **shape)
        # What others write there meanwhile, such as a library's warning, stands in whole lines above the bars.
        sys.stderr = WholeLines(self._print)

    async def _tick(self) -> None:
        import asyncio

        interval_s = REFRESH_INTERVAL_S if self._bar is not None else PLAIN_INTERVAL_S
        while True:
            if self._bar is not None:
                self._show_bars()
            await asyncio.sleep(interval_s)
            if self._bar is None:
                self._print(self._plain())
            self._tell_stop()

    def _tell_stop(self) -> None:
        assert self._live is not None
        stopping = self._live.context.stopping
        if stopping.is_stopping and not self._told_stop:
            self._told_stop = True
            self._print(f"Stopping: {sentence(stopping.message)} Ctrl-C leaves what runs to the next run.")

    def _say_working(self, what: str) -> None:
        self._working.enter_context(working(what, shown=self._shown))

    def _print(self, text: str) -> None:
        if is_behind(self._stream, BEHIND_LINES):
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def event(self, event: Event) -> None:
        if self._far is None:
            return
        self._far.take(event)
        if self._bar is not None and event.event.value in ("stored", "failed"):
            self._show_bars()

    def ended(self) -> None:
        self._close()
        self._say_working("Writing the report")

    def _close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._bar is not None:
            if isinstance(sys.stderr, WholeLines):
                sys.stderr.end()
                sys.stderr = self._stream
            self._flight.close()
            self._bar.close()
            self._bar = self._flight = None

    def _show_bars(self) -> None:
        if is_behind(self._stream, BEHIND_FRAMES):
            return
        assert self._live is not None
        assert self._far is not None
        # One column stays free: a terminal may break the line when its last one is written.
        width = _width_of(self._stream) - 1
        share = self._far.done / max(1, len(self._live.asked))
        full = "█" if "utf" in (self._stream.encoding or "").lower() else "#"
        self._bar.set_description_str(bar_line(share, self._standing(), width, full), refresh=False)
        self._flight.set_description_str(fitting(self._flying(), width), refresh=False)
        self._bar.refresh()
        self._flight.refresh()

    def _standing(self) -> list[tuple[str, ...]]:
        """The fields of the first line, each with its shorter forms."""
        assert self._live is not None
        assert self._far is not None
        context, doubts = self._live.context, self._far.in_doubt
        posted, cap = dollars(context.ledger.state.books.posted), dollars(context.settings.bounds.cap)
        return [
            (f"{self._far.stored:,}/{len(self._live.asked):,} stored",),
            (f"{self._far.failed:,} failed", *([] if self._far.failed else [""])),
            *([(f"{doubts:,} in doubt",)] if doubts else []),
            (self._left(), self._left().replace("about ", "~").removesuffix(" left"), ""),
            (f"{posted} of {cap}", posted, ""),
        ]

    def _flying(self) -> list[tuple[str, ...]]:
        """The fields of the second line: what is in flight, and what it waits for."""
        assert self._live is not None
        assert self._far is not None
        context = self._live.context
        flying, most = context.slots.in_flight, context.settings.limits.max_in_flight
        fields: list[tuple[str, ...]] = [(f"{flying:,} of {most:,} in flight", f"{flying:,} in flight")]
        if (oldest_s := self._far.oldest_s) is not None:
            oldest, usual = duration(oldest_s), duration(context.polls.durations.mean_s)
            fields.append((f"the oldest for {oldest} ({usual} is usual)", f"oldest {oldest}, usual {usual}", ""))
        if (finished := self._far.running - flying) > 0:
            fields.append((f"{finished:,} to collect", ""))
        if self._far.unfetched:
            fields.append((f"{self._far.unfetched:,} to download", ""))
        if not context.pace.is_open:
            why = f": {context.outages.why_paused}" if context.outages.why_paused else ""
            fields.append((f"all calls wait{why}", "all calls wait", ""))
        elif context.pace.per_minute < context.settings.limits.requests_per_minute:
            fields.append((f"slowed to {context.pace.per_minute:.0f} calls a minute", "slowed", ""))
        return fields

    def _left(self) -> str:
        """How long it will still take."""
        assert self._far is not None
        if (left_s := self._far.left_s) is not None:
            return f"{about(left_s)} left"
        if self._far.in_doubt:
            return "waiting for the account's history"
        return "downloading" if self._far.unfetched else "nearly done"

    def _plain(self) -> str:
        assert self._live is not None
        assert self._far is not None
        fields = [*self._standing(), *self._flying()]
        return f"{self._far.done:,}/{len(self._live.asked):,} done, {', '.join(field[0] for field in fields)}"


class WholeLines(io.TextIOBase):
    """A stream that hands on whole lines only, each with nothing that could move a terminal's cursor."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._tell(printable(line))
        return len(text)

    def end(self) -> None:
        """Hand on the last line, even though it has no line end yet."""
        if self._begun:
            self.write("\n")


def bar_line(share: float, fields: Sequence[tuple[str, ...]], width: int, full: str = "█") -> str:
    """A bar and its fields on a line of at most `width` characters, the bar only where all fields fit beside it."""
    text = fitting(fields, width)
    room = min(MOST_BAR, width - len(text) - len("100% || "))
    if room < LEAST_BAR or text != ", ".join(field[0] for field in fields):
        return text
    done = int(min(1.0, max(0.0, share)) * room)
    return f"{int(share * 100):3d}% |{full * done}{' ' * (room - done)}| {text}"


def fitting(fields: Sequence[tuple[str, ...]], width: int) -> str:
    """Fields on a line of at most `width` characters: the last ones take their shorter forms first.

    Args:
        fields: each with its forms, the longest first; an empty one leaves the field out.
    """
    forms = [0] * len(fields)

    def line() -> str:
        chosen = (field[form] for field, form in zip(fields, forms, strict=True))
        return ", ".join(filter(None, chosen))

    for form in range(1, max(map(len, fields))):
        for index in range(len(fields) - 1, -1, -1):
            if len(line()) > width and form < len(fields[index]):
                forms[index] = form
    return shortened(line(), max(1, width))


def _width_of(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return USUAL_WIDTH


class Played(Watcher):
    """Says how much of a long night has been played."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._live: LiveRun | None = None
        self._said_s = time.monotonic()

    def started(self, live: LiveRun) -> None:
        self._live = live

    def event(self, event: Event) -> None:  # noqa: ARG002
        now_s = time.monotonic()
        if self._shown and self._live is not None and now_s - self._said_s >= PLAYED_INTERVAL_S:
            self._said_s = now_s
            played = duration(self._live.context.clock.monotonic_s())
            line = f"{self._live.done:,}/{len(self._live.asked):,} done, {played} of the night played (REHEARSAL)"
            print(line, file=sys.stderr, flush=True)  # noqa: T201
