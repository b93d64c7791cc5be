"""The download itself: one GET through the gate, hop by hop, within bounds.

The session carries no key, no cookies and no proxy, and follows no redirect by itself. Everything that the network
does wrong becomes `FetchFailed` here, in our own words: an exception of the HTTP client can carry headers and signed
URLs in its arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from pipeline.media.gate import AddressRefused, SocketGate, check_url
from pipeline.media.results import FetchFailed
from pipeline.media.settings import FetchSettings

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # a compressed body cut short can look whole
    "User-Agent": "kling-batch",
}
_MAX_HEADER = 64 * 1024

Connect = Callable[..., aiohttp.BaseConnector]
"""Makes a connector, where connections are not those of the network."""


class Fetcher:
    """The session for finished videos. An async context manager."""

    def __init__(self, settings: FetchSettings, connect: Connect | None = None) -> None:
        self._settings = settings
        self._connect = connect
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=self._connect() if self._connect is not None else self._gated(),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=settings.connect_s, sock_connect=settings.connect_s, sock_read=settings.read_s
            ),
            read_bufsize=256 * 1024,
            # One long header (a content security policy, say) must not make a paid file unreachable.
            max_field_size=_MAX_HEADER,
        )
        return self

    def _gated(self) -> aiohttp.BaseConnector:
        # No limit here: how much runs at once is the caller's decision.
        gate = SocketGate(allow_loopback=self._settings.allow_loopback)
        return aiohttp.TCPConnector(limit=0, socket_factory=gate)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response that carries the video at `url`, its body not yet read.

        Raises:
            FetchFailed: the gate, a redirect or the status is in the way. Errors of the HTTP client travel as they
                are: wrap the whole use in `network_errors`.
        """
        response = await self._follow(url)
        try:
            refuse_head(response.status, response.headers.get("Content-Encoding"))
            yield response
        finally:
            # Gives the connection back if the body was read to its end, else cuts it.
            response.close()

    async def _follow(self, url: str) -> aiohttp.ClientResponse:
        assert self._session is not None, "used outside its context"
        for _ in range(MAX_REDIRECTS + 1):
            reason = check_url(url, self._settings)
            if reason is not None:
                raise FetchFailed(f"not downloaded: {reason}")
            address = as_url(url)
            response = await self._session.get(address, allow_redirects=False)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            location = response.headers.get("Location")
            if not location:
                raise FetchFailed("redirected to nowhere", response.status)
            url = str(address.join(as_url(location)))
        raise FetchFailed(f"redirected more than {MAX_REDIRECTS} times", response.status)


def as_url(text: str) -> URL:
    """`text` as a URL, kept to the letter where it can be sent so: quoting anew can break a signature."""
    return URL(text, encoded=text.isascii() and " " not in text)


def refuse_head(status: int, content_encoding: str | None) -> None:
    """Raise `FetchFailed` unless a response with this head carries a whole, plain body."""
    if status == 206:
        raise FetchFailed("the server sent a part instead of the whole file", status)
    if status != 200:
        raise FetchFailed(f"the server answered {status}", status)
    if content_encoding is not None and content_encoding.strip().lower() not in ("", "identity"):
        raise FetchFailed("the server sent the file compressed, which was not asked for", status)


class Meter:
    """Checks a body against its bounds, piece by piece. Plain arithmetic: its user says how long it waited."""

    def __init__(self, settings: FetchSettings, content_length: int | None) -> None:
        """Raises `FetchFailed` if the length announced is beyond the bounds already."""
        self._settings = settings
        self._announced = content_length
        self._bytes = 0
        self._waited_s = 0.0
        if content_length is not None and content_length > settings.max_bytes:
            raise FetchFailed(f"the file is larger than {settings.max_bytes} bytes")

    def count(self, length: int, waited_s: float) -> None:
        """Take note of `length` bytes for which the network was waited for `waited_s` seconds.

        Raises:
            FetchFailed: the body is longer than allowed or announced, or too slow.
        """
        settings = self._settings
        self._bytes += length
        self._waited_s += waited_s
        if self._bytes > settings.max_bytes:
            raise FetchFailed(f"the file is larger than {settings.max_bytes} bytes")
        if self._announced is not None and self._bytes > self._announced:
            raise FetchFailed(f"more than the {self._announced} bytes announced came")
        if self._waited_s > settings.min_rate_after_s and self._bytes < settings.min_bytes_per_s * self._waited_s:
            raise FetchFailed(f"slower than {settings.min_bytes_per_s:g} bytes a second")

    def end(self) -> None:
        """The body is over: `FetchFailed` if it is shorter than announced."""
        if self._announced is not None and self._bytes < self._announced:
            raise FetchFailed(f"{self._bytes} of {self._announced} bytes came")


@contextlib.contextmanager
def network_errors(settings: FetchSettings) -> Iterator[None]:
    """Within the block, whatever the network or the HTTP client raises becomes `FetchFailed`."""
    try:
        yield
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise FetchFailed(_in_words(error, settings)) from None


def _in_words(error: Exception, settings: FetchSettings) -> str:
    # Narrow classes first: a refused connection is also an OSError, a connection timeout also a TimeoutError.
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host's name could not be resolved"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, AddressRefused):
            return f"not downloaded: {error.os_error.strerror}"
        case aiohttp.ClientSSLError():
            return "no secure connection to the host could be made"
        case aiohttp.ClientConnectorError():
            return "the host could not be reached"
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {settings.connect_s:g} s"
        case aiohttp.SocketTimeoutError():
            return f"not a byte for {settings.read_s:g} s"
        case TimeoutError():
            return f"not finished within {settings.download_s:g} s"
        case aiohttp.ClientPayloadError():
            return "the body broke off before its end"
        case aiohttp.ClientConnectionError() | OSError():
            return "the connection broke"
        case _:
            return f"the reply was not understood ({type(error).__name__})"
