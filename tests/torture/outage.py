"""A provider that is out for a while: nothing listens, or calls of some kind are answered with 503 or not at all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline.provider.client import Client
from pipeline.sandbox import wire
from pipeline.sandbox.server import Sandbox

KINDS = {
    "nothing listens": (),
    "everything": ("/",),
    "polls": ("/v2/requests/", "/v1/requests/"),
    "history": ("/inference-request/",),
    "polls and history": ("/v2/requests/", "/v1/requests/", "/inference-request/"),
    "files": ("/files/",),
}
"""What is out, and the paths that are hit; for the first there is nobody to answer at all."""


@dataclass(frozen=True, slots=True)
class Outage:
    """From one second of a life to another the provider is out. `note` is a file that gets the second of each call.

    Attributes:
        share: how many of the calls are hit, 0 to 1; by a seeded draw.
    """

    note: Path
    kind: str
    from_s: float
    to_s: float
    share: float = 1.0
    seed: int = 0

    def arm(self) -> None:
        """Arrange for it, in the process that is about to live."""
        self._note_calls()
        if self.kind == "nothing listens":
            self._hang_up()
        else:
            self._answer_badly()

    def _note_calls(self) -> None:
        get, pay = Client._get, Client._pay

        def noted(call: Any) -> Any:
            async def made(client: Client, *arguments: Any) -> Any:
                with self.note.open("a") as file:
                    file.write(f"{asyncio.get_running_loop().time()}\n")
                return await call(client, *arguments)

            return made

        Client._get, Client._pay = noted(get), noted(pay)  # type: ignore[method-assign]

    def _hang_up(self) -> None:
        enter = Sandbox.__aenter__

        async def entered(sandbox: Sandbox) -> Sandbox:
            await enter(sandbox)
            asyncio.get_running_loop().create_task(absent(sandbox))
            return sandbox

        async def absent(sandbox: Sandbox) -> None:
            runner = sandbox._runner
            assert runner is not None
            assert runner.server is not None
            await asyncio.sleep(self.from_s)
            for site in list(runner.sites):
                await site.stop()
            for connection in list(runner.server.connections):
                connection.force_close()
            await asyncio.sleep(self.to_s - self.from_s)
            await web.TCPSite(runner, "127.0.0.1", sandbox._running.settings.port).start()

        Sandbox.__aenter__ = entered  # type: ignore[method-assign]

    def _answer_badly(self) -> None:
        handle, draw = Sandbox._handle, random.Random(self.seed)

        async def handled(sandbox: Sandbox, request: web.BaseRequest) -> web.StreamResponse:
            is_out = self.from_s <= asyncio.get_running_loop().time() < self.to_s
            if is_out and request.path.startswith(KINDS[self.kind]) and draw.random() < self.share:
                refusal = web.Response(status=503) if draw.random() < 0.7 else wire.drop(request)
                return wire.dated(sandbox._running, refusal)
            return await handle(sandbox, request)

        Sandbox._handle = handled  # type: ignore[method-assign]


def calls_by_minute(outage: Outage) -> Counter[int]:
    """How many calls were made in each whole minute of the outage."""
    moments = [float(line) for line in outage.note.read_text().splitlines()]
    return Counter(int((at - outage.from_s) // 60) for at in moments if outage.from_s <= at < outage.to_s)
