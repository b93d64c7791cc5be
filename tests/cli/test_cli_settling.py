"""`reconcile` and `resolve` as a person meets them."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from conftest import FAST, Command

from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.store import open_ledger

LOST_JOB = "k1-000000000000000000000000"
NOT_YET = "the history does not list it yet, and may do so up to 7 s late"


def lose(folder: Path) -> None:
    """Leave an attempt behind as a process that died would: reserved, and no more."""

    async def main() -> None:
        with open_ledger(folder / "ledger") as ledger:
            body = '{"prompt":"lost"}'
            lost = Event(
                event=EventKind.RESERVED, job_id=LOST_JOB, attempt=1, quote_microusd=MicroUsd(1_750_000),
                model="kling-2", request=body, path="videos/lost.mp4",
            )  # fmt: skip
            await ledger.record(lost)
            await ledger.close()

    asyncio.run(main())


@pytest.fixture
def made(command: Command, manifest: str) -> Path:
    """A run directory in which everything is stored."""
    assert command("run", manifest, *FAST, "--no-progress").code == 0
    return Path("outputs/m")


def test_a_clean_bill_is_one_glance(command: Command, made: Path) -> None:
    """Both sides, the same sum, and a sentence; the same for scripts."""
    ended = command("reconcile", str(made))
    assert ended.code == 0
    assert "in both               2   $5.25" in ended.out
    assert "Ledger and history agree to the cent." in ended.out
    told = json.loads(command("reconcile", str(made), "--json").out)
    assert (told["agreed"], told["agreed_usd"], told["unknown_charges"], told["exit_code"]) == (2, "5.25", [], 0)


def test_a_history_that_shows_nothing_agrees_with_nothing(command: Command, made: Path) -> None:
    """It may only be late, or another account's: no word of agreement, and exit 5."""
    shutil.rmtree(made / ".sandbox")
    ended = command("reconcile", str(made))
    assert (ended.code, "agree" in ended.out, "differs" in ended.out) == (5, False, False)
    assert "The history does not show 2 requests yet: ask again in two hours." in ended.out


def test_what_stays_in_doubt_comes_with_the_command_that_settles_it(command: Command, made: Path) -> None:
    """The screen names the attempt; the command works once it is filled in, and not before, and says what follows."""
    lose(made)
    ended = command("reconcile", str(made))
    assert ended.code == 5
    assert "Still in doubt: 1 attempt, $1.75." in ended.out
    assert f"    {NOT_YET}." in ended.out
    assert json.loads(command("reconcile", str(made), "--json").out)["in_doubt"][0]["why"] == NOT_YET
    line = next(line for line in ended.out.splitlines() if "kling-batch resolve" in line)
    asked = line.split("#")[0].split()[1:]
    assert command(*asked).code == 2
    told = command(*asked[:-2], "--not-billed", "--note", "not on the invoice")
    assert told.code == 0
    assert f"{LOST_JOB}/1 was not billed, by your word; its $1.75 is free again." in told.out
    assert command("reconcile", str(made)).code == 0


def test_a_run_that_leaves_doubt_says_what_holds_it(command: Command, manifest: str, made: Path) -> None:
    """On its own screen, on that of `status` until it is settled, in the table of errors, and nowhere afterwards."""
    lose(made)
    ended = command("run", manifest, *FAST, "--no-progress", "--set", "in_doubt.wait_s=1")
    assert ended.code == 5
    assert f"1 in doubt: {NOT_YET}." in ended.out
    assert f"1 in doubt: {NOT_YET}." in command("status", str(made)).out
    assert f"When the last run ended, {NOT_YET}." in (made / "report/errors.csv").read_text()
    assert command("resolve", str(made), LOST_JOB, "--not-billed").code == 0
    assert NOT_YET not in command("status", str(made)).out
    assert json.loads((made / "report/summary.json").read_text())["why_in_doubt"] == {}


def test_a_word_for_scripts(command: Command, made: Path) -> None:
    """`resolve --json` says what was recorded."""
    lose(made)
    told = json.loads(command("resolve", str(made), LOST_JOB, "--billed", "request-77", "--json").out)
    assert (told["billed"], told["request_id"], told["quote_usd"]) == (True, "request-77", "1.75")
    status = json.loads(command("status", str(made), "--json").out)
    (row,) = status["unsettled"]
    assert (row["job_id"], row["request_id"]) == (LOST_JOB, "request-77")
    assert row["record_expires_in_s"] <= 3600 < row["file_expires_in_s"] <= 7 * 24 * 3600


@pytest.mark.parametrize("flags", [(), ("--billed", "request-77", "--not-billed")])
def test_one_word_must_be_said_and_only_one(command: Command, made: Path, flags: tuple[str, ...]) -> None:
    """Neither nothing nor both."""
    lose(made)
    ended = command("resolve", str(made), LOST_JOB, *flags)
    assert ended.code == 2
    assert "either --billed REQUEST_ID or --not-billed" in ended.err


def test_status_tells_what_expires_when(command: Command, made: Path) -> None:
    """An unsettled attempt stands there with its row, its age, an hour for its record and a week for its file."""
    lose(made)
    screen = command("status", str(made)).out
    assert "what expires in" in screen
    assert "record 60 min, video 7.0 days" in screen


@pytest.mark.parametrize("verb", ["reconcile", "resolve"])
def test_a_folder_that_is_no_run_directory(command: Command, tmp_path: Path, verb: str) -> None:
    """One sentence, exit 2, and nothing is made."""
    ended = command(verb, str(tmp_path), *(["x", "--not-billed"] if verb == "resolve" else []))
    assert ended.code == 2
    assert "run directory" in ended.err
    assert list(tmp_path.iterdir()) == []
