"""Every night ends: whatever nobody answers, waits for a turn, or comes in the very step in which it does harm."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from nights import AtStart, Night, now_s, play
from support import campaign, durable_state

from pipeline.engine.dispatcher import Dispatcher
from pipeline.jobs import Job
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.provider.client import Client
from pipeline.provider.replies import Finished, Refused, Unavailable
from pipeline.runner.ending import RunResult
from pipeline.runner.watching import LiveRun, Watcher

HOUR_S = 3600.0


async def ended(running: Any, most_s: float) -> RunResult:
    """How a run ended, if it did within so long."""
    run = asyncio.ensure_future(running)
    done, _ = await asyncio.wait([run], timeout=most_s)
    assert done, f"it goes on after {most_s:,.0f} s"
    result: RunResult = run.result()
    return result


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ({"mean_s": 30 * 24 * HOUR_S}, 5),
        ({"mean_s": 5_000.0, "faults": {"history_500": 1.0}}, 5),
        ({"mean_s": 5_000.0}, 4),
    ],
    ids=["it is listed as pending for ever", "the history fails", "the history refuses the key"],
)
def test_a_request_of_which_nobody_knows_the_end_is_left_to_the_next_run(
    tmp_path: Path, provider: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record has expired after an hour, so that polls say nothing; what is paid is not given up."""

    async def refuse(_: Client, _request_id: str) -> Refused:
        return Refused(ErrorClass.FORBIDDEN, "no access", 403)

    async def main() -> None:
        async with Night(tmp_path, sigma=0.0, **provider) as night:
            if code == 4:
                monkeypatch.setattr(Client, "history_one", refuse)
            result = await ended(night.run(campaign(tmp_path, 1)), 3 * HOUR_S)
            assert (result.exit_code, result.summary["running"] + result.summary["in_doubt"]) == (code, 1)

    play(main())


async def nothing_sent(_: Client, _job: Job) -> Refused:
    return Refused(ErrorClass.NOT_SENT, "no connection", 0)


async def no_answer(_: Client) -> Unavailable:
    return Unavailable("no connection", 0)


def test_a_network_that_is_gone_ends_a_run_that_looks_after_its_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question about the account comes each minute, and must not take the turn of each start."""

    async def main() -> None:
        monkeypatch.setattr(Client, "submit", nothing_sent)
        monkeypatch.setattr(Client, "credits", no_answer)
        async with Night(tmp_path) as night:
            config = night.config(budget__stop_below_credits_usd="5.00")
            lives = list[LiveRun]()
            result = await ended(night.run(campaign(tmp_path, 3), config, AtStart(lives.append)), HOUR_S / 2)
            assert (result.exit_code, result.summary["stopped_by"]) == (6, "machine")
            assert lives[0].context.outages.why_paused == "no connection"

    play(main())


@pytest.mark.parametrize(
    ("opening_usd", "started"), [(9, 0), (40, 18)], ids=["before the first start", "in the middle"]
)
def test_credits_below_the_floor_end_a_run_with_what_runs_brought_home(
    tmp_path: Path, opening_usd: int, started: int
) -> None:
    """Nothing new starts, exit 3 says which bound it was, and after a top-up the next run goes on."""

    async def main() -> None:
        async with Night(tmp_path, credits_microusd=opening_usd * 1_000_000, sigma=0.0) as night:
            made = campaign(tmp_path, 40)
            config = night.config(budget__stop_below_credits_usd="10.00", limits__max_in_flight="18")
            result = await night.run(made, config)
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "credits")
            assert "below the floor of $10.00" in result.message
            assert (result.summary["running"], result.summary["stored"]) == (0, night.posts())
            assert night.posts() == started, "as many as are in flight at once, within the first minutes"
            night.provider._running.state._credits += 100_000_000
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


@pytest.mark.parametrize(
    "since_s", [-1.0, 0.0, 1.0], ids=["before anything", "before the account is asked", "before the first start"]
)
@pytest.mark.parametrize(("stop", "code", "after_s"), [("deadline", 3, 400.0), ("interrupt", 130, 11.0)])
def test_no_pause_of_all_calls_keeps_a_run_from_its_end(
    tmp_path: Path, stop: str, code: int, after_s: float, since_s: float
) -> None:
    """The provider may have asked for hours of silence: a deadline and a person end a run with nothing in flight."""

    async def main() -> None:
        def quiet(live: LiveRun) -> None:
            asyncio.get_running_loop().call_later(since_s, live.context.pace.pause, 10 * HOUR_S)
            if since_s <= 0:
                live.context.pace.pause(10 * HOUR_S)
            if stop == "interrupt" and since_s < 0:
                live.context.stopping.interrupt()
            elif stop == "interrupt":
                asyncio.get_running_loop().call_later(10.0, live.context.stopping.interrupt)

        async with Night(tmp_path) as night:
            config = night.config(**({"stop__after": "10m"} if stop == "deadline" else {}))
            began_s = now_s()
            result = await ended(night.run(campaign(tmp_path, 3), config, AtStart(quiet)), HOUR_S)
            assert (result.exit_code, night.posts()) == (code, 0)
            assert now_s() - began_s <= after_s

    play(main())


@pytest.mark.parametrize(
    ("said", "code"),
    [(Refused(ErrorClass.FORBIDDEN, "bad key", 401), 4), (Refused(ErrorClass.NOT_SENT, "no connection", 0), 6)],
    ids=["a key that is refused", "no network at all"],
)
def test_what_the_question_about_the_account_finds_ends_a_run_in_order(
    tmp_path: Path, said: Refused, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for that very answer is the one that it stops: with an exit code, a last event and a report."""

    async def answer(_: Client, *_asked: Any) -> Refused:
        return said

    async def main() -> None:
        monkeypatch.setattr(Client, "credits", answer)
        monkeypatch.setattr(Client, "submit", answer)
        async with Night(tmp_path) as night:
            result = await ended(night.run(campaign(tmp_path, 2)), HOUR_S)
            assert (result.exit_code, night.posts()) == (code, 0)
            assert durable_state(night.folder).runs[-1].outcome["exit_code"] == code

    play(main())


def test_a_history_that_fails_for_a_moment_leaves_nothing_to_the_next_run(tmp_path: Path) -> None:
    """Of a run that was left three hours ago, all records have expired; the first three questions have no answer."""

    async def main() -> None:
        async with Night(tmp_path, sigma=0.0, mean_s=300.0) as night:
            made, real, asked = campaign(tmp_path, 5), Client.history_one, list[str]()

            def leave(live: LiveRun) -> None:
                for _ in range(2):
                    asyncio.get_running_loop().call_later(100.0, live.context.stopping.interrupt)

            await night.run(made, watcher=AtStart(leave))
            await asyncio.sleep(3 * HOUR_S)

            async def history_one(client: Client, request_id: str) -> Any:
                asked.append(request_id)
                return Unavailable("HTTP 503", 503) if len(asked) <= 3 else await real(client, request_id)

            with patch.object(Client, "history_one", history_one):
                result = await ended(night.run(made), HOUR_S)
            assert (result.exit_code, result.summary["stored"]) == (0, 5)

    play(main())


def test_a_limit_leaves_a_canary_its_tries(tmp_path: Path) -> None:
    """All others wait for it: cut off by the limit, it would let nobody start."""

    async def main() -> None:
        faults: dict[str, Any] = {"faults": {"gen_failed": 1.0}, "fault_limit": {"gen_failed": 1}}
        async with Night(tmp_path, sigma=0.0, mean_s=300.0, **faults) as night:

            def leave(live: LiveRun) -> None:
                for _ in range(2):
                    asyncio.get_running_loop().call_later(100.0, live.context.stopping.interrupt)

            made, config = campaign(tmp_path, 6), night.config(canary__jobs="1")
            await night.run(made, config, AtStart(leave))
            result = await ended(night.run(made, config, limit=3), 2 * HOUR_S)
            assert (result.summary["stopped_by"], result.summary["stored"]) == ("limit", 4)

    play(main())


def test_a_limit_counts_every_start(tmp_path: Path) -> None:
    """What was in doubt and has never arrived is started again only as far as the limit goes."""

    async def main() -> None:
        lost = {"submit_drop_before": 1.0}
        async with Night(tmp_path, faults=lost, fault_limit={"submit_drop_before": 6}) as night:
            made = campaign(tmp_path, 10)
            await night.run(made, limit=6)
            before = night.posts()
            await asyncio.sleep(3 * HOUR_S)
            result = await night.run(made, limit=1)
            assert (night.posts() - before, result.exit_code, result.summary["stopped_by"]) == (1, 3, "limit")
            result = await night.run(made, limit=4)
            assert (night.posts() - before, result.summary["stored"]) == (5, 5)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_a_charge_far_above_its_quote_is_held_against_the_history(tmp_path: Path) -> None:
    """Else one slip of the provider's would raise what all later jobs are reckoned at, for good."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made, real, slips = campaign(tmp_path, 6), Client.result, list[str]()

            async def result(client: Client, request_id: str) -> Any:
                reply = await real(client, request_id)
                if isinstance(reply, Finished) and not slips:
                    slips.append(request_id)
                    return replace(reply, cost=MicroUsd(175_000_000))
                return reply

            with patch.object(Client, "result", result):
                done = await night.run(made, night.config(budget__cap_usd="20", limits__max_in_flight="2"))
            assert (slips != [], done.exit_code, done.summary["above_quotes_usd"]) == (True, 0, "0.00")
            night.check(made)

    play(main())


def test_a_job_whose_money_is_gone_by_its_first_step_is_put_back(tmp_path: Path) -> None:
    """A charge above its quote may be booked between the decision and the reservation, at the edge of the cap."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            started, start = list[Job](), Dispatcher._start

            def take_the_rest(dispatcher: Dispatcher, job: Job) -> None:
                started.append(job)
                if len(started) == 3:
                    dispatcher.run.promised["another"] = MicroUsd(1_750_000)
                start(dispatcher, job)

            with patch.object(Dispatcher, "_start", take_the_rest):
                done = await night.run(campaign(tmp_path, 3), night.config(budget__cap_usd="5.25"))
            assert (len(started), done.exit_code, done.summary["stopped_by"]) == (3, 3, "cap"), done.message
            assert (done.summary["stored"], done.summary["posted_usd"]) == (2, "3.50")

    play(main())


class Noticing(Watcher):
    """Keeps what a person should know of, and how much was sent by then."""

    def __init__(self, night: Night) -> None:
        self._night = night
        self.told: list[tuple[str, int]] = []

    def notice(self, message: str) -> None:
        self.told.append((message, self._night.posts()))


@pytest.mark.parametrize(
    ("credits_usd", "cap", "told"),
    [
        (5, "100", ["credits: $5.00, $2.00 short of $7.00 for the 4 jobs that may start"]),
        (5, "5", []),
        (2, "5", ["credits: $2.00, $1.50 short of $3.50 for the 2 jobs that may start"]),
        (7, "100", []),
    ],
    ids=["too little", "enough for what the cap lets through", "not even for that", "just enough"],
)
def test_credits_that_will_not_do_are_told_before_anything_is_sent(
    tmp_path: Path, credits_usd: int, cap: str, told: list[str]
) -> None:
    """In the words of a plan, and it goes on all the same: an account may be topped up meanwhile."""

    async def main() -> None:
        async with Night(tmp_path, credits_microusd=credits_usd * 1_000_000) as night:
            watcher = Noticing(night)
            result = await night.run(campaign(tmp_path, 4), night.config(budget__cap_usd=cap), watcher)
            assert watcher.told == [(message, 0) for message in told]
            assert result.summary["stored"] == min(credits_usd, float(cap)) // 1.75

    play(main())
