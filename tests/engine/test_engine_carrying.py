"""One worker carries a job, and is gone in the very step in which it ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from pipeline.engine.dispatcher import Dispatcher
from pipeline.engine.retry import NOTHING_LEFT, Outcome
from pipeline.engine.stopping import Stopping, StopReason


def dispatcher() -> Dispatcher:
    """One whose run does nothing."""
    slots = SimpleNamespace(forget=lambda _: None)
    return Dispatcher(cast("Any", SimpleNamespace(stopping=Stopping(), slots=slots)), {})


async def test_a_job_can_be_taken_up_again_in_the_moment_in_which_its_worker_ends() -> None:
    """A doubt is recorded and settled by one and the same commit: the worker ends, and the next begins right after."""
    mine, durable = dispatcher(), asyncio.get_running_loop().create_future()
    carried: list[str] = []

    async def work(name: str) -> Outcome:
        await durable
        carried.append(name)
        return NOTHING_LEFT

    async def settle() -> None:
        await durable
        mine._spawn("job", work("again"))

    mine._spawn("job", work("first"))
    await asyncio.sleep(0)
    settler = asyncio.create_task(settle())
    await asyncio.sleep(0)
    durable.set_result(None)
    await settler
    await mine.wait_for_workers()
    assert carried == ["first", "again"]
    assert not mine.run.stopping.reason


async def test_what_a_worker_raises_stops_the_run_before_anybody_decides() -> None:
    """Whoever goes on in the next step sees it stopped already."""
    mine, durable = dispatcher(), asyncio.get_running_loop().create_future()

    async def work() -> Outcome:
        await durable
        raise ZeroDivisionError

    async def decide() -> StopReason | None:
        await durable
        return mine.run.stopping.reason

    mine._spawn("job", work())
    await asyncio.sleep(0)
    decision = asyncio.create_task(decide())
    await asyncio.sleep(0)
    durable.set_result(None)
    assert await decision is StopReason.MACHINE
    assert not mine._workers
