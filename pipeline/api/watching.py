"""What those who watch a run make of what they are told: the words of an event, and how far the run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.ledger.events import Event
    from pipeline.looking.estimate import Work
    from pipeline.runner.watching import LiveRun


def event_facts(event: Event) -> dict[str, Any]:
    """An event in the ledger's words, without what does not apply to it. Money is micro-dollars."""
    from pipeline.runlog import in_ledger_words

    return in_ledger_words(event)


def json_line(facts: Mapping[str, Any], *secrets: str) -> str:
    """Facts as JSON on one line, with the secrets replaced; an empty secret is ignored."""
    from pipeline.runlog import one_line

    return one_line(facts, *secrets)


class Following:
    """How far a run is. It counts from the events that its watcher passes on, so that a look at it costs little."""

    def __init__(self, live: LiveRun) -> None:
        from pipeline.looking.tally import Tally

        self._context = live.context
        self._tally = Tally(live.context.ledger.state, live.asked, live.to_start, live.context.clock.now_us())

    def take(self, event: Event) -> None:
        """Take in an event that has become durable."""
        self._tally.take(event)

    @property
    def stored(self) -> int:
        """How many of the jobs asked for are stored."""
        return self._tally.stored

    @property
    def failed(self) -> int:
        """How many of them have failed for good."""
        return self._tally.failed

    @property
    def done(self) -> int:
        """How many of them are stored or have failed for good."""
        return self._tally.done

    @property
    def in_doubt(self) -> int:
        """How many jobs of the directory are in doubt."""
        from pipeline.ledger.job import JobState

        return self._context.ledger.state.counts[JobState.IN_DOUBT]

    @property
    def unfetched(self) -> int:
        """How many jobs of the directory are paid, with their videos not on the disk yet."""
        from pipeline.ledger.job import JobState

        return self._context.ledger.state.counts[JobState.POSTED]

    @property
    def running(self) -> int:
        """How many are at the provider, or done there and not yet collected."""
        return len(self._tally.accepted_us)

    @property
    def oldest_s(self) -> float | None:
        """For how many seconds the oldest of those has been there; None where there is none."""
        accepted_us = self._tally.accepted_us
        return max(0.0, (self._context.clock.now_us() - min(accepted_us.values())) / 1e6) if accepted_us else None

    @property
    def left_s(self) -> float | None:
        """How many seconds it will still take; None where nothing is left but doubt and downloads."""
        from pipeline.looking.estimate import left_s

        work = self._work()
        return left_s(work) if work.to_start or work.ages_s else None

    def _work(self) -> Work:
        from pipeline.forecast import starts_per_minute
        from pipeline.looking.estimate import Work, ends_per_s
        from pipeline.looking.view import affordable

        context, tally = self._context, self._tally
        settings, durations, now_us = context.settings, context.polls.durations, context.clock.now_us()
        deadline_us = settings.bounds.deadline_us
        to_start = 0 if context.stopping.is_stopping else tally.to_start
        ended_s = [ended_us / 1e6 for ended_us in tally.ended_us]
        return Work(
            to_start=min(to_start, affordable(context.ledger.state, settings.bounds.cap, to_start)),
            ages_s=[max(0.0, (now_us - accepted_us) / 1e6) for accepted_us in tally.accepted_us.values()],
            slots=settings.limits.max_in_flight,
            starts_per_s=starts_per_minute(context.pace.per_minute, count_polls=settings.limits.count_polls) / 60,
            median_s=durations.median_s,
            sigma=durations.sigma,
            ends_per_s=ends_per_s(ended_s, tally.began_us / 1e6, now_us / 1e6, durations.mean_s),
            starts_end_s=None if deadline_us is None else (deadline_us - now_us) / 1e6 - settings.polling.expected_s,
        )
