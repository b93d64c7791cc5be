"""The last look of a run: what was accepted although the provider said that it was not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from nights import AtStart, Night, now_s, play
from support import campaign, durable_state

from pipeline.engine.matching import rows_without_owner
from pipeline.ledger.fold import Unnamed
from pipeline.provider.client import Client
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Unavailable
from pipeline.provider.values import fingerprint
from pipeline.runner.watching import LiveRun

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
BILLED_ALL_THE_SAME = {"submit_500_after": 1.0}
ONCE = {"submit_500_after": 1}


def row(request_id: str, status: str = "COMPLETED", prompt: str = "a lamp", at_us: int = NOW_US) -> HistoryRow:
    return HistoryRow(request_id, status, None, None, "", fingerprint({"prompt": prompt}), (at_us,))


def test_what_may_be_charged_and_belongs_to_nobody_is_found() -> None:
    """Of the same request and time as an attempt that failed without a name; not what failed, nor what is owned."""
    unnamed = [Unnamed('{"prompt": "a lamp"}', NOW_US)] * 2
    rows = [
        row("request-1"),
        row("request-2", "PENDING"),
        row("request-3", "FAILED"),
        row("request-4"),
        row("request-5", prompt="a mug"),
        row("request-6", at_us=NOW_US + HOUR_US),
    ]
    found = rows_without_owner(unnamed, rows, {"request-4": "a"})
    assert [each.request_id for each in found] == ["request-1", "request-2"]
    assert rows_without_owner([], rows, {}) == []


def test_a_run_that_paid_twice_unseen_says_so_once(tmp_path: Path) -> None:
    """A 500 after acceptance: exit 5 names the request, and a run that finds nothing to do ends with 0 again."""

    async def main() -> None:
        async with Night(tmp_path, faults=BILLED_ALL_THE_SAME, fault_limit=ONCE) as night:
            made = campaign(tmp_path, 2)
            result = await night.run(made)
            assert (result.exit_code, result.summary["stored"], result.summary["stopped_by"]) == (5, 2, None)
            billed = {each["request_id"] for each in night.provider.invoice()["charges"]}
            (request_id,) = billed - set(durable_state(night.folder).request_ids)
            assert f"1 request that no attempt owns ($1.75 so far: {request_id})" in result.message
            assert f"kling-batch reconcile {night.folder}" in result.message
            calls = night.provider.state()["calls"]
            assert (await night.run(made)).exit_code == 0
            assert night.provider.state()["calls"] == calls, "a run with nothing to do asks nobody"

    play(main())


def test_a_failure_that_was_none_costs_a_look_and_nothing_else(tmp_path: Path) -> None:
    """A 500 before acceptance leaves no row: exit 0."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_500": 1.0}, fault_limit={"submit_500": 2}) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_what_a_stopped_run_did_not_look_for_is_looked_for_by_the_next(tmp_path: Path) -> None:
    """A person who stops a run waits for no last look; it is made up for, once."""

    def interrupt(live: LiveRun) -> None:
        asyncio.get_running_loop().call_later(60, live.context.stopping.interrupt)

    async def main() -> None:
        async with Night(tmp_path, faults=BILLED_ALL_THE_SAME, fault_limit=ONCE) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made, watcher=AtStart(interrupt))).exit_code == 130
            assert [(await night.run(made)).exit_code for _ in range(2)] == [5, 0]

    play(main())


@pytest.mark.parametrize("takes_s", [0.0, 3600.0], ids=["it fails", "it does not answer"])
def test_a_history_that_does_not_answer_keeps_no_run_from_its_end(tmp_path: Path, takes_s: float) -> None:
    """Half a minute at most; the next run looks again."""

    async def silent(_client: Client, *_query: Any) -> Unavailable:
        await asyncio.sleep(takes_s)
        return Unavailable("HTTP 500", 500)

    async def main() -> None:
        async with Night(tmp_path, faults=BILLED_ALL_THE_SAME, fault_limit=ONCE) as night:
            made = campaign(tmp_path, 1)
            with patch.object(Client, "history", silent):
                assert (await night.run(made)).exit_code == 0
                began_s = now_s()
                assert (await night.run(made)).exit_code == 0
                assert now_s() - began_s < 35
            assert (await night.run(made)).exit_code == 5

    play(main())
