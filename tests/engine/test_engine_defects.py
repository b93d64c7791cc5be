"""What nobody foresaw: a run ends in order all the same, says 6 and never 1, and tells who is to be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nights import Night, play
from support import campaign, durable_state
from test_engine_notify import Hook
from virtual_time import run_virtually

from pipeline.engine.dispatcher import Dispatcher
from pipeline.kernel.errors import MachineError
from pipeline.ledger.store import Ledger
from pipeline.media import Collector
from pipeline.runner import reporting, running


def raising(error: Exception, after: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def function(*asked: Any) -> None:
        if after is not None:
            after(*asked)
        raise error

    return function


close = Collector.__aexit__


async def closed_badly(collector: Collector, *how: Any) -> None:
    await close(collector, *how)
    raise RuntimeError("can't start new thread")


PLACES = {
    "the report": (reporting, "renew_report", raising(MemoryError(), reporting.renew_report), 0, "MemoryError"),
    "the dispatcher": (Dispatcher, "decide", raising(RuntimeError("no thread")), 2, "RuntimeError at the heart"),
    "a closing": (Collector, "__aexit__", closed_badly, 0, "RuntimeError"),
    "the ledger's closing": (Ledger, "_tidy_up", raising(RuntimeError("no thread")), 0, "RuntimeError"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_meets_what_nobody_foresaw_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Its last word is recorded, the webhook is told, run.log has the place, and a unit of systemd starts it again."""
    owner, name, function, pending, said = PLACES[place]
    monkeypatch.setattr(owner, name, function)

    async def main() -> None:
        async with Hook(tmp_path) as hook:
            result = await hook.run(campaign(tmp_path, 2))
            assert (result.exit_code, result.summary["exit_code"], result.summary["pending"]) == (6, 6, pending)
            assert said in result.message
            assert durable_state(hook.night.folder).runs[-1].ended_us is not None
            assert len(hook.heard) == 1
            logged = [json.loads(line) for line in (hook.night.folder / "run.log").read_text().splitlines()]
            assert [each["error"] for each in logged if "where" in each] == [said.split()[0]]

    run_virtually(main())


def test_a_run_that_cannot_even_begin_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is told with the error that is documented, and a stranger's words are in neither message nor log."""
    monkeypatch.setattr(running, "choose", raising(ValueError("SG_0123456789abcdef")))

    async def main() -> None:
        async with Night(tmp_path) as night:
            with pytest.raises(MachineError) as met:
                await night.run(campaign(tmp_path, 1))
            log = (night.folder / "run.log").read_text()
            assert f"(ValueError): nothing is lost, see {night.folder / 'run.log'}" in str(met.value)
            assert '"error":"ValueError"' in log
            assert "SG_0" not in log + str(met.value)

    play(main())
