"""The one call that moves money, over real sockets, against a server that says anything byte for byte."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
import pytest
from job_doubles import make_job
from provider_doubles import (
    ACCEPTANCE,
    JOB,
    KEY,
    REQUEST_ID,
    Line,
    RawServer,
    Serve,
    as_json,
    client_for,
    free_port,
    http,
)

from pipeline.kernel.errors import Charge, ErrorClass
from pipeline.provider.client import MAX_JSON_BYTES, Delivered
from pipeline.provider.replies import Accepted, Refused, Uncertain

GOOD = http(200, ACCEPTANCE)
HEAD = b"HTTP/1.1 200 OK\r\n"
DELIVERY = http(200, b"video", "Content-Type: video/mp4", f"x-request-id: {REQUEST_ID}", "x-cost: 1.75")
WAYS = ["submit", "submit_blocking"]

Outcome = Accepted | Delivered | Refused | Uncertain


async def pay(url: str, way: str = "submit", **waits: float) -> Outcome:
    """One submission."""
    async with client_for(url, **waits) as client:
        reply: Outcome = await getattr(client, way)(JOB)
        assert client.calls == {"submit": 1}
        if isinstance(reply, Delivered):
            reply.close()
        return reply


async def pay_once(server: RawServer, way: str = "submit", **waits: float) -> Outcome:
    """One submission, of which the server must have heard exactly one POST on one connection."""
    reply = await pay(server.url, way, **waits)
    assert (server.posts, server.connections) == (1, 1)
    return reply


def assert_doubt(reply: Outcome) -> None:
    assert isinstance(reply, Uncertain), reply
    assert reply.error_class.charge is Charge.UNKNOWN


# What was certainly not sent


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_judged_without_the_words_that_it_quotes(serve: Serve, way: str) -> None:
    """The prompt is the row's, and not the provider's word on the account."""
    job = make_job("kling-2", {**JOB.params, "prompt": "a customer at a payment terminal"}, 0, "terminal")
    said = {"error": "Invalid parameter value for prompt: 'a customer at a payment terminal'"}
    server = await serve(as_json(said, 406))
    async with client_for(server.url) as client:
        reply = await getattr(client, way)(job)
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.BAD_REQUEST


@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_connection_is_certainly_not_sent(way: str) -> None:
    """Nobody listened: the money is free, and the next try is too."""
    reply = await pay(f"http://127.0.0.1:{free_port()}", way)
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.NOT_SENT


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_never_resolves_is_certainly_not_sent_and_soon(
    way: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that hangs is part of connecting: it must not hold a submission for ever."""

    class Hanging(aiohttp.DefaultResolver):  # type: ignore[misc,valid-type]
        async def resolve(self, *_: Any, **__: Any) -> Any:
            await asyncio.sleep(30)

    monkeypatch.setattr("aiohttp.connector.DefaultResolver", Hanging)
    server = await serve(GOOD)
    async with asyncio.timeout(5):
        reply = await pay(f"http://localhost:{server.port}", way, connect_s=0.1)
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.NOT_SENT
    assert server.connections == 0


# A connection that breaks


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hard", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("heard", [0, 20, 10_000], ids=["nothing", "a-part", "all"])
async def test_a_connection_that_breaks_is_doubt(serve: Serve, way: str, hard: bool, heard: int) -> None:
    """However much of the request was read, and however it ends: silence proves nothing, and is asked once."""

    async def hang_up(line: Line) -> None:
        if heard:
            await line.reader.read(heard)
        if hard:
            line.reset()

    server = await serve(unheard=hang_up)
    assert_doubt(await pay(server.url, way))
    assert server.connections == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("said", range(1, len(GOOD), 7))
async def test_an_acceptance_that_breaks_off_is_doubt(serve: Serve, way: str, said: int) -> None:
    """A reply cut anywhere, in its status line, its headers or its body, decides nothing."""
    assert_doubt(await pay_once(await serve(GOOD[:said], hang_up=True), way))


async def test_a_reset_after_a_whole_acceptance_changes_nothing(serve: Serve) -> None:
    """What was read whole is believed, even if the connection then ends badly."""

    async def accept_and_reset(line: Line) -> None:
        await line.say(GOOD)
        await asyncio.sleep(0.02)
        line.reset()

    assert await pay_once(await serve(accept_and_reset)) == Accepted(REQUEST_ID)


@pytest.mark.parametrize("way", WAYS)
async def test_a_reply_after_the_timeout_is_doubt(serve: Serve, way: str) -> None:
    """The answer comes, but nobody waits for it any more."""

    async def late(line: Line) -> None:
        await asyncio.sleep(0.2)
        await line.say(GOOD)

    reply = await pay_once(await serve(late), way, submit_s=0.05, blocking_submit_s=0.05)
    assert_doubt(reply)
    assert reply == Uncertain(ErrorClass.NO_REPLY, "the provider did not answer in time")


# Replies that no HTTP client can read


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "reply",
    [
        b"HELLO\r\n\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n" + ACCEPTANCE,
        b"HTTP/1.1 400\x00 Bad\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        HEAD + b"no colon here\r\n\r\n" + ACCEPTANCE,
        HEAD + b"Content-Length: 2\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTANCE) + ACCEPTANCE,
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + ACCEPTANCE,
        HEAD + b"Content-Length: -5\r\n\r\n" + ACCEPTANCE,
        HEAD + b"Content-Length: two\r\n\r\n" + ACCEPTANCE,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n",
        HEAD + b"X-Long: " + b"a" * 70_000 + b"\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTANCE) + ACCEPTANCE,
        http(200, ACCEPTANCE, length=len(ACCEPTANCE) + 50),
        http(200, ACCEPTANCE, length=10),
        http(200, gzip.compress(ACCEPTANCE, mtime=0), "Content-Encoding: gzip"),
        http(204) + ACCEPTANCE,
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + ACCEPTANCE,
    ],
)
async def test_an_unreadable_reply_is_doubt_and_never_a_refusal(serve: Serve, way: str, reply: bytes) -> None:
    """The HTTP library calls them all status 400: a 400 that the provider never said must not free the money."""
    assert_doubt(await pay_once(await serve(reply, hang_up=True), way))


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_that_turns_to_garbage_halfway_is_doubt(serve: Serve, way: str) -> None:
    """The library may raise outside its own family, or notice nothing and wait: neither crashes nor holds a run."""

    async def spoil(line: Line) -> None:
        await line.say(HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.03)
        await line.say(b"ZZ\r\n")

    async with asyncio.timeout(5):
        server = await serve(spoil, hang_up=True)
        assert_doubt(await pay_once(server, way, read_s=0.1, blocking_submit_s=60))


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AssertionError, MemoryError, EOFError, AttributeError])
@pytest.mark.parametrize("way", WAYS)
async def test_a_defect_behind_a_paid_call_is_doubt(
    serve: Serve, way: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised once the request may have left, here or in the library, is recorded as silence."""

    async def fail(*_: object, **__: object) -> None:
        raise error("boom")

    monkeypatch.setattr(aiohttp.ClientResponse, "start", fail)
    assert_doubt(await pay(((await serve(GOOD)).url), way))


@pytest.mark.parametrize("error", [aiohttp.InvalidURL("x"), aiohttp.ConnectionTimeoutError("x")])
async def test_what_usually_means_not_sent_means_doubt_once_there_is_a_reply(
    serve: Serve, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of an exception proves nothing any more when a response has begun."""

    async def fail(*_: object) -> None:
        raise error

    async with client_for((await serve(GOOD)).url) as client:
        monkeypatch.setattr(client, "_decode_queued", fail)
        assert_doubt(await client.submit(JOB))


# Replies that are odd and good


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        http(202, ACCEPTANCE),
        HEAD + b"X-Long: " + b"a" * 9_000 + b"\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTANCE) + ACCEPTANCE,
        HEAD + b"X-Many: a\r\n" * 300 + b"Content-Length: %d\r\n\r\n" % len(ACCEPTANCE) + ACCEPTANCE,
        HEAD + b"\r\n" + ACCEPTANCE,
        b"HTTP/1.0 200 OK\r\n\r\n" + ACCEPTANCE,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ACCEPTANCE) + ACCEPTANCE + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + GOOD,
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + GOOD,
        http(200, ACCEPTANCE, "Content-Encoding: Identity"),
        http(200, ACCEPTANCE, "Content-Encoding: gzip"),
        http(200, ACCEPTANCE, "Content-Type: text/html; charset=nonsense"),
        http(200, ACCEPTANCE, "Set-Cookie: ;;;=; expires=never", "Set-Cookie: a=b"),
        http(200, b"\xef\xbb\xbf" + ACCEPTANCE),
        http(200, b" \r\n" + ACCEPTANCE + b"\n"),
        GOOD + http(400, b"and another thing"),
    ],
)
async def test_an_odd_but_whole_acceptance_is_accepted(serve: Serve, reply: bytes) -> None:
    """What has been paid for must not become doubt for a long header, a label or a way of framing."""
    assert await pay_once(await serve(reply, hang_up=True)) == Accepted(REQUEST_ID)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "reply",
    [
        http(401, b'{"error": "bad key"}'),
        http(401, gzip.compress(b"bad key", mtime=0), "Content-Encoding: gzip"),
        http(401, b"{", length=500),
        http(401, b"x" * (MAX_JSON_BYTES + 1)),
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_an_error_is_its_status_even_if_its_words_are_lost(serve: Serve, way: str, reply: bytes) -> None:
    """A refusal with a packed or broken body is still a refusal: doubt would hold the money for nothing."""
    answer = await pay_once(await serve(reply, hang_up=True), way)
    assert isinstance(answer, Refused)
    assert answer.error_class is ErrorClass.UNAUTHORIZED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [502, 503, 504, 408, 413, 520, 524])
async def test_a_gateways_error_is_doubt(serve: Serve, way: str, status: int) -> None:
    """The job may have got through before the gateway lost it."""
    reply = await pay_once(await serve(http(status, b"<html>oops</html>", "Content-Type: text/html")), way)
    assert reply == Uncertain(ErrorClass.GATEWAY, f"HTTP {status}", status)


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_that_names_its_price_is_doubt(serve: Serve, way: str) -> None:
    """A 500 with the accounting of a charge in its headers does not free the money."""
    assert_doubt(await pay_once(await serve(http(500, b'{"error": "late"}', "x-cost: 1.75")), way))


# Replies without end


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"x"], ids=["100-continue", "body"])
async def test_a_reply_without_end_is_given_up_in_time(serve: Serve, piece: bytes) -> None:
    """Bytes that keep coming must not hold a submission beyond its time, although the socket is never silent."""

    async def drip(line: Line) -> None:
        if piece == b"x":
            await line.say(HEAD + b"Content-Length: 1000000\r\n\r\n")
        while not line.writer.is_closing():
            await line.say(piece)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        assert_doubt(await pay_once(await serve(drip), connect_s=0.1, submit_s=0.1))


@pytest.mark.parametrize("way", WAYS)
async def test_a_reply_larger_than_any_honest_one_is_doubt(serve: Serve, way: str) -> None:
    """Memory is bounded: the reader hangs up."""

    async def flood(line: Line) -> None:
        await line.say(HEAD + b"Content-Type: application/json\r\n\r\n")
        while not line.writer.is_closing():
            await line.say(b" " * 2**20)

    reply = await pay_once(await serve(flood), way, submit_s=10, read_s=10)
    assert isinstance(reply, Uncertain)
    assert reply.error_class is ErrorClass.UNREADABLE


async def test_a_blocking_answer_in_json_that_drips_is_given_up_in_time(serve: Serve) -> None:
    """The blocking call waits long for its answer to begin, not for JSON to end."""

    async def drip(line: Line) -> None:
        await line.say(HEAD + b"Content-Type: application/json\r\n\r\n{")
        while not line.writer.is_closing():
            await line.say(b" ")
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5):
        assert_doubt(await pay_once(await serve(drip), "submit_blocking", read_s=0.1, blocking_submit_s=60))


# Redirects, connections


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_a_redirect_is_doubt_and_is_not_followed(serve: Serve, way: str, status: int) -> None:
    """It could carry the key to another host, and 307 would buy a second time."""
    elsewhere = await serve(GOOD)
    server = await serve(http(status, b"", f"Location: {elsewhere.url}/v2/kling-2"))
    reply = await pay_once(server, way)
    assert_doubt(reply)
    assert elsewhere.connections == 0


@pytest.mark.parametrize(("way", "answer"), [("submit", GOOD), ("submit_blocking", DELIVERY)])
async def test_every_submission_has_a_fresh_connection(serve: Serve, way: str, answer: bytes) -> None:
    """A kept connection may be dead at the other end, and would make a paid call doubtful for nothing."""
    server = await serve(answer)
    async with client_for(server.url) as client:
        for _ in range(5):
            reply = await getattr(client, way)(JOB)
            assert isinstance(reply, Accepted | Delivered)
            if isinstance(reply, Delivered):
                reply.close()
    assert server.posts == server.connections == 5


async def test_many_submissions_at_once_do_not_wait_for_each_other(serve: Serve) -> None:
    """No pool of the library's makes a paid call wait, so none is killed by its own waiting."""
    gate = asyncio.Event()

    async def together(line: Line) -> None:
        if server.posts == 150:
            gate.set()
        await gate.wait()
        await line.say(GOOD)

    server = await serve(together)
    async with client_for(server.url, connect_s=60, submit_s=60) as client:
        found = await asyncio.gather(*(client.submit(JOB) for _ in range(150)))
    assert found == [Accepted(REQUEST_ID)] * 150


async def test_a_cancelled_submission_leaves_no_connection_open(serve: Serve) -> None:
    """Leaving in the middle raises nothing but the cancel, and hangs up."""
    heard = asyncio.Event()

    async def hold(line: Line) -> None:
        heard.set()
        assert await line.reader.read() == b""
        closed.set()

    closed = asyncio.Event()
    server = await serve(hold)
    async with client_for(server.url) as client:
        task = asyncio.create_task(client.submit(JOB))
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2):
            await closed.wait()


async def test_the_request_is_the_jobs_own_bytes(serve: Serve) -> None:
    """One POST to the model's path with the key, the canonical body and its length; nothing else is added."""
    for way, path, answer in (("submit", "/v2/kling-2", GOOD), ("submit_blocking", "/v1/kling-2", DELIVERY)):
        server = await serve(answer)
        await pay_once(server, way)
        (request,) = server.requests
        assert (request.method, request.path, request.body) == ("POST", path, JOB.body)
        assert request.headers["x-api-key"] == KEY
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "proxy-authorization", "expect"} & set(request.headers)


# The blocking call


async def test_a_video_is_delivered_in_the_body(serve: Serve) -> None:
    """Its name and price come in headers, its bytes as they arrive."""
    async with client_for((await serve(DELIVERY)).url) as client:
        reply = await client.submit_blocking(JOB)
        assert isinstance(reply, Delivered)
        assert (reply.request_id, reply.finished.cost, reply.content_length) == (REQUEST_ID, 1_750_000, 5)
        assert reply.has_body
        assert b"".join([chunk async for chunk in reply.chunks()]) == b"video"
        reply.close()


@pytest.mark.parametrize("named_in", ["header", "body"])
async def test_a_delivery_in_json_names_its_url(serve: Serve, named_in: str) -> None:
    """The customer's sample code reads JSON: the request's name may then be in either place."""
    header = [f"x-request-id: {REQUEST_ID}"] if named_in == "header" else []
    body = {"output": "https://x.example/a.mp4"} | ({"request_id": REQUEST_ID} if named_in == "body" else {})
    reply = await pay_once(await serve(as_json(body, 200, *header, "x-cost: 3.50")), "submit_blocking")
    assert isinstance(reply, Delivered)
    assert not reply.has_body
    assert (reply.request_id, reply.finished.url) == (REQUEST_ID, "https://x.example/a.mp4")
    assert reply.finished.cost == 3_500_000


@pytest.mark.parametrize("cost", [None, "0", "1.75"])
@pytest.mark.parametrize(
    "spoilt",
    [
        partial(http, 200, b'{"outp', "Content-Type: application/json", length=500),
        partial(http, 200, b"?", "Content-Type: application/json", "Content-Encoding: br"),
        partial(http, 200, b"", "Content-Type: application/json"),
        partial(as_json, {"status": "FAILED", "error": "worker crashed"}, 200),
        partial(as_json, {"status": "FAILED", "output": "https://x.example/a.mp4"}, 200),
        partial(as_json, {"status": "PROCESSING"}, 200),
    ],
)
async def test_a_named_answer_is_a_delivery_only_with_a_video_or_a_charge(
    serve: Serve, spoilt: Callable[..., bytes], cost: str | None
) -> None:
    """A charge proves one; else it was accepted, and its end is asked for: booked as paid it would be lost for good."""
    headers = [f"x-request-id: {REQUEST_ID}", *([f"x-cost: {cost}"] if cost else [])]
    reply = await pay_once(await serve(spoilt(*headers), hang_up=True), "submit_blocking")
    if cost == "1.75":
        assert isinstance(reply, Delivered)
        assert (reply.request_id, reply.finished.cost, reply.has_body) == (REQUEST_ID, 1_750_000, False)
    else:
        assert reply == Accepted(REQUEST_ID)


async def test_a_page_that_is_no_delivery_is_doubt_whatever_name_it_carries(serve: Serve) -> None:
    """The name may be the gateway's own: the history would never show it, and doubt by that name would never end."""
    page = partial(http, 200, b"<h1>Maintenance</h1>", "Content-Type: text/html", f"x-request-id: {REQUEST_ID}")
    assert_doubt(await pay_once(await serve(page()), "submit_blocking"))
    assert isinstance(await pay_once(await serve(page("x-cost: 1.75")), "submit_blocking"), Delivered)


@pytest.mark.parametrize("name", [[], ["x-request-id: ../../x"], ["x-request-id: "], ["x-request-id: 7"]])
@pytest.mark.parametrize("kind", ["video/mp4", "application/json", "text/html", "application/octet-stream"])
async def test_a_delivery_without_a_usable_name_is_doubt(serve: Serve, name: list[str], kind: str) -> None:
    """It is paid, and the history will tell as what."""
    assert_doubt(await pay_once(await serve(http(200, b"{}", f"Content-Type: {kind}", *name)), "submit_blocking"))


@pytest.mark.parametrize("cost", ["", "NaN", "-1", "1e999999", "9" * 5_000, "free", "1.75 USD", "\xff"])
async def test_a_delivery_with_an_unbelievable_price_is_delivered_without_one(serve: Serve, cost: str) -> None:
    """The history or the quote says what it cost; the video must not be lost over it."""
    answer = http(200, b"video", "Content-Type: video/mp4", f"x-request-id: {REQUEST_ID}", f"x-cost: {cost}")
    reply = await pay_once(await serve(answer), "submit_blocking")
    assert isinstance(reply, Delivered)
    assert reply.finished.cost is None


async def test_a_video_that_breaks_off_is_still_a_delivery(serve: Serve) -> None:
    """The charge is known before the body ends; the reader of the body learns that it broke."""

    async def drop(line: Line) -> None:
        await line.say(http(200, b"half", "Content-Type: video/mp4", f"x-request-id: {REQUEST_ID}", length=50_000))

    async with client_for((await serve(drop, hang_up=True)).url) as client:
        reply = await client.submit_blocking(JOB)
        assert isinstance(reply, Delivered)
        with pytest.raises(aiohttp.ClientPayloadError) as broken:
            [chunk async for chunk in reply.chunks()]
        assert KEY not in repr(broken.value)
        reply.close()


async def test_a_delivery_that_is_not_wanted_hangs_up(serve: Serve) -> None:
    """Closing what was delivered ends its connection, however much of the body is still to come."""
    closed = asyncio.Event()

    async def endless(line: Line) -> None:
        await line.say(HEAD + f"Content-Type: video/mp4\r\nx-request-id: {REQUEST_ID}\r\n\r\n".encode())
        assert await line.reader.read() == b""
        closed.set()

    async with client_for((await serve(endless)).url) as client:
        reply = await client.submit_blocking(JOB)
        assert isinstance(reply, Delivered)
        reply.close()
        async with asyncio.timeout(2):
            await closed.wait()


async def test_a_generation_of_minutes_is_not_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own 300 s in total would lose every blocking call; the patience of other calls does not apply."""
    asked: list[aiohttp.ClientTimeout] = []
    whole = aiohttp.ClientSession._request

    async def spy(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["timeout"])
        return await whole(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", spy)

    async def slow(line: Line) -> None:
        await asyncio.sleep(0.15)
        await line.say(DELIVERY[:-2])
        await asyncio.sleep(0.1)
        await line.say(DELIVERY[-2:])

    url = (await serve(slow)).url
    async with client_for(url, connect_s=0.05, submit_s=0.02, read_s=0.02, blocking_submit_s=1800.0) as client:
        reply = await client.submit_blocking(JOB)
        assert isinstance(reply, Delivered)
        assert b"".join([chunk async for chunk in reply.chunks()]) == b"video"
        reply.close()
    (timeout,) = asked
    assert (timeout.total, timeout.sock_read) == (None, 1800.0)


async def test_a_submission_to_the_queue_has_a_bound_in_total(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer comes at once or is in doubt; connecting has its own bound, so that it stays provably unsent."""
    server = await serve(GOOD)
    async with client_for(server.url, connect_s=10.0, submit_s=60.0) as client:
        timeout = client._queued_timeout
    assert timeout.total is not None
    assert timeout.total >= 10 + 60
    assert (timeout.connect, timeout.sock_read) == (10, 60)
