"""The Segmind client: what is said to the provider, and to nobody else.

Two sessions. The one for paid POSTs opens a fresh connection for each, so that a stale one never makes a submission
doubtful; the one for questions keeps its connections. Neither follows a redirect, keeps a cookie, reads a proxy from
the environment or unpacks a body, and the key is put on each request by hand, for the three configured origins alone.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from pipeline.jobs import Job
from pipeline.kernel.clock import Clock
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.provider import replies, values
from pipeline.provider.history import HistoryRow, decode_history, decode_history_one
from pipeline.provider.replies import (
    Accepted,
    Expired,
    Finished,
    PollReply,
    Refused,
    ResultReply,
    SubmitReply,
    Unavailable,
    Uncertain,
    UploadReply,
)
from pipeline.provider.secrecy import Eraser, key_mark
from pipeline.provider.settings import ProviderSettings, check_origin

MAX_JSON_BYTES = 4 * 2**20
"""No honest JSON reply is longer."""

HISTORY_PAGE_ROWS = 100

SENDING_S = 300.0
"""Longest that an upload may take to leave: the largest image is 14 MB as text, and some lines carry 0.5 Mbit/s."""

_MAX_HEADER = 64 * 1024
_MAX_HEADERS = 1024
"""Generous, because an answer that aiohttp refuses for its headers is lost, and it may be a paid one."""

T = TypeVar("T")

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Raised before there was a connection: proof that nothing was sent. Any other exception proves nothing."""

_NO_ANSWER = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
"""All that a question can raise: `ClientError` covers neither plain time-outs nor bodies that break off unparsable."""


@dataclass(slots=True)
class Delivered:
    """The answer to a blocking v1 call: charged, and the video is in the reply's body or at `finished.url`."""

    request_id: str
    finished: Finished
    content_length: int | None
    _response: aiohttp.ClientResponse | None = field(repr=False)

    @property
    def has_body(self) -> bool:
        """Whether the video comes in the reply itself, by `chunks`."""
        return self._response is not None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The video's bytes as they arrive."""
        assert self._response is not None
        async for chunk in self._response.content.iter_chunked(2**18):
            yield chunk

    def close(self) -> None:
        """Let the connection go, read to its end or not."""
        if self._response is not None:
            self._response.close()


class Client:
    """The provider over HTTP. Each method is one call: no retry, no waiting, and every outcome is a value.

    `calls` counts what was sent, by kind: `submit`, `poll`, `result`, `history`, `credits`, `upload`. `connect` makes
    the connectors; a rehearsal has its own.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        key: str,
        clock: Clock,
        connect: Callable[..., aiohttp.BaseConnector] = aiohttp.TCPConnector,
    ) -> None:
        for url in (settings.base_url, settings.storage_url, settings.history_url):
            check_origin(url, loopback_allowed=settings.is_loopback)
        self.calls: Counter[str] = Counter()
        self._provider_ahead_us: int | None = None
        self._settings = settings
        self._eraser = Eraser(key)
        self._key = key
        self._headers = {"x-api-key": key, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._clock = clock
        self._connect = connect

    async def __aenter__(self) -> Self:
        settings = self._settings
        connect_s = settings.connect_s
        # `connect` bounds the look-up of the name as well, which `sock_connect` does not.
        self._free = self._session(
            self._connect(limit=0),
            aiohttp.ClientTimeout(
                total=settings.read_s, connect=connect_s, sock_connect=connect_s, sock_read=settings.read_s
            ),
        )
        self._queued_timeout = aiohttp.ClientTimeout(
            total=connect_s + settings.submit_s, connect=connect_s, sock_connect=connect_s, sock_read=settings.submit_s
        )
        # No total for the blocking call: it answers after minutes, and its video may then take its time.
        self._blocking_timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_s, sock_connect=connect_s, sock_read=settings.blocking_submit_s
        )
        # The wait for the answer begins when the last byte has left.
        self._upload_timeout = aiohttp.ClientTimeout(
            total=connect_s + SENDING_S + settings.read_s,
            connect=connect_s,
            sock_connect=connect_s,
            sock_read=settings.read_s,
        )
        self._paid = self._session(self._connect(limit=0, force_close=True), self._queued_timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._paid.close()
        await self._free.close()

    @staticmethod
    def _session(connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            max_headers=_MAX_HEADERS,
        )

    def key_mark(self, salt: str) -> str:
        """A mark by which another key is told from this one, and from which no key can be found."""
        return key_mark(salt, self._key)

    async def submit(self, job: Job) -> SubmitReply:
        """Submit a job to the v2 queue. The one call that moves money: it is sent once, whatever happens."""
        return await self._pay(f"v2/{job.model}", job, "application/json", self._queued_timeout, self._decode_queued)

    async def submit_blocking(self, job: Job) -> Delivered | Accepted | Refused | Uncertain:
        """Submit a job to v1, which answers when the video is ready. Close what is delivered.

        `Accepted` where the answer names the request and does not say how it ended: then it must be asked for.
        """
        return await self._pay(f"v1/{job.model}", job, "*/*", self._blocking_timeout, self._decode_blocking)

    async def _pay(
        self,
        path: str,
        job: Job,
        accept: str,
        timeout: aiohttp.ClientTimeout,
        decode: Callable[[aiohttp.ClientResponse, bytes], Awaitable[T]],
    ) -> T | Refused | Uncertain:
        """Send a paid POST. Only an exception from before there was a connection proves that nothing was sent."""
        self.calls["submit"] += 1
        headers = self._headers | {"Content-Type": "application/json", "Accept": accept}
        url = f"{self._settings.base_url}/{path}"
        response: aiohttp.ClientResponse | None = None
        reply: T | Uncertain | None = None
        try:
            response = await self._paid.post(
                url, data=job.body, headers=headers, timeout=timeout, allow_redirects=False
            )
            self._note_clock(response.headers)
            reply = await decode(response, job.body)
        except Exception as error:
            # Any exception at all: a crash here would leave a paid request without a record.
            if response is None and isinstance(error, _NOT_SENT):
                return Refused(ErrorClass.NOT_SENT, f"no connection to the provider ({_kind(error)})")
            reply = _no_answer(error)
        finally:
            if response is not None and not (isinstance(reply, Delivered) and reply.has_body):
                response.close()
        return reply

    async def _decode_queued(self, response: aiohttp.ClientResponse, sent: bytes) -> SubmitReply:
        body = await self._read_paid(response)
        return replies.decode_submit(response.status, response.headers, body, self._clock.now_us(), sent)

    async def _decode_blocking(
        self, response: aiohttp.ClientResponse, sent: bytes
    ) -> Delivered | Accepted | Refused | Uncertain:
        """Read a v1 answer by its `Content-Type`: the video itself, or JSON that says where it is."""
        headers = response.headers
        if response.status != 200:
            body = await self._read_paid(response)
            refusal = replies.decode_refusal(response.status, headers, body, self._clock.now_us(), sent)
            message = values.error_message(response.status, body)
            return refusal or Uncertain(ErrorClass.GATEWAY, message, response.status)
        named = self._eraser.strike_out(headers.get("x-request-id", "").encode(errors="replace")).decode()
        request_id = values.valid_request_id(named)
        cost = values.charged(headers.get("x-cost"))
        if response.content_type.startswith("video/") or response.content_type == "application/octet-stream":
            if request_id is None:
                return Uncertain(ErrorClass.UNREADABLE, replies.UNNAMED, 200)
            return Delivered(request_id, Finished(cost=cost), response.content_length, response)
        decoded = await self._read_object(response, needed=request_id is None)
        request_id = request_id or values.valid_request_id(decoded.get("request_id"))
        is_page = response.content_type == "text/html"
        reply = replies.decode_blocking(decoded, request_id, cost, is_page=is_page)
        if isinstance(reply, Finished):
            assert request_id is not None
            return Delivered(request_id, reply, response.content_length, None)
        return reply

    async def _read_object(self, response: aiohttp.ClientResponse, *, needed: bool) -> dict[str, Any]:
        """The answer's JSON object. If the headers name the request, a body that breaks off only costs a question."""
        try:
            return values.parse_object(await self._read_soon(response)) or {}
        except Exception:
            if needed:
                raise
            return {}

    async def _read_paid(self, response: aiohttp.ClientResponse) -> bytes:
        """The body. An error's may be missing, as its status says all about the money; that of a success may not."""
        try:
            return await self._read_soon(response)
        except Exception:
            if 200 <= response.status < 300:
                raise
            return b""

    async def poll(self, request_id: str) -> PollReply:
        """Ask how a request stands."""
        return await self._ask("poll", request_id, "/status")

    async def result(self, request_id: str) -> ResultReply:
        """Ask for the outcome of a request that is done."""
        return await self._ask("result", request_id, "")

    async def _ask(self, kind: str, request_id: str, ending: str) -> PollReply:
        url = f"{self._settings.base_url}/v2/requests/{_quote(request_id)}{ending}"
        answer = await self._get(kind, URL(url, encoded=True))
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        return replies.decode_poll(status, headers, body, self._clock.now_us(), request_id)

    async def history(
        self, page: int, from_date: str, to_date: str, model: str
    ) -> list[HistoryRow] | Refused | Unavailable:
        """One page of the account's requests of `model`, newest first. Dates are `YYYY-MM-DD`, both ends in."""
        query = {
            "page": str(page),
            "per_page": str(HISTORY_PAGE_ROWS),
            "from_date": from_date,
            "to_date": to_date,
            "model_name": model,
            "sort_by": "model_created",
            "sort_order": "desc",
        }
        url = URL(f"{self._settings.history_url}/inference-request/request-history").with_query(query)
        answer = await self._get("history", url)
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        if status == 200:
            rows = decode_history(body)
            return Unavailable("the history could not be read", status) if rows is None else rows
        return self._refusal_or_unavailable(status, headers, body)

    async def history_one(self, request_id: str) -> HistoryRow | Expired | Refused | Unavailable:
        """The history's row of one request, at any age; `Expired` when the history does not show it (yet)."""
        url = f"{self._settings.history_url}/inference-request/request-history/{_quote(request_id)}"
        answer = await self._get("history", URL(url, encoded=True))
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        if status == 404:
            return Expired()
        if status == 200:
            rows = decode_history_one(body)
            if rows == []:
                return Expired()
            row = next((row for row in rows or () if row.request_id == request_id), None)
            return row or Unavailable("the history's row could not be read", status)
        return self._refusal_or_unavailable(status, headers, body)

    async def credits(self) -> MicroUsd | Refused | Unavailable:
        """The account's balance: free to ask, and proof that the key is good."""
        answer = await self._get("credits", URL(f"{self._settings.base_url}/v1/get-user-credits"))
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        if status == 404:
            return Refused(ErrorClass.OUT_OF_CREDITS, values.error_message(status, body), status)
        balance = values.balance((values.parse_object(body) or {}).get("credits")) if status == 200 else None
        return balance if balance is not None else self._refusal_or_unavailable(status, headers, body)

    async def upload(self, data: bytes, media_type: str) -> UploadReply:
        """Have the provider keep a file, so that a submission can name it. Free: sent twice, it only has two URLs."""
        self.calls["upload"] += 1
        # No message here and no log quotes the body: it is somebody's picture.
        sent = b'{"data_urls":["data:%b;base64,%b"]}' % (media_type.encode(), base64.b64encode(data))
        headers = self._headers | {"Content-Type": "application/json"}
        url = f"{self._settings.storage_url}/upload-asset"
        response: aiohttp.ClientResponse | None = None
        try:
            # On a connection of its own, like a paid POST: a stale one would fail without need.
            response = await self._paid.post(
                url, data=sent, headers=headers, timeout=self._upload_timeout, allow_redirects=False
            )
            self._note_clock(response.headers)
            body = await self._read_paid(response)
        except _NO_ANSWER as error:
            if response is None and isinstance(error, _NOT_SENT):
                return Refused(ErrorClass.NOT_SENT, f"no connection to the provider's storage ({_kind(error)})")
            return Unavailable(f"no answer ({_kind(error)})")
        finally:
            if response is not None:
                response.close()
        now_us, loopback_allowed = self._clock.now_us(), self._settings.is_loopback
        return replies.decode_upload(response.status, response.headers, body, now_us, loopback_allowed=loopback_allowed)

    def _refusal_or_unavailable(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused | Unavailable:
        refusal = replies.decode_closed_door(status, headers, body, self._clock.now_us())
        return refusal or Unavailable(values.error_message(status, body), status)

    async def _get(self, kind: str, url: URL) -> tuple[int, Mapping[str, str], bytes] | Unavailable:
        self.calls[kind] += 1
        try:
            async with self._free.get(url, headers=self._headers, allow_redirects=False) as response:
                self._note_clock(response.headers)
                return response.status, response.headers, await self._read(response)
        except _NO_ANSWER as error:
            return Unavailable(f"no answer ({_kind(error)})")

    @property
    def skew_us(self) -> int | None:
        """How far the provider's clock is ahead of this machine's now, in microseconds, to half a second.

        Taken from the time in its latest answer and carried on by the monotonic clock, so that a change of our wall
        clock shows at once. None before the first answer that tells a time.
        """
        if self._provider_ahead_us is None:
            return None
        return self._provider_ahead_us + int(self._clock.monotonic_s() * 1e6) - self._clock.now_us()

    def _note_clock(self, headers: Mapping[str, str]) -> None:
        said = headers.get("Date")
        said_us = values.moment_us(said) if said else None
        if said_us is not None:
            # The header cuts the fraction of its second off: half a second is the best guess at it.
            self._provider_ahead_us = said_us + 500_000 - int(self._clock.monotonic_s() * 1e6)

    async def _read_soon(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of a call that may take long until its answer begins, but not from then on."""
        async with asyncio.timeout(self._settings.read_s):
            return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, refused once it is longer than any honest JSON; a key that is quoted back is struck out.

        It sets no time limit of its own: that of the whole call holds, if there is one.
        """
        parts: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_JSON_BYTES:
                raise ValueError("the reply is too long")
            parts.append(chunk)
        return self._eraser.strike_out(b"".join(parts))


def _no_answer(error: BaseException) -> Uncertain:
    """What an exception out of a paid POST means: silence, and silence is doubt.

    An unparsable reply is raised by aiohttp with a status of 400 of its own making: only the status of a response
    object may ever decide about money, so nothing but the kind of error is looked at here.
    """
    if isinstance(error, TimeoutError):
        return Uncertain(ErrorClass.NO_REPLY, "the provider did not answer in time")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Uncertain(ErrorClass.NO_REPLY, f"the connection broke before an answer came ({_kind(error)})")
    return Uncertain(ErrorClass.UNREADABLE, f"the provider's answer broke off or was unreadable ({_kind(error)})")


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _quote(request_id: str) -> str:
    """A request id for a URL that we build: its pattern leaves nothing to quote."""
    assert values.valid_request_id(request_id), "request ids are checked where they arrive"
    return request_id
