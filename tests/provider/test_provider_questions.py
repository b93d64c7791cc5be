"""Free calls, and who gets to see the key."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path
from typing import Any

import pytest
from provider_doubles import (
    ACCEPTANCE,
    JOB,
    KEY,
    OTHER_ID,
    REQUEST_ID,
    Line,
    RawServer,
    Serve,
    as_json,
    client_for,
    free_port,
    http,
)

from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import ErrorClass
from pipeline.provider.client import Client, Delivered
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired, Finished, Refused, Unavailable, Working
from pipeline.provider.settings import ProviderSettings

QUESTIONS = ["poll", "result", "history", "history_one", "credits"]
VIDEO = "https://images.segmind.com/a.mp4"


async def ask(client: Client, question: str, request_id: str = REQUEST_ID) -> Any:
    match question:
        case "history":
            return await client.history(1, "2026-09-01", "2026-09-02", "kling-2")
        case "credits":
            return await client.credits()
    return await getattr(client, question)(request_id)


async def put(server: RawServer, question: str, **waits: float) -> Any:
    async with client_for(server.url, **waits) as client:
        return await ask(client, question)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HELLO\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        http(200, b'{"status": "COMP', length=500),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        http(200, gzip.compress(b'{"credits": 5}', mtime=0), "Content-Encoding: gzip"),
        http(200, b"<html></html>", "Content-Type: text/html"),
        http(200, b"\xff\xfe\x00"),
        http(200, b"[" * 100_000),
        http(200, b"x" * (5 * 2**20)),
        http(204),
        *[http(status, b"<html></html>") for status in (400, 422, 500, 502, 503, 504)],
        http(422, b'{"detail": "no"}'),
        http(500, b'{"status": "FAILED", "error": "x"}'),
    ],
)
async def test_a_question_without_a_usable_answer_is_asked_again(serve: Serve, question: str, reply: bytes) -> None:
    """Nothing that goes wrong on a free call is taken for an end, a refusal or an empty history."""
    assert isinstance(await put(await serve(reply, hang_up=True), question), Unavailable)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_is_given_up_in_time(serve: Serve, question: str) -> None:
    """A server that is silent, or one that never ends, holds no worker."""

    async def silent(line: Line) -> None:
        await asyncio.sleep(30)

    async def drip(line: Line) -> None:
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not line.writer.is_closing():
            await line.say(b" ")
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        for script in (silent, drip):
            assert isinstance(await put(await serve(script), question, read_s=0.1), Unavailable)
    async with client_for(f"http://127.0.0.1:{free_port()}") as client:
        assert isinstance(await ask(client, question), Unavailable)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_body_that_turns_to_garbage_halfway_is_asked_for_again(serve: Serve, question: str) -> None:
    """The library may raise outside its own family, or notice nothing and wait: neither ends or holds a run."""

    async def spoil(line: Line) -> None:
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.03)
        await line.say(b"ZZ\r\n")

    assert isinstance(await put(await serve(spoil, hang_up=True), question, read_s=0.1), Unavailable)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_question_follows_no_redirect(serve: Serve, question: str, status: int) -> None:
    """The key stays with the origins that the user named."""
    elsewhere = await serve(as_json({"credits": 5}))
    server = await serve(http(status, b"", f"Location: {elsewhere.url}/"))
    assert isinstance(await put(server, question), Unavailable)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("status", "error_class"),
    [(401, ErrorClass.UNAUTHORIZED), (403, ErrorClass.FORBIDDEN), (429, ErrorClass.RATE_LIMITED)],
)
async def test_a_closed_door_is_told_to_the_run(
    serve: Serve, question: str, status: int, error_class: ErrorClass
) -> None:
    """A bad key and a rate limit concern every call, free ones too."""
    reply = await put(await serve(as_json({"error": "no", "status": "FAILED"}, status)), question)
    assert isinstance(reply, Refused)
    assert reply.error_class is error_class


@pytest.mark.parametrize("question", ["history", "history_one", "credits"])
async def test_a_generations_failure_is_no_answer_to_another_question(serve: Serve, question: str) -> None:
    """FAILED means something only where a request's own state was asked for."""
    for status in (200, 422):
        reply = await put(await serve(as_json({"status": "FAILED", "error": "x"}, status)), question)
        assert isinstance(reply, Unavailable)


@pytest.mark.parametrize("question", ["poll", "result"])
async def test_a_state_is_asked_of_our_own_address_and_believed_only_of_our_request(
    serve: Serve, question: str
) -> None:
    """An answer about another request, mixed up by a cache, neither voids nor finishes ours."""
    ending = "/status" if question == "poll" else ""
    for named, expected in ((REQUEST_ID, Refused), (OTHER_ID, Unavailable)):
        server = await serve(as_json({"status": "FAILED", "request_id": named, "error": "x"}, 422))
        assert isinstance(await put(server, question), expected)
        assert [request.path for request in server.requests] == [f"/v2/requests/{REQUEST_ID}{ending}"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (as_json({"status": "QUEUED", "request_id": REQUEST_ID}), Working()),
        (as_json({"status": "COMPLETED", "output": VIDEO, "metrics": {"cost": 1.75}}), Finished(1_750_000, VIDEO)),
        (as_json({"error": "gone"}, 404), Expired()),
    ],
)
async def test_a_state_is_a_value(serve: Serve, answer: bytes, expected: object) -> None:
    """Working, finished and forgotten, as the provider documents them."""
    assert await put(await serve(answer), "result") == expected


async def test_the_historys_row_of_a_request_is_that_requests_row(serve: Serve) -> None:
    """Bare or in an envelope, by its own id; a foreign row is no answer, an empty list is "not there (yet)"."""
    own = {"request_id": REQUEST_ID, "model_status": "COMPLETED", "credits_deduction": 1.75}
    other = {**own, "request_id": OTHER_ID}
    free = {**own, "model_status": "FAILED", "credits_deduction": 0}
    for answer in (own, {"data": own}, [own], {"data": [other, own]}, {"success": True, "rows": [free, own]}):
        row = await put(await serve(as_json(answer)), "history_one")
        assert isinstance(row, HistoryRow)
        assert (row.request_id, row.status, row.cost) == (REQUEST_ID, "COMPLETED", 1_750_000)
    for answer in (other, {"data": other}, [other], {}, {"data": None}, {"error": "x", "data": []}):
        assert isinstance(await put(await serve(as_json(answer)), "history_one"), Unavailable)
    for reply in (as_json({"data": []}), as_json({"error": "not found"}, 404), http(404, b"<html>")):
        assert await put(await serve(reply), "history_one") == Expired()


async def test_a_page_of_the_history_is_asked_for_as_documented(serve: Serve) -> None:
    """Model, both dates, the largest page, newest first; and an unreadable page is not an empty one."""
    server = await serve(as_json({"data": []}))
    assert await put(server, "history") == []
    path, _, query = server.requests[0].path.partition("?")
    assert path == "/inference-request/request-history"
    assert set(query.split("&")) == {
        "page=1", "per_page=100", "from_date=2026-09-01", "to_date=2026-09-02", "model_name=kling-2",
        "sort_by=model_created", "sort_order=desc",
    }  # fmt: skip
    assert isinstance(await put(await serve(as_json({"data": [{"id": 1}]})), "history"), Unavailable)
    assert isinstance(await put(await serve(as_json({"error": "no"}, 404)), "history"), Unavailable)


@pytest.mark.parametrize(
    ("answer", "balance"),
    [({"credits": 12.5, "free-credits": 0.02}, 12_500_000), ({"credits": "0"}, 0), ({"credits": -0.4}, 0)],
)
async def test_the_balance_is_exact(serve: Serve, answer: dict[str, object], balance: int) -> None:
    """In micro-dollars; an overdrawn account has nothing left."""
    assert await put(await serve(as_json(answer)), "credits") == balance


async def test_an_account_without_credits_stops_the_run(serve: Serve) -> None:
    """404 is how the provider says that there are none."""
    reply = await put(await serve(as_json({"error": "No credits found for the user"}, 404)), "credits")
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.OUT_OF_CREDITS


# The key


async def test_the_key_goes_to_its_origins_and_urls_in_replies_are_never_followed(serve: Serve) -> None:
    """Every call builds its own address: what the provider hands back is not visited with the key."""
    trap = await serve(as_json({"status": "COMPLETED", "output": VIDEO}))
    links = {"poll_url": trap.url, "status_url": f"{trap.url}/s", "response_url": f"{trap.url}/r", "next": trap.url}
    body = {"request_id": REQUEST_ID, "status": "COMPLETED", "output": f"{trap.url}/a.mp4", "data": [], **links}
    server = await serve(
        as_json(body, 200, f"Location: {trap.url}", f"Link: <{trap.url}>; rel=next", f"Refresh: 0; url={trap.url}")
    )
    async with client_for(server.url) as client:
        await client.submit(JOB)
        delivered = await client.submit_blocking(JOB)
        assert isinstance(delivered, Delivered)
        delivered.close()
        for question in QUESTIONS:
            await ask(client, question)
    assert trap.connections == 0
    assert all(request.headers["x-api-key"] == KEY for request in server.requests)
    assert all("key" not in request.path for request in server.requests)


async def test_each_call_goes_to_its_own_origin(serve: Serve) -> None:
    """The history has a host of its own; the storage host is not asked anything here."""
    base, storage, history = [await serve(as_json({"data": [], "credits": 1, "request_id": REQUEST_ID})) for _ in "abc"]
    settings = ProviderSettings(base.url, storage.url, history.url)
    async with Client(settings, KEY, SystemClock()) as client:
        await client.submit(JOB)
        for question in QUESTIONS:
            await ask(client, question)
    assert len(base.requests) == 4
    assert len(history.requests) == 2
    assert storage.connections == 0


async def test_cookies_are_not_kept(serve: Serve) -> None:
    """A gateway's cookie must tie neither calls nor runs together."""
    server = await serve(as_json({"credits": 1, "request_id": REQUEST_ID}, 200, "Set-Cookie: sid=1; Path=/"))
    async with client_for(server.url) as client:
        for _ in range(2):
            await client.submit(JOB)
            await client.credits()
    assert len(server.requests) == 4
    assert not any("cookie" in request.headers for request in server.requests)


async def test_the_environment_redirects_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy nor a netrc gets to see a call or to add a password to it."""
    proxy = await serve(as_json({"credits": 9, "request_id": REQUEST_ID}))
    server = await serve(as_json({"credits": 1, "request_id": REQUEST_ID}))
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.upper(), proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin me\npassword secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with client_for(server.url) as client:
        await client.submit(JOB)
        assert await client.credits() == 1_000_000
    assert proxy.connections == 0
    assert len(server.requests) == 2
    assert not any("authorization" in request.headers for request in server.requests)


ECHO = {
    "error": f"Invalid API key {KEY}",
    "message": KEY,
    "status": "FAILED",
    "request_id": KEY,
    "output": f"https://x.example/{KEY}",
}
ECHO_ROW = {"request_id": REQUEST_ID, "error": KEY, "generation_url": f"https://x.example/{KEY}", "model_status": KEY}


@pytest.mark.parametrize(
    "reply",
    [
        *[
            as_json(ECHO, status, f"x-echo: {KEY}", f"Location: /{KEY}")
            for status in (200, 307, 400, 401, 404, 406, 422, 429, 500, 502)
        ],
        as_json({"data": [ECHO_ROW]}),
        as_json(
            {"request_id": REQUEST_ID, "output": f"https://x.example/{KEY}"},
            200,
            f"x-request-id: {REQUEST_ID}",
            f"x-echo: {KEY}",
        ),
        http(200, b"x", f"x-echo: {KEY}", f"x-request-id: {KEY}", "Content-Type: video/mp4"),
        http(200, b"x", f"x-echo: {KEY}", f"x-request-id: {REQUEST_ID}", "Content-Type: video/mp4"),
        f"HTTP/1.1 {KEY} {KEY}\r\n\r\n".encode(),
        f"HTTP/1.1 200 {KEY}\r\n{KEY}\r\n\r\n".encode(),
        b"",
    ],
)
async def test_the_key_is_in_no_value_text_or_log(serve: Serve, reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Even a provider that quotes the key back does not get it into a table, a message, a repr or a log."""
    caplog.set_level(logging.DEBUG)
    server = await serve(reply, hang_up=True)
    async with client_for(server.url) as client:
        values: list[Any] = [await client.submit(JOB), await client.submit_blocking(JOB)]
        values += [await ask(client, question) for question in QUESTIONS]
        for value in values:
            assert KEY not in repr(value)
            assert KEY not in str(value)
            if isinstance(value, Delivered):
                assert KEY not in repr((value.request_id, value.finished))
                value.close()
        assert KEY not in repr(client)
    assert KEY not in caplog.text


@pytest.mark.parametrize("request_id", ["../../x", "a/b/c/d/e", "abcdefgh?x", "", "abcdefgh%2f"])
async def test_a_request_id_that_was_never_checked_is_not_sent(serve: Serve, request_id: str) -> None:
    """It would change which address is asked, with the key in hand."""
    server = await serve(as_json({}))
    async with client_for(server.url) as client:
        for question in ("poll", "result", "history_one"):
            with pytest.raises(AssertionError):
                await ask(client, question, request_id)
    assert server.connections == 0


async def test_calls_are_counted_by_kind(serve: Serve) -> None:
    """Each call is counted when it is made, whatever comes of it."""
    server = await serve(http(200, ACCEPTANCE))
    async with client_for(server.url) as client:
        await client.submit(JOB)
        for question in QUESTIONS:
            await ask(client, question)
        assert client.calls == {"submit": 1, "poll": 1, "result": 1, "history": 2, "credits": 1}
