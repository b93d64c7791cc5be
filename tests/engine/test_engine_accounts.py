"""Doubt and another key: the history of another account is silent about everything, and proves nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import orjson
import pytest
from nights import KEY, Night, play
from support import campaign, durable_state

from pipeline.engine import accounts
from pipeline.ledger.events import EventKind
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.provider.secrecy import key_mark

HOUR_S = 3600.0
OTHER_KEY = "SG_fedcba9876543210"
OF_ANOTHER_KEY = "it was sent with another key, whose account this one may not see"
LOSES_ANSWERS = {"submit_drop_after": 1.0}


def accounts_of(folder: Path) -> tuple[Night, Night]:
    """Two accounts at one provider: one that can lose answers, and whose history is late; the other is empty."""
    first = Night(folder, faults=LOSES_ANSWERS, fault_limit={"submit_drop_after": 0}, history_lag_s=600)
    return first, Night(folder)


def lose_answers(night: Night, number: int) -> None:
    night.provider._running.faults._limits["submit_drop_after"] = number


@pytest.mark.parametrize("accepted", [0, 3], ids=["only doubts", "with what was accepted the day before"])
def test_the_history_of_another_account_proves_no_absence(tmp_path: Path, accepted: int) -> None:
    """Its key was changed after answers were lost: nothing is bought again, and the reason is said."""

    async def main() -> None:
        mine, other = accounts_of(tmp_path)
        async with mine, other:
            made, config = campaign(tmp_path, accepted + 2), mine.config()
            if accepted:
                assert (await mine.run(made, config, limit=accepted)).summary["stored"] == accepted
                await asyncio.sleep(20 * HOUR_S)
            lose_answers(mine, 2)
            assert (await mine.run(made, config)).summary["in_doubt"] == 2
            await asyncio.sleep(3 * HOUR_S)
            other.key = OTHER_KEY
            for _ in range(2):
                result = await other.run(made, config)
                assert (result.exit_code, result.summary["in_doubt"], other.posts()) == (5, 2, 0)
                assert set(result.summary["why_in_doubt"].values()) == {OF_ANOTHER_KEY}
            assert (await mine.run(made, config)).exit_code == 0
            assert mine.posts() == accepted + 2
            mine.check(made)

    play(main())


def test_a_new_key_of_the_same_account_goes_on(tmp_path: Path) -> None:
    """It sees, days later, what was accepted under the old one: so what never arrived is sent again."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 0}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made, limit=1)).summary["stored"] == 1
            await asyncio.sleep(5 * 24 * HOUR_S)
            night.provider._running.faults._limits["submit_drop_before"] = 1
            assert (await night.run(made)).summary["in_doubt"] == 1
            night.key = OTHER_KEY
            await asyncio.sleep(3 * HOUR_S)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 4, "one of them never arrived"
            night.check(made)

    play(main())


def test_a_new_key_without_anything_to_hold_it_against_waits_for_a_person(tmp_path: Path) -> None:
    """Nothing was ever accepted under the old one: its account may be any."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 2}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 3)
            await night.run(made, limit=2)
            night.key = OTHER_KEY
            await asyncio.sleep(3 * HOUR_S)
            result = await night.run(made)
            assert (result.exit_code, result.summary["stored"], result.summary["in_doubt"]) == (5, 1, 2)
            night.key = KEY
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_an_attempt_of_an_earlier_version_is_taken_for_one_of_todays_key(tmp_path: Path) -> None:
    """Its ledger tells no keys apart: what never arrived is sent again as before."""

    async def main() -> None:
        faults, limit = {"submit_drop_before": 1.0}, {"submit_drop_before": 1}
        async with Night(tmp_path, faults=faults, fault_limit=limit) as night:
            made = campaign(tmp_path, 1)
            with patch("pipeline.runner.running.key_facts", lambda *_: {}):
                await night.run(made)
            assert durable_state(night.folder).key_salt is None
            await asyncio.sleep(3 * HOUR_S)
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_only_a_few_requests_of_another_key_are_asked_for(tmp_path: Path) -> None:
    """Those of the latest run first, and only such as the provider itself has named under that key."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 8)
            for key, limit in ((KEY, 2), (OTHER_KEY, 1), (KEY, 3)):
                night.key = key
                await night.run(made, limit=limit)
            state = durable_state(night.folder)
            assert state.counts[JobState.STORED] == 6
            first, other, latest = state.runs
            mark = first.facts["key_mark"]
            assert mark == latest.facts["key_mark"] != other.facts["key_mark"]
            under = [record.reserved_seq > latest.started_seq for record in accounts.accepted_under(state, mark)]
            assert under == [True] * 3 + [False] * 2
            assert len(list(accounts.accepted_under(state, other.facts["key_mark"]))) == 1

    play(main())


def test_the_ledger_tells_keys_apart_and_keeps_none(tmp_path: Path) -> None:
    """One salt for a directory's life; a mark is shorter than a key, so that nothing can be found from it."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 1)
            for key in (KEY, KEY, OTHER_KEY):
                night.key = key
                await night.run(made)
            noted = [
                orjson.loads(event.detail or "")
                for event in read_events(night.folder / "ledger")
                if event.event is EventKind.RUN_STARTED
            ]
            salts, marks = {facts["key_salt"] for facts in noted}, [facts["key_mark"] for facts in noted]
            [salt] = salts
            assert marks == [key_mark(salt, key) for key in (KEY, KEY, OTHER_KEY)]
            assert {len(mark) for mark in marks} == {8}

    play(main())


def test_two_directories_have_marks_of_their_own(tmp_path: Path) -> None:
    """What two ledgers show does not tell whether they are of one key."""

    async def main() -> None:
        marks = set()
        async with Night(tmp_path) as night:
            for name in ("one", "two"):
                night.folder = tmp_path / name
                await night.run(campaign(tmp_path, 1))
                marks.add(durable_state(night.folder).runs[0].facts["key_mark"])
        assert len(marks) == 2

    play(main())
