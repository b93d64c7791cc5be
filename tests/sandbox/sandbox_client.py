"""What the sandbox's tests share: a clock to turn by hand, and a client that judges nothing."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from pipeline.sandbox import Sandbox

KEY = "SG_0123456789abcdef"
NOON = 1_790_000_000.0  # some day in 2026


class HandClock:
    """Wall time that moves only when told to."""

    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def turn(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class Answer:
    """One answer, read to its end. `problem` is how the connection failed, if it did."""

    status: int = 0
    headers: Any = None
    body: bytes = b""
    problem: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """Calls one sandbox, follows nothing, raises nothing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        # One connection a call: a faulty answer must not fail the call after it.
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=20),
            max_field_size=65_536,
        )
        self.session._retry_connection = False  # the library sends a dropped GET again by itself: not here

    async def __aenter__(self) -> "RawClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(self, verb: str, path: str, *, key: str | None = KEY, **more: Any) -> Answer:
        url = path if path.startswith("http") else self.sandbox.url + path
        headers = {**({"x-api-key": key} if key else {}), **more.pop("headers", {})}
        answer = Answer()
        try:
            async with self.session.request(verb, url, headers=headers, allow_redirects=False, **more) as response:
                answer.status, answer.headers = response.status, response.headers
                answer.body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            answer.problem = type(problem).__name__
        return answer

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def submit(self, prompt: str = "a lamp", *, api: str = "v2", **more: Any) -> Answer:
        return await self.call("POST", f"/{api}/kling-2", json={"prompt": prompt, **more})

    async def accepted(self, prompt: str = "a lamp", **more: Any) -> str:
        answer = await self.submit(prompt, **more)
        assert answer.status == 200, answer
        return str(answer.json["request_id"])

    async def status(self, request_id: str) -> Answer:
        return await self.get(f"/v2/requests/{request_id}/status")

    async def completed(self, request_id: str) -> None:
        """Wait for a clip that is really being drawn."""
        while (await self.status(request_id)).json["status"] != "COMPLETED":  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def result(self, request_id: str) -> Answer:
        return await self.get(f"/v2/requests/{request_id}")

    async def history(self, **query: Any) -> Answer:
        return await self.get("/inference-request/request-history", params=query)
