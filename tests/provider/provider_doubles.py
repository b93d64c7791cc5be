"""What the tests of this folder share: a server that says any bytes at all, and a client that talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from job_doubles import make_job

from pipeline.jobs import Job
from pipeline.kernel.clock import SystemClock
from pipeline.provider.client import Client
from pipeline.provider.settings import ProviderSettings

KEY = "SG_0123456789abcdef"
REQUEST_ID = "3f2c1a9e-0000-4000-8000-1234567890ab"
OTHER_ID = "99999999-0000-4000-8000-1234567890ab"
NOW_US = 1_790_000_000_000_000

ACCEPTANCE = json.dumps({"request_id": REQUEST_ID, "status": "QUEUED"}).encode()

JOB: Job = make_job(
    "kling-2",
    {"prompt": "a lamp", "negative_prompt": "", "cfg_scale": 0.5, "duration": 5, "aspect_ratio": "16:9"},
    0,
    "lamp",
)


def http(status: int | str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A whole reply; `length` lies about the body."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def as_json(value: object, status: int = 200, *headers: str) -> bytes:
    return http(status, json.dumps(value).encode(), "Content-Type: application/json", *headers)


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Line:
    """A connection in the hands of a script."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    def reset(self) -> None:
        """Hang up with an RST instead of a FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


class RawServer:
    """Answers every request with the bytes, or by the script, in `answer`; remembers what it saw.

    `unheard` takes a connection over before anything is read from it. Connections are kept unless `hang_up` is set.
    """

    def __init__(self, answer: bytes | Script = b"", *, unheard: Script | None = None, hang_up: bool = False) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[Request] = []
        self._unheard = unheard
        self._hang_up = hang_up
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20, backlog=512)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def posts(self) -> int:
        return sum(request.method == "POST" for request in self.requests)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._talk(Line(reader, writer)))
        self._tasks.add(task)

    async def _talk(self, line: Line) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                if self._unheard is not None:
                    await self._unheard(line)
                    return
                while True:
                    self.requests.append(await self._listen(line.reader))
                    if isinstance(self.answer, bytes):
                        await line.say(self.answer)
                    else:
                        await self.answer(line)
                    if self._hang_up or line.writer.is_closing():
                        return
            finally:
                line.writer.close()

    @staticmethod
    async def _listen(reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, headers, body)


Serve = Callable[..., Awaitable[RawServer]]
"""The fixture: starts a server that says this."""


def settings_for(url: str, **changes: Any) -> ProviderSettings:
    waits = {"connect_s": 1.0, "submit_s": 1.0, "read_s": 1.0, "blocking_submit_s": 1.0}
    return ProviderSettings(base_url=url, storage_url=url, history_url=url, **(waits | changes))


def client_for(url: str, **changes: Any) -> Client:
    """A client of the provider at `url`, which is patient for a second at most."""
    return Client(settings_for(url, **changes), KEY, SystemClock())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
