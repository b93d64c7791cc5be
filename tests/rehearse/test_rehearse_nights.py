"""Whole nights, rehearsed: what they come to, what they touch, and how they begin."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rehearse_doubles import MIDNIGHT_US, Rehearse
from support import campaign

from pipeline.jobs import Job
from pipeline.kernel.virtual_time import VirtualClock, run_virtually
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.reading import read_events
from pipeline.ledger.store import open_ledger
from pipeline.rehearsal import Scenario, night
from pipeline.runner.choice import RunOptions
from pipeline.runner.watching import Watcher

FAULTS = {"submit_500": 0.2, "submit_504_after": 0.1, "poll_drop": 0.1, "file_cut": 0.3, "gen_failed": 0.2}


class Heard(Watcher):
    """Every event of a rehearsal."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def event(self, event: Event) -> None:
        self.events.append((event.at_us, event.event, event.job_id, event.attempt, event.error_class))


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_night_and_another_another(play: Rehearse) -> None:
    """Every event at the same microsecond, with every kind of trouble on the way."""
    first, again, other = Heard(), Heard(), Heard()
    nights = [play(12, scenario=Scenario(3, faults=FAULTS), watcher=each) for each in (first, again)]
    play(12, scenario=Scenario(4, faults=FAULTS), watcher=other)
    assert first.events == again.events
    assert first.events != other.events
    assert nights[0].as_json() == nights[1].as_json()
    assert len(nights[0].troubles) >= 3


def test_no_socket_is_opened_and_no_file_stays(play: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the configuration is that of a live run: nobody is connected to, and nothing is left or begun."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a socket was about to be used")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(night, "roomy_folder", lambda: tmp_path / "stage")
    (tmp_path / "stage").mkdir()
    done = play(3)
    assert (done.stored, done.result.exit_code, done.spent_microusd) == (3, 0, 3 * 1_750_000)
    assert not (tmp_path / "real").exists()
    assert files(tmp_path / "stage") == {}


def test_the_account_holds_what_the_cap_allows(play: Rehearse) -> None:
    """However much that is: a rehearsal shows what the cap buys."""
    done = play(3, budget__cap_usd="2000000", budget__prices_usd__5="600000", budget__prices_usd__10="600000")
    assert (done.stored, done.result.exit_code) == (3, 0)
    assert done.spent_microusd == 1_800_000_000_000


def test_the_cap_stops_the_night(play: Rehearse) -> None:
    """What fits is made, the rest is not begun, and it is told what stopped it, when, and what is left."""
    done = play(6, budget__cap_usd="8")
    assert (done.stored, done.result.exit_code, done.result.summary["stopped_by"]) == (4, 3, "cap")
    told = done.as_json()
    assert (told["cost_usd"], told["left_usd"], told["cap_usd"]) == ("7.00", "1.00", "8.00")
    assert done.last_start_s is not None
    assert done.stopped_s is not None
    assert done.last_start_s < done.stopped_s <= done.makespan_s


AT_TEN_PAST = f"{datetime.fromtimestamp(MIDNIGHT_US / 1e6, UTC).astimezone() + timedelta(minutes=10):%H:%M}"
"""Ten minutes after the night began, by this machine's zone."""


@pytest.mark.parametrize("bound", [{"stop__after": "10m"}, {"stop__until": AT_TEN_PAST}], ids=["for", "until"])
def test_a_deadline_counts_from_the_beginning_of_the_night(play: Rehearse, bound: dict[str, str]) -> None:
    """Ten minutes with one generation at a time: one or two are begun, the last so that it can be done in time."""
    done = play(5, limits__max_in_flight="1", **bound)
    assert done.result.summary["stopped_by"] == "deadline"
    assert done.stopped_s is not None
    assert 283 - 5 <= done.stopped_s <= 600
    assert 1 <= done.stored <= 2


def test_times_and_faults_are_those_asked_for(play: Rehearse) -> None:
    """Without spread every generation takes its mean; a fault of rate 1 hits each submission."""
    still = play(2, scenario=Scenario(mean_s=100.0, sigma=0.0))
    assert 100 <= still.makespan_s <= 180
    assert still.result.exit_code == 0
    refused = play(2, scenario=Scenario(faults={"submit_400": 1.0}))
    assert (refused.stored, refused.failed, refused.result.exit_code) == (0, 2, 1)
    assert refused.calls["submit"] == 2
    assert refused.troubles == {"bad_request": 2}


def test_429s_are_counted_as_the_provider_counts_them(play: Rehearse) -> None:
    """They are calls as well, and cost time, not jobs."""
    done = play(3, scenario=Scenario(faults={"submit_429": 0.6}))
    assert done.rate_limited == done.troubles["rate_limited"] > 0
    assert done.stored == 3


def test_where_calls_are_few_nothing_grows_so_old_that_its_record_is_forgotten(play: Rehearse) -> None:
    """Five calls a minute and room for five hundred: no more are begun than can be collected, and no call is wasted."""
    done = play(120, limits__requests_per_minute="5", limits__max_in_flight="500")
    assert done.stored == 120
    assert "history" not in done.calls
    assert sum(done.calls.values()) - done.calls["file"] <= 3.1 * 120
    assert max(sample.in_flight for sample in done.samples) <= 50


def test_a_provider_that_lets_most_wait_gets_fewer_at_once_and_is_never_idle(play: Rehearse) -> None:
    """Room for sixty, of which eight are worked on: the ceiling falls to a few times eight, and no hour is lost."""
    scenario = Scenario(provider={"capacity": 8})
    done = play(160, scenario=scenario, limits__max_in_flight="60", polling__max_interval_s="300")
    assert done.stored == 160
    late = [sample.in_flight for sample in done.samples if sample.at_s > 0.6 * done.makespan_s]
    assert max(late) <= 30
    assert done.makespan_s < 1.08 * 160 * 317 / 8


class Tasks(Watcher):
    """How many tasks there were at most."""

    most = 0

    def event(self, _event: Event) -> None:
        self.most = max(self.most, len(asyncio.all_tasks()))


def test_a_job_that_waits_is_a_row_and_no_task(play: Rehearse) -> None:
    """Three hundred jobs or thirty: with five in flight there are as many tasks."""
    few, many = Tasks(), Tasks()
    play(30, watcher=few, limits__max_in_flight="5")
    play(300, watcher=many, limits__max_in_flight="5", stop__after="30m")
    assert 5 < few.most < 25
    assert many.most <= few.most + 2


def begun(folder: Path, jobs: Sequence[Job]) -> None:
    """A run directory whose first four jobs are stored, paid, running and in doubt."""

    async def write() -> None:
        with open_ledger(folder / "ledger", VirtualClock(MIDNIGHT_US - 120_000_000)) as ledger:
            facts = '{"provider":"segmind","base_url":"https://api.segmind.com","cap_microusd":1000000000}'
            await ledger.record(Event(event=EventKind.RUN_STARTED, detail=facts))
            for number, job in enumerate(jobs[:4]):
                about = {"job_id": job.job_id, "attempt": 1}
                await ledger.record(
                    Event(
                        event=EventKind.RESERVED,
                        quote_microusd=1_750_000,
                        model=job.model,
                        request=job.body.decode(),
                        path=f"videos/{job.stem}.mp4",
                        **about,
                    )
                )
                if number == 3:
                    continue
                await ledger.record(
                    Event(event=EventKind.SUBMITTED, request_id=f"3f2c1a00-0000-4000-8000-00000000000{number}", **about)
                )
                if number == 2:
                    continue
                url = f"https://videos.segmind.com/{number}.mp4"
                await ledger.record(Event(event=EventKind.POSTED, cost_microusd=1_750_000, url=url, **about))
                if number == 0:
                    await ledger.record(Event(event=EventKind.STORED, path=f"videos/{job.stem}.mp4", bytes=9, **about))
            await ledger.close()

    run_virtually(write())


def test_it_plays_what_is_left_of_a_run_directory_and_touches_nothing_there(play: Rehearse, tmp_path: Path) -> None:
    """Stored is stored, paid is fetched, what runs and what is in doubt is collected: only the rest is bought."""
    real = tmp_path / "real"
    begun(real, campaign(tmp_path, 6).jobs)
    before = files(real)
    done = play(6, real=real)
    assert files(real) == before
    assert (done.stored, done.calls["submit"]) == (5, 2)
    assert done.spent_microusd == 4 * 1_750_000
    assert done.result.summary["stored"] == 6
    assert (done.result.exit_code, done.result.summary["posted_usd"]) == (0, "10.50")
    assert done.troubles == {"interrupted": 1}


def test_a_video_is_thrown_away_once_it_is_stored(play: Rehearse) -> None:
    """However long the night, no more videos lie on the disk than are being fetched at once."""
    most = 0

    class Counting(Watcher):
        folder: Path

        def started(self, live: Any) -> None:
            self.folder = live.context.folder / "videos"

        def event(self, event: Event) -> None:
            nonlocal most
            most = max(most, len(list(self.folder.iterdir())) if event.event is EventKind.STORED else 0)

    assert play(30, watcher=Counting(), limits__requests_per_minute="6000").stored == 30
    assert most < 16


def test_only_what_is_asked_for_is_played(play: Rehearse) -> None:
    """`--limit` and `--ids` mean what they mean to a run."""
    assert play(5, options=RunOptions(limit=2)).stored == 2
    one = play(5, options=RunOptions(ids=frozenset({"row-3"})))
    assert (one.asked, one.stored) == (1, 1)


def test_a_ledger_that_need_not_be_durable_is_whole_when_it_is_closed(tmp_path: Path) -> None:
    """Its events are written many together; closed, it holds them all, and the state was always that of them."""

    async def write() -> int:
        with open_ledger(tmp_path / "ledger", durable=False) as ledger:
            for _ in range(3):
                await ledger.record(Event(event=EventKind.RUN_STARTED, detail="{}"))
            early = len(read_events(tmp_path / "ledger"))
            assert len(ledger.state.runs) == 3
            await ledger.close()
            return early

    assert asyncio.run(write()) == 0
    assert len(list((tmp_path / "ledger").glob("*.parquet"))) == 1
    assert [event.seq for event in read_events(tmp_path / "ledger")] == [1, 2, 3]
