"""What the provider's replies mean: total functions from status, headers and bytes to a value.

Whatever arrives, one of these values comes out and no exception does. The first question is always the money's: an
answer to a submission is `Accepted`, `Refused` (certainly not charged) or `Uncertain` (perhaps charged), and what is in
no table is uncertain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, NoReturn

from pipeline.jobs import canonical_json
from pipeline.kernel.clock import to_us
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MICRO_PER_USD, MicroUsd, parse_usd

MAX_MESSAGE_CHARS = 500
"""A provider's message is cut to this before it reaches a table."""

LONGEST_PAUSE_S = 900.0
"""No rate limit's reset is believed to be further away than this."""

PAUSE_GUESS_S = 60.0
"""How long to wait after a 429 that gives no believable reset: the length of the provider's window."""

_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{8,64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_ABOUT_CREDITS = re.compile(r"credit|balance|spend|budget|quota|top.?up|limit", re.IGNORECASE)
_ABOUT_INPUT = re.compile(
    r"polic|nsfw|moderat|sensitive|violat|inappropriate|unsafe|risk control|prohibited|not allowed|"
    r"(invalid|unsupported|corrupt|unreadable|bad)\W+(\w+\W+){0,2}(image|input|prompt|parameter|value)|"
    r"(image|input|prompt)\W+(\w+\W+){0,3}(invalid|unsupported|too (long|large|small)|at fault)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the submission: this is its name for it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Certainly not charged. `wait_s` is how long all calls should pause (429 only)."""

    error_class: ErrorClass
    message: str
    http_status: int = 0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The submission may have been accepted: nothing may be assumed, nothing sent again."""

    error_class: ErrorClass
    message: str
    http_status: int = 0


@dataclass(frozen=True, slots=True)
class Working:
    """The provider is still at it."""


@dataclass(frozen=True, slots=True)
class Expired:
    """404 for a request that once existed: its record is gone. Says nothing about money."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A question that got no usable answer: ask again later, it is free."""

    message: str
    http_status: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A generation that is done and charged. What the provider did not say, or said unbelievably, is None."""

    cost: MicroUsd | None = None
    url: str | None = None
    queue_s: float | None = None
    inference_s: float | None = None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One request as the account's history shows it. `times_us` are all its fields that read as a time."""

    request_id: str
    status: str
    cost: MicroUsd | None
    url: str | None
    error: str
    fingerprint: bytes | None
    times_us: tuple[int, ...]


SubmitReply = Accepted | Refused | Uncertain
PollReply = Working | Finished | Refused | Expired | Unavailable
ResultReply = Finished | Working | Refused | Expired | Unavailable

_SUBMIT_REFUSALS = {
    400: ErrorClass.BAD_REQUEST,
    401: ErrorClass.UNAUTHORIZED,
    403: ErrorClass.FORBIDDEN,
    404: ErrorClass.NO_SUCH_MODEL,
    405: ErrorClass.WRONG_METHOD,
    410: ErrorClass.MODEL_RETIRED,
    429: ErrorClass.RATE_LIMITED,
    500: ErrorClass.SERVER_ERROR,
}


def decode_submit(status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> SubmitReply:
    """The answer to `POST /v2/<model>`."""
    if status == 200:
        data = parse_object(body)
        request_id = valid_request_id(data.get("request_id")) if data else None
        if request_id is None:
            return Uncertain(ErrorClass.UNREADABLE, "the provider's answer names no usable request id", status)
        return Accepted(request_id)
    return decode_refusal(status, headers, body, now_us) or Uncertain(
        ErrorClass.GATEWAY, error_message(status, body), status
    )


def decode_refusal(status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> Refused | None:
    """A submission's status that certainly means no charge; None where it may mean one."""
    message = error_message(status, body)
    if status == 406:
        about_credits = _ABOUT_CREDITS.search(message)
        return Refused(ErrorClass.OUT_OF_CREDITS if about_credits else ErrorClass.BAD_REQUEST, message, status)
    if status == 422:
        return Refused(_failure_class(message), message, status)
    error_class = _SUBMIT_REFUSALS.get(status)
    if error_class is None:
        return None
    wait_s = pause_s(headers, now_us) if status == 429 else 0.0
    return Refused(error_class, message, status, wait_s)


def decode_poll(status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> PollReply:
    """The answer to a status or result call. `Finished` without a URL means: done, ask for the result."""
    if status == 404:
        return Expired()
    if status in (401, 403):
        return Refused(_SUBMIT_REFUSALS[status], error_message(status, body), status)
    if status == 429:
        return Refused(ErrorClass.RATE_LIMITED, error_message(status, body), status, pause_s(headers, now_us))
    data = parse_object(body) if status in (200, 422) else None
    state = data.get("status") if data else None
    if data is None or not isinstance(state, str):
        return Unavailable(error_message(status, body), status)
    if state == "FAILED":
        message = clean_text(data.get("error")) or "the generation failed"
        return Refused(_failure_class(message), message, status)
    if state == "COMPLETED" and status == 200:
        return _finished(data)
    return Working()


def _failure_class(message: str) -> ErrorClass:
    return ErrorClass.INPUT_REFUSED if _ABOUT_INPUT.search(message) else ErrorClass.GENERATION_FAILED


def _finished(data: dict[str, Any]) -> Finished:
    metrics = data.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    return Finished(
        cost=charged(metrics.get("cost")),
        url=find_url(data),
        queue_s=seconds(metrics.get("queue_time")),
        inference_s=seconds(metrics.get("inference_time")),
    )


def find_url(data: Mapping[str, Any]) -> str | None:
    """The video's URL: `video.url`, else the first URL in `output`, whose shape varies."""
    return _first_url(data.get("video"), 4) or _first_url(data.get("output"), 4)


def _first_url(value: object, depth: int) -> str | None:
    if isinstance(value, str):
        return value if re.match(r"https?://", value) and len(value) <= 4096 else None
    if depth == 0:
        return None
    if isinstance(value, list):
        return next((url for item in value[:16] if (url := _first_url(item, depth - 1))), None)
    if isinstance(value, dict):
        keys = ["url", "video", "video_url", "output"]
        return next((url for key in keys if (url := _first_url(value.get(key), depth - 1))), None)
    return None


def charged(value: object) -> MicroUsd | None:
    """A charge in micro-dollars, through the money's one door; None for what is no believable amount."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        amount = Decimal(value)
        rounded = (amount * MICRO_PER_USD).quantize(Decimal(1), ROUND_HALF_UP) / MICRO_PER_USD
        return parse_usd(rounded, zero_allowed=True)
    except (ValueError, InvalidOperation):
        return None


def seconds(value: object) -> float | None:
    """A duration in seconds, finite and not negative; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return float(value) if 0 <= value < 10**9 else None


def valid_request_id(value: object) -> str | None:
    """A request id that may stand in a URL and a file; None otherwise."""
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


def parse_object(body: bytes) -> dict[str, Any] | None:
    """A JSON object with exact numbers; None for anything else, duplicate keys and non-finite numbers included."""
    value = parse_json(body)
    return value if isinstance(value, dict) else None


def parse_json(body: bytes) -> Any:
    """JSON with exact numbers (`Decimal`); None for what cannot be trusted to mean one thing."""
    try:
        return json.loads(
            body, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
    except (ValueError, RecursionError, InvalidOperation):
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def error_message(status: int, body: bytes) -> str:
    """One readable line for an error reply, whatever its shape."""
    data = parse_object(body) or {}
    for key in ("error_description", "error", "message", "detail"):
        if text := clean_text(data.get(key)):
            return f"HTTP {status}: {text}"
    return f"HTTP {status}"


def clean_text(value: object) -> str:
    """A stranger's text, fit for a table and a terminal: one line, bounded, no control characters."""
    if not isinstance(value, str):
        return ""
    return _UNPRINTABLE.sub(" ", value[: 4 * MAX_MESSAGE_CHARS]).strip()[:MAX_MESSAGE_CHARS]


def pause_s(headers: Mapping[str, str], now_us: int) -> float:
    """How long to pause after a 429: until the stated reset if that is believable, else a guess."""
    text = headers.get("x-rate-limit-reset-at-utc", "")[:64].strip()
    reset_us = _parse_moment(text)
    wait_s = (reset_us - now_us) / 1e6 if reset_us is not None else -1.0
    return wait_s if 0 <= wait_s <= LONGEST_PAUSE_S else PAUSE_GUESS_S


def _parse_moment(value: object) -> int | None:
    """A moment written as ISO 8601 or as seconds or milliseconds since 1970, in microseconds; None otherwise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if not re.fullmatch(r"\d{9,13}(\.\d{1,9})?", value):
            return _parse_iso(value)
        value = Decimal(value)
    if not isinstance(value, int | Decimal) or not 10**8 <= value < 10**14:
        return None
    return int(value * 1_000_000 if value < 10**11 else value * 1_000)


def _parse_iso(text: str) -> int | None:
    if not re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text) or len(text) > 40:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def decode_history(body: bytes) -> list[HistoryRow] | None:
    """The rows of a page of history, each request once; None when the answer holds no list of rows.

    The envelope is not documented: the one list of objects in the answer is taken.
    """
    rows = _find_rows(parse_json(body), 3)
    if rows is None:
        return None
    decoded = {row.request_id: row for item in rows if (row := decode_history_row(item)) is not None}
    return list(decoded.values())


def _find_rows(value: object, depth: int) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and depth:
        lists = [found for item in value.values() if (found := _find_rows(item, depth - 1)) is not None]
        filled = [found for found in lists if any(isinstance(item, dict) for item in found)]
        return (filled or lists)[0] if lists else None
    return None


def decode_history_row(item: object) -> HistoryRow | None:
    """One row of the history; None without a usable request id."""
    if not isinstance(item, dict):
        return None
    request_id = valid_request_id(item.get("request_id"))
    if request_id is None:
        return None
    return HistoryRow(
        request_id=request_id,
        status=clean_text(item.get("model_status")).upper(),
        cost=charged(item.get("credits_deduction")),
        url=_first_url(item.get("generation_url"), 3),
        error=clean_text(item.get("error")),
        fingerprint=fingerprint(item.get("request_body")),
        times_us=tuple(
            moment
            for key, value in item.items()
            if not isinstance(value, dict | list) and "latency" not in key and (moment := _parse_moment(value))
        ),
    )


def fingerprint(body: object) -> bytes | None:
    """Equal for two request bodies that ask for the same, however they are written; None for what is no body."""
    if isinstance(body, str | bytes):
        body = parse_json(body.encode() if isinstance(body, str) else body)
    if not isinstance(body, dict):
        return None
    try:
        return canonical_json(_plain(body, 8))
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any, depth: int) -> Any:
    """The value with every number in one form, so that 1, 1.0 and 1.00 are equal."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth - 1) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, Decimal | float):
        return int(value) if value == int(value) else float(value)
    return value
