"""Leaving: which waits end at once, and which may still have their outcome."""

from __future__ import annotations

import asyncio

from virtual_time import run_virtually

from pipeline.engine.stopping import LeavingError, Stopping, StopReason


def test_what_must_not_be_lost_has_its_grace_and_all_else_ends_at_once() -> None:
    """A paid call whose answer comes within two seconds is heard out; later it is silence, like any other."""

    async def main() -> list[tuple[str, float]]:
        stopping, now = Stopping(), asyncio.get_running_loop().time
        began_s = now()

        async def answered(after_s: float) -> str:
            await asyncio.sleep(after_s)
            return "answered"

        async def wait(after_s: float, grace_s: float) -> tuple[str, float]:
            try:
                outcome = await stopping.unless_leaving(answered(after_s), grace_s)
            except LeavingError:
                outcome = "left"
            ended_s = round(now() - began_s, 3)
            await asyncio.sleep(10)  # bookkeeping, which nothing may disturb any more
            return outcome, ended_s

        waits = [asyncio.create_task(wait(*each)) for each in ((2.0, 2.0), (9.0, 2.0), (2.0, 0.0))]
        await asyncio.sleep(1)
        stopping.leave(StopReason.INTERRUPTED, "interrupted twice")
        return await asyncio.gather(*waits)

    assert run_virtually(main()) == [("answered", 2.0), ("left", 3.0), ("left", 1.0)]


def test_a_second_interrupt_says_what_it_did() -> None:
    """Unless something graver is told."""

    async def main() -> list[str]:
        twice, graver = Stopping(), Stopping()
        graver.stop(StopReason.ACCOUNT, "no credits")
        for stopping in (twice, graver):
            stopping.interrupt()
            stopping.interrupt()
        return [twice.message, graver.message]

    assert run_virtually(main()) == ["interrupted twice: what runs is left to the next run", "no credits"]


def test_nothing_is_begun_once_a_run_is_being_left() -> None:
    """Also nothing with a grace: what is not sent needs none."""

    async def main() -> list[str]:
        stopping, sent = Stopping(), []

        async def send() -> None:
            sent.append("sent")

        stopping.leave(StopReason.INTERRUPTED, "interrupted twice")
        try:
            await stopping.unless_leaving(send(), 2.0)
        except LeavingError:
            sent.append("left")
        return sent

    assert run_virtually(main()) == ["left"]
