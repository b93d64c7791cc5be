"""What the provider's replies mean, first of all for the money."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from provider_doubles import ACCEPTANCE, NOW_US, OTHER_ID, REQUEST_ID

from pipeline.kernel.clock import iso
from pipeline.kernel.errors import Charge, ErrorClass
from pipeline.provider import history, replies, values
from pipeline.provider.replies import (
    LONGEST_PAUSE_S,
    PAUSE_GUESS_S,
    Accepted,
    Expired,
    Finished,
    Refused,
    Unavailable,
    Uncertain,
    Working,
)

RESET = "x-rate-limit-reset-at-utc"
HTML = b"<!doctype html><html><body><h1>Bad Gateway</h1></body></html>"
VIDEO = "https://images.segmind.com/a.mp4"


def submit(status: int, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return replies.decode_submit(status, headers or {}, raw, NOW_US)


def poll(status: int, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return replies.decode_poll(status, headers or {}, raw, NOW_US, REQUEST_ID)


# Submissions: the table of the provider


@pytest.mark.parametrize("body", [b"", b"{}", HTML, b'{"error": "no"}', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, ErrorClass.BAD_REQUEST),
        (401, ErrorClass.UNAUTHORIZED),
        (403, ErrorClass.FORBIDDEN),
        (404, ErrorClass.NO_SUCH_MODEL),
        (405, ErrorClass.WRONG_METHOD),
        (410, ErrorClass.MODEL_RETIRED),
        (422, ErrorClass.GENERATION_FAILED),
        (429, ErrorClass.RATE_LIMITED),
        (500, ErrorClass.SERVER_ERROR),
    ],
)
def test_a_status_of_the_table_is_a_refusal_whatever_its_body(
    status: int, error_class: ErrorClass, body: bytes
) -> None:
    """Only the provider's documented errors say that nothing was charged, and their words cannot change that."""
    reply = submit(status, body)
    assert isinstance(reply, Refused)
    assert (reply.error_class, reply.http_status) == (error_class, status)
    assert reply.error_class.charge is Charge.NO


TABLE = {400, 401, 403, 404, 405, 406, 410, 422, 429, 500}


@pytest.mark.parametrize("status", sorted({*range(100, 600), 0, 999, -1} - TABLE))
def test_a_status_of_no_table_is_doubt(status: int) -> None:
    """Gateways, redirects, oddities and successes without a request id may all hide a paid job."""
    for body in (b"", HTML, b'{"error": "never arrived, nothing was charged"}'):
        reply = submit(status, body)
        assert isinstance(reply, Uncertain)
        assert reply.error_class.charge is Charge.UNKNOWN
    if not 200 <= status < 300:
        assert isinstance(submit(status, ACCEPTANCE), Uncertain)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"request_id": REQUEST_ID, "status": "QUEUED", "error": "late"}, {}),
        ({"status": "PROCESSING"}, {}),
        ({"status": "completed", "output": VIDEO}, {}),
        ({"error": "could not answer", "metrics": {"cost": 1.75}}, {}),
        ({"error": "could not answer"}, {"x-cost": "1.75"}),
    ],
)
@pytest.mark.parametrize("status", sorted(TABLE))
def test_an_error_that_names_a_charge_or_a_running_request_is_doubt(
    status: int, body: dict[str, Any], headers: dict[str, str]
) -> None:
    """A reply that contradicts itself proves nothing: it must not free the money."""
    assert isinstance(submit(status, body, headers), Uncertain)


@pytest.mark.parametrize("cost", ["0", "0.0", "", "none", "NaN", "-1"])
def test_an_error_with_no_charge_beside_it_stays_a_refusal(cost: str) -> None:
    """A zero or unreadable cost on an error is no sign of a charge, nor is a request id in an error's trace."""
    assert isinstance(
        submit(500, {"error": "no", "request_id": REQUEST_ID, "status": "error"}, {"x-cost": cost}), Refused
    )


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_that_names_its_request_is_an_acceptance(status: int) -> None:
    """202 is as natural for a queue as 200, and a known request id is worth more than the number before it."""
    assert submit(status, ACCEPTANCE) == Accepted(REQUEST_ID)


@pytest.mark.parametrize(
    "request_id",
    ["../../x", "../../etc/passwd", 7, 12345678, None, True, [], {}, "", "short", "a" * 65, "a" * 2**20, "abcdefgh\n",
     "abcdefgh\x00", "abcd efgh", "abcdefgh?x=1", "abcdefgh#", "abcd%2fefgh", "äbcdefgh", "٣٣٣٣٣٣٣٣", "\u202eabcdefgh"],
)  # fmt: skip
def test_a_request_id_that_cannot_stand_in_a_url_is_doubt(request_id: object) -> None:
    """It was accepted, and we do not know as what: nothing is assumed and nothing is sent again."""
    reply = submit(200, {"request_id": request_id, "status": "QUEUED"})
    assert isinstance(reply, Uncertain)
    assert len(reply.message) < 1_000


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"text"', b"7", HTML, ACCEPTANCE[:20], b"\xff\xfe\x00", b"[" * 100_000,
        b'{"a":' * 100_000, ACCEPTANCE + b"}", ACCEPTANCE + ACCEPTANCE, b"{}", b'{"error": "no"}',
        b'{"request_id": "abcdefgh-1", "request_id": "abcdefgh-2"}',
    ],
)  # fmt: skip
def test_a_200_that_does_not_plainly_name_one_request_is_doubt(body: bytes) -> None:
    """Empty, cut, doubled, ambiguous and foreign answers are all perhaps charged."""
    assert isinstance(submit(200, body), Uncertain)


@pytest.mark.parametrize(
    "number", ["NaN", "-Infinity", "1e400", "1e999999999", "1" * 5_000, "9" * 2**20, "1e" + "9" * 99]
)
def test_a_monstrous_number_does_not_hide_the_request_id(number: str) -> None:
    """One bad timing must not turn an acceptance into doubt, nor a finished request into an unanswered question."""
    assert submit(200, b'{"metrics": {"t": %s}, "request_id": "abcdefgh-1"}' % number.encode()) == Accepted(
        "abcdefgh-1"
    )
    body = b'{"status": "COMPLETED", "output": "%s", "metrics": {"cost": %s, "queue_time": %s}}'
    assert poll(200, body % (VIDEO.encode(), number.encode(), number.encode())) == Finished(url=VIDEO)


# 406, and whose fault a failure is


@pytest.mark.parametrize(
    "message",
    [
        "Insufficient credits. Balance: $0.02, required: $1.75",
        "Insufficient credits: the balance must be at least $1.75",
        "Not enough credits to run this model",
        "Insufficient funds",
        "Your balance is too low for this duration",
        "Team spend limit reached",
        "Monthly spending limit exceeded",
        "You are out of credits, please top up",
        "Quota exceeded",
        "Credits exhausted",
        "Limit reached",
    ],
)
def test_a_406_about_money_stops_the_run(message: str) -> None:
    """Every other row would be refused as well."""
    for body in ({"error": message}, {"error": {"code": "x", "message": message}}, {"detail": [{"msg": message}]}):
        assert submit(406, body).error_class is ErrorClass.OUT_OF_CREDITS


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Invalid value for parameter cfg_scale: must be between 0 and 1",
        "Parameter prompt exceeds the length limit",
        "prompt is over the limit of 2500 characters",
        "duration must be 5 or 10",
        "Content-Type must be application/json",
        "Invalid value for parameter prompt: 'a credit card on a balance'",
    ],
)
def test_a_406_about_a_value_fails_its_row_alone(message: str) -> None:
    """One bad row must not stop a campaign, even if its words are about limits or credit cards."""
    assert submit(406, {"error": message}).error_class is ErrorClass.BAD_REQUEST


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("A customer at a payment terminal", "Invalid parameter value for prompt: 'A customer at a payment terminal'"),
        ("the billing office of 1920", "parameter prompt: 'The Billing Office of 1920' is not allowed"),
        ("no low budget look", "unsupported value 'no low budget look' for prompt"),
        ("top up your coffee", "prompt must be shorter: top up your coffee"),
        ("payment", "Invalid value for parameter prompt: payment"),
        ("a low balance on a screen, " * 80, f"Invalid value for prompt: '{'a low balance on a screen, ' * 4}...'"),
        ("two\nlines about billing", "Invalid value for prompt: 'two lines about billing'"),
    ],
)
def test_a_prompt_about_money_that_is_quoted_does_not_stop_the_run(prompt: str, message: str) -> None:
    """What was sent is struck out before the words are weighed, also where it is cut short or in another case."""
    sent = json.dumps({"prompt": prompt, "aspect_ratio": "16:9", "duration": 5}).encode()
    reply = replies.decode_submit(406, {}, json.dumps({"error": message}).encode(), NOW_US, sent)
    assert isinstance(reply, Refused)
    assert (reply.error_class, reply.message) == (ErrorClass.BAD_REQUEST, f"HTTP 406: {message}")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("insufficient credits", "Insufficient credits"),
        ("credits", "Insufficient credits. Balance: $0.02"),
        ("a lamp", "Insufficient credits for 'a lamp'"),
        ("an image of a prompt", "Insufficient credits to run: an image of a prompt"),
        ("a credit card beside a lamp", "Not acceptable: a credit card beside a lamp"),
        ("a", "Team spend limit reached"),
    ],
)
def test_where_a_prompt_hides_what_a_406_is_about_the_run_stops(prompt: str, message: str) -> None:
    """A stop burns no row: so it is what follows where nothing that is left says that a value is wrong."""
    sent = json.dumps({"prompt": prompt}).encode()
    reply = replies.decode_submit(406, {}, json.dumps({"error": message}).encode(), NOW_US, sent)
    assert isinstance(reply, Refused)
    assert reply.error_class is ErrorClass.OUT_OF_CREDITS


@pytest.mark.parametrize(
    "message",
    [
        "The prompt violates the content policy of the model; change the input.",
        "Your request was flagged by our moderation system",
        "NSFW content detected",
        "Prompt contains sensitive words",
        "Failure to pass the risk control system",
        "Invalid image: could not be decoded",
        "Unsupported image format",
        "The input image is too large",
        "prompt is too long",
        "violates our community guidelines",
        "inappropriate content",
    ],
)
def test_a_failure_of_the_input_is_told_apart(message: str) -> None:
    """Trying the same input again would fail again."""
    assert poll(422, {"status": "FAILED", "error": message}).error_class is ErrorClass.INPUT_REFUSED


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Internal error while processing the image",
        "The model failed to produce an output.",
        "Bad gateway while fetching input image",
        "Invalid response from image service",
        "Moderation service unavailable",
        "Retry policy exhausted after 3 attempts",
        "Segmentation violation in worker 7",
        "Operation not allowed on this node",
        "CUDA out of memory for input of size 1280",
        "Timed out while downloading the input image",
        "Unexpected state: prompt queue is full",
        "System under moderate load, content was not generated",
        "Upstream error: invalid prompt cache",
    ],
)
def test_a_failure_of_the_provider_is_not_blamed_on_the_input(message: str) -> None:
    """Blaming the input loses the row, where a free retry would have made it."""
    assert poll(422, {"status": "FAILED", "error": message}).error_class is ErrorClass.GENERATION_FAILED


# Polls and results


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("state", ["FAILED", "failed", " Failed "])
def test_failed_is_failed_under_either_status(status: int, state: str) -> None:
    """The documented 422 and a 200 that says FAILED both mean: ran, failed, nothing billed."""
    reply = poll(status, {"status": state, "error": "no luck", "metrics": {"queue_time": 1}})
    assert reply == Refused(ErrorClass.GENERATION_FAILED, "no luck", status)


@pytest.mark.parametrize("cost", [1.75, "1.75", 0.000001])
def test_a_failure_that_names_its_price_was_paid(cost: object) -> None:
    """FAILED with a charge beside it is no proof of no charge."""
    reply = poll(422, {"status": "FAILED", "error": "no luck", "metrics": {"cost": cost}})
    assert isinstance(reply, Finished)
    assert reply.cost


@pytest.mark.parametrize("body", [b"", HTML, b"{}", b"null", b'{"error": "no"}', b'{"status": 7}', b'{"status": null}'])
@pytest.mark.parametrize("status", [200, 422])
def test_an_answer_without_a_state_ends_nothing(status: int, body: bytes) -> None:
    """Only a FAILED that says so frees the money: a bare 422 may be about the question itself."""
    assert isinstance(poll(status, body), Unavailable)


@pytest.mark.parametrize("state", ["QUEUED", "PROCESSING", "WARMING_UP", "CANCELLED", "ERROR", "TIMEOUT", "", "💥"])
@pytest.mark.parametrize("status", [200, 422])
def test_an_unknown_state_is_still_working(status: int, state: str) -> None:
    """What is not documented ends no request."""
    assert poll(status, {"status": state, "request_id": REQUEST_ID}) == Working()


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED", "QUEUED"])
@pytest.mark.parametrize("named", [OTHER_ID, 7, "", [REQUEST_ID]])
def test_an_answer_about_another_request_is_no_answer(state: str, named: object) -> None:
    """A mixed-up cache must not void, or finish, somebody else's request."""
    assert isinstance(poll(200, {"status": state, "request_id": named, "output": VIDEO}), Unavailable)


@pytest.mark.parametrize("named", [REQUEST_ID, REQUEST_ID.upper(), None])
def test_an_answer_about_our_request_is_taken(named: object) -> None:
    """The id in capitals, or left out, is still ours."""
    assert poll(200, {"status": "COMPLETED", "request_id": named, "output": VIDEO}) == Finished(url=VIDEO)


@pytest.mark.parametrize("status", [400, 405, 406, 410, 500, 502, 503, 504, 301, 302, 307, 201, 202, 206, 0])
def test_a_question_that_got_no_answer_ends_nothing(status: int) -> None:
    """Errors of a free call say nothing about the money, even where they would on a submission."""
    for body in (b"", HTML, b'{"status": "FAILED", "error": "x"}', b'{"status": "COMPLETED"}'):
        assert isinstance(poll(status, body), Unavailable)


def test_404_401_403_and_429_of_a_question_are_told_apart() -> None:
    """The record is gone, the key is bad, or it is too early: none of them ends a request."""
    assert poll(404, b'{"status": "FAILED"}') == Expired()
    assert poll(401).error_class is ErrorClass.UNAUTHORIZED
    assert poll(403).error_class is ErrorClass.FORBIDDEN
    assert poll(429).error_class is ErrorClass.RATE_LIMITED


def test_completed_under_422_is_not_believed() -> None:
    """A contradiction is asked about again."""
    assert poll(422, {"status": "COMPLETED", "output": VIDEO}) == Working()


def test_completed_without_a_url_is_finished_without_a_url() -> None:
    """It is paid all the same; where the video is can be asked elsewhere."""
    assert poll(200, {"status": "COMPLETED", "metrics": {"cost": 1.75}}) == Finished(cost=1_750_000)


@pytest.mark.parametrize(
    "answer",
    [
        {"output": VIDEO},
        {"output": [VIDEO, "https://x.example/second.mp4"]},
        {"output": {"url": VIDEO}},
        {"output": {"video": {"url": VIDEO}}},
        {"output": [{"video_url": VIDEO}]},
        {"output": {"output": [{"url": VIDEO}]}},
        {"output": [None, 7, "", VIDEO]},
        {"video": {"url": VIDEO, "file_size": "?"}, "output": "https://x.example/other.mp4"},
        {"video": VIDEO},
        {"video": None, "output": VIDEO},
    ],
)
def test_the_video_is_found_in_any_shape_of_output(answer: dict[str, Any]) -> None:
    """`output` is always there, and its shape varies."""
    assert poll(200, {"status": "COMPLETED", **answer}).url == VIDEO


@pytest.mark.parametrize(
    "url",
    [
        7, None, True, "", "file:///etc/passwd", "javascript:alert(1)", "//host/a.mp4", "https://", "ftp://x/a.mp4",
        "https://x/" + "a" * 5_000, "https://x/a b.mp4", "https://x/a\r\nx-api-key: y", "https://x/\x00",
        "https://x/\ud800", "https://x/\u202egpm.4", {"url": {"url": {"url": {"url": {"url": VIDEO}}}}},
    ],
)  # fmt: skip
def test_a_url_that_no_ledger_or_client_could_carry_is_none(url: object) -> None:
    """The request is finished and paid; only the address is asked for again."""
    reply = poll(200, {"status": "COMPLETED", "output": url})
    assert reply in (Finished(), Finished(url="https://"))


# Money, times, text


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ("1.75", 1_750_000),
        ("3.5000000000000004", 3_500_000),
        ("1.7499999999999998", 1_750_000),
        ("2", 2_000_000),
        ("0", 0),
        ("0.0", 0),
        ("-0.0", 0),
        ('"3.50"', 3_500_000),
        ('" 3.50 "', 3_500_000),
        ("1.75e0", 1_750_000),
        ("1000000000", 10**15),
        ("-1", None),
        ("-0.01", None),
        ("NaN", None),
        ('"NaN"', None),
        ("Infinity", None),
        ('"sNaN"', None),
        ("1e400", None),
        ('"1e400"', None),
        ("1e999999", None),
        ('"1e999999"', None),
        ("1e-999999", None),
        ("1e-9", None),
        ("1000000001", None),
        ("9" * 5_000, None),
        ('"' + "9" * 5_000 + '"', None),
        ("true", None),
        ("null", None),
        ('""', None),
        ('"$1.75"', None),
        ('"1,75"', None),
        ('"1_000"', None),
        ('"٣.٥"', None),
        ("[1.75]", None),
        ('{"usd": 1.75}', None),
    ],
)
def test_a_charge_is_exact_or_unknown(said: str, cost: int | None) -> None:
    """What is no believable amount is None, and a float's dust does not become money."""
    reply = poll(200, f'{{"status": "COMPLETED", "metrics": {{"cost": {said}}}}}'.encode())
    assert reply == Finished(cost=cost)


@pytest.mark.parametrize(
    "value", [1.75, b"1.75", Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e999999")]
)
def test_the_door_of_money_takes_no_float_and_raises_nothing(value: object) -> None:
    """Whatever is handed in, from a header or from JSON, comes out as an amount or as None."""
    assert values.charged(value) is None


@pytest.mark.parametrize(
    ("said", "left"), [("12.5", 12_500_000), ("-0.37", 0), ("-5", 0), ("0", 0), ("NaN", None), ("true", None)]
)
def test_an_overdrawn_account_has_nothing_left(said: str, left: int | None) -> None:
    """A negative balance must not read as an unknown one, which would pass the account's floor."""
    assert values.balance((values.parse_object(f'{{"credits": {said}}}'.encode()) or {})["credits"]) == left


NOW_S = NOW_US / 1e6


@pytest.mark.parametrize(
    ("reset", "wait_s"),
    [
        (iso(NOW_US + 30_000_000), 30),
        ((iso(NOW_US + 30_000_000) or "").replace("T", " ").replace("Z", " UTC"), 30),
        ((iso(NOW_US + 30_000_000) or "").replace("Z", ""), 30),
        ("Mon, 21 Sep 2026 14:13:50 GMT", 30),
        (str(NOW_S + 30), 30),
        (str(int(NOW_S) + 30), 30),
        (str(int(NOW_S * 1000) + 30_000), 30),
        (f"  {int(NOW_S) + 30}  ", 30),
        (iso(NOW_US), 0),
        (iso(NOW_US + 900_000_000), 900),
        (iso(NOW_US + 901_000_000), PAUSE_GUESS_S),
        (iso(NOW_US - 1_000_000), PAUSE_GUESS_S),
        ("1970-01-01T00:00:00Z", PAUSE_GUESS_S),
        ("0", PAUSE_GUESS_S),
        ("9999-12-31T23:59:59Z", PAUSE_GUESS_S),
        ("0001-01-01T00:00:00+14:00", PAUSE_GUESS_S),
        ("2026-13-45T99:99:99Z", PAUSE_GUESS_S),
        ("Mon, 99 Foo 2026 99:99:99 GMT", PAUSE_GUESS_S),
        ("NaN", PAUSE_GUESS_S),
        ("Infinity", PAUSE_GUESS_S),
        ("-1", PAUSE_GUESS_S),
        ("1e999999999", PAUSE_GUESS_S),
        ("", PAUSE_GUESS_S),
        ("soon", PAUSE_GUESS_S),
        ("١٧٩٠٠٠٠٠٣٠", PAUSE_GUESS_S),
        ("\udcff\udcfe", PAUSE_GUESS_S),
        ("9" * 10**7, PAUSE_GUESS_S),
    ],
)
def test_a_pause_ends_at_a_believable_reset_or_after_a_minute(reset: str, wait_s: float) -> None:
    """No header can stop a run for hours, nor let it hammer on at once."""
    for reply in (submit(429, b"", {RESET: reset}), poll(429, b"", {RESET: reset})):
        assert reply.wait_s == pytest.approx(wait_s, abs=0.001)


@pytest.mark.parametrize("minutes", [-14, 14])
def test_a_reset_is_held_against_the_time_in_the_same_answer(minutes: int) -> None:
    """A clock of ours that is a quarter of an hour off waits no quarter of an hour too long, nor hammers on."""
    theirs = datetime.fromtimestamp(NOW_US / 1e6, UTC) + timedelta(minutes=minutes)
    headers = {RESET: (theirs + timedelta(seconds=20)).isoformat(), "Date": format_datetime(theirs, usegmt=True)}
    for reply in (submit(429, b"", headers), poll(429, b"", headers)):
        assert 19 <= reply.wait_s <= 21


def test_a_strangers_text_is_one_printable_line_of_bounded_length() -> None:
    """It goes into ledgers, tables and terminals: no control, no bidirectional trick, no half of a character."""
    text = "a\x00b\x1b[31mc\r\nd\u2028e\u202ef\ud800g\u200bh\ufeffi" + "x" * 10_000
    reply = submit(400, {"error": text})
    assert reply.message.isprintable()
    assert reply.message.startswith("HTTP 400: a b [31mc d e f g h i")
    assert len(reply.message) <= 520
    reply.message.encode()


@pytest.mark.parametrize(
    "body",
    [
        {"error": "what"},
        {"error": "code", "error_description": "what", "status_code": 401},
        {"message": "what"},
        {"detail": "what"},
        {"detail": [{"loc": ["body"], "msg": "what"}]},
        {"error": {"code": 7, "message": "what"}},
    ],
)
def test_the_providers_words_are_found_in_any_usual_error_body(body: dict[str, Any]) -> None:
    """Every shape that its surfaces use gives one readable line."""
    assert submit(401, body).message == "HTTP 401: what"


# Totality

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(
    ["COMPLETED", "FAILED", "QUEUED", REQUEST_ID, VIDEO, "\ud800", "1e999999", iso(NOW_US), 10**400, 1e308]
)  # fmt: skip
names = st.text(max_size=5) | st.sampled_from(
    ["status", "request_id", "output", "video", "url", "metrics", "cost", "error", "message", "detail", "data", "rows",
     "model_status", "credits_deduction", "request_body", "generation_url", "created_at", "queue_time", "credits"]
)  # fmt: skip
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6), max_leaves=20
)
bodies = st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
statuses = st.integers(-1, 1000) | st.sampled_from([200, 202, 404, 406, 422, 429, 500, 502])
header_values = st.text(max_size=40) | st.sampled_from(["1e999999", "9" * 5000, "\udcff", "NaN", "-1", "1.75"])
header_maps = st.dictionaries(st.sampled_from([RESET, "x-cost", "x-request-id"]), header_values, max_size=3)


@settings(max_examples=300, deadline=5_000)
@given(statuses, header_maps, bodies)
@example(200, {}, b'{"status": "COMPLETED", "metrics": {"cost": 1e999999999}}')
@example(200, {}, b'[{"request_id": "abcdefgh", "request_body": {"x": 1e999999999}}]')
@example(200, {}, b'[{"request_id": "abcdefgh", "request_body": "\\ud800"}]')
@example(500, {"x-cost": "1e999999"}, b"")
def test_any_reply_becomes_a_value(status: int, headers: dict[str, str], body: bytes) -> None:
    """No status, header or body raises, and what comes out can be written to a ledger as it is."""
    submitted = replies.decode_submit(status, headers, body, NOW_US)
    assert isinstance(submitted, Accepted | Refused | Uncertain)
    if isinstance(submitted, Accepted):
        assert 200 <= status < 300
    if isinstance(submitted, Refused):
        assert status in TABLE
        assert 0 <= submitted.wait_s <= LONGEST_PAUSE_S
    polled = replies.decode_poll(status, headers, body, NOW_US, REQUEST_ID)
    assert isinstance(polled, Working | Finished | Refused | Expired | Unavailable)
    rows = history.decode_history(body) or []
    values.charged(headers.get("x-cost"))
    for value in (submitted, polled, *rows):
        for name in value.__slots__:
            field = getattr(value, name)
            if isinstance(field, str):
                field.encode()
                assert len(field) <= 5_000
