"""Whole runs in virtual time: the real engine, client and ledger against the real sandbox, hours in seconds."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import pandas as pd
import pytest
from nights import KEY, AtStart, Night, now_s, play
from support import (
    campaign,
    check_books,
    check_liability,
    durable_state,
    fast_config,
    run_once,
)
from virtual_time import VirtualClock

from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.pace import Turn
from pipeline.jobs import Job
from pipeline.ledger.events import Event
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.provider.replies import Accepted
from pipeline.runner import running
from pipeline.runner.running import run
from pipeline.runner.watching import LiveRun
from pipeline.sandbox import Sandbox, SandboxSettings


def test_a_night_keeps_to_the_rate_limit_and_fills_its_slots(tmp_path: Path) -> None:
    """100 jobs at 50 calls a minute, polls included: no 429, never more in flight than allowed, and no idle hour."""

    async def main() -> None:
        async with Night(tmp_path, rpm=50, max_in_flight=40) as night:
            made = campaign(tmp_path, 100)
            result = await night.run(made)
            assert result.exit_code == 0
            night.check(made)
            state = night.provider.state()
            assert state["max_calls_60s"] <= 50
            assert not state["rate_limited"]
            assert 30 <= state["max_in_flight"] <= 40
            assert now_s() < 0.7 * 3600

    play(main())


def test_the_cap_is_a_wall_and_the_cheaper_job_still_fits(tmp_path: Path) -> None:
    """With $7.00 and jobs of both prices, what is spent stays under it and less than the cheapest job is left over."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 10, ten_seconds=5)
            result = await night.run(made, night.config(budget__cap_usd="8.00"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "cap")
            assert night.provider.invoice()["total_usd"] == "7.00"
            posts = night.posts()
            assert (await night.run(made, night.config(budget__cap_usd="8.00"))).exit_code == 3
            assert night.posts() == posts, "a second run under the same cap sends nothing"
            assert (await night.run(made, night.config(budget__cap_usd="26.25"))).exit_code == 0
            assert night.provider.invoice()["total_usd"] == "26.25"
            night.check(made)

    play(main())


def test_what_a_removed_row_has_running_is_collected(tmp_path: Path) -> None:
    """A row that is gone from the manifest is paid all the same: the next run brings its video home."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            whole = campaign(tmp_path, 3)
            lives: list[LiveRun] = []

            def leave(event: Event) -> None:
                if event.event.value == "submitted" and lives[0].context.ledger.state.counts[JobState.SUBMITTED] == 3:
                    lives[0].context.stopping.interrupt()
                    lives[0].context.stopping.interrupt()

            assert (await night.run(whole, watcher=AtStart(lives.append, leave))).exit_code == 130
            (tmp_path / "edited").mkdir()
            result = await night.run(campaign(tmp_path / "edited", 1))
            assert (result.exit_code, result.summary["jobs"], night.posts()) == (0, 1, 3)
            night.check(whole)
            assert durable_state(night.folder).counts[JobState.STORED] == 3

    play(main())


def test_a_job_that_waits_for_its_next_try_is_not_given_up_because_a_dearer_one_does_not_fit(tmp_path: Path) -> None:
    """Under a cap for the cheaper of two jobs, its failure and retry still end with it stored, and then the cap."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 1}) as night:
            made = campaign(tmp_path, 2, ten_seconds=1)
            result = await night.run(made, night.config(budget__cap_usd="2.00"))
            assert (result.exit_code, result.summary["stopped_by"], result.summary["stored"]) == (3, "cap", 1)
            night.check(made)

    play(main())


def test_failed_generations_free_their_money_for_others(tmp_path: Path) -> None:
    """Under a cap for exactly all, a failure and its retry still end with everything stored."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 2}) as night:
            made = campaign(tmp_path, 4)
            result = await night.run(made, night.config(budget__cap_usd="7.00"))
            assert result.exit_code == 0
            assert night.posts() == 6
            night.check(made)

    play(main())


def test_nothing_starts_that_would_not_be_done_by_the_deadline(tmp_path: Path) -> None:
    """With half an hour, the last submission leaves before the expected time of a generation is all that is left."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 400)
            begun_us = night.clock.now_us()
            result = await night.run(made, night.config(stop__after="30m"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "deadline")
            last_us = max(
                event.at_us for event in read_events(night.folder / "ledger") if event.event.value == "reserved"
            )
            assert 20 * 60 < (last_us - begun_us) / 1e6 < 30 * 60 - 317
            assert result.summary["pending"] > 0
            night.check(made)

    play(main())


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_setting_the_clock_moves_no_deadline_that_counts_from_the_beginning(tmp_path: Path, jump_s: float) -> None:
    """`--for 1h` is an hour, also when the wall clock is set by an hour while the run goes on."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            night.clock = VirtualClock()  # the provider keeps its own

            def set_clock(_live: LiveRun) -> None:
                later = asyncio.get_running_loop().call_later
                later(300, lambda: setattr(night.clock, "wall_offset_s", jump_s))

            config = night.config(stop__after="1h", limits__max_in_flight="10")
            result = await night.run(campaign(tmp_path, 300), config, watcher=AtStart(set_clock))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "deadline")
            assert 50 * 60 < now_s() < 75 * 60, "no job starts that would not be done, and what runs is seen out"

    play(main())


def test_a_broken_night_stops_itself(tmp_path: Path) -> None:
    """When every generation fails, the run stops after the breaker's window instead of burning every row."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}) as night:
            made = campaign(tmp_path, 300)
            result = await night.run(made, night.config(limits__max_in_flight="10"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "failure_rate")
            assert night.posts() <= 20 + 10
            assert result.summary["posted_usd"] == "0.00"

    play(main())


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("submit_401", "API key"),
        ("submit_403", "may not use"),
        ("submit_404", "does not know"),
        ("submit_406_credits", "Top up"),
        ("submit_410", "retired"),
    ],
)
def test_the_account_stops_the_run_and_burns_no_row(tmp_path: Path, fault: str, word: str) -> None:
    """Exit 4 with the reason; after the cure the same command makes everything."""

    async def main() -> None:
        async with Night(tmp_path, faults={fault: 1.0}, fault_limit={fault: 1}) as night:
            made = campaign(tmp_path, 8)
            result = await night.run(made)
            assert result.exit_code == 4
            assert word in result.message
            assert result.summary["failed"] == 0
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_the_first_interrupt_finishes_what_runs(tmp_path: Path) -> None:
    """After one signal nothing starts, what was accepted is carried to the disk, and the next run does the rest."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 60)

            def interrupt_soon(live: LiveRun) -> None:
                asyncio.get_running_loop().call_later(30, live.context.stopping.interrupt)

            result = await night.run(made, watcher=AtStart(interrupt_soon))
            assert result.exit_code == 130
            assert result.summary["stored"] == night.posts() > 0
            assert result.summary["running"] == result.summary["in_doubt"] == 0
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_the_second_interrupt_leaves_what_runs_to_the_next_run(tmp_path: Path) -> None:
    """It waits for nobody, keeps every id, and the next run collects the same requests without a new submission."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 20)
            left_s = 0.0

            def interrupt_twice(live: LiveRun) -> None:
                nonlocal left_s
                left_s = now_s() + 60
                for delay_s in (60, 60.1):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            result = await night.run(made, watcher=AtStart(interrupt_twice))
            assert now_s() < left_s + 3
            assert result.exit_code == 130
            assert result.summary["running"] == 20
            assert result.summary["reserved_usd"] == "0.00"
            assert result.summary["in_doubt_usd"] == "35.00"
            check_liability(night.folder, night.provider.requests())
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 20
            night.check(made)

    play(main())


def test_requests_that_the_provider_has_forgotten_are_found_in_the_history(tmp_path: Path) -> None:
    """Left running and taken up three hours later, when every record has expired: no new submission, all stored."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 10)

            def leave(live: LiveRun) -> None:
                for delay_s in (60, 61):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            await night.run(made, watcher=AtStart(leave))
            await asyncio.sleep(3 * 3600)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 10
            night.check(made)

    play(main())


def test_a_restart_collects_all_that_has_ended_before_it_starts_anything_new(tmp_path: Path) -> None:
    """Twelve are left running and end meanwhile: the next run has their results before it spends on twelve more."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 24)

            def leave(live: LiveRun) -> None:
                for delay_s in (60, 61):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            await night.run(made, watcher=AtStart(leave), limit=12)
            before = night.posts()
            await asyncio.sleep(1_800)
            asked: list[int] = []
            turns: list[Turn] = []

            def watch(live: LiveRun) -> None:
                wait = live.context.pace.turn

                async def turn(kind: Turn = Turn.COLLECT) -> None:
                    turns.append(kind)
                    await wait(kind)

                live.context.pace.turn = turn  # type: ignore[method-assign]
                submit = live.context.provider.submit

                async def submitted(job: Job) -> Any:
                    asked.append(live.context.provider.calls["result"])
                    return await submit(job)

                live.context.provider.submit = submitted  # type: ignore[method-assign]

            assert (await night.run(made, watcher=AtStart(watch))).exit_code == 0
            assert (before, night.posts()) == (12, 24)
            assert min(asked) >= 12
            assert turns[:12] == [Turn.URGENT] * 12
            night.check(made)

    play(main())


@pytest.mark.parametrize(
    "fault", ["submit_504_after", "submit_drop_after", "submit_hang_after", "submit_garbage_after"]
)
def test_a_lost_answer_is_settled_from_the_history_and_never_sent_again(tmp_path: Path, fault: str) -> None:
    """Every submission is accepted and every answer lost: all are found, and each is billed once."""

    async def main() -> None:
        async with Night(tmp_path, faults={fault: 1.0}) as night:
            made = campaign(tmp_path, 6, count=2)
            result = await night.run(made)
            assert result.exit_code == 0
            assert night.posts() == 12
            night.check(made)

    play(main())


def test_a_forgotten_request_that_the_history_does_not_show_yet_is_in_doubt_and_never_void(tmp_path: Path) -> None:
    """404 is no proof of anything: the money stays reserved until the history shows the request, days later."""

    async def main() -> None:
        async with Night(tmp_path, history_lag_s=40 * 3600) as night:
            made = campaign(tmp_path, 4)

            def leave(live: LiveRun) -> None:
                for delay_s in (60, 61):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            await night.run(made, watcher=AtStart(leave))
            for _ in range(2):
                await asyncio.sleep(10 * 3600)
                result = await night.run(made)
                assert (result.exit_code, result.summary["in_doubt"], night.posts()) == (5, 4, 4)
                assert result.summary["in_doubt_usd"] == "7.00"
            await asyncio.sleep(30 * 3600)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 4
            night.check(made)

    play(main())


def test_an_equal_request_of_somebody_else_is_not_adopted_and_forbids_to_send_again(tmp_path: Path) -> None:
    """It might be ours after all: the attempt stays in doubt for a person to settle, and nothing is bought twice."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 5
            await asyncio.sleep(3600)
            async with (
                aiohttp.ClientSession(connector=night.connect()) as somebody,
                somebody.post(
                    f"{night.provider.url}/v2/kling-2",
                    data=made.jobs[0].body,
                    headers={"x-api-key": KEY, "Content-Type": "application/json"},
                ) as answer,
            ):
                assert answer.status == 200
            await asyncio.sleep(3 * 3600)
            result = await night.run(made)
            assert (result.exit_code, result.summary["in_doubt"]) == (5, 1)
            assert night.posts() == 2, "the lost one and somebody else's"
            [strange] = [each["request_id"] for each in night.provider.requests()]
            assert list(result.summary["why_in_doubt"].values()) == [
                f"request {strange} of the history belongs to nobody and may be this one"
            ]

    play(main())


def test_what_is_too_old_for_the_history_stays_in_doubt(tmp_path: Path) -> None:
    """A directory taken up after forty days: the history reaches back thirty, so that its silence proves nothing."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_504_after": 1.0}, history_lag_s=1e9) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made)).exit_code == 5
            await asyncio.sleep(40 * 24 * 3600)
            result = await night.run(made)
            assert (result.exit_code, result.summary["in_doubt"], night.posts()) == (5, 2, 2)
            assert set(result.summary["why_in_doubt"].values()) == {"it is older than the history reaches"}

    play(main())


def test_doubt_with_a_known_name_is_settled_at_any_age(tmp_path: Path) -> None:
    """Its record had expired and the history was late; forty days later its row is asked for by its name."""

    async def main() -> None:
        async with Night(tmp_path, history_lag_s=2 * 3600) as night:
            made = campaign(tmp_path, 1)

            def leave(live: LiveRun) -> None:
                for delay_s in (60, 61):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            await night.run(made, watcher=AtStart(leave))
            await asyncio.sleep(4000)
            left = (await night.run(made)).summary
            assert left["in_doubt"] == 1
            assert re.fullmatch(
                r"the history does not show request [0-9a-f-]{36} yet", *left["why_in_doubt"].values()
            ), "by its name, for whoever asks the provider"
            await asyncio.sleep(40 * 24 * 3600)
            result = await night.run(made)
            assert (result.summary["in_doubt"], result.summary["posted_usd"], night.posts()) == (0, "1.75", 1)
            assert result.summary["why_in_doubt"] == {}

    play(main())


def test_a_slip_of_the_provider_puts_no_young_request_in_doubt(tmp_path: Path) -> None:
    """A 404 long before the hour, with a history that shows nothing yet: it is simply asked again."""

    async def main() -> None:
        async with Night(tmp_path, faults={"poll_404": 1.0}, history_lag_s=1e6) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 0
            assert not [event for event in read_events(night.folder / "ledger") if event.event.value == "in_doubt"]
            assert night.provider.state()["faults_fired"]["poll_404"] == 3

    play(main())


def test_doubt_that_the_history_does_not_settle_in_time_ends_with_exit_5(tmp_path: Path) -> None:
    """With a history half an hour late the run waits five minutes, says so, and the next one settles it."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_504_after": 1.0}, history_lag_s=1800) as night:
            made = campaign(tmp_path, 3)
            result = await night.run(made)
            assert result.exit_code == 5
            assert result.summary["in_doubt"] == 3
            assert result.summary["in_doubt_usd"] == "5.25"
            late = "the history does not list it yet, and may do so up to 2 h 00 min late"
            assert list(result.summary["why_in_doubt"].values()) == [late] * 3
            for each in pd.read_csv(night.folder / "report/errors.csv")["next"]:
                assert each.endswith(f"When the last run ended, {late}.")
            assert now_s() < 900
            await asyncio.sleep(1800)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_the_patience_with_the_history_is_one_for_the_whole_run(tmp_path: Path) -> None:
    """What is settled and doubted again does not renew it: the run ends after five minutes with exit 5."""
    sweeps: list[float] = []

    async def settled_now_and_then(_dispatcher: Dispatcher) -> bool:
        sweeps.append(now_s())
        return len(sweeps) % 2 == 0 and len(sweeps) < 4_000

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_504_after": 1.0}, history_lag_s=1e6) as night:
            with patch.object(Dispatcher, "settle_once", settled_now_and_then):
                assert (await night.run(campaign(tmp_path, 1))).exit_code == 5
            assert 300 <= now_s() < 600

    play(main())


def test_what_never_arrived_is_sent_again_only_after_two_late_sweeps(tmp_path: Path) -> None:
    """Absence counts only two hours after the attempt; then one new submission is made, and one bill."""

    async def main() -> None:
        sweeps_s: list[float] = []

        def note(instant: str, _facts: dict[str, Any]) -> None:
            if instant == "history_reply_sent":
                sweeps_s.append(now_s())

        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 3}
        async with Night(tmp_path, faults=faults, fault_limit=limit, on_event=note) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 5
            await asyncio.sleep(3600)
            assert (await night.run(made)).exit_code == 5
            assert night.posts() == 3, "an hour is too soon to believe that it never arrived"
            await asyncio.sleep(3600)
            late_s = now_s()
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 6
            # The history is empty, so that a sweep is one page: two pages are two sweeps.
            assert len([moment for moment in sweeps_s if moment >= late_s]) >= 2
            night.check(made)

    play(main())


def test_doubt_blocks_its_own_job_only(tmp_path: Path) -> None:
    """One lost answer and a late history: all the other jobs are made meanwhile."""

    async def main() -> None:
        faults, limit = {"submit_504_after": 1.0}, {"submit_504_after": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit, history_lag_s=100_000) as night:
            made = campaign(tmp_path, 30)
            result = await night.run(made)
            assert result.exit_code == 5
            assert (result.summary["stored"], result.summary["in_doubt"]) == (29, 1)

    play(main())


def test_a_charge_above_its_quote_raises_the_quote_of_all_that_follows(tmp_path: Path) -> None:
    """The cap is passed by at most the excess of what was in flight when the first such charge came."""

    async def main() -> None:
        async with Night(tmp_path, faults={"cost_above_quote": 1.0}) as night:
            made = campaign(tmp_path, 40)
            config = night.config(budget__cap_usd="35.00", limits__max_in_flight="4")
            result = await night.run(made, config)
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "cap")
            assert night.provider.invoice()["total_microusd"] <= 35_000_000 + 4 * 1_750_000
            check_books(night.folder, night.provider.invoice())
            quotes = [event.quote_microusd for event in read_events(night.folder / "ledger") if event.quote_microusd]
            assert quotes[0] == 1_750_000
            assert quotes[-1] == 3_500_000
            exceeded = quotes.count(1_750_000)
            assert result.summary["above_quotes_usd"] == f"{exceeded * 1.75:.2f}", "and the bill is explained"

    play(main())


@pytest.mark.parametrize("fault", ["cost_missing", "cost_garbage", "result_no_url"])
def test_what_the_result_leaves_out_is_asked_of_the_history(tmp_path: Path, fault: str) -> None:
    """A missing charge or URL costs a free question, and the books are right all the same."""

    async def main() -> None:
        async with Night(tmp_path, faults={fault: 1.0}) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_a_video_that_cannot_be_had_today_is_paid_once_and_fetched_tomorrow(tmp_path: Path) -> None:
    """Bad downloads are downloaded again, never bought again; what is left is `unfetched`, exit 5, and free later."""

    async def main() -> None:
        faults, limit = {"file_404": 1.0}, {"file_404": 10}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 1)
            result = await night.run(made)
            assert result.exit_code == 5
            assert (result.summary["unfetched"], result.summary["posted_usd"]) == (1, "1.75")
            await asyncio.sleep(24 * 3600)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 1
            night.check(made)

    play(main())


def test_a_provider_that_is_not_there_stops_the_run_after_minutes_with_nothing_in_doubt(tmp_path: Path) -> None:
    """A refused connection proves that nothing was sent: the money is free again, exit 6, and all rows are pending."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 5)
            config = night.config()
        result = await run(made, config, night.folder, key=KEY, clock=night.clock)
        assert result.exit_code == 6
        assert 600 < now_s() < 2 * 3600
        assert (result.summary["pending"], result.summary["failed"]) == (5, 0)
        assert result.summary["in_doubt_usd"] == result.summary["posted_usd"] == "0.00"

    play(main())


def test_a_rate_limit_that_is_lower_than_configured_slows_the_run_and_fails_no_job(tmp_path: Path) -> None:
    """429 pauses everything until the reset; no row fails, and nothing is billed twice."""

    async def main() -> None:
        async with Night(tmp_path, rpm=20) as night:
            made = campaign(tmp_path, 20)
            result = await night.run(made)
            assert result.exit_code == 0
            assert night.provider.state()["rate_limited"] > 0
            night.check(made)

    play(main())


def test_a_ledger_that_cannot_be_written_stops_every_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC at the 20th commit: exit 6, no POST after it, and after the cure the run goes on with the same bill."""
    from pipeline.ledger import segments

    write_segment = segments.write_segment
    commits = itertools.count(1)

    def full(*arguments: Any) -> Any:
        if next(commits) >= 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_segment(*arguments)

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 30)
            monkeypatch.setattr(segments, "write_segment", full)
            result = await night.run(made)
            assert result.exit_code == 6
            assert "No space left" in result.message
            intents = [event for event in read_events(night.folder / "ledger") if event.event.value == "reserved"]
            assert night.posts() == len(intents) < 30, "no POST without a durable intent"
            check_liability(night.folder, night.provider.requests())
            monkeypatch.setattr(segments, "write_segment", write_segment)
            await asyncio.sleep(3 * 3600)
            for _ in range(3):
                result = await night.run(made)
                await asyncio.sleep(3600)
            assert result.exit_code == 0
            night.check(made)

    play(main())


def test_a_provider_that_says_only_429_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    """Two hours of refusals: a call every two minutes at last, no row failed, no money held."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_429": 1.0}) as night:
            made = campaign(tmp_path, 50)
            result = await night.run(made, night.config(stop__after="125m"))
            assert (result.exit_code, result.summary["stopped_by"]) == (3, "deadline")
            assert night.posts() < 75
            assert (result.summary["pending"], result.summary["in_doubt_usd"]) == (50, "0.00")

    play(main())


def test_a_provider_that_says_only_429_for_more_than_a_day_needs_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run waits for ever: it ends with exit 4, nothing burnt, and goes on after the cure."""
    monkeypatch.setattr(running, "HOUSEKEEPING_S", 6 * 3600)

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_429": 1.0}) as night:
            made = campaign(tmp_path, 3)
            result = await night.run(made, night.config(retry__max_delay_s="3600"))
            assert (result.exit_code, result.summary["failed"], result.summary["pending"]) == (4, 0, 3)
            assert 24 * 3600 < now_s() < 27 * 3600
            night.provider._running.faults._active["submit"] = []
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_a_generation_without_end_is_left_to_the_next_run(tmp_path: Path) -> None:
    """When neither the record nor the history knows an end after the time to give up, the run ends all the same."""

    async def main() -> None:
        async with Night(tmp_path, mean_s=100_000, record_ttl_s=1e6) as night:
            made = campaign(tmp_path, 3)
            result = await night.run(made)
            assert (result.exit_code, result.summary["running"]) == (5, 3)
            assert 2 * 3600 < now_s() < 2.2 * 3600, "twice `polling.give_up_s`"
            check_liability(night.folder, night.provider.requests())
            await asyncio.sleep(200_000)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_a_generation_of_more_than_an_hour_is_waited_for(tmp_path: Path) -> None:
    """From an hour on the history is asked for its end, and the request as before."""

    async def main() -> None:
        async with Night(tmp_path, mean_s=5_000, record_ttl_s=1e6) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


@pytest.mark.parametrize("jump_s", [1.2 * 3600, 365 * 24 * 3600])
def test_what_runs_is_collected_also_when_the_clock_was_set_forward(tmp_path: Path, jump_s: float) -> None:
    """Between two runs: it seems to be hours old, or a year, and ends in minutes."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            night.clock = VirtualClock()  # the provider keeps its own
            made = campaign(tmp_path, 4)

            def leave(live: LiveRun) -> None:
                for delay_s in (100, 101):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            assert (await night.run(made, watcher=AtStart(leave))).exit_code == 130
            night.clock.wall_offset_s = jump_s
            await asyncio.sleep(30)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 4

    play(main())


@pytest.mark.parametrize("body", ["video", "json"])
def test_the_blocking_api_makes_the_same_books(tmp_path: Path, body: str) -> None:
    """v1 answers with the video itself or with its URL: either way it is stored, and paid once."""

    async def main() -> None:
        async with Night(tmp_path, v1_body=body) as night:
            made = campaign(tmp_path, 6, ten_seconds=2)
            result = await night.run(made, night.config(provider__api="v1"))
            assert result.exit_code == 0
            night.check(made)

    play(main())


@pytest.mark.parametrize("fault", ["submit_504_after", "submit_drop_after"])
def test_a_blocking_call_whose_answer_is_lost_is_found_in_the_history(tmp_path: Path, fault: str) -> None:
    """The video was made and billed: it is collected, not made again."""

    async def main() -> None:
        async with Night(tmp_path, faults={fault: 1.0}) as night:
            made = campaign(tmp_path, 3)
            result = await night.run(made, night.config(provider__api="v1"))
            assert result.exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_jobs_that_failed_for_good_get_a_new_allowance_when_it_is_granted(tmp_path: Path) -> None:
    """Four failures give a job up, exit 1; --retry-failed tries it anew."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 4}) as night:
            made = campaign(tmp_path, 1)
            result = await night.run(made)
            assert (result.exit_code, result.summary["failed"], night.posts()) == (1, 1, 4)
            assert (await night.run(made)).exit_code == 1
            assert night.posts() == 4
            assert (await night.run(made, retry_classes=frozenset({"server_error"}))).exit_code == 1
            assert (await night.run(made, retry_classes=frozenset({"generation_failed"}))).exit_code == 0
            assert night.posts() == 5
            night.check(made)

    play(main())


def test_a_retry_is_granted_to_the_named_rows_and_classes_alone(tmp_path: Path) -> None:
    """Of three that failed, one is named: it alone is tried anew, and only for its class; later runs grant none."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_400": 1.0}, fault_limit={"submit_400": 3}) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).summary["failed"] == 3
            one, all_classes = frozenset({"row-1"}), frozenset[str]()
            await night.run(made, ids=one, retry_classes=frozenset({"generation_failed"}))
            assert night.posts() == 3
            assert (await night.run(made, ids=one, retry_classes=frozenset({"bad_request"}))).exit_code == 0
            assert night.posts() == 4
            last = await night.run(made)
            assert (last.exit_code, last.summary["failed"], night.posts()) == (1, 2, 4)
            granted = [event.job_id for event in read_events(night.folder / "ledger") if event.event == "retry_granted"]
            assert granted == [made.jobs[1].job_id]
            by_id = frozenset({made.jobs[2].job_id})
            await night.run(made, ids=by_id, retry_classes=all_classes)
            assert (night.posts(), durable_state(night.folder).counts[JobState.STORED]) == (5, 2)
            night.check(made)

    play(main())


def test_an_answer_with_the_id_of_another_job_is_doubt_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two submissions with one request id: the second is in doubt, and the history finds its own."""
    from pipeline.provider.client import Client

    submit = Client.submit
    first: list[Accepted] = []

    async def confused(client: Client, job: Job) -> Any:
        reply = await submit(client, job)
        assert isinstance(reply, Accepted)
        first.append(reply)
        return first[0] if len(first) == 2 else reply

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 3)
            monkeypatch.setattr(Client, "submit", confused)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_a_row_that_was_refused_is_tried_again_when_a_person_says_so(tmp_path: Path) -> None:
    """A refused value fails its row at once, exit 1; granted a retry, it is really sent again."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_400": 1.0}, fault_limit={"submit_400": 1}) as night:
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 1
            assert (await night.run(made, retry_classes=frozenset())).exit_code == 0
            assert night.posts() == 2
            night.check(made)

    play(main())


def test_a_limit_starts_so_many_and_no_more(tmp_path: Path) -> None:
    """`--limit 3` makes three, the retries of these included, and says that there is more."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 1}) as night:
            made = campaign(tmp_path, 5)
            result = await night.run(made, limit=3)
            assert (result.exit_code, result.summary["stopped_by"], result.summary["stored"]) == (3, "limit", 3)
            assert durable_state(night.folder).counts[JobState.STORED] == 3

    play(main())


async def test_two_runs_at_once_on_one_directory_are_one_too_many(tmp_path: Path) -> None:
    """The second is refused before it sends anything."""
    from pipeline.kernel.errors import RunDirectoryError

    async with Sandbox(SandboxSettings(clips="tiny", mean_s=0.5)) as provider:
        made, config = campaign(tmp_path, 2), fast_config(provider.url)
        first = asyncio.create_task(run_once(made, config, tmp_path / "run"))
        await asyncio.sleep(0.3)
        with pytest.raises(RunDirectoryError, match="has held it since"):
            await run_once(made, config, tmp_path / "run")
        assert (await first).exit_code == 0


@pytest.mark.parametrize("settle_after_s", [120, 140, 160, 280, 285, 290])
def test_doubt_that_the_background_settles_last_is_gone_on_with(tmp_path: Path, settle_after_s: int) -> None:
    """Whichever of the two sweeps settles the only doubt of a run, its job is made, and no cap is blamed."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            config = night.config(in_doubt__settle_after_s=str(settle_after_s), in_doubt__wait_s="900")
            result = await night.run(campaign(tmp_path, 1), config)
            assert (result.exit_code, night.posts()) == (0, 2), result.message

    play(main())


def test_what_the_cap_leaves_is_explained_where_a_charge_was_above_its_quote(tmp_path: Path) -> None:
    """By the list price there would be room for one more; amounts have their thousands apart."""

    async def main() -> None:
        async with Night(tmp_path, prices_microusd={5: 3_500_000, 10: 3_500_000}) as night:
            made, config = campaign(tmp_path, 3), night.config(budget__cap_usd="6.00")
            await night.run(made, config, limit=1)
            done = await night.run(made, config)
            assert (done.exit_code, done.message) == (
                3,
                "the cap of $6.00 leaves $2.50; the next job needs $3.50 "
                "(5 s was charged $3.50 here; its list price is $1.75)",
            )
            floor = night.config(budget__cap_usd="60", budget__stop_below_credits_usd="2000000")
            assert "are below the floor of $2,000,000.00" in (await night.run(made, floor)).message

    play(main())
