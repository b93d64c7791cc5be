"""What the tests of this folder share: an encoder, an MP4 surgeon and a server without manners."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import av
from PIL import Image, ImageDraw

from pipeline.media import Expectation, FetchSettings

LOCAL = FetchSettings(allow_loopback=True)
TINY = Expectation(duration_s=0.125, width=64, height=36)
HD = Expectation(duration_s=5, width=1280, height=720)


def encode(
    path: Path,
    width: int,
    height: int,
    *,
    frames: int,
    codec: str = "libx264",
    bit_rate: int | None = None,
    movflags: str | None = None,
) -> bytes:
    """A film at 24 pictures a second, in which a block moves; returns its bytes."""
    with av.open(str(path), "w", container_options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "threads": "1"}
        if bit_rate:
            stream.bit_rate = bit_rate
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(_picture(width, height, index))))
        container.mux(stream.encode())
    return path.read_bytes()


def _picture(width: int, height: int, index: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), (180, 60, 40))
    left = index * 4 % width
    ImageDraw.Draw(picture).rectangle([left, height // 4, left + width // 4, height // 2], fill=(20, 90, 200))
    return picture


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def patch(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """`data` with `value` written `offset` bytes into the payload of the first box called `kind`."""
    at = data.index(kind) + 4 + offset
    return data[:at] + value + data[at + len(value) :]


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A plain 200 with `body`; `length` lies about it."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Answers each path with the bytes, or by the coroutine, in `answers`; remembers the requests it saw.

    Bytes are sent and the connection is kept, unless `hang_up` is set.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.connections = 0
        self.hang_up = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(request)
                answer = self.answers[request.split()[1].split("?")[0]]
                if callable(answer):
                    await answer(writer)
                else:
                    writer.write(answer)
                    await writer.drain()
                if self.hang_up:
                    break
        writer.close()
        self._writers.discard(writer)
