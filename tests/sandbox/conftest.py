"""Fixtures of the sandbox's tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sandbox_client import HandClock, RawClient

from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.sandbox.clips import tiny_clip
from pipeline.sandbox.mp4 import SIZES
from pipeline.sandbox.studio import _BASES

Start = Callable[..., Awaitable[RawClient]]


@pytest.fixture(scope="session", autouse=True)
def _tiny_clips() -> None:
    """Tiny clips are there from the start, so a hand-turned clock alone decides when one is finished."""
    for aspect in SIZES:
        for duration in (5, 10):
            _BASES["tiny", aspect, duration] = tiny_clip(aspect, duration)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def start(clock: HandClock) -> AsyncIterator[Start]:
    """Start a sandbox with these settings on the hand-turned clock; its client."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> RawClient:
            chosen = SandboxSettings(**{"clips": "tiny", "clock": clock, "hang_s": 0.05, **settings})
            sandbox = await stack.enter_async_context(Sandbox(chosen))
            return await stack.enter_async_context(RawClient(sandbox))

        yield begin
