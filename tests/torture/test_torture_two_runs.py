"""Two runs on one directory: one wins, the other says who holds it; and what if the lock does not hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from score import LONG, Score, in_tier
from wires import Client, Wire, command
from worlds import fork, side_by_side, warm

from pipeline.kernel import files
from pipeline.kernel.errors import RunDirectoryError
from pipeline.ledger.lock import lock_holder
from pipeline.ledger.reading import read_events
from pipeline.ledger.store import open_ledger

pytestmark = pytest.mark.timeout(0 if LONG else 600)

PAIRS = in_tier(quick=range(0, 21, 3), full=range(20), long=range(2000))
UNLOCKED_PAIRS = in_tier(quick=4, full=6, long=200)
HANDS = 4
SEGMENT = re.compile(r"\d{12}-\d{12}-[0-9a-f]{32}\.parquet")
IN_USE = re.compile(r"is in use: process (\d+) on (\S+) has held it since 2\d{3}-\d\d-\d\dT\S+\. Nothing was sent\.")


async def run_two(wire: Wire, apart_s: float, target: Callable[..., None]) -> tuple[list[Client], list[int]]:
    """Start two clients on the directory, so far apart; both, and their exit codes."""
    first = wire.start(target=target)
    await asyncio.sleep(apart_s)
    clients = [first, wire.start(target=target)]
    return clients, [await client.over() for client in clients]


async def compete(score: Score, apart_s: float, folder: Path) -> None:
    """One makes everything; the other is refused in words, or comes when all is done."""
    async with Wire(folder) as wire:
        clients, codes = await run_two(wire, apart_s, command)
        assert sorted(codes) in ([0, 0], [0, 2]), [(client.output, codes) for client in clients]
        if 2 in codes:
            score.fired["refused"] += 1
            loser, winner = clients if codes[0] == 2 else reversed(clients)
            told = IN_USE.search(loser.output)
            assert told, loser.output
            assert (int(told[1]), told[2]) == (winner.pid, socket.gethostname())
        wire.check_rest()
        assert wire.sandbox.state()["submissions"] == wire.rows, "each row was sent once"


def test_of_two_runs_on_one_directory_one_wins(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """Started 0 to 20 ms apart: the bill of one, and the other says who holds the directory and since when."""
    warm()
    score = new_score("two runs: at once")

    def trial(number: int) -> None:
        with score.trial(f"pair {number}"):
            asyncio.run(compete(score, number % 21 / 1000, tmp_path / str(number)))

    side_by_side(trial, PAIRS, HANDS)
    score.conclude(["refused"])


def command_without_lock(arguments: Sequence[str], said: Path) -> None:
    """The main function of a client on a mount where locks do nothing."""
    files._lock_soon = lambda *_: None  # type: ignore[assignment]
    command(arguments, said)


def damage_of(ledger: Path) -> str:
    """What a reader refuses the ledger for; empty if it is sound."""
    try:
        read_events(ledger)
    except RunDirectoryError as error:
        return str(error)
    return ""


async def collide(score: Score, apart_s: float, folder: Path) -> None:
    """Whatever two runs do to one ledger without a lock, nothing is bought twice, and damage is refused by name."""
    async with Wire(folder, rows=6, changes={"limits.max_in_flight": "2"}, provider={"mean_s": 0.2}) as wire:
        clients, codes = await run_two(wire, apart_s, command_without_lock)
        said = [client.output for client in clients]
        assert set(codes) <= {0, 2, 5, 6}, said
        score.fired["two at once"] += any("the lock does not work here" in text for text in said)
        if damage := damage_of(wire.run_folder / "ledger"):
            assert SEGMENT.search(damage), damage
            score.fired["damage"] += 1
        else:
            wire.check_covered()
            code, text = await wire.run()
            assert code == 0, text
            wire.check_rest()
        assert not wire.sandbox.state()["duplicate_bodies"], f"bought twice: {said}"


def test_without_a_lock_two_runs_never_both_pay(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """Where the lock does not hold, the earlier of two runs stops before both could pay for one row."""
    warm()
    score = new_score("two runs: without a lock")

    def trial(number: int) -> None:
        with score.trial(f"pair {number}"):
            asyncio.run(collide(score, number * 37 % 251 / 1000, tmp_path / str(number)))

    side_by_side(trial, range(UNLOCKED_PAIRS), HANDS)
    score.conclude(["two at once"])


def hold_with_a_child(folder: Path, told: Path) -> None:
    """The main function of a process that holds a ledger, and has a child that inherits whatever it can."""
    with open_ledger(folder):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        told.write_text(str(child.pid))
        signal.pause()


def children_of(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            yield int(path.parent.name)


@contextlib.contextmanager
def kept_alive(drawer: int) -> Iterator[None]:
    """Hold the other ends of its pipes, by whose closing a process that draws notices the death of its sandbox."""
    ends = [
        os.open(f"/proc/{drawer}/fd/0", os.O_WRONLY | os.O_NONBLOCK),
        os.open(f"/proc/{drawer}/fd/1", os.O_RDONLY | os.O_NONBLOCK),
    ]
    try:
        yield
    finally:
        for end in ends:
            os.close(end)


def until(look: Callable[[], object]) -> None:
    """Ask again until it is so."""
    ends_s = time.monotonic() + 30
    while not look():
        assert time.monotonic() < ends_s, "it never came to that"
        time.sleep(0.005)


def test_a_child_of_a_dead_holder_does_not_hold_the_lock(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """The holder is killed while its child lives on with all that it inherited: the next run has the lock at once."""
    score = new_score("two runs: dead holder, child alive")
    for number in range(100 if LONG else 3):
        with score.trial(f"holder {number}"):
            folder, told = tmp_path / str(number) / "ledger", tmp_path / f"told-{number}"
            holder = Client(fork(hold_with_a_child, folder, told), told)
            with contextlib.ExitStack() as ends:
                ends.callback(holder.end)
                until(lambda told=told: told.exists() and told.read_text())
                child = int(told.read_text())
                ends.callback(os.kill, child, signal.SIGKILL)
                assert (lock_holder(folder) or {}).get("pid") == holder.pid
                holder.end()
                score.kills += 1
                assert lock_holder(folder) is None
                with open_ledger(folder):
                    score.fired["child alive"] += Path(f"/proc/{child}").exists()
    score.conclude(["child alive"])


def test_the_process_that_draws_does_not_hold_the_lock(new_score: Callable[[str], Score], tmp_path: Path) -> None:
    """A run with its own sandbox is killed and the process that draws for it lives on: the next run does not wait."""
    score = new_score("two runs: dead holder, drawing process")

    async def trial() -> None:
        flags = ("--set", "provider.kind=sandbox", "--set", "polling.expected_s=1")
        async with Wire(tmp_path / "run", rows=1) as wire:
            client = wire.start(*flags)
            until(lambda: list(children_of(client.pid)))
            (drawer,) = children_of(client.pid)
            with kept_alive(drawer):
                client.end()
                score.kills += 1
                again = wire.start(*flags)
                code = await again.over()
                assert code == 0, again.output
                score.fired["drawing process alive"] += Path(f"/proc/{drawer}").exists()

    with score.trial("drawing"):
        asyncio.run(trial())
    score.conclude(["drawing process alive"])
