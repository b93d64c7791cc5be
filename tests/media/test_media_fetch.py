"""The download: bounds, lies and detours, over real connections to this machine."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from media_doubles import LOCAL, TINY, RawServer, ok, redirect

from pipeline.kernel.errors import ErrorClass
from pipeline.media import Clip, Collector, FetchSettings, MediaSettings, Trouble
from pipeline.media.fetch import Meter, as_url
from pipeline.media.results import FetchFailed, safe_text

CONTAINER = MediaSettings(verify="container")


async def collect(url: str, folder: Path, settings: FetchSettings = LOCAL) -> Clip | Trouble:
    async with Collector(settings, CONTAINER) as collector:
        return await collector.collect(url, folder / "v.mp4", folder / "v.jpg", TINY)


async def trouble(url: str, folder: Path, settings: FetchSettings = LOCAL) -> Trouble:
    """What became of a download that must fail as a download, and leave nothing."""
    outcome = await collect(url, folder, settings)
    assert isinstance(outcome, Trouble)
    assert outcome.error_class is ErrorClass.FETCH_FAILED
    assert outcome.sha256 is None
    assert list(folder.iterdir()) == []
    return outcome


async def test_the_request_is_anonymous_and_asks_for_plain_bytes(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, no cookie even after one was set, no netrc, no proxy, no compression; the query to the letter."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password SECRET\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answers["/a%2Fb.mp4"] = ok(tiny, "Set-Cookie: a=b; Path=/")
    async with Collector(LOCAL, CONTAINER) as collector:
        for _ in range(2):
            url = server.url("/a%2Fb.mp4?sig=%2F+%41")
            assert isinstance(await collector.collect(url, tmp_path / "v.mp4", tmp_path / "v.jpg", TINY), Clip)
    assert server.connections == 1, "a body that was read to its end gives its connection back"
    for request in server.requests:
        assert request.startswith("GET /a%2Fb.mp4?sig=%2F+%41 HTTP/1.1\r\n")
        names = {line.split(":")[0].lower() for line in request.split("\r\n")[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent"}
        assert "Accept-Encoding: identity\r\n" in request


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 416, 429, 500, 503])
async def test_nothing_but_200_carries_a_film(server: RawServer, tmp_path: Path, tiny: bytes, status: int) -> None:
    """Whatever the body is; the status is reported."""
    server.answers["/a"] = ok(b"" if status in (204, 304) else tiny).replace(b"200 OK", f"{status} Odd".encode(), 1)
    server.hang_up = True
    assert (await trouble(server.url("/a"), tmp_path)).http_status == status


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "Identity, gzip"])
async def test_a_compressed_body_is_refused(server: RawServer, tmp_path: Path, tiny: bytes, coding: str) -> None:
    """It was not asked for, and cut short it could look whole."""
    server.answers["/a"] = ok(gzip.compress(tiny, mtime=0), f"Content-Encoding: {coding}")
    assert "compressed" in (await trouble(server.url("/a"), tmp_path)).message


async def test_identity_is_no_compression(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """The header may say so in words."""
    server.answers["/a"] = ok(tiny, "Content-Encoding: identity")
    assert isinstance(await collect(server.url("/a"), tmp_path), Clip)


async def test_a_body_shorter_than_announced_is_a_failed_download(
    server: RawServer, tmp_path: Path, tiny: bytes
) -> None:
    """The connection ends before the bytes do."""
    server.answers["/a"] = ok(tiny, length=len(tiny) + 1)
    server.hang_up = True
    found = await trouble(server.url("/a"), tmp_path)
    assert (found.http_status, found.message) == (200, "the body broke off before its end")


async def test_a_body_longer_than_announced_is_never_kept(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """The client library notices what follows, or the film that ends at the announced length is a cut one."""
    server.answers["/a"] = ok(tiny, length=len(tiny) - 1)
    outcome = await collect(server.url("/a"), tmp_path)
    assert isinstance(outcome, Trouble)
    assert outcome.error_class in (ErrorClass.FETCH_FAILED, ErrorClass.BAD_FILE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [b"", b"0\r\n"])
async def test_a_chunked_body_must_be_ended(server: RawServer, tmp_path: Path, tiny: bytes, end: bytes) -> None:
    """Without its last chunk it is cut, however much came."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers["/a"] = head + f"{len(tiny):x}\r\n".encode() + tiny + b"\r\n" + end
    server.hang_up = True
    await trouble(server.url("/a"), tmp_path)


async def test_a_body_without_a_length_is_measured_by_its_own_tables(
    server: RawServer, tmp_path: Path, tiny: bytes
) -> None:
    """Where the connection's end is the body's end, the container check decides whether it is whole."""
    server.hang_up = True
    server.answers["/whole"] = b"HTTP/1.1 200 OK\r\n\r\n" + tiny
    server.answers["/cut"] = b"HTTP/1.1 200 OK\r\n\r\n" + tiny[:-9]
    cut = await collect(server.url("/cut"), tmp_path)
    assert isinstance(cut, Trouble)
    assert cut.error_class is ErrorClass.BAD_FILE
    assert isinstance(await collect(server.url("/whole"), tmp_path), Clip)


async def test_a_length_beyond_the_ceiling_is_refused_before_a_byte(server: RawServer, tmp_path: Path) -> None:
    """A terabyte is not begun."""
    server.answers["/a"] = ok(b"", length=10**12)
    assert "larger than" in (await trouble(server.url("/a"), tmp_path)).message


async def test_an_endless_body_ends_at_the_ceiling(server: RawServer, tmp_path: Path) -> None:
    """Without a length the bytes are counted as they come, also those already on the disk."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(2**16))
            await writer.drain()

    server.answers["/a"] = endless
    found = await trouble(server.url("/a"), tmp_path, replace(LOCAL, max_bytes=3 * 2**20))
    assert found.message == "the file is larger than 3145728 bytes"


def dripping(interval: float) -> Any:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(interval)

    return drip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(LOCAL, download_s=0.05), "not finished within 0.05 s"),
        (replace(LOCAL, min_rate_after_s=0.05), "slower than 16384 bytes a second"),
    ],
)
async def test_a_drip_is_not_waited_for(server: RawServer, tmp_path: Path, settings: FetchSettings, said: str) -> None:
    """A byte now and then keeps every silence short, but neither the deadline nor the average rate."""
    server.answers["/a"] = dripping(0.005)
    assert (await trouble(server.url("/a"), tmp_path, settings)).message == said


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12"])
async def test_silence_is_bounded(server: RawServer, tmp_path: Path, head: bytes) -> None:
    """Before the head and within the body."""
    server.answers["/a"] = head
    now = asyncio.get_running_loop().time
    began = now()
    found = await trouble(server.url("/a"), tmp_path, replace(LOCAL, read_s=0.05))
    assert now() - began < 30
    assert found.message == "not a byte for 0.05 s"


@pytest.mark.parametrize(
    "reply",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
async def test_a_reply_that_is_no_http_is_a_failed_download(server: RawServer, tmp_path: Path, reply: bytes) -> None:
    """And its status is not the 400 that the client library makes up for it."""
    server.answers["/a"] = reply
    server.hang_up = True
    found = await trouble(server.url("/a?token=SECRET"), tmp_path)
    assert found.http_status in (None, 200)
    assert "SECRET" not in found.message
    assert "127.0.0.1" not in found.message


async def test_a_long_header_does_not_stand_in_the_way(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """A content security policy of 9,000 bytes has been seen on real servers."""
    server.answers["/a"] = ok(tiny, "Content-Security-Policy: " + "a" * 9_000)
    assert isinstance(await collect(server.url("/a"), tmp_path), Clip)


async def test_nobody_listening_is_a_failed_download(tmp_path: Path) -> None:
    """With no word about addresses or tokens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await trouble(f"http://127.0.0.1:{taken.getsockname()[1]}/a?token=SECRET", tmp_path)
    assert found == Trouble(ErrorClass.FETCH_FAILED, None, "the host could not be reached")


async def test_the_body_of_a_redirect_is_not_waited_for(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """Its connection is cut at once instead of kept for bytes that nobody reads."""
    gone = asyncio.Event()

    async def long_redirect(writer: asyncio.StreamWriter) -> None:
        writer.write(redirect("/b").replace(b"Length: 0", b"Length: 1000000"))
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.001)
        gone.set()

    server.answers |= {"/a": long_redirect, "/b": ok(tiny)}
    async with Collector(LOCAL, CONTAINER) as collector:
        outcome = await collector.collect(server.url("/a"), tmp_path / "v.mp4", tmp_path / "v.jpg", TINY)
        assert isinstance(outcome, Clip)
        await asyncio.wait_for(gone.wait(), 5)


async def test_redirects_are_followed_a_few_times(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """Three hops, absolute or relative, of every kind; the fourth is one too many."""
    server.answers |= {
        "/1": redirect(server.url("/2"), 301),
        "/2": redirect("/3?x=%2F", 303),
        "/3": redirect("4", 308),
        "/4": ok(tiny),
        "/0": redirect("/1", 307),
    }
    assert isinstance(await collect(server.url("/1"), tmp_path), Clip)
    assert [request.split()[1] for request in server.requests] == ["/1", "/2", "/3?x=%2F", "/4"]
    (tmp_path / "v.mp4").unlink()
    assert "more than 3" in (await trouble(server.url("/0"), tmp_path)).message


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.org/a?token=SECRET",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.0.0.1/",
        "http://images.segmind.com/a",
        "//evil.org/a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "http://u:p@127.0.0.1/a",
        "http://[",
        "http://127.0.0.1:0/",
        "",
    ],
)
async def test_each_hop_passes_the_gate(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """A redirect opens nothing that the first URL could not have opened: no name is looked up, nothing connected."""
    server.answers["/a"] = redirect(location)
    connected: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lambda *a, **k: connected.append(a))
    found = await trouble(server.url("/a"), tmp_path)
    assert "SECRET" not in found.message
    assert (connected, server.connections) == ([], 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "127.1", "0", "2130706433"])
async def test_a_live_provider_cannot_send_us_home(server: RawServer, tmp_path: Path, host: str) -> None:
    """No spelling of this machine is connected to unless the provider is this machine."""
    for scheme in ("http", "https"):
        url = server.url("/a", host).replace("http", scheme, 1)
        await trouble(url, tmp_path, FetchSettings(output_hosts=("*",)))
    assert server.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "64:ff9b::7f00:1"])
async def test_a_name_that_resolves_to_a_private_address_is_not_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A listed host whose name answers with an inner address is refused where the socket would be made."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    async def answer(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)[: 4 if ":" in address else 2])]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", answer)
    monkeypatch.setattr(loop, "sock_connect", lambda *a: pytest.fail("connected"))
    found = await trouble("https://images.segmind.com/a", tmp_path, FetchSettings())
    assert found.message.startswith("not downloaded: its host")


async def test_a_name_that_does_not_resolve_is_a_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, without the client's exception."""

    async def answer(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    found = await trouble("https://images.segmind.com/a", tmp_path, FetchSettings())
    assert found.message == "the host's name could not be resolved"


def test_the_meter_counts_only_the_time_spent_waiting_for_the_network() -> None:
    """Slow for long enough is too slow; slow at first, or fast on the whole, is not."""
    settings = FetchSettings(min_bytes_per_s=100, min_rate_after_s=30)
    meter = Meter(settings, None)
    meter.count(1, 29)
    meter.count(4_000, 2)
    with pytest.raises(FetchFailed):
        meter.count(1, 20)


def test_the_meter_ends_at_the_announced_length() -> None:
    """Neither more nor less."""
    meter = Meter(FetchSettings(), 10)
    meter.count(9, 0)
    with pytest.raises(FetchFailed, match="9 of 10"):
        meter.end()
    meter.count(1, 0)
    meter.end()
    with pytest.raises(FetchFailed, match="more than the 10"):
        meter.count(1, 0)


def test_a_url_is_sent_to_the_letter() -> None:
    """Quoting anew would break a signature; only what cannot be sent is quoted."""
    assert str(as_url("https://a.b/x%2Fy?s=%41%2f")) == "https://a.b/x%2Fy?s=%41%2f"
    assert as_url("https://a.b/ é").raw_path == "/%20%C3%A9"


def test_messages_are_safe_to_print() -> None:
    """No escape sequence, no bidirectional trick, no novel."""
    assert safe_text("a\x1b[2J\u202eb\r\n\0c\ud800") == "a [2J b c "
    assert len(safe_text("x" * 10_000)) == 300
