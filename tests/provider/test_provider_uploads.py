"""Uploads: free and repeatable, so every answer is a value, and only a URL that may be sent on is a success."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_doubles import KEY, NOW_US, Line, RawServer, Serve, as_json, client_for, free_port, http

from pipeline.kernel.errors import ErrorClass
from pipeline.provider.replies import Refused, Unavailable, Uploaded, decode_upload

URL = "https://images.segmind.com/assets/a.png"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


async def upload(server: RawServer, **waits: float) -> Any:
    async with client_for(server.url, **waits) as client:
        return await client.upload(PICTURE, "image/png")


def decoded(status: int, body: object = None, *, loopback: bool = False, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_upload(status, headers or {}, raw, NOW_US, loopback_allowed=loopback)


async def test_a_picture_goes_up_whole_with_the_key_and_comes_back_as_a_url(serve: Serve) -> None:
    """One POST to the storage's own path; the data URL in it is the picture, byte for byte."""
    server = await serve(as_json({"file_urls": [URL], "message": "done"}))
    assert await upload(server) == Uploaded(URL)
    [request] = server.requests
    assert (request.method, request.path, request.headers["x-api-key"]) == ("POST", "/upload-asset", KEY)
    [data_url] = json.loads(request.body)["data_urls"]
    kind, _, text = data_url.partition(";base64,")
    assert (kind, base64.b64decode(text)) == ("data:image/png", PICTURE)


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (400, {"error": "no"}, ErrorClass.BAD_REQUEST),
        (413, b"", ErrorClass.BAD_REQUEST),
        (415, b"<html>", ErrorClass.BAD_REQUEST),
        (422, {"error": "no"}, ErrorClass.BAD_REQUEST),
        (406, {"error": "Invalid value for parameter data_urls"}, ErrorClass.BAD_REQUEST),
        (406, {"error": "Insufficient credits"}, ErrorClass.OUT_OF_CREDITS),
        (401, b"", ErrorClass.UNAUTHORIZED),
        (403, b"", ErrorClass.FORBIDDEN),
        (404, b"", ErrorClass.WRONG_METHOD),
        (405, b"<html>", ErrorClass.WRONG_METHOD),
        (429, b"", ErrorClass.RATE_LIMITED),
    ],
)
def test_a_refusal_says_whom_it_concerns(status: int, body: object, error_class: ErrorClass) -> None:
    """The file, the account, the rate, or the place that was asked: a wrong storage_url burns no row."""
    reply = decoded(status, body)
    assert isinstance(reply, Refused)
    assert (reply.error_class, reply.http_status) == (error_class, status)
    assert (reply.wait_s > 0) == (status == 429)


@pytest.mark.parametrize("status", [204, 301, 307, 408, 425, 500, 502, 503, 504])
def test_what_is_nobodys_fault_is_asked_again(status: int) -> None:
    """A gateway's word, a redirect and an empty answer end nothing."""
    assert isinstance(decoded(status, b"<html>"), Unavailable)


@pytest.mark.parametrize(
    "urls",
    [
        None,
        URL,
        [],
        [URL, URL],
        [None],
        [{"url": URL}],
        ["/assets/a.png"],
        ["http://images.segmind.com/a.png"],
        ["http://127.0.0.1:8000/a.png"],
        ["https://user:pw@images.segmind.com/a.png"],
        ["https://images.segmind.com/a b.png"],
        ["https://images.segmind.com/a\n.png"],
        ["https://[bad/a.png"],
        ["https:///a.png"],
        ["file:///etc/passwd"],
        ["data:image/png;base64,AA"],
        ["javascript:alert(1)"],
        ["https://images.segmind.com/" + "a" * 2048],
    ],
)
def test_a_url_that_may_not_be_sent_on_is_none(urls: object) -> None:
    """It would go into the ledger and into a paid request: only one plain https URL will do."""
    assert isinstance(decoded(200, {"file_urls": urls}), Unavailable)


def test_the_double_on_this_machine_may_name_itself() -> None:
    """Plain http is for loopback alone, and only where the provider itself is there."""
    here = {"file_urls": ["http://127.0.0.1:8000/assets/a.png"]}
    assert decoded(200, here, loopback=True) == Uploaded("http://127.0.0.1:8000/assets/a.png")
    assert isinstance(decoded(200, {"file_urls": ["http://10.0.0.1/a.png"]}, loopback=True), Unavailable)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HELLO\r\n\r\n",
        http(200, b'{"file_urls": [', length=500),
        http(200, b"[" * 100_000),
        http(200, b"x" * (5 * 2**20)),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_silence_is_no_doubt(serve: Serve, answer: bytes) -> None:
    """Nothing was paid for: whatever goes wrong, it may be sent again."""
    assert isinstance(await upload(await serve(answer, hang_up=True)), Unavailable)


async def test_it_waits_for_an_answer_no_longer_than_for_any_other(serve: Serve) -> None:
    """Once the last byte has left, `timeouts.read_s` is the bound."""

    async def say_nothing(line: Line) -> None:
        await line.reader.read(1)

    server = await serve(say_nothing)
    async with asyncio.timeout(5):
        reply = await upload(server, read_s=0.1, submit_s=30)
    assert reply == Unavailable("no answer (SocketTimeoutError)")


async def test_without_a_connection_nothing_was_sent() -> None:
    """As for every call: that is known, and free."""
    async with client_for(f"http://127.0.0.1:{free_port()}") as client:
        reply = await client.upload(PICTURE, "image/png")
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.NOT_SENT


async def test_no_redirect_takes_picture_or_key_elsewhere(serve: Serve) -> None:
    """A 307 would send both again, to whoever it names."""
    other = await serve(as_json({"file_urls": [URL]}))
    server = await serve(http(307, b"", f"Location: {other.url}/upload-asset"))
    assert isinstance(await upload(server), Unavailable)
    assert not other.requests


async def test_neither_the_picture_nor_the_key_is_in_a_message_or_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the provider quotes what it was sent."""
    caplog.set_level(logging.DEBUG)
    text = base64.b64encode(PICTURE).decode()
    for quoted in (f"bad value data:image/png;base64,{text} for {KEY}", f"not base64: {text[:200]}"):
        reply = await upload(await serve(as_json({"error": quoted}, 400)))
        said = f"{reply!r} {caplog.text}"
        assert reply.error_class is ErrorClass.BAD_REQUEST
        assert text[:40] not in said
        assert KEY not in said


@given(status=st.integers(100, 599), body=st.binary(max_size=60) | st.just(json.dumps({"file_urls": [URL]}).encode()))
@settings(max_examples=60, deadline=None)
def test_the_decoder_is_total(status: int, body: bytes) -> None:
    """Any status with any bytes is one of the three."""
    assert isinstance(decoded(status, body), Uploaded | Refused | Unavailable)
