"""A provider that answers at once, written on the bare protocol, so that the client is what a benchmark measures.

It takes any submission, says COMPLETED to any poll (with --waits, PROCESSING), names a video for any result and serves
one clip. It counts nothing, refuses nothing and knows no limit; about 25,000 answers a second leave one core, ten times
what a client on the other core can ask for.

    python -m benchmarks.provider [--clip-kib 64]      prints its URL, then serves until it is ended
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import uuid

from pipeline.sandbox.clips import tiny_clip

_HEAD_END = b"\r\n\r\n"
_FREE = 8  # bytes of an MP4 box's head


def padded_clip(size_bytes: int) -> bytes:
    """A true clip of 5 seconds, as large as asked: the rest is a `free` box, which players skip."""
    clip = tiny_clip("16:9", 5)
    room = size_bytes - len(clip)
    if room < _FREE:
        return clip
    return clip + room.to_bytes(4, "big") + b"free" + bytes(room - _FREE)


class Provider(asyncio.Protocol):
    """One connection: requests in, answers out, in order."""

    numbers = itertools.count()
    waits = False

    def __init__(self, base: str, clip: bytes) -> None:
        self._base = base
        self._clip = _answer(clip, b"video/mp4")
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(_HEAD_END)) >= 0:
            head = self._buffer[:end]
            length = _content_length(head)
            if len(self._buffer) < end + len(_HEAD_END) + length:
                return
            self._buffer = self._buffer[end + len(_HEAD_END) + length :]
            method, path, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
            self._transport.write(self._reply(method, path.decode()))

    def _reply(self, method: bytes, path: str) -> bytes:
        if method == b"POST":
            request_id = str(uuid.UUID(int=next(self.numbers)))
            url = f"{self._base}/v2/requests/{request_id}"
            told = {"request_id": request_id, "status": "QUEUED", "status_url": f"{url}/status", "response_url": url}
            return _answer(json.dumps({**told, "poll_url": f"{self._base}/v1/requests/{request_id}"}).encode())
        if path.startswith("/files/"):
            return self._clip
        if path.endswith("/status"):
            word = "PROCESSING" if self.waits else "COMPLETED"
            return _answer(json.dumps({"status": word, "request_id": path.split("/")[-2], "metrics": {}}).encode())
        if path.startswith("/v2/requests/"):
            request_id = path.rsplit("/", 1)[1]
            video = {"url": f"{self._base}/files/{request_id}.mp4", "content_type": "video/mp4"}
            result = {"status": "COMPLETED", "request_id": request_id, "metrics": {"cost": 1.75}}
            return _answer(json.dumps({**result, "output": video["url"], "video": video}).encode())
        return _answer(b'{"credits": 1e9}')


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    if at < 0:
        return 0
    return int(head[at + 15 :].split(b"\r\n", 1)[0])


def _answer(body: bytes, content_type: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type, len(body), body)


async def serve(clip_bytes: int) -> None:
    """Serve on a free port of the loopback, and print the URL."""
    clip = padded_clip(clip_bytes)
    base: list[str] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(base[0], clip), "127.0.0.1", 0, backlog=4096)
    base.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    print(base[0], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip-kib", type=int, default=64)
    parser.add_argument("--waits", action="store_true", help="no generation ever ends")
    arguments = parser.parse_args()
    Provider.waits = arguments.waits
    asyncio.run(serve(arguments.clip_kib * 1024))
