"""What answers, refusals and silences mean for the whole run: when all calls wait, and when it stops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engine import worker
from pipeline.engine.limits import Slots
from pipeline.engine.outages import SILENCES_OF_AN_OUTAGE, Outage, Outages
from pipeline.engine.pace import Pace
from pipeline.engine.retry import PutBack
from pipeline.engine.settings import Limits, Retry
from pipeline.engine.stopping import Stopping, StopReason
from pipeline.kernel.errors import ErrorClass
from pipeline.provider.replies import Refused


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += max(0.0, seconds)


class Provider:
    """What a run sees of its provider, without a run."""

    def __init__(self, retry: Retry | None = None) -> None:
        self.clock, self.stopping = SetClock(), Stopping()
        limits = Limits()
        self.pace, self.slots = Pace(limits, self.clock), Slots(limits, self.clock)
        self.outages = Outages(retry or Retry(), self.pace, self.slots, self.stopping, self.clock)

    def refuse(self, error_class: ErrorClass, at_s: float, *, starting: bool = False) -> None:
        self.clock.now_s = at_s
        self.outages.heed(Refused(error_class, str(error_class)), starting=starting)


def test_a_lost_connection_waits_ever_longer() -> None:
    connection = Outage(Retry(base_delay_s=2, max_delay_s=120))
    waits = [connection.lost(now_s) for now_s in (0, 5, 20, 60, 120, 300)]
    assert waits == [4, 8, 16, 32, 64, 120]
    assert connection.lasted_s(420) == 420
    connection.found()
    assert connection.lasted_s(10_000) == 0


def test_a_suspend_between_two_tries_is_no_outage() -> None:
    """Refused once before the lid was closed for a night and once after it: that is not eight hours without network."""
    connection = Outage(Retry(base_delay_s=2, max_delay_s=120))
    connection.lost(0.0)
    connection.lost(8 * 3600.0)
    assert connection.lasted_s(8 * 3600.0 + 20) < 600
    for tries in range(1, 8):
        connection.lost(8 * 3600.0 + 120.0 * tries)
    assert connection.lasted_s(8 * 3600.0 + 120 * 8) > 960, "what goes on after it is one"


def test_the_pause_that_a_provider_asks_for_counts_as_its_outage() -> None:
    """However long it is: all that was waited for it was waited."""
    throttle = Outage(Retry(base_delay_s=2, max_delay_s=120))
    assert [throttle.lost(900.0 * number, 900.0) for number in range(3)] == [900.0] * 3
    assert throttle.lasted_s(2_700.0) == 2_700.0


def test_a_run_that_stops_without_a_network_says_for_how_long_and_what_to_do() -> None:
    """It does not promise to try again: it has stopped."""
    provider = Provider(Retry(max_delay_s=120))
    for at_s in (0.0, 300.0, 600.0):
        provider.refuse(ErrorClass.NOT_SENT, at_s)
    assert not provider.stopping.is_stopping
    provider.refuse(ErrorClass.NOT_SENT, 601.0)
    assert provider.stopping.reason is StopReason.MACHINE
    assert provider.stopping.message == "not_sent for more than 10 min. Check the network, then run again."


def test_an_hour_without_a_network_ends_no_run_that_the_provider_has_answered() -> None:
    """A router that starts anew, works on the line at night: nobody is there to run it again."""
    provider = Provider(Retry(max_delay_s=120))
    provider.outages.note_answer()
    for at_s in range(0, 3601, 120):
        provider.refuse(ErrorClass.NOT_SENT, at_s)
    assert not provider.stopping.is_stopping
    provider.refuse(ErrorClass.NOT_SENT, 3601.0)
    assert provider.stopping.message == "not_sent for more than 60 min. Check the network, then run again."


def test_one_silence_pauses_nothing_and_several_in_a_row_all_calls() -> None:
    """An answer in between begins the count anew."""
    provider = Provider()
    for _ in range(SILENCES_OF_AN_OUTAGE - 1):
        provider.outages.note_silence()
    provider.outages.note_answer()
    for _ in range(SILENCES_OF_AN_OUTAGE - 1):
        provider.outages.note_silence()
    assert provider.pace.is_open
    assert provider.outages.why_paused == ""
    provider.outages.note_silence()
    assert not provider.pace.is_open
    assert provider.outages.why_paused == "the provider does not answer"


def test_after_a_lost_submission_nothing_is_paid_before_a_sign_of_life() -> None:
    """Without any, one submission is tried all the same, ever more rarely: free questions may be what is broken."""
    provider = Provider()
    provider.outages.note_lost()
    provider.outages.note_answer()
    assert provider.outages.is_silent, "the history, which has a server of its own, says nothing of submissions"
    provider.outages.note_sign()
    assert not provider.outages.is_silent
    provider.outages.note_lost()
    provider.outages.note_start()
    assert not provider.outages.is_silent
    tried = []
    for now_s in range(0, 3 * 3600, 10):
        provider.clock.now_s = float(now_s)
        if now_s == 0:
            provider.outages.note_lost()
        elif not provider.outages.is_silent:
            tried.append(now_s)
            provider.outages.note_sent()
            provider.outages.note_lost()
    assert tried == [300, 900, 2100, 3900, 5700, 7500, 9300]


def test_a_submission_that_could_not_be_sent_ends_a_silence() -> None:
    """It costs nothing, and the missing network has a patience of its own."""
    provider = Provider()
    provider.outages.note_lost()
    provider.refuse(ErrorClass.NOT_SENT, 10.0)
    assert not provider.outages.is_silent


def test_a_submission_while_all_is_well_begins_no_silence() -> None:
    provider = Provider()
    provider.outages.note_sent()
    assert not provider.outages.is_silent


def test_a_start_that_is_refused_twice_in_a_row_is_refused_for_what_is_in_flight() -> None:
    """The first 429 lowers the pace; the second, right after the pause, gives it back and lowers the ceiling."""
    provider = Provider()
    for number in range(5):
        provider.slots.take(f"job {number}")
    provider.refuse(ErrorClass.RATE_LIMITED, 10.0, starting=True)
    assert provider.pace.per_minute < Limits().requests_per_minute
    assert provider.slots.has_room
    provider.refuse(ErrorClass.RATE_LIMITED, 200.0, starting=True)
    assert provider.pace.per_minute == Limits().requests_per_minute
    assert not provider.slots.has_room
    assert provider.outages.why_paused == "the provider answers 429"


def test_a_start_that_was_taken_in_between_makes_the_next_refusal_one_of_the_pace() -> None:
    """Only two refusals without a start between them speak of what is in flight."""
    provider = Provider()
    provider.slots.take("job")
    provider.refuse(ErrorClass.RATE_LIMITED, 10.0, starting=True)
    provider.outages.note_start()
    provider.refuse(ErrorClass.RATE_LIMITED, 200.0, starting=True)
    assert provider.slots.has_room
    assert provider.pace.per_minute < Limits().requests_per_minute


def test_an_image_that_is_gone_from_this_machine_says_nothing_of_the_provider() -> None:
    """Nobody was asked: an outage goes on as it was."""
    provider = Provider()
    provider.refuse(ErrorClass.NOT_SENT, 0.0)
    provider.refuse(ErrorClass.BAD_IMAGE, 1.0)
    assert provider.outages.why_paused == "no connection"
    provider.refuse(ErrorClass.BAD_REQUEST, 2.0)
    assert provider.outages.why_paused == ""


async def test_a_start_that_only_brings_an_image_is_no_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a silence it would use up the one that is tried all the same."""
    provider = Provider()
    provider.outages.note_lost()
    provider.clock.now_s = 301.0

    async def uploaded(_run: object, _job: object) -> PutBack:
        return PutBack()

    monkeypatch.setattr(worker, "upload_image", uploaded)
    run: Any = SimpleNamespace(as_sent=lambda _job: None, outages=provider.outages)
    assert isinstance(await worker.send(run, object()), PutBack)  # type: ignore[arg-type]
    assert not provider.outages.is_silent
