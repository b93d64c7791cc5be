"""Nights on which the provider contradicts itself, stumbles, or a person is impatient: each was once a way to lose."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from nights import AtStart, Night, now_s, play
from support import campaign, check_books, check_liability
from virtual_time import VirtualClock

from pipeline.engine import collecting
from pipeline.engine.context import RunContext
from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.limits import Breaker
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger import columns, records, segments
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord
from pipeline.ledger.reading import read_events
from pipeline.manifest import load_manifest
from pipeline.media import Trouble
from pipeline.provider.client import Client, Delivered
from pipeline.provider.replies import Expired, Finished, Refused, Unavailable, Uncertain
from pipeline.runner.continuity import is_tidy
from pipeline.runner.watching import AskedJobs, LiveRun

Replace = Callable[[str, Callable[..., Any]], None]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """`replace("submit", change)`: the client's method asks the provider and then answers what `change` makes of it."""

    def put(name: str, change: Callable[..., Any]) -> None:
        original = getattr(Client, name)

        async def changed(client: Client, subject: Any) -> Any:
            return await change(lambda: original(client, subject))

        monkeypatch.setattr(Client, name, changed)

    return put


def interrupt_at(*moments_s: float) -> AtStart:
    """Signals at these seconds of the run."""

    def started(live: LiveRun) -> None:
        for moment_s in moments_s:
            asyncio.get_running_loop().call_later(moment_s, live.context.stopping.interrupt)

    return AtStart(started)


def test_a_charge_of_nothing_that_nobody_confirms_is_booked_at_the_quote(tmp_path: Path, replace: Replace) -> None:
    """Zero may only mean "not booked yet": taken for free, it would switch the cap off."""

    async def free(ask: Callable[[], Any]) -> Any:
        reply = await ask()
        return Finished(cost=MicroUsd(0), url=reply.url) if isinstance(reply, Finished) else reply

    async def main() -> None:
        async with Night(tmp_path, history_lag_s=1e6) as night:
            replace("result", free)
            result = await night.run(campaign(tmp_path, 10), night.config(budget__cap_usd="3.50"))
            assert (result.exit_code, night.provider.invoice()["total_usd"]) == (3, "3.50")
            check_books(night.folder, night.provider.invoice())

    play(main())


def test_done_says_the_status_and_failed_says_the_result(tmp_path: Path, replace: Replace) -> None:
    """A contradiction frees no money: the history decides, and nothing is bought again."""
    answers = iter([Refused(ErrorClass.GENERATION_FAILED, "internal error", 200)])

    async def contradict(ask: Callable[[], Any]) -> Any:
        return next(answers, None) or await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("result", contradict)
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 1
            night.check(made)

    play(main())


def test_signals_in_one_instant_are_no_accident(tmp_path: Path) -> None:
    """Three at once leave the run as two would: recorded, reported, with what runs left to the next run."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 60)
            result = await night.run(made, watcher=interrupt_at(20, 20, 20))
            assert (result.exit_code, result.summary["exit_code"]) == (130, 130)
            assert result.summary["running"] == night.posts()

    play(main())


def test_a_failing_commit_that_several_wait_for_ends_the_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under load: exit 6 with its sentence and a report, not a cancelled run."""
    write_segment = segments.write_segment

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def full(*arguments: Any) -> Any:
            if loop.time() > 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write_segment(*arguments)

        def two_at_once(live: LiveRun) -> None:
            def record() -> None:
                for _ in range(2):
                    event = Event(event=EventKind.RUN_ENDED, detail="{}")
                    task = loop.create_task(live.context.record(event))
                    task.add_done_callback(lambda done: done.exception())

            loop.call_later(20.5, record)

        async with Night(tmp_path) as night:
            monkeypatch.setattr(segments, "write_segment", full)
            result = await night.run(campaign(tmp_path, 60), watcher=AtStart(two_at_once))
            assert result.exit_code == 6
            assert "No space left" in result.message
            check_liability(night.folder, night.provider.requests())

    play(main())


def test_a_doubt_that_the_list_settles_and_the_single_question_denies_ends(tmp_path: Path, replace: Replace) -> None:
    """What the listed row says is enough: no endless round of found and doubted again."""

    async def denied(_ask: Callable[[], Any]) -> Any:
        return Expired()

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 2)
            await night.run(made, watcher=interrupt_at(60, 61))
            await asyncio.sleep(3 * 3600)
            replace("history_one", denied)
            began_s = now_s()
            assert (await night.run(made)).exit_code == 0
            assert now_s() - began_s < 600
            night.check(made)

    play(main())


def test_refused_polls_while_the_run_drains_abandon_nothing(tmp_path: Path) -> None:
    """After the first Ctrl-C every tenth poll is a 429: all that runs is carried to the disk all the same."""

    async def main() -> None:
        async with Night(tmp_path, faults={"poll_429": 0.1}) as night:
            made = campaign(tmp_path, 100)
            result = await night.run(made, watcher=interrupt_at(120))
            assert (result.exit_code, result.summary["running"]) == (130, 0)
            assert result.summary["stored"] == night.posts()
            assert night.provider.state()["faults_fired"]["poll_429"] > 0
            night.check(made)

    play(main())


def test_two_slips_of_the_network_far_apart_do_not_end_a_night_of_blocking_calls(
    tmp_path: Path, replace: Replace
) -> None:
    """What was delivered in between shows that the network is there."""
    slips: list[float] = []

    async def slip(ask: Callable[[], Any]) -> Any:
        if now_s() > (100, 800, 1e9)[len(slips)]:
            slips.append(now_s())
            return Refused(ErrorClass.NOT_SENT, "no connection to the provider")
        return await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit_blocking", slip)
            assert (await night.run(campaign(tmp_path, 200), night.config(provider__api="v1"))).exit_code == 0
            assert len(slips) == 2

    play(main())


@pytest.mark.parametrize(
    "answer",
    [Uncertain(ErrorClass.GATEWAY, "HTTP 502", 502), Refused(ErrorClass.SERVER_ERROR, "HTTP 500", 500)],
)
def test_a_short_outage_of_the_gateway_does_not_end_the_night(tmp_path: Path, replace: Replace, answer: Any) -> None:
    """Forty seconds of errors cost a few attempts, not the breaker: the rest of the night is made."""

    async def out(ask: Callable[[], Any]) -> Any:
        return answer if 3 < now_s() < 43 else await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", out)
            result = await night.run(campaign(tmp_path, 100))
            assert result.summary["stopped_by"] is None
            assert result.summary["pending"] == 0
            assert result.summary["in_doubt"] < 10

    play(main())


def test_results_that_wait_for_the_last_starts_make_no_night_look_broken(tmp_path: Path) -> None:
    """A generation counts as made when it is, not when its video is fetched: one in seven fails, and nothing stops."""

    async def main() -> None:
        async with Night(tmp_path, seed=7, faults={"gen_failed": 0.15}) as night:
            wide = {"limits__requests_per_minute": "30", "limits__max_in_flight": "300"}
            result = await night.run(campaign(tmp_path, 300), night.config(**wide))
            assert result.summary["stopped_by"] is None
            assert result.summary["pending"] == 0

    play(main())


@pytest.mark.parametrize(("api", "in_flight"), [("v2", 40), ("v2", 300), ("v1", 300)])
def test_refusals_that_are_known_before_any_success_make_no_night_look_broken(
    tmp_path: Path, api: str, in_flight: int
) -> None:
    """One submission in seven is answered 500, at once, and the first video is there minutes later: nothing stops."""

    async def main() -> None:
        async with Night(tmp_path, seed=7, faults={"submit_500": 0.15}) as night:
            made = campaign(tmp_path, 200)
            result = await night.run(made, night.config(provider__api=api, limits__max_in_flight=str(in_flight)))
            assert (result.exit_code, result.summary["stored"]) == (0, 200)
            night.check(made)

    play(main())


def test_a_blocking_call_that_was_accepted_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has been open for a while, and not again when its video is there, twenty submissions later."""
    noted = list[str]()
    note = Breaker.note_start

    def remember(breaker: Breaker, attempt: str, *, failed: bool) -> None:
        noted.append(attempt)
        note(breaker, attempt, failed=failed)

    async def main() -> None:
        async with Night(tmp_path) as night:
            monkeypatch.setattr(Breaker, "note_start", remember)
            assert (await night.run(campaign(tmp_path, 30), night.config(provider__api="v1"))).exit_code == 0
            assert (len(noted), len(set(noted))) == (30, 30)

    play(main())


def test_a_night_of_blocking_calls_whose_generations_fail_stops_itself(tmp_path: Path) -> None:
    """A call that was open for minutes was accepted: its failure is one of the generation."""

    async def main() -> None:
        async with Night(tmp_path, seed=7, faults={"gen_failed": 1.0}) as night:
            result = await night.run(campaign(tmp_path, 200), night.config(provider__api="v1"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "failure_rate")
            assert re.match(r"\d+ of the last 20 generations failed", result.message)

    play(main())


def test_a_provider_that_refuses_most_submissions_stops_the_night(tmp_path: Path) -> None:
    """Whatever has been accepted before, or is made meanwhile."""

    async def main() -> None:
        async with Night(tmp_path, seed=7, faults={"submit_500": 0.8}) as night:
            result = await night.run(campaign(tmp_path, 200))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "failure_rate")
            assert re.match(r"1\d of the last 20 submissions failed: see errors.csv", result.message)
            assert result.summary["attempts"] < 40

    play(main())


@pytest.mark.parametrize("until_s", [900, 1200], ids=["while others are made", "until the end"])
def test_a_storage_that_is_out_for_a_while_costs_no_second_run(tmp_path: Path, until_s: float) -> None:
    """Each video that is finished meanwhile fails five times: it is downloaded later in the same night."""

    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}) as night:
            made = campaign(tmp_path, 60 if until_s == 900 else 30)
            repair = night.provider._running.faults._active["file"].clear
            asyncio.get_running_loop().call_later(until_s, repair)
            result = await night.run(made, night.config(retry__max_delay_s="900"))
            assert (result.exit_code, result.summary["unfetched"]) == (0, 0)
            night.check(made)

    play(main())


def test_a_video_that_never_comes_is_left_to_the_next_run(tmp_path: Path) -> None:
    """Once more after a pause, then the run ends: it is paid, and kept at the provider for a week."""

    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}) as night:
            made = campaign(tmp_path, 2)
            result = await night.run(made)
            assert (result.exit_code, result.summary["unfetched"]) == (5, 2)
            assert now_s() < 1000
            assert night.provider.state()["faults_fired"]["file_500"] == 2 * 2 * 5

    play(main())


def hang(monkeypatch: pytest.MonkeyPatch, first_s: float, then_s: float) -> None:
    """No download succeeds; each takes `first_s` for the first five of a video, and `then_s` afterwards."""

    async def fetch(run: RunContext, record: JobRecord) -> Trouble:
        async with run.downloads:
            await run.pause(first_s if record.fetch_failures < 5 else then_s)
        return Trouble(ErrorClass.FETCH_FAILED, None, "not a byte")

    monkeypatch.setattr(collecting, "_fetch", fetch)


def test_a_storage_that_hangs_holds_up_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tries take longer than the time between two rounds: the rounds do not overlap, or there is no end."""
    hang(monkeypatch, 130, 130)

    async def main() -> None:
        async with Night(tmp_path) as night, asyncio.timeout(4 * 3600):
            result = await night.run(campaign(tmp_path, 20), night.config(limits__max_in_flight="5"))
            assert (result.exit_code, result.summary["unfetched"]) == (5, 20)

    play(main())


def test_a_storage_that_stays_out_slows_no_starts(tmp_path: Path) -> None:
    """The more videos wait for it, the more would be tried again at once, and hold the places of new jobs."""

    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}) as night:
            result = await night.run(campaign(tmp_path, 150), night.config(limits__max_in_flight="10"))
            assert (result.exit_code, result.summary["unfetched"]) == (5, 150)
            assert now_s() < 1.2 * 150 / 10 * 317 + 600

    play(main())


def test_a_person_who_interrupts_waits_for_no_new_round_of_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is finished, and no more: what was left for later is left to the next run."""
    hang(monkeypatch, 0, 600)

    async def main() -> None:
        async with Night(tmp_path) as night:
            result = await night.run(campaign(tmp_path, 20), night.config(limits__max_in_flight="5"), interrupt_at(590))
            assert (result.exit_code, result.summary["running"]) == (130, 0)
            assert result.summary["unfetched"] == night.posts()
            assert now_s() < 1500

    play(main())


def test_a_video_that_is_fetched_while_the_history_is_read_is_in_one_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Replace
) -> None:
    """A sweep finds a lost answer's video; before the sweep is over, what is not on the disk is downloaded again."""
    from pipeline.engine import doubt

    accept, fetch_again = doubt._accept, Dispatcher._fetch_again
    calls, fetched = iter(range(1_000)), asyncio.Event()

    async def lose_the_first(ask: Callable[[], Any]) -> Any:
        reply = await ask()
        return Uncertain(ErrorClass.GATEWAY, "HTTP 504", 504) if next(calls) == 0 else reply

    async def slowly(*arguments: Any) -> None:
        await accept(*arguments)
        await fetched.wait()

    def note(dispatcher: Dispatcher, at_most: int | None = None) -> None:
        fetch_again(dispatcher, at_most)
        fetched.set()

    async def main() -> None:
        async with Night(tmp_path, history_lag_s=500) as night:
            monkeypatch.setattr(doubt, "_accept", slowly)
            monkeypatch.setattr(Dispatcher, "_fetch_again", note)
            replace("submit", lose_the_first)
            made = campaign(tmp_path, 2)
            result = await night.run(made)
            assert (result.exit_code, result.message) == (0, "")
            night.check(made)

    play(main())


def test_a_person_who_interrupts_waits_for_no_last_download(tmp_path: Path) -> None:
    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}) as night:
            made = campaign(tmp_path, 2)
            result = await night.run(made, night.config(retry__max_delay_s="9000"), interrupt_at(1500))
            assert (result.exit_code, result.summary["unfetched"]) == (130, 2)
            assert now_s() < 1501

    play(main())


def test_who_wants_to_leave_waits_for_no_video_of_a_blocking_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its charge is recorded, and the rest may take an hour: the next run downloads it, and pays nothing."""

    async def hangs(delivered: Delivered) -> AsyncIterator[bytes]:
        began_s.append(now_s())
        for _ in range(2):
            lives[0].context.stopping.interrupt()
        async for chunk in chunks(delivered):
            yield chunk[:1000]
            await asyncio.sleep(15)

    chunks, lives, began_s = Delivered.chunks, list[LiveRun](), list[float]()

    async def main() -> None:
        async with Night(tmp_path) as night:
            made, config = campaign(tmp_path, 1), night.config(provider__api="v1")
            with monkeypatch.context() as patched:
                patched.setattr(Delivered, "chunks", hangs)
                result = await night.run(made, config, AtStart(lives.append))
            assert (result.exit_code, result.summary["unfetched"]) == (130, 1)
            assert now_s() - began_s[0] < 1
            assert (await night.run(made, config)).exit_code == 0
            assert night.posts() == 1
            night.check(made)

    play(main())


class Sleeper(VirtualClock):
    """The clock of a machine that is suspended: every clock moves, and no timer of the run has."""

    slept_s = 0.0

    def suspend(self, seconds: float) -> None:
        self.slept_s += seconds
        self.wall_offset_s += seconds

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.slept_s


def test_the_hours_of_a_suspend_use_up_no_patience(tmp_path: Path) -> None:
    """A request that is old, and still at work, when the machine wakes is waited for, as if it had been asked about."""

    async def main() -> None:
        clock = Sleeper()
        async with Night(tmp_path, mean_s=7_700, sigma=0, record_ttl_s=1e6, clock=clock.wall_s) as night:
            night.clock = clock
            made = campaign(tmp_path, 2)
            asyncio.get_running_loop().call_later(60, clock.suspend, 7_500)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def gone(answer: Any, until_s: float) -> Callable[[Callable[[], Any]], Any]:
    """What `replace` takes: from half a minute after the beginning on, and until then, this is all that is answered."""

    async def ask(question: Callable[[], Any]) -> Any:
        return answer if 30 < now_s() < until_s else await question()

    return ask


def test_three_quarters_of_an_hour_without_a_network_end_no_night(tmp_path: Path, replace: Replace) -> None:
    """Nobody is there to run it again: what ran is collected afterwards, and the rest is made."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", gone(Refused(ErrorClass.NOT_SENT, "no connection to the provider"), 2730))
            for name in ("poll", "result", "history_one"):
                replace(name, gone(Unavailable("no connection to the provider"), 2730))
            made = campaign(tmp_path, 80)
            assert (await night.run(made)).exit_code == 0
            assert 2730 < now_s() < 4200
            night.check(made)

    play(main())


def test_an_hour_without_an_answer_ends_no_night_and_brings_few_into_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Replace
) -> None:
    """After one that was lost, what costs nothing is sent first, and few submissions are tried without a sign."""
    balance = Client.credits

    async def ask_credits(client: Client) -> Any:
        return await gone(Unavailable("HTTP 502", 502), 3600)(lambda: balance(client))

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", gone(Uncertain(ErrorClass.GATEWAY, "HTTP 502", 502), 3600))
            for name in ("poll", "result", "history_one"):
                replace(name, gone(Unavailable("HTTP 502", 502), 3600))
            monkeypatch.setattr(Client, "credits", ask_credits)
            made = campaign(tmp_path, 100)
            result = await night.run(made, night.config(limits__max_in_flight="300"))
            summary = result.summary
            assert (result.exit_code, summary["stopped_by"], summary["pending"]) == (5, None, 0)
            assert summary["stored"] == 100 - summary["in_doubt"]
            assert 1 <= summary["in_doubt"] <= 6

    play(main())


def test_submissions_that_alone_are_lost_at_the_beginning_end_no_night(tmp_path: Path, replace: Replace) -> None:
    """For five minutes free questions are answered and submissions are not: these are tried ever more rarely."""

    async def out(ask: Callable[[], Any]) -> Any:
        return Uncertain(ErrorClass.GATEWAY, "HTTP 502", 502) if now_s() < 300 else await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", out)
            summary = (await night.run(campaign(tmp_path, 60))).summary
            assert (summary["stopped_by"], summary["pending"]) == (None, 0)
            assert 1 <= summary["in_doubt"] <= 8

    play(main())


def test_a_generation_that_failed_is_a_sign_of_life(tmp_path: Path, replace: Replace) -> None:
    """A submission is lost, and all that was sent before it has failed, as the provider says: the next one is sent."""
    sent: list[float] = []

    async def lose_one(ask: Callable[[], Any]) -> Any:
        if now_s() > 100:
            sent.append(now_s())
        return Uncertain(ErrorClass.GATEWAY, "HTTP 502", 502) if len(sent) == 1 else await ask()

    async def fails(ask: Callable[[], Any]) -> Any:
        return Refused(ErrorClass.GENERATION_FAILED, "failed", 422) if now_s() > 100 else await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", lose_one)
            replace("poll", fails)
            wide = night.config(limits__max_in_flight="300", stop__failure_window="1000")
            await night.run(campaign(tmp_path, 200), wide, interrupt_at(600))
            assert sent[1] - sent[0] < 20

    play(main())


def test_a_person_who_interrupts_waits_for_no_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider has fallen silent, and takes a minute to fail to answer what costs nothing."""
    balance = Client.credits

    async def hangs(client: Client) -> Any:
        if now_s() < 3:
            return await balance(client)
        await asyncio.sleep(60)
        return Unavailable("no answer")

    async def lost(_client: Client, _job: Any) -> Any:
        return Uncertain(ErrorClass.GATEWAY, "HTTP 502", 502)

    async def main() -> None:
        async with Night(tmp_path) as night:
            monkeypatch.setattr(Client, "credits", hangs)
            monkeypatch.setattr(Client, "submit", lost)
            result = await night.run(campaign(tmp_path, 5), watcher=interrupt_at(15))
            assert (result.exit_code, result.summary["in_doubt"]) == (130, 1)
            assert now_s() < 16

    play(main())


def test_a_network_that_is_gone_for_a_second_is_no_broken_night(tmp_path: Path, replace: Replace) -> None:
    """It breaks all the blocking calls at once. Each was accepted: the history shows it, and the night goes on."""
    broken: list[float] = []

    async def breaks(ask: Callable[[], Any]) -> Any:
        call = asyncio.ensure_future(ask())
        if now_s() < 150:
            await asyncio.wait([call], timeout=150 - now_s())
        if call.done() or now_s() > 151:
            return await call
        call.cancel()
        broken.append(now_s())
        return Uncertain(ErrorClass.NO_REPLY, "the connection broke before an answer came")

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit_blocking", breaks)
            result = await night.run(campaign(tmp_path, 80), night.config(provider__api="v1"))
            assert len(broken) == 40
            assert (result.exit_code, result.summary["stored"]) == (0, 80)

    play(main())


def test_a_provider_that_loses_every_answer_stops_the_night(tmp_path: Path, replace: Replace) -> None:
    """They are lost one by one: few more than the breaker's window come into doubt, not every row."""

    async def loses(ask: Callable[[], Any]) -> Any:
        await ask()
        await asyncio.sleep(60)
        return Uncertain(ErrorClass.NO_REPLY, "the provider did not answer in time")

    async def main() -> None:
        async with Night(tmp_path, history_lag_s=3600) as night:
            replace("submit", loses)
            result = await night.run(campaign(tmp_path, 200))
            assert result.summary["stopped_by"] == "failure_rate"
            assert night.posts() <= 20 + 40

    play(main())


def test_a_provider_that_forgets_what_it_has_accepted_stops_the_night(tmp_path: Path) -> None:
    """Submissions are well: it is generations of which no end is ever known, and each of them may be charged."""

    async def main() -> None:
        async with Night(tmp_path, mean_s=1e6, sigma=0, history_lag_s=1e9) as night:
            result = await night.run(campaign(tmp_path, 200))
            assert (result.exit_code, result.summary["stopped_by"]) == (5, "failure_rate")
            assert "of the last 20 generations failed" in result.message
            assert result.summary["in_doubt"] == night.posts() < 80

    play(main())


def test_a_row_whose_answer_comes_during_the_sweep_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Replace
) -> None:
    """Of two equal jobs one is in doubt, one unanswered: the row is the other's, whose answer comes just then."""
    from pipeline.engine import doubt

    accept = doubt._accept
    calls = iter(range(1_000))
    go = asyncio.Event()

    async def slowly(*arguments: Any) -> None:
        await accept(*arguments)
        go.set()
        await asyncio.sleep(0.02)

    async def answer(ask: Callable[[], Any]) -> Any:
        call = next(calls)
        if call == 1:
            return Uncertain(ErrorClass.GATEWAY, "HTTP 504", 504)
        reply = await ask()
        if call == 0:
            return Uncertain(ErrorClass.GATEWAY, "HTTP 504", 504)
        if call == 2:
            await asyncio.wait_for(go.wait(), 50)
        return reply

    async def main() -> None:
        async with Night(tmp_path) as night:
            monkeypatch.setattr(doubt, "_accept", slowly)
            replace("submit", answer)
            rows = [
                {"prompt": "a lamp"},
                {"prompt": "a mug", "count": 2},
                *({"prompt": f"{n} bowls"} for n in range(40)),
            ]
            (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            made = load_manifest(tmp_path / "rows.jsonl")
            result = await night.run(made)
            assert result.summary["stopped_by"] is None
            check_liability(night.folder, night.provider.requests())

    play(main())


def test_after_an_account_stop_a_person_can_still_leave(tmp_path: Path, replace: Replace) -> None:
    """The second Ctrl-C leaves, whatever the run had stopped for; the exit code stays the account's."""
    calls = iter(range(1_000))

    async def refuse(ask: Callable[[], Any]) -> Any:
        if next(calls) == 19:
            return Refused(ErrorClass.OUT_OF_CREDITS, "no credits", 406)
        return await ask()

    async def main() -> None:
        async with Night(tmp_path) as night:
            replace("submit", refuse)
            result = await night.run(campaign(tmp_path, 60), watcher=interrupt_at(60, 61))
            assert (result.exit_code, result.summary["running"]) == (4, 19)
            assert now_s() < 65

    play(main())


def test_only_the_jobs_asked_for_decide_the_exit_code(tmp_path: Path) -> None:
    """`--ids` of a stored row is 0, whatever became of another."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_400": 1.0}, fault_limit={"submit_400": 1}) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made)).exit_code == 1
            assert (await night.run(made, ids=frozenset({"row-1"}))).exit_code == 0
            assert (await night.run(made, ids=frozenset({"row-0"}))).exit_code == 1

    play(main())


def test_a_retry_is_granted_only_to_what_the_run_may_start(tmp_path: Path) -> None:
    """`--retry-failed --limit 1` leaves the other failure failed: a later plain run must not buy it."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_400": 1.0}, fault_limit={"submit_400": 2}) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made)).summary["failed"] == 2
            result = await night.run(made, retry_classes=frozenset(), limit=1)
            assert (result.summary["stored"], result.summary["failed"]) == (1, 1)
            granted = [each for each in read_events(night.folder / "ledger") if each.event is EventKind.RETRY_GRANTED]
            assert len(granted) == 1

    play(main())


def test_a_last_doubt_that_the_background_settles_is_gone_on_with(tmp_path: Path) -> None:
    """Whichever sweep finds that the only attempt never arrived, the same run submits it anew."""

    async def main(folder: Path, settle_after_s: int) -> None:
        folder.mkdir()
        fault = "submit_504_before"
        async with Night(folder, faults={fault: 1.0}, fault_limit={fault: 1}) as night:
            config = night.config(in_doubt__settle_after_s=str(settle_after_s), in_doubt__wait_s="3600")
            result = await night.run(campaign(folder, 1), config)
            assert (result.exit_code, result.message) == (0, "")

    for settle_after_s in range(10, 150, 10):
        play(main(tmp_path / str(settle_after_s), settle_after_s))


def test_a_failure_without_a_name_is_not_taken_for_the_next_attempt(tmp_path: Path) -> None:
    """A blocking call fails, and its row is listed late; the answer of the next one is lost: it is bought once."""

    async def main() -> None:
        faults, limit = {"gen_failed": 1.0, "submit_503_after": 1.0}, {"gen_failed": 1, "submit_503_after": 0}
        async with Night(tmp_path, faults=faults, fault_limit=limit, mean_s=20, sigma=0, history_lag_s=60) as night:
            limits = night.provider._running.faults._limits

            def lose_the_next(event: Event) -> None:
                if event.event is EventKind.VOIDED:
                    limits["submit_503_after"] = 1

            made = campaign(tmp_path, 1)
            config = night.config(provider__api="v1", in_doubt__wait_s="900")
            assert (await night.run(made, config, AtStart(event=lose_the_next))).exit_code == 0
            assert night.posts() == 2
            night.check(made)

    play(main())


def test_what_a_death_left_half_written_goes_with_the_next_run(tmp_path: Path) -> None:
    """Temporary files in every folder that a run writes to are gone after it."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            folders = [night.folder, *(night.folder / name for name in ("ledger", "videos", "posters", "report"))]
            for folder in folders:
                folder.mkdir(parents=True)
                (folder / ".0123456789ab.part").touch()
            assert (await night.run(campaign(tmp_path, 1))).exit_code == 0
            assert not list(night.folder.rglob("*.part"))

    play(main())


def test_what_a_run_that_made_something_left_half_written_goes_with_the_next(tmp_path: Path) -> None:
    """Also if it came to its end: the disk may not have let it delete that. After a run that did nothing, nothing can
    have been left, and a million videos are not looked through for it.
    """

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 0
            left = [night.folder / name / ".0123456789ab.part" for name in ("videos", "posters", "report")]
            for path in left:
                path.touch()
            assert (await night.run(made)).exit_code == 0
            assert not any(path.exists() for path in left)
            for path in left:
                path.touch()
            assert (await night.run(made)).exit_code == 0
            assert [path.exists() for path in left] == [True, True, False]

    play(main())


@pytest.mark.parametrize(
    ("kinds", "stopped_by", "tidy"),
    [
        ("", None, False),
        ("begun", None, False),
        ("begun ended", None, True),
        ("begun ended", "interrupted", False),
        ("begun account ended", None, False),
        ("begun ended begun", None, False),
        ("begun account ended begun ended", None, True),
        ("begun begun ended", None, True),
    ],
)
def test_only_a_run_that_did_nothing_and_ended_by_itself_leaves_nothing(
    kinds: str, stopped_by: str | None, tidy: bool
) -> None:
    """Whoever died, was interrupted or made something may have left a part of a video."""
    words = {"begun": EventKind.RUN_STARTED, "account": EventKind.ACCOUNT, "ended": EventKind.RUN_ENDED}
    state = State()
    for seq, word in enumerate(kinds.split(), 1):
        facts = json.dumps({"stopped_by": stopped_by} if word == "ended" else {})
        state.apply(Event(event=words[word], seq=seq, at_us=seq, detail=facts))
    assert is_tidy(state) == tidy


def test_what_finds_stored_jobs_is_made_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million it takes a second or two, in which no answer would be heard."""
    monkeypatch.setattr(columns, "FEW", 1)
    looked: list[int] = []
    real = records.values_of
    monkeypatch.setattr(records, "values_of", lambda texts: (looked.append(len(texts)), real(texts))[1])

    async def main() -> None:
        async with Night(tmp_path) as night:
            assert (await night.run(campaign(tmp_path, 2))).exit_code == 0
            watcher = AtStart(lambda _live: looked.append(-1))
            assert (await night.run(campaign(tmp_path, 3), None, watcher)).exit_code == 0

    play(main())
    before, after = looked[: looked.index(-1)], looked[looked.index(-1) :]
    assert before.count(2) >= 2, "the ids of both jobs, and of their requests"
    assert after == [-1]


def test_who_was_asked_for_is_told_of_jobs_that_were_stored_before_as_well() -> None:
    """The ids that a run was asked for are all of them, those that have nothing left to do among them."""
    asked = AskedJobs(["a", "b", "c"], ["b"])
    assert (list(asked), len(asked), [each in asked for each in "abcd"]) == (["a", "b", "c"], 3, [True] * 3 + [False])


def test_a_row_of_a_call_that_still_waits_is_not_taken_for_its_twin(tmp_path: Path) -> None:
    """Of two blocking calls for the same video the first fails late and the second's answer is lost: bought twice."""

    async def main() -> None:
        faults, limit = {"gen_failed": 1.0, "submit_503_after": 1.0}, {"gen_failed": 1, "submit_503_after": 0}
        async with Night(tmp_path, faults=faults, fault_limit=limit, mean_s=20, sigma=0) as night:
            limits = night.provider._running.faults._limits
            reserved = 0

            def lose_the_second(event: Event) -> None:
                nonlocal reserved
                reserved += event.event is EventKind.RESERVED
                limits["submit_503_after"] = int(reserved == 2)

            made = campaign(tmp_path, 1, count=2)
            config = night.config(provider__api="v1", in_doubt__wait_s="900")
            assert (await night.run(made, config, AtStart(event=lose_the_second))).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())
