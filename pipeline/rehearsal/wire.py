"""Connections within this process: bytes go from one end to the other by way of the event loop, and nowhere else.

Both ends are those of the real wire, the client's HTTP and the server's, with all that can go wrong on it: a half
answer, an end in the middle, silence. Only the kernel is left out, which costs more than all the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

PEER = ("127.0.0.1", 0)
"""The address that each end sees as the other's."""

END = None
"""What comes behind the last bytes."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection. What is written here arrives at the other end in one of the loop's next turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": PEER, "sockname": PEER})
        self.other: MemoryTransport
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self._lost = False
        self._paused = False
        self._held: deque[bytes | None] = deque()
        """What has arrived while reading is paused."""

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self._loop.call_soon(self.other.arrive, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.other.arrive, END)
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        """As `close`: what was written is with the other end already, as it is with a kernel."""
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._hand_on)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def arrive(self, data: bytes | None) -> None:
        """Take in what the other end has written."""
        self._held.append(data)
        self._hand_on()

    def _hand_on(self) -> None:
        while self._held and not self._paused and not self._lost:
            data = self._held.popleft()
            if data is not END:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def lose(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._closing = True
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)


def join(loop: asyncio.AbstractEventLoop, client: asyncio.Protocol, server: asyncio.Protocol) -> None:
    """Let two protocols be the two ends of one connection."""
    near, far = MemoryTransport(loop, client), MemoryTransport(loop, server)
    near.other, far.other = far, near
    server.connection_made(far)
    client.connection_made(near)


class MemoryConnector(aiohttp.BaseConnector):
    """Connects to nobody but the one server in this process, whatever host a URL names."""

    def __init__(self, serve: Callable[[], asyncio.Protocol], *, limit: int = 0, force_close: bool = False) -> None:
        super().__init__(limit=limit, force_close=force_close)
        self._serve = serve

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:  # noqa: ARG002
        client: ResponseHandler = self._factory()
        join(self._loop, client, self._serve())
        return client
