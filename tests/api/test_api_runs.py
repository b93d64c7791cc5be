"""Planning, running and rehearsing from Python: in a loop that runs, beside a live run, and whatever is refused."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from api_doubles import FAST

import pipeline
from pipeline import Event, Following, InputError, LiveRun, ManifestError, Watcher, load_config, load_manifest, open_run
from pipeline.runner.opening import signals_to


class Looking(Watcher):
    """Looks at the run directory while the run goes on, as others would, and then breaks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[Any] = []

    def started(self, live: LiveRun) -> None:
        self.far = Following(live)

    def event(self, event: Event) -> None:
        if event.event == "run_started":
            return
        self.far.take(event)
        if event.event == "stored":
            run = open_run(self.folder)
            self.seen.append((run.status()["state"], "stored" in set(run.results()["status"]), self.far.stored > 0))
            raise RuntimeError("a mistake of the caller's own")


async def test_a_run_in_a_notebook_is_looked_at_and_outlives_its_watcher(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`await run(…)` in a loop that runs; its directory is read meanwhile; a watcher that fails stops nothing."""
    watcher = Looking(here / "run")
    before = signal.getsignal(signal.SIGTERM)
    done = await pipeline.run("m.csv", FAST, out="run", budget_usd=10, watcher=watcher)
    assert (done.exit_code, done.summary["posted_usd"], done.summary["cap_usd"]) == (0, "5.25", "10.00")
    assert watcher.seen == [("running", True, True)]
    assert "a mistake of the caller's own" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    again = await pipeline.run("m.csv", FAST, out="run")
    assert (again.exit_code, again.summary["attempts"]) == (0, 2)


async def test_a_night_is_rehearsed_where_a_loop_runs(here: Path) -> None:
    """In a thread of its own, with faults, twice the same; the directory is not even made."""
    nights = [pipeline.rehearse("m.csv", FAST, out="night", faults={"submit_500": 0.5}, seed=4) for _ in range(2)]
    assert [(night.stored, night.spent_microusd) for night in nights] == [(2, 5_250_000)] * 2
    assert nights[0].troubles == nights[1].troubles != {}
    assert not (here / "night").exists()
    with pytest.raises(InputError, match="no_such_fault"):
        pipeline.rehearse("m.csv", FAST, faults={"no_such_fault": 0.5})


async def test_run_sync_says_what_to_write_in_a_notebook() -> None:
    """It cannot wait for a run in a loop that runs, and says so in a sentence."""
    with pytest.raises(InputError, match="await run"):
        pipeline.run_sync("m.csv", FAST)


def test_a_plan_is_the_same_from_a_path_and_from_what_was_read() -> None:
    """Amounts in micro-dollars; only what is asked for; and nothing is written."""
    campaign = load_manifest("m.csv")
    assert pipeline.plan("m.csv", FAST) == pipeline.plan(campaign, load_config(FAST))
    one = pipeline.plan(campaign, FAST, ids=["two"], budget_usd="3.50")
    assert (one.rows, one.cost, one.allowed, one.free) == (1, 3_500_000, 1, 3_500_000)
    assert pipeline.plan(campaign, FAST, settings=["budget.cap_usd=2"]).allowed == 1
    assert sorted(os.listdir()) == ["m.csv"]


def test_what_is_said_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default < file < environment < keys and values < arguments; a configuration is changed in what is said alone."""
    Path("c.yaml").write_text("limits: {max_in_flight: 3, requests_per_minute: 7}\nbudget: {prices_usd: {'5': '2'}}\n")
    monkeypatch.setenv("KLING_BATCH_LIMITS__MAX_IN_FLIGHT", "4")
    from_file = load_config("c.yaml")
    assert (from_file.limits.max_in_flight, from_file.limits.requests_per_minute) == (4, 7)
    assert load_config({"limits.max_in_flight": 5}).limits.max_in_flight == 5
    assert load_config({"limits.max_in_flight": 5}, max_in_flight=6).limits.max_in_flight == 6
    changed = load_config(from_file, settings=["budget.prices_usd.10=9"], budget_usd="1.25")
    assert changed.budget.prices_usd == {"5": 2_000_000, "10": 9_000_000}
    assert (changed.cap, changed.limits) == (1_250_000, from_file.limits)
    with pytest.raises(InputError, match=r"limits\.max: unknown key"):
        load_config(from_file, settings=["limits.max=1"])
    with pytest.raises(InputError, match=r"output\.local_dir.*is an address"):
        load_config(from_file, settings=["output.local_dir=s3://bucket/runs"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"ids": []}, "names nothing"),
        ({"ids": ["three"]}, "the manifest has no three"),
        ({"limit": 0}, "0 is no number of jobs"),
        ({"order": "best"}, "there is no order 'best'"),
        ({"retry_failed": ["generation_faild"]}, "did you mean generation_failed"),
        ({"retry_failed": []}, "names nothing"),
        ({"canary_approve": True}, "needs a canary"),
        ({"budget_usd": 1.5}, "in quotes"),
        ({"run_for": "8 hours"}, "not a duration"),
        ({"config": {"provider.kind": "segmind"}}, "needs a cap"),
        ({"config": {"provider.kind": "segmind"}, "budget_usd": "5"}, "no API key"),
        ({"config": "no.yaml"}, "no.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value)),
)
def test_what_is_refused_touches_nothing(here: Path, asked: dict[str, Any], told: str) -> None:
    """One sentence, and not even the run directory is made: neither is money spent because of an empty list."""
    with pytest.raises(InputError, match=told):
        pipeline.run_sync("m.csv", **({"config": FAST} | asked))
    assert sorted(os.listdir(here)) == ["m.csv"]


def test_every_mistake_in_a_manifest_is_at_hand() -> None:
    """As objects, each with its place."""
    Path("bad.csv").write_text("prompt,duration\na lamp,7\n,5\n")
    with pytest.raises(ManifestError) as raised:
        pipeline.plan("bad.csv")
    assert [(mistake.row, mistake.column) for mistake in raised.value.mistakes] == [(1, "duration"), (2, "prompt")]


async def test_a_program_around_a_run_has_its_own_signals() -> None:
    """What it does on a signal is as before, and what its loop is told of stays with its loop."""
    wishes: list[str] = []

    def own(*_: object) -> None:
        """What the program does."""

    loop, before = asyncio.get_running_loop(), signal.signal(signal.SIGTERM, own)
    loop.add_signal_handler(signal.SIGHUP, wishes.append, "loop")
    try:
        with signals_to(lambda: wishes.append("run")):
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            await asyncio.sleep(0.01)
        assert wishes == ["run", "loop"]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGTERM, before)


def test_an_address_is_no_folder_of_that_name(here: Path) -> None:
    """A path has eaten one of its slashes by the time it is looked at; and what is only planned makes no folder."""
    rows = here / "rows.jsonl"
    rows.write_text('{"id": "one", "prompt": "a lamp"}\n')
    for out in ("memory://films/night", Path("memory://films/night")):
        prepared = pipeline.prepare(rows, out=out)
        assert prepared.address == "memory://films/night"
        assert prepared.folder == Path("outputs/memory/films/night")
        assert prepared.plan().allowed == 1
    assert not (here / "memory:").exists()
    assert not (here / "outputs/memory").exists()


def test_storage_that_cannot_be_used_is_said_before_anything_is_sent(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(here / "none"))
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    (here / "rows.jsonl").write_text('{"id": "one", "prompt": "a lamp"}\n')
    with pytest.raises(InputError, match=r"cannot be used: no credentials in the environment\. Nothing was sent"):
        pipeline.prepare(here / "rows.jsonl", out="s3://films/night")


@pytest.mark.parametrize("manifest", [None, ["a"], 7, {"rows": []}])
def test_what_is_no_manifest_is_an_input_error(manifest: object) -> None:
    """Whatever was handed over by mistake: nothing was sent, and nothing else is raised."""
    with pytest.raises(InputError, match="a manifest is the path of a file, or what load_manifest made of one, not"):
        pipeline.run_sync(manifest)  # type: ignore[arg-type]


def test_a_limit_that_is_no_number_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("prompt\na lamp\n")
    with pytest.raises(InputError, match="'2' is no number of jobs"):
        pipeline.run_sync(tmp_path / "m.csv", limit="2", out=tmp_path / "night")  # type: ignore[typeddict-item]
