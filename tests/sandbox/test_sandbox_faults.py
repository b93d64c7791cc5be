"""Every fault by name: it fires, it is counted, and it does to the bill what its name says."""

import gzip
from typing import Any

import pytest
from conftest import Start
from sandbox_client import Answer, HandClock, RawClient

from pipeline.sandbox import FAULTS
from pipeline.sandbox.faults import FaultPlan
from pipeline.sandbox.mp4 import boxes

# What a submission meets: a status, or 0 for an answer that never came whole.
SUBMIT = {
    "submit_400": 400,
    "submit_401": 401,
    "submit_403": 403,
    "submit_404": 404,
    "submit_406_credits": 406,
    "submit_406_parameter": 406,
    "submit_410": 410,
    "submit_429": 429,
    "submit_500": 500,
    "submit_502_before": 502,
    "submit_503_before": 503,
    "submit_504_before": 504,
    "submit_drop_before": 0,
    "submit_hang_before": 0,
    "submit_3xx_before": 307,
    "submit_500_after": 500,
    "submit_502_after": 502,
    "submit_503_after": 503,
    "submit_504_after": 504,
    "submit_drop_after": 0,
    "submit_hang_after": 0,
    "submit_3xx_after": 307,
    "submit_garbage_after": 200,
    "submit_half_reply_after": 0,
    "submit_bad_id_after": 200,
    "submit_huge_header_after": 200,
    "submit_empty_after": 200,
    "submit_html_after": 200,
}
CALLS = {
    "poll_404": 404,
    "poll_429": 429,
    "poll_500": 500,
    "poll_502": 502,
    "poll_drop": 0,
    "poll_garbage": 200,
    "poll_hang": 0,
    "poll_unknown_state": 200,
    "result_404": 404,
    "result_429": 429,
    "result_500": 500,
    "result_502": 502,
    "result_drop": 0,
    "result_garbage": 200,
    "history_429": 429,
    "history_500": 500,
    "history_drop": 0,
    "history_garbage": 200,
}
UPLOADS = {
    "upload_400": 400,
    "upload_401": 401,
    "upload_429": 429,
    "upload_500": 500,
    "upload_drop": 0,
    "upload_garbage": 200,
}
FILES = {name for name in FAULTS if name.startswith("file_")}
GENERATION = {
    "gen_failed",
    "gen_failed_input",
    "gen_slow",
    "cost_above_quote",
    "cost_missing",
    "cost_garbage",
    "result_no_url",
}


def once(name: str) -> dict[str, Any]:
    return {"faults": {name: 1.0}, "fault_limit": {name: 1}, "file_slow_s": 0.2}


def met(answer: Answer) -> int:
    return 0 if answer.problem else answer.status


def fired(client: RawClient) -> dict[str, int]:
    return dict(client.sandbox.state()["faults_fired"])


def test_every_fault_of_the_catalogue_is_tested_here() -> None:
    """No name in the catalogue is without a test, and each has its sentence."""
    assert {*SUBMIT, *CALLS, *UPLOADS, *FILES, *GENERATION} == set(FAULTS)
    assert all(text.endswith(".") and len(text) > 20 for text in FAULTS.values())


@pytest.mark.parametrize("api", ["v2", "v1"])
@pytest.mark.parametrize("name", SUBMIT)
async def test_a_submission_fault_bills_or_does_not_as_its_name_says(start: Start, name: str, api: str) -> None:
    """Refused and lost-before faults accept nothing; after-faults accept and bill exactly one job."""
    client = await start(mean_s=0, **once(name))
    answer = await client.submit(api=api)
    assert met(answer) == SUBMIT[name]
    accepted = name.endswith("_after")
    bill = client.sandbox.invoice()
    assert (bill["accepted"], bill["total_microusd"]) == ((1, 1_750_000) if accepted else (0, 0))
    assert fired(client) == {name: 1}
    assert (await client.submit(api=api)).status == 200  # the limit holds: the next one goes well
    assert client.sandbox.invoice()["accepted"] == accepted + 1
    match name:
        case "submit_bad_id_after" if api == "v2":
            assert answer.json["request_id"] == "../../x"
        case "submit_bad_id_after":
            assert answer.headers["x-request-id"] == "../../x"
        case "submit_huge_header_after":
            assert len(answer.headers["content-security-policy"]) > 9000
        case "submit_empty_after":
            assert answer.body == b""
        case "submit_html_after" | "submit_504_after":
            assert answer.headers["Content-Type"] == "text/html"
        case "submit_garbage_after":
            with pytest.raises(ValueError):
                answer.json  # noqa: B018
        case "submit_406_credits":
            assert "Insufficient credits" in answer.json["error"]
        case "submit_429":
            assert "x-rate-limit-reset-at-utc" in answer.headers
            assert client.sandbox.state()["rate_limited"] == 1


async def test_following_a_redirect_buys_a_second_time(start: Start) -> None:
    """Whoever sends the body again to where a 307 points has two jobs on the bill, and is counted."""
    client = await start(mean_s=0, **once("submit_3xx_after"))
    answer = await client.submit()
    again = await client.call("POST", answer.headers["Location"], json={"prompt": "a lamp"})
    assert again.status == 200
    report = client.sandbox.state()
    assert (report["redirects_followed"], report["accepted"]) == (1, 2)
    assert report["duplicate_bodies"] == {'{"prompt":"a lamp"}': 2}


@pytest.mark.parametrize("name", CALLS)
async def test_a_fault_of_a_free_call_hits_once_and_the_retry_goes_well(start: Start, name: str) -> None:
    """Poll, result and history faults answer as named, change nothing, and a second call succeeds."""
    client = await start(mean_s=0, **once(name))
    request_id = await client.accepted()

    async def call() -> Answer:
        match name.split("_")[0]:
            case "poll":
                return await client.status(request_id)
            case "result":
                return await client.result(request_id)
        return await client.history()

    answer = await call()
    assert met(answer) == CALLS[name]
    assert fired(client) == {name: 1}
    if name.endswith("_garbage"):
        with pytest.raises(ValueError):
            answer.json  # noqa: B018
    if name == "poll_unknown_state":
        assert answer.json["status"] not in ("QUEUED", "PROCESSING", "COMPLETED", "FAILED")
    assert (await call()).status == 200
    assert client.sandbox.invoice()["total_microusd"] == 1_750_000


@pytest.mark.parametrize("name", UPLOADS)
async def test_a_fault_of_an_upload_hits_once_and_the_retry_goes_well(start: Start, name: str) -> None:
    """A refused upload keeps nothing, an answer that is lost leaves the file there; none of it is billed."""
    client = await start(**once(name))
    picture = {"data_urls": ["data:image/png;base64,QUJD"]}
    answer = await client.call("POST", "/upload-asset", json=picture)
    assert met(answer) == UPLOADS[name]
    assert fired(client) == {name: 1}
    assert client.sandbox.state()["uploads"] == (name in ("upload_drop", "upload_garbage"))
    if name == "upload_garbage":
        with pytest.raises(ValueError):
            answer.json  # noqa: B018
    again = await client.call("POST", "/upload-asset", json=picture)
    assert (await client.get(again.json["file_urls"][0], key=None)).body == b"ABC"
    assert client.sandbox.invoice()["total_microusd"] == 0


async def test_a_vanished_record_is_there_at_the_next_poll(start: Start) -> None:
    """poll_404 strikes each request once at most, even at rate 1."""
    client = await start(mean_s=0, faults={"poll_404": 1.0})
    for _ in range(2):
        request_id = await client.accepted()
        assert [(await client.status(request_id)).status for _ in range(3)] == [404, 200, 200]


@pytest.mark.parametrize("name", sorted(FILES))
async def test_a_file_fault_spoils_one_download_and_no_bill(start: Start, name: str) -> None:
    """A spoilt download differs from the real bytes as named; the next one is whole; nothing is billed again."""
    client = await start(mean_s=0, **once(name))
    request_id = await client.accepted()
    path = f"/files/{request_id}.mp4"
    bad, good = await client.get(path, key=None), await client.get(path, key=None)
    truth = client.sandbox.requests()[0]["sha256"]
    assert good.status == 200
    assert fired(client) == {name: 1}
    assert client.sandbox.invoice()["total_microusd"] == 1_750_000
    assert truth
    match name:
        case "file_404" | "file_500":
            assert bad.status == int(name[-3:])
        case "file_drop" | "file_cut":
            assert bad.problem
        case "file_short":
            assert good.body.startswith(bad.body)
            assert len(bad.body) < len(good.body)
        case "file_corrupt":
            assert len(bad.body) == len(good.body)
            assert bad.body != good.body
            assert [box.kind for box in boxes(bad.body)] == [box.kind for box in boxes(good.body)]
        case "file_html":
            assert bad.headers["Content-Type"] == "video/mp4"
            assert b"<html>" in bad.body
        case "file_empty":
            assert (bad.status, bad.body) == (200, b"")
        case "file_gzip":
            assert bad.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(bad.body) == good.body
        case "file_206":
            assert (bad.status, good.body.startswith(bad.body)) == (206, True)
        case "file_redirect_out":
            assert (bad.status, bad.headers["Location"]) == (302, "http://169.254.169.254/")
        case "file_slow":
            assert bad.body == good.body


@pytest.mark.parametrize("name", ["gen_failed", "gen_failed_input"])
async def test_a_failed_generation_is_a_422_and_free(start: Start, clock: HandClock, name: str) -> None:
    """FAILED comes with HTTP 422, a reason and timings only, from status and result; the money is back."""
    client = await start(credits_microusd=2_000_000, **once(name))
    request_id = await client.accepted()
    assert client.sandbox.state()["credits_microusd"] == 250_000
    assert (await client.status(request_id)).status == 200
    clock.turn(3000)
    for answer in (await client.status(request_id), await client.result(request_id)):
        assert (answer.status, answer.json["status"]) == (422, "FAILED")
        assert set(answer.json["metrics"]) == {"inference_time", "queue_time", "total_time"}
        assert ("content policy" in answer.json["error"]) == (name == "gen_failed_input")
    bill = client.sandbox.invoice()
    assert (bill["failed"], bill["exposure_microusd"], bill["charges"]) == (1, 0, [])
    assert client.sandbox.state()["credits_microusd"] == 2_000_000
    assert fired(client) == {name: 1}


@pytest.mark.parametrize("name", ["cost_above_quote", "cost_missing", "cost_garbage", "result_no_url"])
async def test_a_spoilt_result_leaves_the_bill_and_the_history_right(start: Start, name: str) -> None:
    """Whatever the result says of cost and URL, bill and history tell the truth."""
    client = await start(mean_s=0, **once(name))
    request_id = await client.accepted()
    result = (await client.result(request_id)).json
    row = (await client.get(f"/inference-request/request-history/{request_id}")).json
    cost = 3_500_000 if name == "cost_above_quote" else 1_750_000
    assert client.sandbox.invoice()["total_microusd"] == cost
    assert row["credits_deduction"] == cost / 1e6
    assert (await client.get(row["generation_url"], key=None)).status == 200
    assert fired(client) == {name: 1}
    told = result["metrics"].get("cost")
    match name:
        case "cost_above_quote":
            assert told == 3.5
        case "cost_missing":
            assert told is None
        case "cost_garbage":
            assert told in ("NaN", -1)
        case "result_no_url":
            assert not {"output", "video"} & set(result)


async def test_a_slow_generation_ends_three_times_later(start: Start, clock: HandClock) -> None:
    """gen_slow is still running when a plain generation would be done."""
    client = await start(sigma=0, **once("gen_slow"))
    request_id = await client.accepted()
    clock.turn(900)
    assert (await client.status(request_id)).json["status"] == "PROCESSING"
    clock.turn(100)
    assert (await client.status(request_id)).json["status"] == "COMPLETED"
    assert fired(client) == {"gen_slow": 1}


def test_rates_are_kept_and_shared() -> None:
    """Over many draws each fault fires at about its rate, rivals share, and the seed repeats itself."""
    plan = FaultPlan(5, {"poll_500": 0.1, "file_cut": 1.0, "file_short": 1.0}, {})
    first = [plan.draw("poll", ordinal) for ordinal in range(3000)]
    assert 240 < plan.fired["poll_500"] < 360
    again = FaultPlan(5, {"poll_500": 0.1}, {})
    assert [again.draw("poll", ordinal) for ordinal in range(3000)] == first
    for ordinal in range(1000):
        plan.draw("file", ordinal)
    assert plan.fired["file_cut"] + plan.fired["file_short"] == 1000
    assert 400 < plan.fired["file_cut"] < 600


def test_several_limited_faults_at_rate_one_all_get_their_turn() -> None:
    """Limits are used up one after another, then all goes well."""
    plan = FaultPlan(1, {"poll_500": 1.0, "poll_502": 1.0}, {"poll_500": 2, "poll_502": 1})
    drawn = [plan.draw("poll", 0, turn) for turn in range(4)]
    assert sorted(filter(None, drawn)) == ["poll_500", "poll_500", "poll_502"]
    assert drawn[3] is None
