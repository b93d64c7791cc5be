"""A few jobs first: the rest starts only when these are stored and cost what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_doubles import make_job
from nights import AtStart, Night, play
from support import campaign

from pipeline.engine.canary import Canary, is_proven, lets, reason_to_stop, trial
from pipeline.jobs import Job
from pipeline.ledger.events import Event
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.reading import read_events
from pipeline.runner.watching import LiveRun


def job(name: str, duration: int = 5) -> Job:
    return make_job("kling-2", {"prompt": name, "duration": duration}, 1, name)


def price(wanted: Job) -> int:
    return 350 if wanted.params["duration"] == 10 else 175


def record(wanted: Job, state: JobState, **facts: object) -> JobRecord:
    usual = {"quote_microusd": price(wanted), "cost_microusd": price(wanted), "path": f"videos/{wanted.label}.mp4"}
    return JobRecord(wanted.job_id, state, **(usual | facts))


def picked(jobs: list[Job], size: int, *records: JobRecord) -> list[str]:
    known = {each.job_id: each for each in records}
    free = {each.job_id for each in jobs} - set(known)
    made = trial(size, jobs, jobs, known, may_start=lambda each: each.job_id in free, price=price)
    return [each.label for each in made.to_start]


def test_a_canary_is_the_first_jobs_with_one_of_each_price() -> None:
    """The run's order decides, but no price is left untried where there is room for it."""
    jobs = [job("a"), job("b"), job("c"), job("d", 10), job("e", 10)]
    assert picked(jobs, 1) == ["a"]
    assert picked(jobs, 2) == ["a", "d"]
    assert picked(jobs, 3) == ["a", "b", "d"]
    assert picked(jobs, 9) == ["a", "b", "c", "d", "e"]


def test_what_is_proven_or_on_its_way_already_counts() -> None:
    """Stored at its quote or sent, it is no other job's turn. At another cost, odd or in doubt it counts nothing."""
    jobs = [job("a"), job("b"), job("c"), job("d", 10)]
    assert picked(jobs, 2, record(jobs[0], JobState.STORED)) == ["d"]
    assert picked(jobs, 2, record(jobs[3], JobState.SUBMITTED)) == ["a"]
    assert picked(jobs, 1, record(jobs[0], JobState.STORED)) == []
    for cost in (100, 350):
        assert picked(jobs, 1, record(jobs[0], JobState.STORED, cost_microusd=cost)) == ["b"]
    assert picked(jobs, 1, record(jobs[0], JobState.STORED, error_class="not_as_asked")) == ["b"]
    assert picked(jobs, 1, record(jobs[0], JobState.IN_DOUBT)) == ["b"]


@pytest.mark.parametrize(
    ("state", "facts", "is_carried", "told"),
    [
        (JobState.FAILED, {"error_class": "bad_request"}, False, "failed (bad_request)"),
        (JobState.IN_DOUBT, {"error_class": "no_reply"}, False, "is in doubt (no_reply)"),
        (JobState.POSTED, {"cost_microusd": 350}, True, "cost $0.00035, not the $0.000175 quoted"),
        (JobState.STORED, {"cost_microusd": 100}, False, "cost $0.0001, not the $0.000175 quoted"),
        (JobState.STORED, {"error_class": "not_as_asked", "error": "4 s long"}, False, "is not as asked (4 s long)"),
        (JobState.POSTED, {}, False, "is paid and could not be brought to the disk"),
        (JobState.SUBMITTED, {}, False, "is still running at the provider"),
        (JobState.POSTED, {}, True, None),
        (JobState.SUBMITTED, {}, True, None),
        (JobState.IN_DOUBT, {"error_class": "no_reply"}, True, None),
        (JobState.VOIDED, {"error_class": "generation_failed"}, False, None),
        (JobState.STORED, {}, False, None),
    ],
)
def test_every_trouble_of_a_canary_has_its_sentence(
    state: JobState, facts: dict[str, object], is_carried: bool, told: str | None
) -> None:
    """What may yet come right stops nothing; everything else stops the run, and says which job and why."""
    lamp = job("lamp")
    known = {lamp.job_id: record(lamp, state, **facts)}
    carried = {lamp.job_id} if is_carried else set()
    reason = reason_to_stop(Canary(frozenset(known)), known, carried)
    assert reason == (told and f"canary lamp {told}: the other jobs were not started")


def test_the_others_wait_for_every_job_of_the_canary() -> None:
    """One that is proven is not enough, and approval is asked for only when all are."""
    lamp, mug, other = job("lamp"), job("mug"), job("other")
    canary = Canary(frozenset({lamp.job_id, mug.job_id}), needs_approval=True)
    known = {lamp.job_id: record(lamp, JobState.STORED, reserved_seq=1)}
    assert is_proven(known[lamp.job_id])
    assert (lets(canary, known, mug), lets(canary, known, other)) == (True, False)
    assert reason_to_stop(canary, known, ()) is None
    known[mug.job_id] = record(mug, JobState.STORED, reserved_seq=4)
    assert lets(canary, known, other)
    assert "look at lamp, mug in videos, and run again without --canary-approve" in str(
        reason_to_stop(canary, known, ())
    )


def test_nothing_else_starts_while_canaries_are_under_way(tmp_path: Path) -> None:
    """Three of six go first, one of each price among them, a failure and its retry included; then all the rest."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed": 1.0}, fault_limit={"gen_failed": 1}) as night:
            made = campaign(tmp_path, 6, ten_seconds=5)
            assert (await night.run(made, night.config(canary__jobs="3"))).exit_code == 0
            events = [(event.event.value, event.job_id) for event in read_events(night.folder / "ledger")]
            reserved = [job_id for kind, job_id in events if kind == "reserved"]
            fourth = next(index for index, (_, each) in enumerate(events) if each not in {*reserved[:3], None})
            assert [kind for kind, _ in events[:fourth]].count("stored") == 3
            assert [kind for kind, _ in events[:fourth]].count("voided") == 1
            prices = {each.job_id: each.params["duration"] for each in made.jobs}
            assert sorted(prices[job_id] for job_id in set(reserved[:4]) if job_id) == [5, 10, 10]
            night.check(made)

    play(main())


@pytest.mark.parametrize(
    ("provider", "told", "code"),
    [
        ({"faults": {"cost_above_quote": 1.0}}, "cost $3.50, not the $1.75 quoted", 3),
        ({"faults": {"gen_failed_input": 1.0}}, "failed (input_refused)", 3),
        ({"faults": {"submit_504_before": 1.0}, "fault_limit": {"submit_504_before": 1}}, "is in doubt (gateway)", 5),
    ],
)
def test_a_canary_that_is_not_as_it_should_be_stops_the_run(
    tmp_path: Path, provider: dict, told: str, code: int
) -> None:
    """At most two are tried, nothing else is sent, and it says why; what runs is finished."""

    async def main() -> None:
        async with Night(tmp_path, **provider) as night:
            made = campaign(tmp_path, 8)
            result = await night.run(made, night.config(canary__jobs="2"))
            assert (result.exit_code, result.summary["stopped_by"]) == (code, "canary")
            assert night.posts() <= 2
            assert told in result.message
            assert (result.summary["running"], result.summary["unfetched"]) == (0, 0)

    play(main())


def test_a_storage_that_is_out_for_a_while_ends_no_night_at_its_canary(tmp_path: Path) -> None:
    """What is paid is downloaded again each ten minutes. Until its video is there, nothing else starts."""

    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}, fault_limit={"file_500": 12}) as night:
            made = campaign(tmp_path, 4)
            result = await night.run(made, night.config(canary__jobs="1"))
            assert (result.exit_code, result.summary["stored"], night.posts()) == (0, 4, 4)
            kinds = [event.event.value for event in read_events(night.folder / "ledger")]
            assert kinds.index("stored") < [at for at, kind in enumerate(kinds) if kind == "reserved"][1]
            night.check(made)

    play(main())


def test_a_canary_whose_answer_was_lost_ends_no_night_where_the_history_has_it(tmp_path: Path) -> None:
    """One 504 for all that was accepted: found within minutes, collected, and the rest follows in the same run."""

    async def main() -> None:
        faults = {"submit_504_after": 1.0}
        async with Night(tmp_path, faults=faults, fault_limit={"submit_504_after": 1}, history_lag_s=60) as night:
            made = campaign(tmp_path, 4)
            result = await night.run(made, night.config(canary__jobs="1"))
            assert (result.exit_code, result.summary["stored"], night.posts()) == (0, 4, 4)
            night.check(made)

    play(main())


def test_a_canary_whose_video_never_comes_stops_the_run_within_the_hour(tmp_path: Path) -> None:
    """After four rounds of downloads; the video stays paid and is not made again, and nothing else is sent."""

    async def main() -> None:
        async with Night(tmp_path, faults={"file_500": 1.0}) as night:
            made = campaign(tmp_path, 4)
            result = await night.run(made, night.config(canary__jobs="1"))
            assert (result.exit_code, result.summary["stopped_by"], night.posts()) == (5, "canary", 1)
            assert "is paid and could not be brought to the disk" in result.message
            assert 0.5 * 3600 < night.clock.monotonic_s() < 3600

    play(main())


def test_the_next_run_tries_anew_until_the_canary_is_passed(tmp_path: Path) -> None:
    """One of two failed: the next run starts one new canary, and goes on when it is stored. Then none is needed."""

    async def main() -> None:
        async with Night(tmp_path, faults={"gen_failed_input": 1.0}, fault_limit={"gen_failed_input": 1}) as night:
            made = campaign(tmp_path, 6)
            config = night.config(canary__jobs="2")
            assert (await night.run(made, config)).summary["stopped_by"] == "canary"
            seen: list[int] = []

            def count(event: Event) -> None:
                if event.event.value == "reserved":
                    seen.append(lives[0].context.slots.in_flight)

            lives: list[LiveRun] = []
            result = await night.run(made, config, AtStart(lives.append, count))
            assert (result.exit_code, result.summary["stored"], result.summary["failed"]) == (1, 5, 1)
            assert seen == [1, 1, 2, 3], "one alone, then the others together"
            posts = night.posts()
            assert (await night.run(made, config)).exit_code == 1
            assert night.posts() == posts

    play(main())


def test_canaries_that_a_dead_run_left_under_way_are_not_replaced(tmp_path: Path) -> None:
    """Left after their submission: the next run collects the same two, and only then starts the others."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 4)
            lives: list[LiveRun] = []

            def leave(event: Event) -> None:
                if event.event.value == "submitted" and lives[0].context.ledger.state.counts[JobState.SUBMITTED] == 2:
                    lives[0].context.stopping.interrupt()
                    lives[0].context.stopping.interrupt()

            config = night.config(canary__jobs="2")
            assert (await night.run(made, config, AtStart(lives.append, leave))).exit_code == 130
            assert (await night.run(made, config)).exit_code == 0
            kinds = [event.event.value for event in read_events(night.folder / "ledger") if event.job_id]
            third = [index for index, kind in enumerate(kinds) if kind == "reserved"][2]
            assert kinds[:third].count("stored") == 2
            night.check(made)

    play(main())


def test_a_canary_waits_for_a_person_where_that_is_asked(tmp_path: Path) -> None:
    """It stops when the canary is stored, however often it is run; without the wish, the next run goes on."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 3)
            config = night.config(canary__jobs="2")
            for _ in range(2):
                result = await night.run(made, config, canary_approve=True)
                assert (result.exit_code, result.summary["stopped_by"], night.posts()) == (3, "canary", 2)
                assert "run again without --canary-approve" in result.message
            assert (await night.run(made, config)).exit_code == 0
            night.check(made)

    play(main())


def test_a_canary_that_does_not_fit_under_the_cap_is_stopped_by_the_cap(tmp_path: Path) -> None:
    """The dearer of two canaries does not fit: the cheaper one is made, nothing takes its place, the cap is named."""

    async def main() -> None:
        async with Night(tmp_path) as night:
            made = campaign(tmp_path, 6, ten_seconds=3)
            result = await night.run(made, night.config(canary__jobs="2", budget__cap_usd="4.00"))
            assert (result.exit_code, result.summary["stopped_by"], night.posts()) == (3, "cap", 1)

    play(main())
