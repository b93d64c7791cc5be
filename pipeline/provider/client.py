"""The Segmind client: what is said to the provider, and to nobody else.

Two sessions. The one for paid POSTs opens a fresh connection for each, so that a stale one never makes a submission
doubtful; the one for questions keeps its connections. Neither follows a redirect, keeps a cookie, reads a proxy from
the environment or unpacks a body, and the key is put on each request by hand, for the three configured origins alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from pipeline.jobs import Job
from pipeline.kernel.clock import Clock
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.provider import replies
from pipeline.provider.replies import (
    Expired,
    Finished,
    HistoryRow,
    PollReply,
    Refused,
    ResultReply,
    SubmitReply,
    Unavailable,
    Uncertain,
)
from pipeline.provider.settings import ProviderSettings, check_origin

MAX_JSON_BYTES = 4 * 2**20
"""No honest JSON reply is longer."""

HISTORY_PAGE_ROWS = 100

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Raised before a connection stood: proof that nothing was sent. Everything else that is raised proves nothing."""

_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError)
"""All that a call can raise. `ClientError` alone misses plain time-outs, undecodable text and oversized numbers."""


@dataclass(slots=True)
class Delivered:
    """The answer to a blocking v1 call: charged, and the video is in the reply's body or at `finished.url`."""

    request_id: str
    finished: Finished
    content_length: int | None
    _response: aiohttp.ClientResponse | None

    @property
    def has_body(self) -> bool:
        return self._response is not None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The video's bytes as they arrive."""
        assert self._response is not None
        async for chunk in self._response.content.iter_chunked(2**18):
            yield chunk

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


class Client:
    """The provider over HTTP. Each method is one call: no retry, no waiting, and every outcome is a value.

    `calls` counts what was sent, by kind: `submit`, `poll`, `result`, `history`, `credits`.
    """

    def __init__(self, settings: ProviderSettings, key: str, clock: Clock) -> None:
        for url in (settings.base_url, settings.storage_url, settings.history_url):
            check_origin(url, loopback_allowed=settings.is_loopback)
        self.calls: Counter[str] = Counter()
        self._settings = settings
        self._headers = {"x-api-key": key, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._clock = clock

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._paid = self._session(
            aiohttp.TCPConnector(limit=0, force_close=True),
            aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s, sock_read=settings.submit_s),
        )
        self._free = self._session(
            aiohttp.TCPConnector(limit=0),
            aiohttp.ClientTimeout(total=settings.read_s, sock_connect=settings.connect_s, sock_read=settings.read_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._paid.close()
        await self._free.close()

    @staticmethod
    def _session(connector: aiohttp.TCPConnector, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=65536,
            max_field_size=65536,
        )

    async def submit(self, job: Job) -> SubmitReply:
        """Submit a job to the v2 queue. The one call that moves money: it is sent once, whatever happens."""
        self.calls["submit"] += 1
        url = f"{self._settings.base_url}/v2/{job.model}"
        try:
            async with self._post_paid(url, job) as response:
                body = await _read_bounded(response)
                return replies.decode_submit(response.status, response.headers, body, self._clock.now_us())
        except _NOT_SENT as error:
            return Refused(ErrorClass.NOT_SENT, f"no connection to the provider ({type(error).__name__})")
        except _NO_ANSWER as error:
            return _no_answer(error)

    async def submit_blocking(self, job: Job) -> Delivered | Refused | Uncertain:
        """Submit a job to v1, which answers when the video is ready. Close what is delivered."""
        self.calls["submit"] += 1
        url = f"{self._settings.base_url}/v1/{job.model}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.connect_s, sock_read=self._settings.blocking_submit_s
        )
        response = None
        try:
            response = await self._paid.post(
                url,
                data=job.body,
                headers=self._paid_headers() | {"Accept": "*/*"},
                allow_redirects=False,
                timeout=timeout,
            )
            reply = await self._decode_blocking(response)
        except _NOT_SENT as error:
            return Refused(ErrorClass.NOT_SENT, f"no connection to the provider ({type(error).__name__})")
        except _NO_ANSWER as error:
            if response is not None:
                response.close()
            return _no_answer(error)
        if not isinstance(reply, Delivered) or not reply.has_body:
            response.close()
        return reply

    async def _decode_blocking(self, response: aiohttp.ClientResponse) -> Delivered | Refused | Uncertain:
        """Read a v1 answer by its `Content-Type`: the video itself, or JSON that says where it is."""
        if response.status != 200:
            body = await _read_bounded(response)
            refusal = replies.decode_refusal(response.status, response.headers, body, self._clock.now_us())
            message = replies.error_message(response.status, body)
            return refusal or Uncertain(ErrorClass.GATEWAY, message, response.status)
        request_id = replies.valid_request_id(response.headers.get("x-request-id"))
        cost = replies.charged(response.headers.get("x-cost"))
        if response.content_type.startswith("video/") or response.content_type == "application/octet-stream":
            finished, streamed = Finished(cost=cost), response
        else:
            decoded = replies.parse_object(await _read_bounded(response)) or {}
            request_id = request_id or replies.valid_request_id(decoded.get("request_id"))
            finished, streamed = Finished(cost=cost, url=replies.find_url(decoded)), None
        if request_id is None:
            return Uncertain(ErrorClass.UNREADABLE, "the provider's answer names no usable request id", 200)
        return Delivered(request_id, finished, response.content_length, streamed)

    def _post_paid(self, url: str, job: Job) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._paid.post(url, data=job.body, headers=self._paid_headers(), allow_redirects=False)

    def _paid_headers(self) -> dict[str, str]:
        return self._headers | {"Content-Type": "application/json"}

    async def poll(self, request_id: str) -> PollReply:
        """Ask how a request stands."""
        return await self._ask("poll", f"{self._settings.base_url}/v2/requests/{_quote(request_id)}/status")

    async def result(self, request_id: str) -> ResultReply:
        """Ask for the outcome of a request that is done."""
        return await self._ask("result", f"{self._settings.base_url}/v2/requests/{_quote(request_id)}")

    async def _ask(self, kind: str, url: str) -> PollReply:
        answer = await self._get(kind, URL(url, encoded=True))
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        return replies.decode_poll(status, headers, body, self._clock.now_us())

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
            rows = replies.decode_history(body)
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
            rows = [row for row in _one_row(body) if row.request_id == request_id]
            return rows[0] if rows else Unavailable("the history's row could not be read", status)
        return self._refusal_or_unavailable(status, headers, body)

    async def credits(self) -> MicroUsd | Refused | Unavailable:
        """The account's balance: free to ask, and proof that the key is good."""
        answer = await self._get("credits", URL(f"{self._settings.base_url}/v1/get-user-credits"))
        if isinstance(answer, Unavailable):
            return answer
        status, headers, body = answer
        if status == 404:
            return Refused(ErrorClass.OUT_OF_CREDITS, replies.error_message(status, body), status)
        balance = replies.charged((replies.parse_object(body) or {}).get("credits")) if status == 200 else None
        return balance if balance is not None else self._refusal_or_unavailable(status, headers, body)

    def _refusal_or_unavailable(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused | Unavailable:
        reply = replies.decode_poll(status, headers, body, self._clock.now_us())
        return reply if isinstance(reply, Refused) else Unavailable(replies.error_message(status, body), status)

    async def _get(self, kind: str, url: URL) -> tuple[int, Mapping[str, str], bytes] | Unavailable:
        self.calls[kind] += 1
        try:
            async with self._free.get(url, headers=self._headers, allow_redirects=False) as response:
                return response.status, response.headers, await _read_bounded(response)
        except _NO_ANSWER as error:
            return Unavailable(f"no answer ({type(error).__name__})")


def _one_row(body: bytes) -> list[HistoryRow]:
    """The row of a single-request answer, bare or inside an envelope."""
    data = replies.parse_json(body)
    candidates = [data, *data.values()] if isinstance(data, dict) else [data]
    rows = [row for item in candidates if (row := replies.decode_history_row(item)) is not None]
    return rows or replies.decode_history(body) or []


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, refused once it is longer than any honest JSON."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("an encoded body was not asked for")
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_JSON_BYTES:
            raise ValueError("the reply is too long")
        parts.append(chunk)
    return b"".join(parts)


def _no_answer(error: BaseException) -> Uncertain:
    """What an exception out of a paid POST means: silence, and silence is doubt.

    An unparsable reply is raised by aiohttp with a status of 400 of its own making: only the status of a response
    object may ever decide about money, so nothing but the kind of error is looked at here.
    """
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | ValueError | RecursionError):
        return Uncertain(ErrorClass.UNREADABLE, f"the provider's answer broke off or was unreadable ({_kind(error)})")
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return Uncertain(ErrorClass.NO_REPLY, "the provider did not answer in time")
    return Uncertain(ErrorClass.NO_REPLY, f"the connection broke before an answer came ({_kind(error)})")


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _quote(request_id: str) -> str:
    """A request id for a URL that we build: its pattern leaves nothing to quote."""
    assert replies.valid_request_id(request_id), "request ids are checked where they arrive"
    return request_id
