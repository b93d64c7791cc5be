"""What the provider's answers, refusals and silences mean for the whole run: go on, wait, slow down, or stop."""

from __future__ import annotations

from pipeline.engine.limits import Slots
from pipeline.engine.pace import Pace
from pipeline.engine.settings import Retry
from pipeline.engine.stopping import Stopping, StopReason
from pipeline.kernel.clock import Clock, duration
from pipeline.kernel.errors import ErrorClass, Reaction
from pipeline.provider.replies import Refused

LONGEST_THROTTLE_S = 25 * 3600.0
"""Longer than any daily quota takes to come back: whoever is refused for so long needs a person."""

SILENCES_OF_AN_OUTAGE = 4
"""After this many questions in a row without an answer, the silence is no accident any more."""


DELAYS_AT_THE_START, DELAYS_OF_A_NIGHT = 5, 30
"""How many of the longest delays a run waits for a network: before its first answer, when a person is near, and after.

With the usual two minutes ten minutes, and an hour.
"""

FIRST_BLIND_S, LONGEST_BLIND_S = 300.0, 1800.0
"""So long after a submission was lost the next one is tried without a sign of life, and then ever more rarely.

The provider may be there and answer no free question.
"""

LONGEST_DELAY_OF_A_TRY_S = 300.0
"""A try counts as made right after the pause before it if it comes no later than this."""


class Outage:
    """A time without answers: how long it has lasted, and how long all calls should wait before the next try."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failures = 0
        self._lasted_s = 0.0
        """How long it had lasted at the latest failure."""
        self._latest_s = 0.0
        self._pause_s = 0.0
        """What was to be waited after the latest failure."""

    def found(self) -> None:
        """An answer came, whatever it said."""
        self._failures = 0

    def lost(self, now_s: float, stated_s: float = 0.0) -> float:
        """No answer came; returns how many seconds all calls should wait, longer each time.

        Args:
            stated_s: how long the provider asks to wait, at least.
        """
        self._lasted_s, self._latest_s = self.lasted_s(now_s), now_s
        self._failures += 1
        delay_s = min(self._retry.max_delay_s, self._retry.base_delay_s * 2.0 ** min(self._failures, 30))
        self._pause_s = max(stated_s, delay_s)
        return self._pause_s

    @property
    def goes_on(self) -> bool:
        """Whether no answer has come since the last time that none could be had."""
        return self._failures > 0

    def lasted_s(self, now_s: float) -> float:
        """How long it has lasted, in seconds; 0 while all is well.

        Of the time between two tries no more counts than was to be waited, and some: the rest of a longer one is a
        suspend, or had nothing to be asked, and says nothing of an outage.
        """
        if not self._failures:
            return 0.0
        return self._lasted_s + min(now_s - self._latest_s, self._pause_s + LONGEST_DELAY_OF_A_TRY_S)


class Outages:
    """The provider's outages as the run sees them, and what is done about them: calls pause, or the run stops.

    Four can go on at once: no connection can be made, the provider answers nothing but 429, it fails to answer, or it
    loses submissions.
    """

    def __init__(self, retry: Retry, pace: Pace, slots: Slots, stopping: Stopping, clock: Clock) -> None:
        self._retry = retry
        self._pace = pace
        self._slots = slots
        self._stopping = stopping
        self._clock = clock
        self._connection = Outage(retry)
        self._throttle = Outage(retry)
        self._gateway = Outage(retry)
        self._submissions = Outage(retry)
        """Ended by an accepted job only: free questions may be answered while every submission is lost."""
        self._has_answered = False
        """Whether the provider was ever there in this run."""
        self._start_refused = False
        """Whether the latest submission was answered with 429."""
        self._silences = 0
        """Questions without an answer, since the last that had one."""
        self._silent_since_s: float | None = None
        self._blind_s = FIRST_BLIND_S

    @property
    def why_paused(self) -> str:
        """Why all calls wait, in few words; empty where nothing is known to be the matter."""
        reasons = (
            (self._connection, "no connection"),
            (self._throttle, "the provider answers 429"),
            (self._gateway, "the provider does not answer"),
            (self._submissions, "the provider does not answer"),
        )
        return next((why for outage, why in reasons if outage.goes_on), "")

    def note_answer(self) -> None:
        """The provider has answered as it should: it is there, and not overrun."""
        self._has_answered = True
        self._connection.found()
        self._throttle.found()
        self._gateway.found()
        self._silences = 0

    def note_sign(self) -> None:
        """What takes submissions has answered: the next one may be sent."""
        self._silent_since_s, self._blind_s = None, FIRST_BLIND_S

    @property
    def is_silent(self) -> bool:
        """Whether there was no sign of life since a submission had no answer: what is sent now may be lost as well.

        A lost submission holds its money for hours, and a lost question costs nothing.
        """
        since_s = self._silent_since_s
        return since_s is not None and self._clock.monotonic_s() < since_s + self._blind_s

    def note_sent(self) -> None:
        """A submission is on its way. In a silence the next one waits for what becomes of it."""
        if self._silent_since_s is not None:
            self._silent_since_s = self._clock.monotonic_s()
            self._blind_s = min(LONGEST_BLIND_S, 2 * self._blind_s)

    def note_start(self) -> None:
        """The provider has accepted a job."""
        self._start_refused = False
        self._submissions.found()
        self.note_sign()
        self.note_answer()

    def note_silence(self) -> None:
        """A free question had no answer. One may be an accident; several in a row are an outage, and all calls wait."""
        self._silences += 1
        if self._silences >= SILENCES_OF_AN_OUTAGE:
            self.slow_down()

    def note_lost(self) -> None:
        """A submission had no answer: all calls wait, and until there is a sign of life nothing more is submitted."""
        self._silent_since_s = now_s = self._clock.monotonic_s()
        if self._pace.is_open:
            self._pace.pause(self._submissions.lost(now_s))

    def slow_down(self) -> None:
        """The provider failed to answer as it should: wait, ever longer, so that a short outage burns few attempts."""
        if self._pace.is_open:
            self._pace.pause(self._gateway.lost(self._clock.monotonic_s()))

    def heed(self, refusal: Refused, *, starting: bool = False) -> None:
        """Take in a refusal that concerns more than its own job: pause all calls, or stop the run.

        Args:
            starting: whether it answers a submission.
        """
        now_s = self._clock.monotonic_s()
        match refusal.error_class.reaction:
            case Reaction.PAUSE if self._pace.is_open:
                self._adapt(starting=starting)
                # Each refusal behind an open gate doubles the wait, whatever reset the provider states.
                self._pace.pause(self._throttle.lost(now_s, refusal.wait_s))
                if self._throttle.lasted_s(now_s) > LONGEST_THROTTLE_S:
                    self._stopping.stop(StopReason.ACCOUNT, "the provider has said nothing but 429 for more than a day")
            case Reaction.PAUSE:
                self._pace.pause(refusal.wait_s)
            case Reaction.STOP_ACCOUNT:
                self._stopping.stop(StopReason.ACCOUNT, f"{refusal.message.rstrip('.')}. {refusal.error_class.advice}")
            case _ if refusal.error_class is ErrorClass.NOT_SENT:
                self._pace.pause(self._connection.lost(now_s))
                self.note_sign()  # what cannot even be sent costs nothing, and has a patience of its own
                patience_s = self._retry.max_delay_s * (
                    DELAYS_OF_A_NIGHT if self._has_answered else DELAYS_AT_THE_START
                )
                if self._connection.lasted_s(now_s) > patience_s:
                    self._stopping.stop(
                        StopReason.MACHINE,
                        f"{refusal.message} for more than {duration(patience_s)}. Check the network, then run again.",
                    )
            case _ if refusal.error_class is ErrorClass.SERVER_ERROR:
                self.slow_down()
            case _ if refusal.error_class is ErrorClass.BAD_IMAGE:
                pass  # found on this machine: nobody was asked, and nobody has answered
            case _:
                self.note_answer()

    def _adapt(self, *, starting: bool) -> None:
        """Learn from a 429. If a start is refused again right after the pause, the reason is what is in flight."""
        if starting and self._start_refused:
            self._slots.refuse()
            self._pace.restore()
        else:
            self._pace.slow()
        self._start_refused = starting
