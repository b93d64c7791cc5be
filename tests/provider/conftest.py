"""Servers that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from provider_doubles import RawServer, Serve


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that says this."""
    async with AsyncExitStack() as stack:

        async def begin(*args: Any, **kwargs: Any) -> RawServer:
            return await stack.enter_async_context(RawServer(*args, **kwargs))

        yield begin
