"""A provider without manners, who keeps honest books: what it accepted, and every byte that reached it.

It answers one *place* (submit, poll, result, history, file, delivery) with a hostile reply for as long as it is told
to, and everything else as documented. Beside it stands the canary: a server that nobody has a reason to talk to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Self

from virtual_time import VirtualLoop

from pipeline.kernel.clock import Clock

PLACES = ("submit", "poll", "result", "history", "file", "delivery")
"""Where a reply can attack; `delivery` is the answer to a blocking v1 call."""

PRICE_USD = 1.75


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON as it shall stand in a body: what `json.dumps` would never write."""

    text: str


def as_json(value: object) -> bytes:
    """`value` as JSON, each `Raw` in it to the letter."""
    raw: list[str] = []

    def mark(item: object) -> str:
        assert isinstance(item, Raw), item
        raw.append(item.text)
        return f"@@{len(raw) - 1}@@"

    marked = json.dumps(value, default=mark)
    return re.sub(r'"@@(\d+)@@"', lambda found: raw[int(found[1])], marked).encode("utf-8", "surrogatepass")


def whole(status: int | str, body: bytes = b"", *headers: str, length: int | str | None = None) -> bytes:
    """A reply with a `Content-Length`; `length` lies about the body."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


@cache
def film() -> bytes:
    """A whole video of 5 seconds, as small as can be."""
    from pipeline.sandbox.clips import tiny_clip

    return tiny_clip("16:9", 5)


@dataclass(frozen=True, slots=True)
class Scene:
    """What an honest provider would say now at this place, for a reply to distort."""

    data: Mapping[str, Any]
    """The object that an honest body holds; at `file` and `delivery` there is none."""
    body: bytes
    headers: tuple[str, ...]
    canary: str
    """The canary's URL, without a path."""
    prompt: str = ""
    """The prompt of the job that is talked about, where there is one job."""

    def honest(self, *headers: str, status: int | str = 200) -> bytes:
        """The honest reply, with more headers or another status."""
        return whole(status, self.body, *self.headers, *headers)

    def saying(self, body: bytes, *headers: str, status: int | str = 200) -> bytes:
        """A whole reply with another body."""
        return whole(status, body, *self.headers, *headers)

    def changed(self, **changes: object) -> bytes:
        """The honest object with other values; dotted names reach into it (`metrics__cost`), None takes away."""
        made: dict[str, Any] = json.loads(as_json(self.data))
        for path, value in changes.items():
            *way, last = path.split("__")
            into = made
            for step in way:
                into = into[step]
            if value is None:
                into.pop(last, None)
            else:
                into[last] = value
        return self.saying(as_json(made))


@dataclass
class Line:
    """A connection in the hands of a script."""

    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Line], Awaitable[None]]
Answer = bytes | Script


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    target: str
    head: bytes
    body: bytes


@dataclass
class HostileProvider:
    """See the module. `say` is the hostile reply; it is told at `place` only, and only while `is_hostile`."""

    clock: Clock
    place: str
    say: Callable[[Scene], Answer]
    accepts: bool = True
    """Whether a hostile reply to a submission stands for an accepted one."""
    canary: str = ""
    is_hostile: bool = True
    accepted: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    told: int = 0
    """How often the hostile reply was given."""
    port: int = 0

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> int:
        return sum(request.method == "POST" for request in self.requests)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while not writer.is_closing():
                    answer = self._answer(await listen(reader, self.requests))
                    if isinstance(answer, bytes):
                        await Line(writer).say(answer)
                    else:
                        await answer(Line(writer))
                        return
            finally:
                writer.close()

    def _answer(self, request: Request) -> Answer:
        place = _place_of(request)
        hostile = self.is_hostile and place == self.place
        if request.method == "POST":
            if self.accepts or not hostile:
                self._accept(request.body)
            if self.is_hostile and self.place == "history":
                return hang_up  # only the history can tell now
        if place == "credits":
            return whole(200, b'{"credits": 1000}')
        scene = self._scene(place, request)
        if scene is None:
            return whole(404, b'{"error": "Not Found"}')
        if hostile:
            self.told += 1
            return self.say(scene)
        return scene.honest()

    def _accept(self, body: bytes) -> None:
        self.accepted.append(
            {
                "request_id": f"3f2c1a9e-0000-4000-8000-{len(self.accepted) + 1:012d}",
                "model_status": "COMPLETED",
                "credits_deduction": PRICE_USD,
                "generation_url": f"{self.url}/file.mp4",
                "error": None,
                "request_body": json.loads(body),
                "model_created": datetime.fromtimestamp(self.clock.now_us() / 1e6, UTC).isoformat(),
            }
        )

    def _scene(self, place: str, request: Request) -> Scene | None:
        json_type = ("Content-Type: application/json",)
        if place == "file":
            return Scene({}, film(), ("Content-Type: video/mp4",), self.canary)
        prompt = str(json.loads(request.body)["prompt"]) if request.body else ""
        latest = self.accepted[-1] if self.accepted else _NOBODYS
        named = (f"X-Request-Id: {latest['request_id']}", f"X-Cost: {PRICE_USD}")
        if place == "delivery":
            return Scene({}, film(), ("Content-Type: video/mp4", *named), self.canary, prompt)
        if place == "history" and "?" in request.target:
            data: dict[str, Any] = {"data": self.accepted if "page=1&" in request.target else []}
        elif place == "submit":
            data = {"request_id": latest["request_id"], "status": "QUEUED", "status_url": f"{self.canary}/status"}
        else:
            row = next((row for row in self.accepted if row["request_id"] in request.target), None)
            if row is None:
                return None
            data, prompt = _shown(place, row), row["request_body"]["prompt"]
        return Scene(data, as_json(data), json_type, self.canary, prompt)


_NOBODYS = {"request_id": "3f2c1a9e-0000-4000-8000-000000000000"}


def _shown(place: str, row: dict[str, Any]) -> dict[str, Any]:
    if place == "history":
        return row
    known = {"request_id": row["request_id"], "status": "COMPLETED"}
    if place == "poll":
        return known
    metrics = {"cost": row["credits_deduction"], "queue_time": 1.5, "inference_time": 20}
    return known | {"video": {"url": row["generation_url"]}, "metrics": metrics}


def _place_of(request: Request) -> str:
    path = request.target.partition("?")[0]
    if request.method == "POST":
        return "delivery" if path.startswith("/v1/") else "submit"
    if path == "/v1/get-user-credits":
        return "credits"
    if path.startswith("/inference-request/"):
        return "history"
    if path.startswith("/v2/requests/"):
        return "poll" if path.endswith("/status") else "result"
    return "file"


async def listen(reader: asyncio.StreamReader, requests: list[Request]) -> Request:
    """Read one request and note it."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    request = Request(method, target, head, await reader.readexactly(int(length[1]) if length else 0))
    requests.append(request)
    return request


async def hang_up(line: Line) -> None:
    """Say nothing."""


@dataclass
class Canary:
    """Counts every connection and keeps every byte; answers any request with a whole video."""

    connections: int = 0
    heard: bytearray = field(default_factory=bytearray)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heard += await reader.readuntil(b"\r\n\r\n")
            writer.write(whole(200, film()))
            await writer.drain()
        writer.close()


class WatchedLoop(VirtualLoop):
    """A virtual loop that notes whom anybody wants to talk to, and lets nothing leave this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: set[int] = set()
        self.strangers: list[str] = []
        """Hosts that are not this machine, which somebody looked up or tried to reach."""

    async def sock_connect(self, sock: Any, address: Any) -> None:
        if address[0] not in ("127.0.0.1", "::1"):
            self.strangers.append(f"{address[0]} port {address[1]}")
            raise ConnectionRefusedError("a test talks to this machine only")
        self.ports.add(address[1])
        await super().sock_connect(sock, address)

    async def getaddrinfo(self, host: Any, port: Any, **rest: Any) -> Any:
        if host not in ("127.0.0.1", "::1", "localhost", None):
            self.strangers.append(f"{host}")
            raise OSError("a test asks no name server")
        return await super().getaddrinfo(host, port, **rest)
