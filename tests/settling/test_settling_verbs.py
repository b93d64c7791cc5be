"""Reconciling and resolving real run directories, in virtual time against the real sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from nights import KEY, AtStart, Night, play
from support import campaign, durable_state

from pipeline import settling
from pipeline.kernel.errors import InputError, RunDirectoryError
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.job import JobState
from pipeline.ledger.reading import read_events
from pipeline.ledger.store import open_ledger
from pipeline.provider.client import Client
from pipeline.runner.watching import LiveRun
from pipeline.settling import Reconciliation, _resolve, reconcile, resolve

LATE_S = 6 * 3600.0
LOST = {"submit_504_after": 1.0}


async def reconciled(night: Night, key: str = KEY) -> Reconciliation:
    with patch.object(settling, "open_provider", night.open_provider):
        return await reconcile(night.folder, night.config(), key=key, clock=night.clock)


def doubtful_night(tmp_path: Path, rows: int = 2) -> Path:
    """A run directory whose every attempt was accepted and is in doubt, since the history is hours late."""

    async def main() -> Path:
        async with Night(tmp_path, faults=LOST, history_lag_s=LATE_S, seed=3) as night:
            assert (await night.run(campaign(tmp_path, rows))).exit_code == 5
            return night.folder

    return play(main())


def test_an_undisturbed_run_agrees_with_the_history(tmp_path: Path) -> None:
    """Everything in both, to the cent, exit 0, and nothing was written."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            await night.run(campaign(tmp_path, 4, ten_seconds=1))
            before = read_events(night.folder / "ledger")
            with patch.object(settling, "each_request", side_effect=AssertionError("a large ledger is read in vain")):
                found = await reconciled(night)
            assert found.exit_code == 0
            assert found.comparison is not None
            assert (found.comparison.agreed, found.comparison.agreed_microusd) == (4, 8_750_000)
            assert read_events(night.folder / "ledger") == before

    play(main())


def test_doubt_is_settled_without_a_run_and_without_a_submission(tmp_path: Path) -> None:
    """Once the history shows the lost ones, they are booked; the next run only collects."""

    async def main() -> None:
        async with Night(tmp_path, faults=LOST, history_lag_s=LATE_S) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made)).exit_code == 5
            early = await reconciled(night)
            assert (len(early.left), early.settled, early.exit_code) == (3, (), 5)
            await asyncio.sleep(LATE_S)
            found = await reconciled(night)
            assert (len(found.settled), found.left, found.to_collect, found.exit_code) == (3, (), 3, 5)
            assert {each.state for each in found.settled} == {JobState.POSTED}
            assert night.posts() == 3
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 3
            assert (await reconciled(night)).exit_code == 0
            night.check(made)

    play(main())


def test_what_never_arrived_is_freed_without_a_run(tmp_path: Path) -> None:
    """Two late sweeps and the balance: the money is free, and the next run sends it."""

    async def main() -> None:
        faults = {"submit_drop_before": 1.0}
        async with Night(tmp_path, faults=faults, fault_limit={"submit_drop_before": 2}) as night:
            made = campaign(tmp_path, 2)
            await night.run(made)
            await asyncio.sleep(3 * 3600)
            found = await reconciled(night)
            assert {each.state for each in found.settled} == {JobState.VOIDED}
            assert found.exit_code == 0
            assert night.posts() == 2
            assert (await night.run(made)).exit_code == 0
            night.check(made)

    play(main())


def test_a_failure_that_was_billed_against_the_providers_word_is_found(tmp_path: Path) -> None:
    """A 500 that was billed all the same: paid twice, said by the run, named by reconcile, exit 5."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_500_after": 1.0}, fault_limit={"submit_500_after": 1}) as night:
            made = campaign(tmp_path, 2)
            assert (await night.run(made)).exit_code == 5
            found = await reconciled(night)
            assert found.exit_code == 5
            assert found.comparison is not None
            (charge,) = found.comparison.unknown
            assert charge.cost_microusd == 1_750_000
            assert charge.same_request_as in {job.job_id for job in made.jobs}
            billed = {each["request_id"] for each in night.provider.invoice()["charges"]}
            assert charge.request_id in billed - set(durable_state(night.folder).request_ids)

    play(main())


def test_a_failure_that_was_billed_is_found_however_long_ago_it_was(tmp_path: Path) -> None:
    """Refused and billed all the same, made again three days later: the first bill is within what is held together."""

    async def main() -> None:
        async with Night(tmp_path, faults={"submit_500_after": 1.0}, fault_limit={"submit_500_after": 3}) as night:
            made = campaign(tmp_path, 3)
            assert (await night.run(made, night.config(retry__max_attempts="1"))).exit_code == 5
            await asyncio.sleep(3 * 86_400)
            assert (await night.run(made, retry_classes=frozenset())).exit_code == 0
            for days in (0, 60):
                await asyncio.sleep(days * 86_400)
                found = await reconciled(night)
                assert found.exit_code == 5
                assert found.comparison is not None
                assert sum(charge.cost_microusd for charge in found.comparison.unknown) == 3 * 1_750_000
                assert {charge.same_request_as for charge in found.comparison.unknown} == {j.job_id for j in made.jobs}

    play(main())


def test_a_row_that_the_list_skips_is_asked_for_by_its_name(tmp_path: Path) -> None:
    """A list that shifts while it is paged may skip one: that is no difference between ledger and history."""
    history = Client.history

    async def without_the_first(client: Client, *query: Any) -> Any:
        rows = await history(client, *query)
        return [row for row in rows if row.request_id != skipped[0]]

    skipped: list[str] = []

    async def main() -> None:
        async with Night(tmp_path) as night:
            await night.run(campaign(tmp_path, 3))
            skipped.append(night.provider.requests()[0]["request_id"])
            with patch.object(Client, "history", without_the_first):
                found = await reconciled(night)
            assert found.comparison is not None
            assert (found.comparison.agreed, found.comparison.unlisted, found.exit_code) == (3, (), 0)

    play(main())


def test_what_a_dead_run_had_reserved_is_in_doubt_for_reconcile_too(tmp_path: Path) -> None:
    """It may have been sent: it is looked for, and while nothing settles it, it is told and ends with 5."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            await night.run(campaign(tmp_path, 1))
            with open_ledger(night.folder / "ledger", night.clock) as ledger:
                (known,) = ledger.state.jobs.values()
                lost = Event(EventKind.RESERVED, job_id="lost", attempt=1, quote_microusd=1_750_000, request="{}")
                await ledger.record(lost._replace(model=known.model))
                await ledger.close()
            found = await reconciled(night)
            assert ([record.job_id for record in found.left], found.exit_code) == (["lost"], 5)
            assert durable_state(night.folder).jobs["lost"].state is JobState.IN_DOUBT

    play(main())


def test_a_history_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """Exit 6 with a sentence, the doubt as it was."""

    async def main() -> None:
        async with Night(tmp_path, faults=LOST | {"history_500": 1.0}) as night:
            await night.run(campaign(tmp_path, 1))
            found = await reconciled(night)
            assert (found.exit_code, found.comparison, len(found.left)) == (6, None, 1)
            assert "could not be read" in found.message

    play(main())


def test_a_refused_key_is_the_accounts_matter(tmp_path: Path) -> None:
    """Exit 4, and the ledger is untouched."""

    async def main() -> None:
        async with Night(tmp_path, keys=(KEY,)) as night:
            await night.run(campaign(tmp_path, 1))
            found = await reconciled(night, key="SG_ffffffffffffffff")
            assert found.exit_code == 4
            assert "key" in found.message

    play(main())


def test_a_charge_of_another_provider_is_not_asked_for(tmp_path: Path) -> None:
    """A directory belongs to one provider for life, for reconcile too."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            await night.run(campaign(tmp_path, 1))
            other = night.config(provider__base_url="http://127.0.0.1:9")
            with pytest.raises(RunDirectoryError, match="belongs to segmind"):
                await reconcile(night.folder, other, key=KEY, clock=night.clock)

    play(main())


def test_a_persons_word_frees_the_money_and_is_kept_with_name_and_reason(tmp_path: Path) -> None:
    """Not billed: voided by a person, with the time, the name and the note in the ledger."""
    folder = doubtful_night(tmp_path)
    done = resolve(folder, "row-0", request_id=None, note="not on the invoice")
    record = durable_state(folder).jobs[done.job_id]
    assert (record.state, record.error_class) == (JobState.VOIDED, "not_billed")
    assert done.by in (record.error or "")
    assert "not on the invoice" in (record.error or "")
    assert durable_state(folder).books.in_doubt == 1_750_000


def test_a_persons_word_names_the_request_and_the_next_run_collects_it(tmp_path: Path) -> None:
    """Billed: the attempt is that request from now on, and the run fetches its video without a new submission."""

    async def lose() -> Night:
        night = Night(tmp_path, faults=LOST, history_lag_s=LATE_S, state_dir=tmp_path / "provider")
        async with night:
            assert (await night.run(campaign(tmp_path, 1))).exit_code == 5
            names.append(night.provider.requests()[0]["request_id"])
            return night

    async def collect() -> None:
        async with night:
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 1
            night.check(made)

    names: list[str] = []
    night = play(lose())
    done = resolve(night.folder, "row-0", request_id=names[0])
    assert (done.billed, done.request_id) == (True, names[0])
    play(collect())


def test_a_word_that_cannot_be_true_is_refused(tmp_path: Path) -> None:
    """No such attempt, another's request, a name that is none, not in doubt, several meant: nothing is recorded."""
    folder = doubtful_night(tmp_path)
    first, second = durable_state(folder).jobs
    before = read_events(folder / "ledger")
    for named, request_id, told in (
        ("nobody", None, "no attempt"),
        (f"{first}/2", None, "not in doubt"),
        (first, "../../x", "no request id"),
    ):
        with pytest.raises(InputError, match=told):
            resolve(folder, named, request_id=request_id)
    assert read_events(folder / "ledger") == before
    resolve(folder, f"{first}/1", request_id="request-of-the-first")
    with pytest.raises(InputError, match="belongs to"):
        resolve(folder, second, request_id="request-of-the-first")
    with pytest.raises(InputError, match="is submitted"):
        resolve(folder, first, request_id=None)


def test_a_generation_that_the_provider_has_lost_can_be_said_to_cost_nothing(tmp_path: Path) -> None:
    """Not while its end may still come; later it frees the money, and the next run makes the video anew."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 1)

            def leave(live: LiveRun) -> None:
                for delay_s in (60, 61):
                    asyncio.get_running_loop().call_later(delay_s, live.context.stopping.interrupt)

            assert (await night.run(made, watcher=AtStart(leave))).exit_code == 130
            with pytest.raises(InputError, match="is submitted"):
                await _resolve(night.folder, "row-0", None, None, night.clock)
            await asyncio.sleep(2 * 3600)
            named = durable_state(night.folder).jobs
            [record] = named.values()
            with pytest.raises(InputError, match="each run asks how it ended"):
                await _resolve(night.folder, "row-0", record.request_id, None, night.clock)
            await _resolve(night.folder, "row-0", None, "no such request, says the provider", night.clock)
            assert durable_state(night.folder).books.committed == 0
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 2

    play(main())


@pytest.mark.parametrize("corrected", ["by the history", "by another word"])
def test_a_mistyped_request_id_is_no_trap(tmp_path: Path, corrected: str) -> None:
    """Once it is in doubt again, the history finds its row all the same, or a person names the right one."""

    async def main() -> None:
        async with Night(tmp_path, faults=LOST, fault_limit={"submit_504_after": 1}, history_lag_s=LATE_S) as night:
            made = campaign(tmp_path, 1)
            assert (await night.run(made)).exit_code == 5
            right = night.provider.requests()[0]["request_id"]
            await asyncio.sleep(7200)
            await _resolve(night.folder, "row-0", "mistyped-by-a-person", None, night.clock)
            assert (await night.run(made)).exit_code == 5
            if corrected == "by the history":
                await asyncio.sleep(LATE_S)
                found = await reconciled(night)
                assert [each.request_id for each in found.settled] == [right]
            else:
                await _resolve(night.folder, "row-0", right, None, night.clock)
                await asyncio.sleep(LATE_S)
            assert (await night.run(made)).exit_code == 0
            assert night.posts() == 1
            night.check(made)
            assert (await reconciled(night)).exit_code == 0

    play(main())


def test_an_earlier_attempts_request_is_not_the_one_in_doubt(tmp_path: Path) -> None:
    """The first generation failed, the second attempt's answer was lost: the first one's name is refused in words."""

    async def main() -> Path:
        faults = {"gen_failed": 1.0, "submit_504_after": 1.0}
        async with Night(
            tmp_path, faults=faults, fault_limit={"gen_failed": 1, "submit_504_after": 0}, history_lag_s=LATE_S
        ) as night:

            def lose_the_next(event: Event) -> None:
                if event.event is EventKind.VOIDED:
                    night.provider._running.faults._limits["submit_504_after"] = 1

            assert (await night.run(campaign(tmp_path, 1), watcher=AtStart(event=lose_the_next))).exit_code == 5
            return night.folder

    folder = play(main())
    before = read_events(folder / "ledger")
    (record,) = durable_state(folder).jobs.values()
    assert (record.attempt, record.state) == (2, JobState.IN_DOUBT)
    (failed,) = durable_state(folder).request_ids
    with pytest.raises(InputError, match=f"{failed} belongs to {record.job_id}"):
        resolve(folder, "row-0", request_id=failed)
    assert read_events(folder / "ledger") == before


def test_a_row_with_several_doubts_must_be_named_by_attempt(tmp_path: Path) -> None:
    """Its replicates are told apart by their jobs."""

    async def main() -> Path:
        async with Night(tmp_path, faults=LOST, history_lag_s=LATE_S) as night:
            await night.run(campaign(tmp_path, 1, count=2))
            return night.folder

    folder = play(main())
    with pytest.raises(InputError, match="several") as refused:
        resolve(folder, "row-0", request_id=None)
    for job_id in durable_state(folder).jobs:
        assert f"{job_id}/1" in str(refused.value)


def test_neither_verb_disturbs_a_run_that_holds_the_directory(tmp_path: Path) -> None:
    """Both need the lock, and say who holds it."""
    folder = doubtful_night(tmp_path, rows=1)
    with open_ledger(folder / "ledger"), pytest.raises(RunDirectoryError, match="in use"):
        resolve(folder, "row-0", request_id=None)


def test_a_folder_without_a_ledger_is_no_run_directory(tmp_path: Path) -> None:
    """And none is made there."""
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        resolve(tmp_path, "row-0", request_id=None)
    assert list(tmp_path.iterdir()) == []
