"""What a person sees while a run goes on: a line that moves on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipeline.kernel.usd import format_usd
from pipeline.runner import LiveRun, Watcher

if TYPE_CHECKING:
    from pipeline.ledger.events import Event

PLAIN_INTERVAL_S = 30.0
REFRESH_INTERVAL_S = 0.5

PLAYED_INTERVAL_S = 10.0
"""How often, in real seconds, a long rehearsal says how far it is."""


class Progress(Watcher):
    """Shows how a run goes on, from its own events; costs the run nothing that could be measured."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._on_terminal = sys.stderr.isatty()
        self._live: LiveRun | None = None
        self._bar: Any = None
        self._ticker: Any = None
        self._told_stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended()

    def started(self, live: LiveRun) -> None:
        if not self._shown:
            return
        import asyncio

        self._live = live
        self._begun_s = time.monotonic()
        self._done_at_start = live.done
        if self._on_terminal:
            from tqdm import tqdm

            self._bar = tqdm(
                total=len(live.asked),
                initial=self._done_at_start,
                unit="job",
                bar_format="{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} {desc} {postfix}",
                file=sys.stderr,
                leave=False,
            )
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        import asyncio

        interval_s = REFRESH_INTERVAL_S if self._bar is not None else PLAIN_INTERVAL_S
        while True:
            if self._bar is not None:
                self._show_bar()
            await asyncio.sleep(interval_s)
            if self._bar is None:
                print(self._plain(), file=sys.stderr, flush=True)  # noqa: T201
            self._tell_stop()

    def _tell_stop(self) -> None:
        from pipeline.cli.screen import sentence

        assert self._live is not None
        stopping = self._live.context.stopping
        if stopping.is_stopping and not self._told_stop:
            self._told_stop = True
            self._print(f"Stopping: {sentence(stopping.message)} Ctrl-C leaves what runs to the next run.")

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def event(self, event: Event) -> None:
        if self._bar is not None and event.event.value in ("stored", "failed"):
            self._show_bar()

    def ended(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_bar(self) -> None:
        assert self._live is not None
        self._bar.n = self._live.done
        self._bar.set_description_str(self._fields(), refresh=False)
        self._bar.refresh()

    def _fields(self) -> str:
        from pipeline.cli.screen import duration
        from pipeline.ledger.fold import JobState

        assert self._live is not None
        context = self._live.context
        state = context.ledger.state
        parts = [
            f"{state.counts[JobState.FAILED]} failed",
            f"{context.slots.in_flight} in flight",
            f"${format_usd(state.books.posted)} of ${format_usd(context.settings.bounds.cap)}",
        ]
        if state.counts[JobState.IN_DOUBT]:
            parts.insert(1, f"{state.counts[JobState.IN_DOUBT]} in doubt")
        left_s = self._left_s()
        parts.append(f"about {duration(left_s)} left" if left_s is not None else "first results pending")
        return ", ".join(parts)

    def _left_s(self) -> float | None:
        """Time left at the pace so far; None before the first job of this run is done."""
        assert self._live is not None
        done = self._live.done - self._done_at_start
        left = len(self._live.asked) - self._live.done
        if done <= 0:
            return None
        return (time.monotonic() - self._begun_s) / done * max(0, left)

    def _plain(self) -> str:
        assert self._live is not None
        return f"{self._live.done}/{len(self._live.asked)} done, {self._fields()}"


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
            from pipeline.cli.screen import duration

            played = duration(self._live.context.clock.monotonic_s())
            line = f"{self._live.done}/{len(self._live.asked)} done, {played} of the night played (REHEARSAL)"
            print(line, file=sys.stderr, flush=True)  # noqa: T201
