"""What is done every minute beside a run, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_time import VirtualClock, run_virtually

from pipeline.runner import running


@pytest.mark.parametrize(("takes_s", "apart_s"), [(0, 60), (2, 62), (12, 252), (300, 6000)])
def test_a_report_that_takes_long_is_written_more_rarely(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, apart_s: float
) -> None:
    """A small one each minute; a large one takes a twentieth of the time at most."""

    async def main() -> None:
        clock, begun_s = VirtualClock(), []

        async def write(_live: Any) -> None:
            begun_s.append(clock.monotonic_s())
            await clock.sleep(takes_s)

        monkeypatch.setattr(running, "_write_live_report", write)
        bounds = SimpleNamespace(credits_floor=None)
        live: Any = SimpleNamespace(context=SimpleNamespace(clock=clock, settings=SimpleNamespace(bounds=bounds)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3 * 6100):
                await running._keep_house(live, reports=True)
        assert {round(after - before) for before, after in itertools.pairwise(begun_s)} == {apart_s}

    run_virtually(main())


def test_trouble_in_one_minute_ends_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses the report, and a look at the account that fails as nobody has foreseen."""

    async def main() -> None:
        clock, done = VirtualClock(), []

        async def look(_context: Any) -> None:
            done.append("look")
            if len(done) == 1:
                raise RuntimeError("unforeseen")

        async def write(_live: Any) -> None:
            done.append("report")
            if done.count("report") < 3:
                raise OSError("no room")

        monkeypatch.setattr(running, "_look_at_floor", look)
        monkeypatch.setattr(running, "_write_live_report", write)
        live: Any = SimpleNamespace(context=SimpleNamespace(clock=clock))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.5 * 60):
                await running._keep_house(live, reports=True)
        assert done == ["look", *["look", "report"] * 4]

    run_virtually(main())
