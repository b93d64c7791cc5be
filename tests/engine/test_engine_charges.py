"""What a finished generation is booked at: the cap holds, whatever result and history say or leave out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from nights import AtStart, Night, play
from support import campaign, check_books, durable_state

from pipeline.engine.charges import charge_to_book
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.reading import read_events
from pipeline.provider.client import Client, Delivered
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired, Finished
from pipeline.runner.watching import LiveRun

QUOTE = 1_750_000
ENOUGH_FOR_TWO = "3.50"


def row(cost: int | None, status: str = "COMPLETED") -> HistoryRow:
    return HistoryRow("request-1", status, None if cost is None else MicroUsd(cost), None, "", None, ())


@pytest.mark.parametrize(
    ("stated", "shown", "booked"),
    [
        (QUOTE, None, QUOTE),
        (None, None, QUOTE),
        (None, row(QUOTE), QUOTE),
        (None, row(None), QUOTE),
        (None, row(0), QUOTE),
        (0, row(0), QUOTE),
        (0, row(0, "PENDING"), QUOTE),
        (None, row(500_000, "PENDING"), QUOTE),
        (None, row(2_000_000, "PENDING"), 2_000_000),
        (None, row(0, "FAILED"), 0),
        (None, row(1_400_000), 1_400_000),
        (1_400_000, None, 1_400_000),
        (17_500, None, QUOTE),
        (17_500, row(0), QUOTE),
        (17_500, row(17_500), 17_500),
        (1_400_000, row(1_400_000), 1_400_000),
        (1_400_000, row(0), 1_400_000),
        (1_400_000, row(0, "FAILED"), 1_400_000),
        (1_400_000, row(1_400_000, "PENDING"), 1_400_000),
        (17_500, row(QUOTE), QUOTE),
        (17_500, row(2_000_000), 2_000_000),
        (1_400_000, row(17_500), 1_400_000),
        (3_500_000, None, 3_500_000),
        (3_500_000, row(0), 3_500_000),
        (3_500_000, row(QUOTE), QUOTE),
        (3_500_000, row(3_500_000), 3_500_000),
    ],
)
def test_of_what_may_have_been_charged_the_most_is_booked(
    stated: int | None, shown: HistoryRow | None, booked: int
) -> None:
    """A zero is free only for a failure; less than the quote counts once the history confirms it."""
    cost, note = charge_to_book(None if stated is None else MicroUsd(stated), QUOTE, shown)
    assert cost == booked
    assert (note is None) == (cost == stated), "what is booked against the result's word is said"


def saying(cost: int | None) -> Any:
    """Patches by which every answer to a generation states that charge."""
    stated = None if cost is None else MicroUsd(cost)
    result, submit_blocking = Client.result, Client.submit_blocking

    async def says(client: Client, request_id: str) -> Any:
        reply = await result(client, request_id)
        return replace(reply, cost=stated) if isinstance(reply, Finished) else reply

    async def delivers(client: Client, job: Any) -> Any:
        reply = await submit_blocking(client, job)
        if isinstance(reply, Delivered):
            reply.finished = replace(reply.finished, cost=stated)
        return reply

    return patch.multiple(Client, result=says, submit_blocking=delivers)


def showing(change: Callable[[HistoryRow], HistoryRow | Expired]) -> Any:
    """A patch by which the history shows the row of one request otherwise."""
    history_one: Callable[..., Awaitable[Any]] = Client.history_one

    async def shows(client: Client, request_id: str) -> Any:
        found = await history_one(client, request_id)
        return change(found) if isinstance(found, HistoryRow) else found

    return patch.object(Client, "history_one", shows)


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.parametrize("status", ["PENDING", "COMPLETED"])
@pytest.mark.parametrize("stated", [None, 0])
def test_a_charge_that_nobody_has_booked_yet_is_not_free(
    tmp_path: Path, api: str, status: str, stated: int | None
) -> None:
    """Neither the result nor the history says more than zero: the quote is booked, and the cap stops the run."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            config = night.config(budget__cap_usd=ENOUGH_FOR_TWO, provider__api=api)
            with saying(stated), showing(lambda found: replace(found, status=status, cost=MicroUsd(0))):
                result = await night.run(campaign(tmp_path, 4), config)
            assert (result.exit_code, result.summary["stopped_by"], night.posts()) == (3, "cap", 2)
            check_books(night.folder, night.provider.invoice())
            said = {event.detail for event in read_events(night.folder / "ledger") if event.event == "posted"}
            assert said == {"booked at the quote: the result did not say it, and the history confirms no charge yet"}

    play(main())


def test_a_zero_in_the_history_alone_is_not_free(tmp_path: Path) -> None:
    """Two hours after a run was left, its records are gone and the history has not booked them: the cap holds."""

    def leave(live: LiveRun) -> None:
        for _ in range(2):
            asyncio.get_running_loop().call_later(60, live.context.stopping.interrupt)

    async def main() -> None:
        async with Night(tmp_path) as night:
            made, config = campaign(tmp_path, 4), night.config(budget__cap_usd=ENOUGH_FOR_TWO)
            assert (await night.run(made, config, watcher=AtStart(leave))).summary["running"] == 2
            await asyncio.sleep(2 * 3600)
            with showing(lambda found: replace(found, cost=MicroUsd(0))):
                result = await night.run(made, config)
            assert (result.exit_code, result.summary["stopped_by"], night.posts()) == (3, "cap", 2)
            check_books(night.folder, night.provider.invoice())

    play(main())


@pytest.mark.parametrize("is_listed", [True, False], ids=["the history is right", "the history is late"])
def test_a_result_that_states_too_little_does_not_pass_the_cap(tmp_path: Path, *, is_listed: bool) -> None:
    """A hundredth of the price is believed only if the history says so too."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            config = night.config(budget__cap_usd=ENOUGH_FOR_TWO)
            with saying(17_500), showing(lambda found: found if is_listed else Expired()):
                result = await night.run(campaign(tmp_path, 4), config)
            assert (result.exit_code, night.posts()) == (3, 2)
            check_books(night.folder, night.provider.invoice())

    play(main())


def test_a_price_that_was_lowered_is_booked_as_it_is(tmp_path: Path) -> None:
    """The history confirms it, also where it fails now and then: the books agree with the invoice to the cent."""

    async def main() -> None:
        prices = {5: 1_400_000, 10: 2_800_000}
        async with Night(tmp_path, prices_microusd=prices, faults={"history_500": 0.3}) as night:
            made = campaign(tmp_path, 4, ten_seconds=1)
            result = await night.run(made)
            assert (result.exit_code, result.summary["posted_usd"]) == (0, "7.00")
            night.check(made)
            assert durable_state(night.folder).books.posted == 3 * 1_400_000 + 2_800_000

    play(main())


def test_what_costs_what_was_quoted_is_not_asked_about_again(tmp_path: Path) -> None:
    """The usual case takes no call more."""

    async def main() -> None:
        async with Night(tmp_path) as night:

            def ask(_found: HistoryRow) -> HistoryRow:
                raise AssertionError("the history was asked")

            with showing(ask):
                assert (await night.run(campaign(tmp_path, 2))).exit_code == 0

    play(main())
