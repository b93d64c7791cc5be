"""What a run shows to whoever watches it while it goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pipeline.engine.context import Listener, RunContext
from pipeline.ledger.events import Event
from pipeline.ledger.job import JobState
from pipeline.report.lines import Lines
from pipeline.report.summary import summarise

T = TypeVar("T")


class Watcher:
    """Whoever watches a run, in its event loop: the command line's progress. Every method may be left as it is."""

    def started(self, live: LiveRun) -> None:
        """The run is open and about to begin; of its events only `run_started` was told before."""

    def notice(self, message: str) -> None:
        """Something was found that a person should know of, like `LiveRun.notices`, but after the start."""

    def event(self, event: Event) -> None:
        """An event has become durable."""

    def ended(self) -> None:
        """The engine has come to rest; the report is about to be written."""


class AskedJobs(Set[str]):
    """The ids of the jobs that a run was asked for, each once.

    The set of all of them is made only when somebody asks for one that was done before: of a million, that is rare.
    """

    def __init__(self, job_ids: Sequence[str], left: Collection[str]) -> None:
        self._job_ids = job_ids
        self._left = frozenset(left)
        """Those that were not stored when the run began: only these have events in it."""

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(self._job_ids)

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> frozenset[T]:
        """What is made of two such sets."""
        return frozenset(it)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._left or job_id in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._job_ids)

    def __len__(self) -> int:
        return len(self._job_ids)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that is going on, for its watcher."""

    context: RunContext
    lines: Lines
    asked: Set[str]
    """The ids of the jobs that were asked for."""
    done_elsewhere: int
    """Jobs of the directory that are done and were not asked for now."""
    to_start: int = 0
    """How many jobs this run was to start when it began, up to its limit; the cap may stop it before."""
    notices: tuple[str, ...] = ()
    """What was found when the run was opened and a person should know of, a sentence each."""

    @property
    def done(self) -> int:
        """How many of the jobs asked for are stored or have failed for good."""
        counts = self.context.ledger.state.counts
        return counts[JobState.STORED] + counts[JobState.FAILED] - self.done_elsewhere

    def summary(self, missing: Sequence[str] = ()) -> dict[str, Any]:
        """The summary as of now; `missing` are the stored videos that are not on the disk any more."""
        context = self.context
        return summarise(
            self.lines,
            context.ledger.state,
            cap_microusd=context.settings.bounds.cap,
            live=True,
            requests_sent=context.provider.calls["submit"],
            polls=context.provider.calls["poll"],
            now_us=context.clock.now_us(),
            missing=missing,
        )


def to_all(*listeners: Listener) -> Listener:
    """One listener that tells several."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen
