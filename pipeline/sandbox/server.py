"""The sandbox as a server: its life, and which call goes where."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from pipeline.sandbox import account, polling, replies, storage, submissions, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.settings import SandboxSettings

_HOST: Final = "127.0.0.1"
_LARGEST_BODY: Final = 64 * 2**20
_PATIENCE_S: Final = 0.3  # how long a closing server waits for answers under way

_Handled = tuple[str, str, Awaitable[web.StreamResponse]]


class Sandbox:
    """The provider's double on a loopback port, for as long as its context lasts.

    It runs in the event loop that enters the context: the client's own, if it is embedded.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._core: Core | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Where it serves all three origins: `http://127.0.0.1:PORT`."""
        return self._running.base

    @property
    def _running(self) -> Core:
        if self._core is None:
            raise RuntimeError("the sandbox has not been started")
        return self._core

    def invoice(self) -> dict[str, Any]:
        """What the provider bills, as `GET /_sandbox/invoice` tells it."""
        self._running.settle()
        return self._running.state.invoice()

    def state(self) -> dict[str, Any]:
        """Counters, as `GET /_sandbox/state` tells them."""
        return self._running.report()

    def requests(self) -> list[dict[str, Any]]:
        """Every accepted request, as `GET /_sandbox/requests` tells them."""
        return self._running.requests()

    def connection(self) -> asyncio.Protocol:
        """The server's end of a new connection, for whoever joins it to the client's end by other means than a port."""
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("the sandbox has not been started")
        return self._runner.server()

    async def __aenter__(self) -> Self:
        core = Core(self._settings)
        self._core = core
        try:
            await core.start()  # before the first call can be taken: it may ask for what was accepted long ago
            self._runner = web.ServerRunner(
                _Server(core, self._handle),
                shutdown_timeout=_PATIENCE_S,
            )
            await self._runner.setup()
            wanted = self._settings.port
            core.base = f"http://{_HOST}" if wanted is None else f"http://{_HOST}:{await self._listen(wanted)}"
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        core, runner = self._core, self._runner
        if core is not None:
            core.closing.set()  # before the server waits: hanging calls end now
        if runner is not None:
            self._runner = None
            await runner.cleanup()
        if core is not None:
            await core.stop()

    async def _listen(self, wanted: int) -> int:
        assert self._runner is not None
        remembered = self._port_file()
        if wanted == 0 and remembered is not None:
            # URLs that were handed out before a restart stay good if the port is still free.
            with contextlib.suppress(OSError, ValueError):
                old = int(remembered.read_text())
                await web.TCPSite(self._runner, _HOST, old).start()
                return old
        site = web.TCPSite(self._runner, _HOST, wanted)
        await site.start()
        port = int(self._runner.addresses[0][1])
        if remembered is not None:
            remembered.unlink(missing_ok=True)  # it may be a link to somebody's file
            remembered.write_text(str(port))
        return port

    def _port_file(self) -> Path | None:
        folder = self._settings.state_dir
        return None if folder is None else folder / "port"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        core = self._running
        path = request.raw_path.partition("?")[0]
        if "%" in path:
            path = unquote(path)
        handled = self._route(core, request, path.split("/")[1:])
        if handled is None:
            core.calls["unknown"] += 1
            return wire.whole(replies.error(404, "Not found"))
        name, verb, call = handled
        if request.method != verb and not (verb == "GET" and request.method == "HEAD"):
            call.close()  # type: ignore[attr-defined]
            core.calls["wrong_verb"] += 1
            return wire.whole(replies.page(405))
        if name != "sandbox":
            core.calls[name] += 1
        return wire.dated(core, await call)

    def _route(self, core: Core, request: web.BaseRequest, parts: list[str]) -> _Handled | None:
        match parts:
            case ["v2", "requests", request_id, "status"]:
                return "status", "GET", polling.status(core, request, request_id)
            case ["v2", "requests", request_id]:
                return "result", "GET", polling.result(core, request, request_id)
            case ["files", name]:
                return "file", "GET", storage.video(core, request, name)
            case ["v1", "requests", request_id]:
                return "poll", "GET", polling.poll(core, request, request_id)
            case ["v1", "get-user-credits"]:
                return "credits", "GET", account.credits_left(core, request)
            case ["v1" | "v2" as api, "moved", model]:
                return "submit_moved", "POST", submissions.submit(core, request, api, model, moved=True)
            case ["v1" | "v2" as api, model]:
                return f"submit_{api}", "POST", submissions.submit(core, request, api, model)
            case ["inference-request", "request-history"]:
                return "history", "GET", account.history_page(core, request)
            case ["inference-request", "request-history", request_id]:
                return "history_row", "GET", account.history_row(core, request, request_id)
            case ["upload-asset"]:
                return "upload", "POST", account.upload(core, request)
            case ["assets", name]:
                return "asset", "GET", storage.asset(core, request, name)
            case ["_sandbox", "invoice" | "state" | "requests" as what]:
                return "sandbox", "GET", self._look(what)
        return None

    async def _look(self, what: str) -> web.StreamResponse:
        return wire.json_reply(getattr(self, what)())


class _Server(web.Server):
    """Tells the hook of connections."""

    def __init__(self, core: Core, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handle, request_factory=_request, access_log=None)
        self._core = core

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._core.event("connected")

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._core.event("disconnected")


def _request(
    message: RawRequestMessage,
    payload: Any,
    protocol: RequestHandler,
    writer: Any,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=_LARGEST_BODY
    )
