"""What the provider's replies mean: total functions from status, headers and bytes to a value.

Whatever arrives, one of these values comes out and no exception does. The first question is always the money's: an
answer to a submission is `Accepted`, `Refused` (certainly not charged) or `Uncertain` (perhaps charged), and what is in
no table is uncertain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pipeline.jobs import canonical_json
from pipeline.kernel.clock import to_us
from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MAX_MICROUSD, MICRO_PER_USD, MicroUsd, parse_usd
from pipeline.provider.settings import is_loopback

MAX_MESSAGE_CHARS = 500
"""A provider's message is cut to this before it reaches a table."""

LONGEST_PAUSE_S = 900.0
"""No rate limit's reset is believed to be further away than this."""

PAUSE_GUESS_S = 60.0
"""How long to wait after a 429 that gives no believable reset: the length of the provider's window."""

LONGEST_NUMBER = 64
"""Characters of the longest number that is read. A longer one measures nothing."""

LARGEST_EXPONENT = 30
"""Numbers are read from 1e-30 to 1e30. Arithmetic with an exponent of a stranger's choice can take for ever."""

_DATA = re.compile(r"data:\S+|[A-Za-z0-9+/=]{64,}")
_HTTP_URL = re.compile(r"https?://", re.IGNORECASE)
_PLAIN_URL = re.compile(r"[\x21-\x7e]{1,2048}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{8,64}")
_PLAIN_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,30})?")
_NUMBER_AS_TEXT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_EPOCH = re.compile(r"[0-9]{10,13}(\.[0-9]{1,9})?")
_UNDER_WAY = frozenset({"QUEUED", "PROCESSING", "COMPLETED"})

_NO_MONEY = re.compile(
    r"(insufficient|not enough|no|low|exceed\w*|out of)\W+(\w+\W+){0,2}(credit|balance|fund|quota|budget)|"
    r"(credit|balance|fund|quota|budget)s?\W+(\w+\W+){0,2}(low|insufficient|exhausted|exceeded|depleted|required)|"
    r"(spend\w*|team|account|usage|daily|monthly)\W+(\w+\W+)?limit|top.?up|billing|payment",
    re.IGNORECASE,
)
_ABOUT_CREDITS = re.compile(r"credit|balance|spend|budget|quota|limit", re.IGNORECASE)
_ABOUT_A_VALUE = re.compile(
    r"parameter|(invalid|allowed|supported) value|must be|content.?type|field|prompt|image|duration|ratio|scale",
    re.IGNORECASE,
)

# A failure that is taken for the input's fault loses its row; the other way round costs a free retry. So anything
# that smells of the provider's own machinery is the provider's fault.
_ABOUT_THE_SERVICE = re.compile(
    r"internal (server )?error|unavailable|time[ds]?.?out|overload|connection|upstream|gateway|worker|service|server|"
    r"response from|\bnode\b|queue|out of memory|cuda|\bgpu|temporar|try again later|unexpected|retry policy",
    re.IGNORECASE,
)
_ABOUT_INPUT = re.compile(
    r"nsfw|inappropriate|risk control|moderation|flagged|"
    r"(sensitive|unsafe|prohibited|forbidden)\W+(\w+\W+)?(content|word|information|material|input|prompt|image)|"
    r"(content|safety|usage|community)\W+(\w+\W+)?(polic|guideline|filter|violat|restrict|system)|"
    r"violat\w*\W+(\w+\W+){0,4}(polic|guideline|terms|rules)|"
    r"(invalid|unsupported|corrupt\w*|unreadable|bad)\W+(\w+\W+){0,2}(image|input|prompt|parameter|value)|"
    r"(image|input|prompt)\W+(\w+\W+){0,3}"
    r"(invalid|unsupported|not (allowed|supported)|corrupt|prohibited|too (long|large|small|short)|at fault)",
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


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The provider keeps an uploaded file: this is where, for a submission to name it."""

    url: str


SubmitReply = Accepted | Refused | Uncertain
PollReply = Working | Finished | Refused | Expired | Unavailable
ResultReply = Finished | Working | Refused | Expired | Unavailable
UploadReply = Uploaded | Refused | Unavailable

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
    """The answer to `POST /v2/<model>`. Any 2xx that names a request is an acceptance, 202 as well as 200."""
    if 200 <= status < 300:
        data = parse_object(body)
        request_id = valid_request_id(data.get("request_id")) if data else None
        if request_id is None:
            return Uncertain(ErrorClass.UNREADABLE, "the provider's answer names no usable request id", status)
        return Accepted(request_id)
    return decode_refusal(status, headers, body, now_us) or Uncertain(
        ErrorClass.GATEWAY, error_message(status, body), status
    )


def decode_refusal(status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> Refused | None:
    """A submission's status that certainly means no charge; None where it may mean one.

    An error that names a charge or a request under way contradicts itself: then the status proves nothing.
    """
    data = parse_object(body) or {}
    if charged(headers.get("x-cost")) or charged(_metrics(data).get("cost")) or _state(data) in _UNDER_WAY:
        return None
    message = error_message(status, body)
    if status == 406:
        return Refused(_unacceptable_class(message), message, status)
    if status == 422:
        return Refused(failure_class(message), message, status)
    error_class = _SUBMIT_REFUSALS.get(status)
    if error_class is None:
        return None
    wait_s = pause_s(headers, now_us) if status == 429 else 0.0
    return Refused(error_class, message, status, wait_s)


def _unacceptable_class(message: str) -> ErrorClass:
    """406 is said of an account without credits, which stops the run, and of a value, which fails the row."""
    if _NO_MONEY.search(message) or (_ABOUT_CREDITS.search(message) and not _ABOUT_A_VALUE.search(message)):
        return ErrorClass.OUT_OF_CREDITS
    return ErrorClass.BAD_REQUEST


def decode_upload(
    status: int, headers: Mapping[str, str], body: bytes, now_us: int, *, loopback_allowed: bool
) -> UploadReply:
    """The answer to an upload of one file, which is free: whatever is not clear may be asked again."""
    if refusal := decode_closed_door(status, headers, body, now_us):
        return refusal
    # An answer may quote what was sent, and a picture belongs into no table.
    message = _DATA.sub("…", error_message(status, body))
    if status in (404, 405, 410):
        # It says nothing of the file: whatever is there, takes no uploads.
        return Refused(ErrorClass.WRONG_METHOD, f"no uploads at provider.storage_url: {message}", status)
    if status == 406:
        return Refused(_unacceptable_class(message), message, status)
    if 400 <= status < 500 and status not in (408, 425):
        return Refused(ErrorClass.BAD_REQUEST, message, status)
    urls = (parse_object(body) or {}).get("file_urls") if 200 <= status < 300 else None
    if isinstance(urls, list) and len(urls) == 1 and _may_be_named(urls[0], loopback_allowed=loopback_allowed):
        return Uploaded(urls[0])
    return Unavailable("the provider's answer names no usable URL" if 200 <= status < 300 else message, status)


def _may_be_named(url: object, *, loopback_allowed: bool) -> bool:
    """Whether a URL is plain enough to be sent on as a start image: https, without a name or password in it."""
    if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        host, user = parts.hostname, parts.username
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (loopback_allowed and parts.scheme == "http" and is_loopback(url))
    return is_safe and bool(host) and user is None


def decode_poll(
    status: int, headers: Mapping[str, str], body: bytes, now_us: int, request_id: str | None = None
) -> PollReply:
    """The answer to a status or result call. `Finished` without a URL means: done, ask for the result.

    An answer about another request than `request_id` is no answer.
    """
    if status == 404:
        return Expired()
    if refusal := decode_closed_door(status, headers, body, now_us):
        return refusal
    data = parse_object(body) if status in (200, 422) else None
    state = _state(data or {})
    if data is None or state is None:
        return Unavailable(error_message(status, body), status)
    named = data.get("request_id")
    if request_id is not None and named is not None and str(named).casefold() != request_id.casefold():
        return Unavailable("the provider answered about another request", status)
    if state == "COMPLETED" and status == 200:
        return _finished(data)
    if state == "FAILED":
        if (finished := _finished(data)).cost:
            return finished  # failed, and charged: it is paid, whatever it is called
        message = _said(data) or "the generation failed"
        return Refused(failure_class(message), message, status)
    return Working()


def decode_closed_door(status: int, headers: Mapping[str, str], body: bytes, now_us: int) -> Refused | None:
    """A question's refusal that concerns every call with the key; None for any other answer."""
    if status in (401, 403):
        return Refused(_SUBMIT_REFUSALS[status], error_message(status, body), status)
    if status == 429:
        return Refused(ErrorClass.RATE_LIMITED, error_message(status, body), status, pause_s(headers, now_us))
    return None


def _state(data: Mapping[str, Any]) -> str | None:
    state = data.get("status")
    return state.strip().upper() if isinstance(state, str) else None


def failure_class(message: str) -> ErrorClass:
    """Whether a generation failed of its input, as its words say, or of something else."""
    at_fault = _ABOUT_INPUT.search(message) and not _ABOUT_THE_SERVICE.search(message)
    return ErrorClass.INPUT_REFUSED if at_fault else ErrorClass.GENERATION_FAILED


def _metrics(data: Mapping[str, Any]) -> Mapping[str, Any]:
    metrics = data.get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def _finished(data: dict[str, Any]) -> Finished:
    metrics = _metrics(data)
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
        # It goes into the ledger: one line that any encoder can write.
        fit = len(value) <= 4096 and value.isprintable() and " " not in value
        return value if fit and _HTTP_URL.match(value) else None
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
    amount = _amount(value)
    if amount is None or not 0 <= amount <= MAX_MICROUSD // MICRO_PER_USD:
        return None
    micro = (amount * MICRO_PER_USD).to_integral_value(ROUND_HALF_UP)
    if micro == 0 and amount != 0:
        return None
    return parse_usd(micro / MICRO_PER_USD, zero_allowed=True)


def balance(value: object) -> MicroUsd | None:
    """An account's balance; an overdrawn account has nothing left."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and value < 0:
        return MicroUsd(0)
    return charged(value)


def _amount(value: object) -> Decimal | None:
    """A number of a size that arithmetic may be done with; None otherwise."""
    if isinstance(value, str) and _PLAIN_AMOUNT.fullmatch(value.strip()):
        return Decimal(value.strip())
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_MICROUSD:
        return Decimal(value)
    return value if isinstance(value, Decimal) and _is_measure(value) else None


def _is_measure(value: Decimal) -> bool:
    return value.is_finite() and abs(value.adjusted()) <= LARGEST_EXPONENT


def seconds(value: object) -> float | None:
    """A duration in seconds, finite and not negative; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return float(value) if 0 <= value < 10**9 else None


def valid_request_id(value: object) -> str | None:
    """A request id that may stand in a URL and a file; None otherwise."""
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


def parse_object(body: bytes) -> dict[str, Any] | None:
    """A JSON object with exact numbers; None for anything else, duplicate keys included."""
    value = parse_json(body)
    return value if isinstance(value, dict) else None


def parse_json(body: bytes) -> Any:
    """JSON with exact numbers (`Decimal`); None for what cannot be trusted to mean one thing.

    A number that measures nothing (NaN, infinity, thousands of digits) reads as null: it is worth nothing itself, and
    must not hide the request id or the URL beside it.
    """
    try:
        return _EXACT.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _whole(text: str) -> int | None:
    return int(text) if len(text) <= LONGEST_NUMBER else None


def _fraction(text: str) -> Decimal | None:
    try:
        value = Decimal(text) if len(text) <= LONGEST_NUMBER else None
    except InvalidOperation:
        return None
    return value if value is not None and _is_measure(value) else None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


_EXACT = json.JSONDecoder(
    parse_int=_whole,
    parse_float=_fraction,
    parse_constant=lambda _name: None,
    object_pairs_hook=_refuse_duplicates,
)


def error_message(status: int, body: bytes) -> str:
    """One readable line for an error reply, whatever its shape."""
    text = _said(parse_object(body))
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def _said(value: object, depth: int = 4) -> str:
    """The message in an error body: text, or the first text in what it holds."""
    if isinstance(value, str):
        return clean_text(value)
    if depth and isinstance(value, list):
        return next((text for item in value[:4] if (text := _said(item, depth - 1))), "")
    if depth and isinstance(value, dict):
        keys = ("error_description", "error", "message", "detail", "msg")
        return next((text for key in keys if (text := _said(value.get(key), depth - 1))), "")
    return ""


def clean_text(value: object) -> str:
    """A stranger's text, fit for a table and a terminal: one line, bounded, nothing that cannot be printed."""
    if not isinstance(value, str):
        return ""
    printable = "".join(char if char.isprintable() else " " for char in value[: 4 * MAX_MESSAGE_CHARS])
    return " ".join(printable.split())[:MAX_MESSAGE_CHARS].rstrip()


def pause_s(headers: Mapping[str, str], now_us: int) -> float:
    """How long to pause after a 429: until the stated reset if that is believable, else a guess."""
    text = headers.get("x-rate-limit-reset-at-utc", "")[:64].strip()
    reset_us = moment_us(text)
    wait_s = (reset_us - now_us) / 1e6 if reset_us is not None else -1.0
    return wait_s if 0 <= wait_s <= LONGEST_PAUSE_S else PAUSE_GUESS_S


def moment_us(value: object) -> int | None:
    """A moment written as ISO 8601, as an HTTP date, or as (milli)seconds since 1970, in microseconds; else None.

    Numbers are moments between 2001 and 2286: a smaller one is a size or a count.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if not _EPOCH.fullmatch(value):
            return _parse_date(value)
        value = Decimal(value)
    if not isinstance(value, int | Decimal):
        return None
    if 10**9 <= value < 10**10:
        return int(value * 1_000_000)
    return int(value * 1_000) if 10**12 <= value < 10**13 else None


@lru_cache(maxsize=64)
def _parse_date(text: str) -> int | None:
    """A date's moment; remembered, as all answers of a second bear the same one."""
    if len(text) > 40:
        return None
    try:
        if re.match(r"[A-Z][a-z]{2}, \d", text):
            moment = parsedate_to_datetime(text)
        elif re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text):
            moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
        else:
            return None
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def decode_history(body: bytes) -> list[HistoryRow] | None:
    """The rows of a page of history, each request once; None when they cannot be read whole.

    That a request is absent here may let its job be paid for again, so a page is empty only if it plainly says so,
    and a row that cannot be named spoils it. The envelope is not documented: lists of rows are found by their rows.
    """
    envelope = parse_json(body)
    if isinstance(envelope, dict) and (envelope.get("error") or envelope.get("success") is False):
        return None
    lists = list(_lists(envelope, 3))
    listed = [item for found in lists if any("request_id" in item for item in _objects(found)) for item in found]
    if not listed and (not lists or any(lists)):
        return None
    rows: dict[str, HistoryRow] = {}
    for item in listed:
        row = decode_history_row(item)
        if row is None:
            if not _is_failure(item):
                return None
        elif row.request_id not in rows or standing(row) > standing(rows[row.request_id]):
            rows[row.request_id] = row
    return list(rows.values())


def _lists(value: object, depth: int) -> Iterator[list[Any]]:
    """Every list in an envelope that is empty or holds objects, but for those of complaints."""
    if isinstance(value, list):
        if not value or _objects(value):
            yield value
    elif isinstance(value, dict) and depth:
        for key, item in value.items():
            if key not in ("error", "errors", "warnings", "messages"):
                yield from _lists(item, depth - 1)


def _objects(items: list[Any]) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)]


def _is_failure(item: object) -> bool:
    """Whether a row without a usable request id is certainly no charge, so that it may be passed over."""
    if not isinstance(item, dict) or clean_text(item.get("model_status")).upper() != "FAILED":
        return False
    return item.get("credits_deduction") is None or charged(item["credits_deduction"]) == 0


def standing(row: HistoryRow) -> tuple[bool, int]:
    """Of the rows of one request, the one that says the most about money stands."""
    return row.status == "COMPLETED", row.cost or 0


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
            if not isinstance(value, dict | list) and "latency" not in key and (moment := moment_us(value))
        ),
    )


def fingerprint(body: object) -> bytes | None:
    """Equal for two request bodies that ask for the same, however they are written; None for what is no body."""
    try:
        if isinstance(body, str | bytes):
            body = parse_json(body.encode() if isinstance(body, str) else body)
        return canonical_json(_plain(body, 8)) if isinstance(body, dict) else None
    except (TypeError, ValueError, ArithmeticError):
        return None


def _plain(value: Any, depth: int) -> Any:
    """The value with every number in one form, so that 1, 1.0 and "1.00" are equal, and without what is empty."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth - 1) for key, item in value.items() if item not in (None, "")}
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, Decimal | float):
        return int(value) if value == int(value) else float(value)
    return value
