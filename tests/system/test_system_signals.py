"""What a run makes of signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import KEY, campaign, fast_config, quick_provider, run_once

from pipeline.ledger.store import Ledger
from pipeline.runner import running
from pipeline.runner.watching import LiveRun, Watcher
from pipeline.sandbox import Sandbox


class SignalAtStart(Watcher):
    """Sends this process a signal with the first event, when the run listens."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._live: LiveRun | None = None

    def started(self, live: LiveRun) -> None:
        self._live = live

    def event(self, event: object) -> None:
        if self._live is not None:
            self._live = None
            os.kill(os.getpid(), self._number)


@pytest.fixture(autouse=True)
def _as_in_a_shell() -> Iterator[None]:
    """However these tests were started, no signal is ignored but by them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_polite_signal_stops_a_run_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal: nothing new starts, exit 130."""
    async with Sandbox(quick_provider()) as provider:
        made, config = campaign(tmp_path, 5), fast_config(provider.url, limits__max_in_flight="1")
        result = await run_once(made, config, tmp_path / "run", watcher=SignalAtStart(number))
    assert result.exit_code == 130
    assert result.summary["pending"] > 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 0), (signal.SIGINT, 0), (signal.SIGTERM, 130)], ids=lambda it: str(it)
)
async def test_what_was_ignored_before_a_run_is_not_meant_for_it(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """As nohup has SIGHUP, and a script SIGINT for what it starts in its background. SIGTERM always stops."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        async with Sandbox(quick_provider()) as provider:
            made, config = campaign(tmp_path, 5), fast_config(provider.url, limits__max_in_flight="1")
            result = await run_once(made, config, tmp_path / "run", watcher=SignalAtStart(number))
    finally:
        signal.signal(number, before)
    assert result.exit_code == code


@pytest.mark.parametrize("moment", ["opened", "closed"])
async def test_a_signal_before_or_after_the_engine_kills_no_bookkeeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """While the ledger is opened nothing starts any more, while it is closed all is over: the run ends in order."""

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return function(*arguments, **options)

        return call

    if moment == "opened":
        monkeypatch.setattr(running, "check_provider", interrupted(running.check_provider))
    else:
        monkeypatch.setattr(Ledger, "close", interrupted(Ledger.close))
    made = campaign(tmp_path, 1)
    async with Sandbox(quick_provider()) as provider:
        result = await run_once(made, fast_config(provider.url), tmp_path / "run")
        assert result.exit_code == (130 if moment == "opened" else 0)
        assert provider.state()["submissions"] == (0 if moment == "opened" else 1)


RESOLVER_THAT_HANGS = """
import socket, sys, time
socket.getaddrinfo = lambda *asked, **more: time.sleep(60)
from pipeline.__main__ import main
main()
"""

CONFIG = """
provider: {kind: segmind, base_url: "https://api.example.com"}
budget: {cap_usd: "9.00"}
"""


def test_a_resolver_that_hangs_keeps_nobody_who_wants_to_leave(tmp_path: Path) -> None:
    """A look-up cannot be broken off: neither the run's end nor the process's waits for it."""
    made = campaign(tmp_path, 1)
    (tmp_path / "live.yaml").write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-c", RESOLVER_THAT_HANGS, "run", str(made.source), "-c", "live.yaml", "-o", "run", "--yes"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "SEGMIND_API_KEY": KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline_s = time.monotonic() + 60
        while not list(tmp_path.glob("run/ledger/*.parquet")) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)  # nothing runs that would have to be finished: one is enough
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
