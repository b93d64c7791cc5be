"""What it takes to believe that an attempt never arrived: late sweeps, honest clocks, and an account that agrees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from nights import AtStart, Night, now_s, play
from support import campaign, durable_state
from virtual_time import VirtualClock

from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event
from pipeline.ledger.reading import read_events
from pipeline.manifest import load_manifest
from pipeline.provider.client import Client
from pipeline.provider.replies import Unavailable
from pipeline.settling import _resolve

HOUR_S = 3600.0
YEAR_S = 365.25 * 24 * HOUR_S


@pytest.mark.parametrize("charge_at", ["accept", "complete"])
def test_a_history_later_than_anybody_expects_costs_no_second_bill(tmp_path: Path, charge_at: str) -> None:
    """Six hours of lag, three times the wait: the balance shows that money is gone, so nothing is sent again."""

    async def main() -> None:
        faults, limit = {"submit_504_after": 1.0}, {"submit_504_after": 2}
        async with Night(
            tmp_path, faults=faults, fault_limit=limit, history_lag_s=6 * HOUR_S, charge_at=charge_at
        ) as night:
            made = campaign(tmp_path, 5)
            for _ in range(5):
                assert (await night.run(made)).exit_code == 5
                assert night.posts() == 5
                await asyncio.sleep(HOUR_S)
            await asyncio.sleep(HOUR_S)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 5
            night.check(made)

    play(main())


def test_an_account_that_was_topped_up_or_never_told_leaves_it_to_the_history(tmp_path: Path) -> None:
    """Without a balance to go by, two late sweeps decide, and the ledger says that they decided alone."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 1)
            await night.run(made)
            night.provider._running.state._credits += 50_000_000
            await asyncio.sleep(3 * HOUR_S)
            assert (await night.run(made)).exit_code == 0
            evidence = [event.detail for event in read_events(night.folder / "ledger") if event.event == "voided"]
            assert len(evidence) == 1
            assert "absent from 2 complete sweeps" in (evidence[0] or "")
            assert "the balance cannot tell" in (evidence[0] or "")
            night.check(made)

    play(main())


@pytest.mark.parametrize("listed", [0, 3], ids=["an empty one", "one that lacks a row"])
def test_a_history_that_lacks_what_was_surely_accepted_is_no_witness(tmp_path: Path, listed: int) -> None:
    """Another account's, or one that stands still: nothing is sent again, and the log says why."""
    history = Client.history

    async def some_of_it(client: Client, *query: Any) -> Any:
        rows = await history(client, *query)
        known = [row for row in rows if row.request_id in known_ids]
        return known[:listed]

    async def rich(_client: Client) -> MicroUsd:
        return MicroUsd(500_000_000)

    known_ids: set[str] = set()

    async def main() -> None:
        faults, limit = {"submit_drop_after": 1.0}, {"submit_drop_after": 1}
        money = 100_000_000
        async with Night(
            tmp_path, faults=faults, fault_limit=limit, history_lag_s=1800, credits_microusd=money
        ) as night:
            made = campaign(tmp_path, 5)
            assert (await night.run(made)).exit_code == 5
            known_ids.update(durable_state(night.folder).request_ids)
            await asyncio.sleep(3 * HOUR_S)
            with patch.object(Client, "history", some_of_it), patch.object(Client, "credits", rich):
                result = await night.run(made)
            assert (result.exit_code, night.posts()) == (5, 5)
            [why] = result.summary["why_in_doubt"].values()
            assert why.endswith("which was surely accepted: it may be another account's")
            assert "nor does it list" in (night.folder / "run.log").read_text()
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 5
            night.check(made)

    play(main())


@pytest.mark.parametrize("behind", [404, 400], ids=["that ends with 404", "whose end cannot be read"])
def test_what_a_history_shows_is_settled_however_it_ends(tmp_path: Path, behind: int) -> None:
    """Lost answers whose rows stand on its first page are settled; what never arrived, only if it was read whole."""
    history = Client.history

    async def ends(client: Client, page: int, *query: Any) -> Any:
        rows = await history(client, page, *query)
        return Unavailable("Invalid page.", behind) if page > 1 and rows == [] else rows

    async def main() -> None:
        faults = {"submit_504_after": 1.0, "submit_drop_before": 1.0}
        limit = {"submit_504_after": 2, "submit_drop_before": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 4)
            with patch.object(Client, "history", ends):
                result = await night.run(made)
                assert (result.summary["stored"], result.summary["in_doubt"], night.posts()) == (3, 1, 4)
                await asyncio.sleep(3 * HOUR_S)
                result = await night.run(made)
            if behind == 404:
                assert (result.exit_code, night.posts()) == (0, 5)
                night.check(made)
            else:
                assert (result.exit_code, night.posts()) == (5, 4)
                whole = "the account's history could not be read whole"
                assert list(result.summary["why_in_doubt"].values()) == [whole]

    play(main())


def test_a_name_that_only_a_person_gave_asks_nothing_of_the_history(tmp_path: Path) -> None:
    """A mistyped one is never listed: what never arrived is found absent all the same."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 2}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 5
            await asyncio.sleep(HOUR_S)
            await _resolve(night.folder, "row-0", "mistyped-by-a-person", None, night.clock)
            await asyncio.sleep(2 * HOUR_S)
            result = await night.run(made)
            assert (result.exit_code, result.summary["in_doubt"], result.summary["stored"]) == (5, 1, 2)

    play(main())


@pytest.mark.parametrize("jump_s", [3 * HOUR_S, 25 * HOUR_S, 10 * YEAR_S, -HOUR_S, -10 * YEAR_S])
@pytest.mark.parametrize("when", ["between runs", "within a run"])
def test_a_clock_that_is_set_makes_no_attempt_older_than_it_is(tmp_path: Path, jump_s: float, when: str) -> None:
    """A history three hours late and a clock that jumps: whatever this machine believes, nothing is bought twice."""

    async def main() -> None:
        faults, limit = {"submit_504_after": 1.0}, {"submit_504_after": 1}
        # No credits: the balance must not be what saves it.
        async with Night(tmp_path, faults=faults, fault_limit=limit, history_lag_s=1.5 * HOUR_S) as night:
            night.provider._running.state._credits = 10**15
            night.clock = VirtualClock()

            def jump(event: Event) -> None:
                night.provider._running.state._credits += 10**9
                if when == "within a run" and event.event == "in_doubt":
                    night.clock.wall_offset_s = jump_s

            made = campaign(tmp_path, 3)
            watcher = AtStart(event=jump)
            config = night.config(in_doubt__wait_s="1200")
            assert (await night.run(made, config, watcher)).exit_code == 5
            night.clock.wall_offset_s = jump_s
            await asyncio.sleep(1200)
            await night.run(made, config, watcher)
            assert night.posts() == 3, "not two hours have passed, whatever the clock says"
            assert now_s() < 1.4 * HOUR_S
            await asyncio.sleep(HOUR_S)
            await night.run(made, config, watcher)
            assert night.posts() == 3
            night.clock.wall_offset_s = 0.0
            assert (await night.run(made, config, watcher)).exit_code == 0
            assert night.posts() == 3
            night.check(made)

    play(main())


def test_a_clock_that_is_years_ahead_from_the_start_finds_its_lost_answers(tmp_path: Path) -> None:
    """The provider's own time, from its answers, says where in the history to look."""

    async def main() -> None:
        faults, limit = {"submit_504_after": 1.0}, {"submit_504_after": 2}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            night.clock = VirtualClock()
            night.clock.wall_offset_s = 10 * YEAR_S
            made = campaign(tmp_path, 4)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 4
            night.check(made)

    play(main())


def test_a_clock_that_is_set_in_the_middle_is_noted_before_the_next_attempt(tmp_path: Path) -> None:
    """An attempt that begins after the jump, while another runs: its lost answer is found all the same."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_504_after": 1.0}, fault_limit={"submit_504_after": 0}) as night:
            night.clock = VirtualClock()
            lost = night.provider._running.faults._limits

            def jump(event: Event) -> None:
                if event.event == "posted":
                    night.clock.wall_offset_s = 5 * HOUR_S
                    lost["submit_504_after"] = 1

            config = night.config(limits__max_in_flight="1")
            # The second begins as soon as the first is finished, before it is posted; the third after the jump.
            assert (await night.run(campaign(tmp_path, 3), config, AtStart(event=jump))).exit_code == 0
            story = [event.event.value for event in read_events(night.folder / "ledger")]
            assert story.count("account") == 2
            assert story.count("in_doubt") == 1
            assert night.posts() == 3

    play(main())


def test_the_ledger_keeps_what_the_account_held_before_the_first_attempt(tmp_path: Path) -> None:
    """One free look at the balance stands in front of every reservation of a run."""

    async def main() -> None:
        async with Night(tmp_path, credits_microusd=100_000_000) as night:
            await night.run(campaign(tmp_path, 2))
            story = [event.event.value for event in read_events(night.folder / "ledger")]
            assert story[:3] == ["run_started", "account", "reserved"]
            account = read_events(night.folder / "ledger")[1]
            assert '"balance_microusd":100000000' in (account.detail or "")

    play(main())


def test_doubt_of_rows_that_were_edited_since_is_explained_where_it_ends_a_run_with_5(tmp_path: Path) -> None:
    """No count of the manifest shows it: the message, and so a webhook, says whose it is, and the summary how much."""

    async def main() -> None:
        faults, limit = {"submit_504_after": 1.0}, {"submit_504_after": 2}
        async with Night(tmp_path, faults=faults, fault_limit=limit, history_lag_s=6 * HOUR_S) as night:
            made = campaign(tmp_path, 2)
            first = await night.run(made)
            assert (first.exit_code, first.summary["in_doubt"], first.message) == (5, 2, "")
            manifest = tmp_path / "campaign.jsonl"
            manifest.write_text(manifest.read_text().replace("lamps", "mugs"))
            second = await night.run(load_manifest(manifest))
            assert (second.exit_code, second.summary["stored"], second.summary["in_doubt"]) == (5, 2, 0)
            assert second.message == "jobs that the manifest no longer asks for are left: 2 in doubt"
            others = second.summary["no_longer_asked"]
            assert (others["jobs"], others["in_doubt"], others["posted_usd"]) == (2, 2, "0.00")
            assert others["in_doubt_usd"] == second.summary["in_doubt_usd"] == "3.50"

    play(main())
