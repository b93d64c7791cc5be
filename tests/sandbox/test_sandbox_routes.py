"""Every route, over a real socket, on a clock turned by hand."""

import asyncio
import base64
import json
import socket
import time
import uuid

import pytest
from conftest import Start
from sandbox_client import KEY, HandClock, RawClient

from pipeline.sandbox import INSTANTS, Sandbox, SandboxSettings


async def test_a_submission_becomes_a_video(start: Start, clock: HandClock) -> None:
    """Submit, poll, result and download follow the provider's page, and the bill is the price."""
    client = await start(credits_microusd=10_000_000)
    answer = await client.submit(duration=10)
    request_id = answer.json["request_id"]
    base = client.sandbox.url
    assert str(uuid.UUID(request_id)) == request_id
    assert answer.json == {
        "request_id": request_id,
        "status": "QUEUED",
        "poll_url": f"{base}/v1/requests/{request_id}",
        "status_url": f"{base}/v2/requests/{request_id}/status",
        "response_url": f"{base}/v2/requests/{request_id}",
    }
    assert (await client.status(request_id)).json["status"] == "QUEUED"
    clock.turn(60)
    assert (await client.status(request_id)).json == {"status": "PROCESSING", "request_id": request_id, "metrics": {}}
    assert "output" not in (await client.result(request_id)).json
    assert (await client.get(f"/files/{request_id}.mp4", key=None)).status == 404
    clock.turn(1500)
    assert (await client.status(request_id)).json["status"] == "COMPLETED"
    result = (await client.result(request_id)).json
    assert result == (await client.get(f"/v1/requests/{request_id}")).json
    metrics = result["metrics"]
    assert (metrics["cost"], metrics["remaining_credits"]) == (3.5, 6.5)
    assert metrics["queue_time"] + metrics["inference_time"] == pytest.approx(metrics["total_time"], abs=0.002)
    video = await client.get(result["output"], key=None)
    assert (video.status, video.headers["Content-Type"]) == (200, "video/mp4")
    assert len(video.body) == result["video"]["file_size"]
    assert result["video"]["url"] == result["output"]
    bill = (await client.get("/_sandbox/invoice", key=None)).json
    assert bill == client.sandbox.invoice()
    assert (bill["total_usd"], [charge["request_id"] for charge in bill["charges"]]) == ("3.50", [request_id])
    assert bill["charges"][0]["request"] == {"prompt": "a lamp", "duration": 10}


async def test_all_urls_of_a_record_expire_and_the_history_stays(start: Start, clock: HandClock) -> None:
    """An hour after submission the three URLs answer 404, the file and the history row are still there."""
    client = await start()
    request_id = await client.accepted()
    clock.turn(3599)
    assert (await client.status(request_id)).status == 200
    clock.turn(1)
    for path in (f"/v2/requests/{request_id}/status", f"/v2/requests/{request_id}", f"/v1/requests/{request_id}"):
        assert (await client.get(path)).status == 404
    row = (await client.get(f"/inference-request/request-history/{request_id}")).json
    assert (row["model_status"], row["credits_deduction"]) == ("COMPLETED", 1.75)
    assert (await client.get(row["generation_url"], key=None)).status == 200
    clock.turn(7 * 86_400)
    assert (await client.get(row["generation_url"], key=None)).status == 404
    assert (await client.get(f"/inference-request/request-history/{request_id}")).status == 200


async def test_the_history_lags(start: Start, clock: HandClock) -> None:
    """Neither the list nor the single row knows a request before the lag is over."""
    client = await start(history_lag_s=600)
    request_id = await client.accepted()
    clock.turn(599)
    assert (await client.history()).json["data"] == []
    assert (await client.get(f"/inference-request/request-history/{request_id}")).status == 404
    clock.turn(1)
    assert [row["request_id"] for row in (await client.history(per_page=100)).json["data"]] == [request_id]
    assert (await client.history(per_page=101)).status == 400


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "nonsense"}, {"Authorization": f"Bearer {KEY}"}, {"x-api-key": f"Bearer {KEY}"}],
    ids=["none", "malformed", "bearer", "bearer in the header"],
)
async def test_a_bad_key_is_refused_everywhere(start: Start, headers: dict[str, str]) -> None:
    """Every keyed route answers 401 with the auth surface's body, and nothing is accepted."""
    client = await start()
    for verb, path in (
        ("POST", "/v2/kling-2"),
        ("POST", "/v1/kling-2"),
        ("POST", "/upload-asset"),
        ("GET", "/v1/get-user-credits"),
        ("GET", "/v2/requests/x"),
        ("GET", "/v2/requests/x/status"),
        ("GET", "/inference-request/request-history"),
        ("GET", "/inference-request/request-history/x"),
    ):
        answer = await client.call(verb, path, key=None, headers=headers, json={"prompt": "x"})
        assert (answer.status, answer.json["status_code"]) == (401, 401), path
        assert set(answer.json) == {"error", "error_description", "status_code"}
    assert client.sandbox.invoice()["accepted"] == 0


async def test_only_listed_keys_are_let_in_when_there_is_a_list(start: Start) -> None:
    """With keys given, another well-formed key is a stranger."""
    client = await start(keys=("SG_ffffffffffffffff",))
    assert (await client.submit()).status == 401
    assert (await client.submit(headers={"x-api-key": "SG_ffffffffffffffff"})).status == 401  # json, not headers
    assert (await client.get("/v1/get-user-credits", key="SG_ffffffffffffffff")).status == 200


async def test_refusals_before_the_run(start: Start) -> None:
    """Bad bodies, unknown models, wrong content types and wrong verbs get their documented status."""
    client = await start()
    assert (await client.submit(duration=7)).status == 406
    assert "duration" in (await client.submit(duration=7)).json["error"]
    assert (await client.call("POST", "/v2/kling-2", json={})).status == 400
    assert (
        await client.call("POST", "/v2/kling-2", data=b"{", headers={"Content-Type": "application/json"})
    ).status == 400
    assert (await client.call("POST", "/v2/kling-2", data=b"{}", headers={"Content-Type": "text/plain"})).status == 406
    assert (await client.call("POST", "/v2/kling-9", json={"prompt": "x"})).status == 404
    wrong = await client.get("/v2/kling-2")
    assert (wrong.status, wrong.headers["Content-Type"]) == (405, "text/html")
    assert (await client.get("/nowhere/at/all")).status == 404
    assert client.sandbox.invoice()["accepted"] == 0


async def test_credits_run_out_to_the_cent(start: Start, clock: HandClock) -> None:
    """A balance buys what it covers; the next submission is refused with balance and need in words."""
    client = await start(credits_microusd=3_600_000)
    await client.accepted()
    await client.accepted()
    refused = await client.submit()
    assert refused.status == 406
    assert "Insufficient credits" in refused.json["error"]
    assert "$0.10" in refused.json["error"]
    assert "$1.75" in refused.json["error"]
    assert (await client.get("/v1/get-user-credits")).json == {"credits": 0.1, "free-credits": 0.0}


async def test_the_rate_limit_is_strict_and_names_its_end(start: Start, clock: HandClock) -> None:
    """Every call with the key counts, real seconds count, and after the reset time a call goes through."""
    client = await start(rpm=3, time_scale=1000)
    request_id = await client.accepted()
    await client.status(request_id)
    await client.get("/v1/get-user-credits")
    refused = await client.submit()
    assert refused.status == 429
    reset = refused.headers["x-rate-limit-reset-at-utc"]
    wait = time.mktime(time.strptime(reset, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - clock.at
    assert wait == pytest.approx(60, abs=1.01)
    assert (await client.get(f"/files/{request_id}.mp4", key=None)).status == 404  # no key, no count
    clock.turn(59.9)
    assert (await client.status(request_id)).status == 429
    clock.turn(wait - 59.9)
    assert (await client.submit()).status == 200
    report = client.sandbox.state()
    assert (report["rate_limited"], report["max_calls_60s"]) == (2, 5)


async def test_too_many_generations_at_once_are_refused(start: Start, clock: HandClock) -> None:
    """The limit on running generations shows as 429 and goes away when one ends."""
    client = await start(max_in_flight=2)
    await client.accepted()
    await client.accepted()
    assert (await client.submit()).status == 429
    clock.turn(3000)
    assert (await client.submit()).status == 200
    assert client.sandbox.state()["max_in_flight"] == 2


@pytest.mark.parametrize("body", ["video", "json"])
async def test_the_blocking_call_answers_when_ready(start: Start, body: str) -> None:
    """v1 answers minutes later with the video or its URL, and accounts for itself in headers."""
    client = await start(clock=time.time, mean_s=20, sigma=0, time_scale=200, v1_body=body, credits_microusd=5_000_000)
    before = time.monotonic()
    answer = await client.submit(api="v1")
    assert time.monotonic() - before >= 0.09
    assert answer.status == 200
    request_id = answer.headers["x-request-id"]
    assert (answer.headers["x-cost"], answer.headers["x-remaining-credits"]) == ("1.75", "3.25")
    assert float(answer.headers["x-generation-time"]) >= 20
    if body == "video":
        video = answer
    else:
        video = await client.get(answer.json["output"], key=None)
    assert (video.headers["Content-Type"], b"ftyp" in video.body[:12]) == ("video/mp4", True)
    assert (await client.status(request_id)).status == 404  # there is no v2 record of a v1 job
    assert [row["request_id"] for row in (await client.history()).json["data"]] == [request_id]


async def test_a_failed_blocking_call_is_an_unbilled_500(start: Start) -> None:
    """v1 tells a failure as 500 with the reason."""
    client = await start(mean_s=0, faults={"gen_failed_input": 1})
    answer = await client.submit(api="v1")
    assert (answer.status, "policy" in answer.json["error"]) == (500, True)
    assert client.sandbox.invoice()["exposure_microusd"] == 0


async def test_uploads_are_kept_and_served(start: Start) -> None:
    """An uploaded data URL comes back, byte for byte, from the URL that was given for it."""
    client = await start()
    data = b"\x89PNG pretend"
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    answer = await client.call("POST", "/upload-asset", json={"data_urls": [url]})
    (file_url,) = answer.json["file_urls"]
    served = await client.get(file_url, key=None)
    assert (served.status, served.body, served.headers["Content-Type"]) == (200, data, "image/png")
    assert (await client.submit(start_image=file_url)).status == 200
    for wrong in ({}, {"data_urls": "x"}, {"data_urls": ["data:image/png,xx"]}, [], {"data_urls": [5]}):
        assert (await client.call("POST", "/upload-asset", json=wrong)).status == 400
    assert (await client.get("/assets/nothing.png", key=None)).status == 404


async def test_a_key_at_the_storage_host_is_noticed(start: Start) -> None:
    """A client that sends its key where files are served is found out."""
    client = await start(mean_s=0)
    request_id = await client.accepted()
    await client.get(f"/files/{request_id}.mp4", key=None)
    assert client.sandbox.state()["key_leaks"] == 0
    await client.get(f"/files/{request_id}.mp4")
    await client.get("/assets/x.png", key=None, headers={"Authorization": f"Bearer {KEY}"})
    assert client.sandbox.state()["key_leaks"] == 2


async def test_the_looking_glass_costs_nothing(start: Start) -> None:
    """The sandbox's own routes need no key, count no call and tell of duplicates and files."""
    client = await start(mean_s=0, rpm=10)
    ids = [await client.accepted("twin"), await client.accepted("twin"), await client.accepted("single")]
    for _ in range(20):
        report = (await client.get("/_sandbox/state", key=None)).json
    assert report["calls"] == {"submit_v2": 3}
    assert report["duplicate_bodies"] == {'{"prompt":"twin"}': 2}
    listed = (await client.get("/_sandbox/requests", key=None)).json
    assert [item["request_id"] for item in listed] == ids
    assert len({item["sha256"] for item in listed}) == 3
    assert {item["status"] for item in listed} == {"COMPLETED"}


async def test_the_hook_hears_of_every_instant(start: Start) -> None:
    """Protocol instants are told in order, with the request's id once there is one, and all are in the catalogue."""
    heard: list[tuple[str, str | None]] = []
    client = await start(mean_s=0, on_event=lambda name, facts: heard.append((name, facts.get("request_id"))))
    request_id = await client.accepted()
    await client.status(request_id)
    await client.result(request_id)
    video = await client.get(f"/files/{request_id}.mp4", key=None)
    await client.history()
    await client.get("/v1/get-user-credits")
    await client.session.close()
    while heard.count(("disconnected", None)) < 6:  # noqa: ASYNC110  there is no event for it
        await asyncio.sleep(0)
    assert [instant for instant in heard if instant[0] not in ("connected", "disconnected")] == [
        ("submit_head", None),
        ("submit_body", None),
        ("submit_accepted", request_id),
        ("submit_reply_head", request_id),
        ("submit_reply_half", request_id),
        ("submit_reply_sent", request_id),
        *((f"poll_{step}", request_id) for step in ("head", "reply_head", "reply_half", "reply_sent")),
        *((f"result_{step}", request_id) for step in ("head", "reply_head", "reply_half", "reply_sent")),
        *((f"file_{step}", request_id) for step in ("head", "reply_head", "first_bytes", "half", "done")),
        *((f"history_{step}", None) for step in ("head", "reply_head", "reply_half", "reply_sent")),
        *((f"credits_{step}", None) for step in ("head", "reply_head", "reply_half", "reply_sent")),
    ]
    assert heard[0] == ("connected", None), "before anything came over it"
    assert {name for name, _ in heard} == set(INSTANTS)
    assert video.body.endswith(b"sandbox clip" + bytes(uuid.UUID(request_id).bytes[0]))


async def test_at_half_of_an_answer_the_client_has_half_of_it(start: Start) -> None:
    """What the hook is told is so: head and half are on the wire when it says so, and not a byte more."""
    came: dict[str, bytes] = {}
    peer, here = socket.socket(), b""

    def look(name: str, _facts: dict[str, object]) -> None:
        nonlocal here
        if name.startswith("credits_reply"):
            here += peer.recv(65_536)
            came[name] = here

    client = await start(on_event=look)
    with peer:
        peer.connect(("127.0.0.1", int(client.sandbox.url.rsplit(":", 1)[1])))
        peer.sendall(f"GET /v1/get-user-credits HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        while len(came) < 3:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0)
    assert came["credits_reply_head"].endswith(b"\r\n\r\n")
    body = came["credits_reply_sent"].removeprefix(came["credits_reply_head"])
    assert json.loads(body)["credits"] == 1_000_000
    assert came["credits_reply_half"] == came["credits_reply_head"] + body[: len(body) // 2]


async def test_a_sandbox_closes_at_once_whatever_hangs() -> None:
    """Hanging and blocking calls do not hold up the end of a sandbox."""
    settings = SandboxSettings(clips="tiny", hang_s=600, faults={"poll_hang": 1})
    async with Sandbox(settings) as sandbox, RawClient(sandbox) as client:
        request_id = await client.accepted()
        calls = [asyncio.create_task(client.status(request_id)) for _ in range(5)]
        calls += [asyncio.create_task(client.submit(api="v1")) for _ in range(5)]
        while sandbox.state()["calls_total"] < 11:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.01)
        before = time.monotonic()
        await sandbox.__aexit__(None, None, None)
        assert time.monotonic() - before < 1
        assert all(answer.problem for answer in await asyncio.gather(*calls))


async def test_a_sandbox_closes_at_once_in_the_middle_of_a_drawing() -> None:
    """Clips that are being drawn or wait for it are dropped without waiting."""
    for pause in (0.0, 0.05, 0.6):
        async with Sandbox(SandboxSettings(clips="own")) as sandbox, RawClient(sandbox) as client:
            for _ in range(5):
                await client.accepted()
            assert sandbox.state()["drawing"] == 5
            await asyncio.sleep(pause)
            before = time.monotonic()
            await sandbox.__aexit__(None, None, None)
            assert time.monotonic() - before < 1


async def test_a_client_that_leaves_in_the_middle_of_a_body_buys_nothing(start: Start) -> None:
    """A submission counts once its body is whole, and not before."""
    client = await start(mean_s=0)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.sandbox.url.rsplit(":", 1)[1]))
    head = f"POST /v2/kling-2 HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b'Content-Length: 40\r\n\r\n{"prompt": "x')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    del reader
    assert (await client.get("/v1/get-user-credits")).status == 200
    assert client.sandbox.invoice()["accepted"] == 0


async def test_many_calls_at_once_are_billed_exactly(start: Start) -> None:
    """Two hundred submissions at the same moment are two hundred jobs, ids and charges."""
    client = await start(mean_s=0)
    ids = await asyncio.gather(*(client.accepted(f"lamp {number}") for number in range(200)))
    assert len(set(ids)) == 200
    assert client.sandbox.invoice()["total_microusd"] == 200 * 1_750_000
