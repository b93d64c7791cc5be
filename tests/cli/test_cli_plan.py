"""`plan` as the one who pays meets it: what changed, what is refused, every job in a file, the account."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import FAST, Command

from pipeline import jobs
from pipeline.config import Config, load_config
from pipeline.kernel.errors import InputError, MachineError
from pipeline.ledger.reading import read_events
from pipeline.manifest import load_manifest
from pipeline.runner.account import ask_credits
from pipeline.runner.choice import RunOptions, choose, price_of
from pipeline.runner.running import run
from pipeline.sandbox import Sandbox, SandboxSettings

SWEEP = """
name: sweep
rows:
  - {id: mug, prompt: "A {{ mood }} mug", count: 2, matrix: {mood: [cozy, bold]}}
  - {id: lamp, prompt: "=SUM(A1) is written on a lamp", duration: 10, note: "=cmd"}
  - {id: copy, prompt: A cozy mug}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    """Five jobs: a sweep of two moods with two takes, a longer film, and a row that shares the first one's job."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return "sweep.yaml"


def test_a_plan_loads_nothing_that_could_send(sweep: str, tmp_path: Path) -> None:
    """Neither the engine's loop nor a client: no request leaves, and nobody waits for them to be loaded."""
    code = f"""
import sys
from pipeline.__main__ import main
sys.argv = ["kling-batch", "plan", {sweep!r}]
try: main()
except SystemExit as ended: assert not ended.code
sending = {{"aiohttp", "pipeline.provider.client", "pipeline.engine.worker", "pipeline.runner.running"}}
print(sending & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    assert done.stderr == "set()\n"


def test_every_job_in_a_file(command: Command, sweep: str, tmp_path: Path) -> None:
    """In the manifest's order, with its place in the run's, rendered, safe for a spreadsheet, in both formats."""
    shown = command("plan", sweep, "--expand", "jobs.csv", "--budget-usd", "6")
    assert shown.code == 0
    assert shown.out.endswith("Every job is in jobs.csv.\n")
    table = pd.read_csv(tmp_path / "jobs.csv", dtype="string", keep_default_na=False)
    assert list(table)[:9] == [
        "start", "row", "id", "replicate", "job_id", "status", "allowed", "price_usd", "tags"
    ]  # fmt: skip
    assert table["start"].tolist() == ["1", "4", "3", "5", "2", "1"]
    assert table["allowed"].tolist() == ["yes", "no", "no", "no", "yes", "yes"]
    assert table["price_usd"].tolist() == ["1.75", "1.75", "1.75", "1.75", "3.50", "0.00"]
    assert table["prompt"].tolist()[3:5] == ["A bold mug", "'=SUM(A1) is written on a lamp"]
    assert (table["note"][4], set(table["status"])) == ("'=cmd", {"pending"})
    assert command("plan", sweep, "--expand", "jobs.parquet", "--ids", "lamp", "--order", "file").code == 0
    lamp = pd.read_parquet(tmp_path / "jobs.parquet").iloc[0]
    assert (lamp["start"], lamp["prompt"], lamp["duration"]) == (1, "=SUM(A1) is written on a lamp", 10)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("jobs.xlsx", "ends neither in .csv nor in .parquet"),
        ("no/jobs.csv", "there is no folder no"),
        ("m.csv", "m.csv is what the plan is made of"),
        ("../{here}/m.csv", "is what the plan is made of"),
    ],
)
def test_a_file_that_must_not_be_written_is_refused(
    command: Command, manifest: str, tmp_path: Path, target: str, told: str
) -> None:
    """Before any work, with a sentence; the manifest is no target, whatever path leads to it."""
    before = (tmp_path / manifest).read_bytes()
    ended = command("plan", manifest, "--expand", target.format(here=tmp_path.name))
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert (tmp_path / manifest).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [manifest]


@pytest.mark.parametrize("verb", ["plan", "rehearse", "schema"])
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(
    command: Command, manifest: str, tmp_path: Path, verb: str
) -> None:
    """A rename would put the file in its place: whoever waits at the other end would wait for ever."""
    pipe = tmp_path / ("pipe.svg" if verb == "rehearse" else "pipe.csv")
    os.mkfifo(pipe)
    arguments = {
        "plan": (manifest, "--expand", str(pipe)),
        "rehearse": (manifest, "--svg", str(pipe)),
        "schema": ("manifest", "--output", str(pipe)),
    }
    ended = command(verb, *arguments[verb])
    assert (ended.code, ended.out) == (2, "")
    assert "is no file but a device or a pipe; name a file" in " ".join(ended.err.split())
    assert pipe.is_fifo()


def test_mistakes_and_warnings_have_places_for_scripts(command: Command, sweep: str, tmp_path: Path) -> None:
    """`--json` tells mistakes on standard output, with exit 2; warnings alike, beside the plan."""
    (tmp_path / "bad.csv").write_text("id,prompt,duration\na b,x,7\n")
    for verb in ("plan", "run"):
        ended = command(verb, "bad.csv", "--json")
        first, second = json.loads(ended.out)["mistakes"]
        assert (ended.code, ended.err) == (2, "")
        assert (first["file"], first["line"], first["row"], first["column"]) == ("bad.csv", 2, 1, "id")
        assert second["message"].startswith("7 is not allowed") or "'7' is not allowed" in second["message"]
    warnings = json.loads(command("plan", sweep, "--json").out)["warnings"]
    assert [(warning["row"], warning["column"]) for warning in warnings if "one job" in warning["message"]] == [
        (3, None)
    ]


def test_the_order_that_is_asked_for_is_the_order_of_the_run(command: Command, sweep: str) -> None:
    """`--order` holds for plan and run; an unknown one is refused with the known ones."""
    refused = command("plan", sweep, "--order", "random")
    assert (refused.code, "known: balanced, file, cheapest" in refused.err) == (2, True)
    assert json.loads(command("plan", sweep, "--json", "--order", "cheapest").out)["order"] == "cheapest"
    options = RunOptions(order="cheapest")
    campaign, config = load_manifest(Path(sweep)), load_config(None, {}, [], environment={})
    chosen = choose(campaign, options, price_of(config))
    assert [job.label for job in chosen] == ["mug"] * 4 + ["lamp"]
    wanted = [job.job_id for job in chosen]
    assert command("run", sweep, *FAST, "-n", "2", "--order", "cheapest", "--no-progress").code == 3
    started = [event.job_id for event in read_events(Path("outputs/sweep/ledger")) if event.event == "reserved"]
    assert started == wanted[:2]


def test_what_changed_since_the_last_run_is_said_first(command: Command, manifest: str, tmp_path: Path) -> None:
    """Nothing where nothing was run or nothing changed; else rows, jobs and dollars, and what stays."""
    assert "Since the last run" not in command("plan", manifest).out
    assert command("run", manifest, *FAST, "--no-progress").code == 0
    assert "Since the last run" not in command("plan", manifest).out
    (tmp_path / manifest).write_text("id,prompt,duration\none,another lamp,5\nthree,a bowl,5\n")
    shown = command("plan", manifest).out
    assert (
        "Since the last run:\n"
        "  1 row added     1 new job, $1.75\n"
        "  1 row changed   1 new job, $1.75; 1 old video stays, $1.75 spent\n"
        "  1 row removed   1 old video stays, $3.50 spent\n"
    ) in shown
    changes = json.loads(command("plan", manifest, "--json").out)["changes"]
    assert (changes["added"]["cost_usd"], changes["removed"]["spent_usd"]) == ("1.75", "3.50")
    kept = tmp_path / "outputs" / "m" / "jobs.parquet"
    kept.write_bytes(b"no rows")
    refused = command("plan", manifest)
    assert (refused.code, "jobs.parquet cannot be read" in refused.err) == (2, True)
    assert "The next `run` of its manifest writes it anew" in " ".join(refused.err.split())
    # Whoever has paid must not be kept from what is paid: a run goes on, and mends the file.
    run = command("run", manifest, *FAST, "--no-progress")
    assert (run.code, "what changed since the last run is not known" in run.out) == (0, True)
    assert command("plan", manifest).code == 0


def test_another_scheme_of_ids_buys_nothing_again(
    command: Command, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by plan and run with the videos and their price, also where only the ledger is left to tell."""
    assert command("run", manifest, *FAST, "--no-progress").code == 0
    ledger = tmp_path / "outputs" / "m" / "ledger"
    events = len(read_events(ledger))
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "ID_VERSION", 2)
        for named in ("one-1, two-1;", "one-1-"):
            for arguments in (("plan", manifest), ("run", manifest, *FAST, "--ids", "one"), ("run", manifest, "-n1")):
                ended = command(*arguments)
                assert (ended.code, ended.out) == (2, "")
                assert "2 finished videos ($5.25) would be bought again" in ended.err
                assert named in ended.err
            with pytest.raises(InputError, match="would be bought again"):
                asyncio.run(run(load_manifest(Path(manifest)), runner_config(), ledger.parent))
            (ledger.parent / "jobs.parquet").unlink(missing_ok=True)
        assert command("plan", manifest, "-o", "elsewhere").code == 0
    assert len(read_events(ledger)) == events
    assert "Already: 2 stored." in command("plan", manifest).out


def runner_config() -> Config:
    return load_config(None, {}, [], environment={})


def test_the_account_is_asked_only_on_request(command: Command, manifest: str, tmp_path: Path) -> None:
    """A sandbox's, too: what its bill has left, without a trace in the run directory."""
    assert "Credits" not in command("plan", manifest).out
    shown = command("plan", manifest, "--check-account")
    assert (shown.code, shown.out.endswith("enough for the 2 jobs that may start.\n")) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == [manifest]
    assert command("run", manifest, *FAST, "--no-progress").code == 0
    before = snapshot(tmp_path / "outputs")
    assert json.loads(command("plan", manifest, "--check-account", "--json").out)["credits_usd"] == "999994.75"
    assert json.loads(command("plan", manifest, "--json").out)["credits_usd"] is None
    assert snapshot(tmp_path / "outputs") == before
    shutil.rmtree(tmp_path / "outputs")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


async def test_a_key_that_is_refused_and_an_account_that_does_not_answer(tmp_path: Path) -> None:
    """The first is the user's to correct, the second is not; a good key is answered with the credits."""
    async with Sandbox(SandboxSettings(keys=("SG_0123456789abcdef",), credits_microusd=12_500_000)) as provider:
        flags = {"provider.kind": "segmind", "budget.cap_usd": "9", "provider.base_url": provider.url}
        config = load_config(None, flags, [], environment={})
        assert await ask_credits(config, tmp_path, "SG_0123456789abcdef") == 12_500_000
        with pytest.raises(InputError, match="--check-account: the key was refused"):
            await ask_credits(config, tmp_path, "SG_fedcba9876543210")
    with pytest.raises(MachineError, match="the account could not be asked"):
        await ask_credits(config, tmp_path, "SG_0123456789abcdef")
