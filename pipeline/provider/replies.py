"""What the provider's replies mean: total functions from status, headers and bytes to a value.

Whatever arrives, one of these values comes out and no exception does. The first question is always the money's: an
answer to a submission is `Accepted`, `Refused` (certainly not charged) or `Uncertain` (perhaps charged), and what is in
no table is uncertain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.kernel.errors import ErrorClass
from pipeline.kernel.usd import MicroUsd
from pipeline.provider.settings import is_loopback
from pipeline.provider.values import (
    charged,
    error_message,
    first_url,
    moment_us,
    parse_object,
    said,
    seconds,
    valid_request_id,
    without_quotes_of,
)

LONGEST_PAUSE_S = 900.0
"""No rate limit's reset is believed to be further away than this."""

PAUSE_GUESS_S = 60.0
"""How long to wait after a 429 that gives no believable reset: the length of the provider's window."""

UNNAMED = "the provider's answer names no usable request id"

_DATA = re.compile(r"data:\S+|[A-Za-z0-9+/=]{64,}")
_PLAIN_URL = re.compile(r"[\x21-\x7e]{1,2048}")
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

# If a failure of the provider is taken for the input's fault, the row is lost; the other way round costs a free retry.
# So any word that points to the provider's own machinery makes it the provider's fault.
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


def decode_submit(status: int, headers: Mapping[str, str], body: bytes, now_us: int, sent: bytes = b"") -> SubmitReply:
    """The answer to `POST /v2/<model>`. Any 2xx that names a request is an acceptance, 202 as well as 200.

    Args:
        sent: the body that it answers; a refusal may quote it.
    """
    if 200 <= status < 300:
        data = parse_object(body)
        request_id = valid_request_id(data.get("request_id")) if data else None
        if request_id is None:
            return Uncertain(ErrorClass.UNREADABLE, UNNAMED, status)
        return Accepted(request_id)
    return decode_refusal(status, headers, body, now_us, sent) or Uncertain(
        ErrorClass.GATEWAY, error_message(status, body), status
    )


def decode_blocking(
    data: Mapping[str, Any], request_id: str | None, cost: MicroUsd | None, *, is_page: bool
) -> Finished | Accepted | Uncertain:
    """A v1 answer of 200 that is no video: `Finished` if it shows that the generation is done.

    A charge or the video's URL shows that, a name alone does not: a failure, or a gateway's page, can carry one.

    Args:
        data: its JSON object; empty if it has none.
        request_id: the request that it names.
        cost: the charge that it states.
        is_page: whether it is a page for people. Then its name may be the gateway's own, and proves nothing.
    """
    if request_id is None:
        return Uncertain(ErrorClass.UNREADABLE, UNNAMED, 200)
    url = find_url(data)
    if cost or (url is not None and _state(data) != "FAILED"):
        return Finished(cost=cost, url=url)
    if is_page:
        message = f"the answer is a page, with neither a video nor a charge, that names request {request_id}"
        return Uncertain(ErrorClass.UNREADABLE, message, 200)
    return Accepted(request_id)


def decode_refusal(
    status: int, headers: Mapping[str, str], body: bytes, now_us: int, sent: bytes = b""
) -> Refused | None:
    """A submission's status that certainly means no charge; None where it may mean one.

    An error that names a charge or a request under way contradicts itself: then the status proves nothing.
    """
    data = parse_object(body) or {}
    if charged(headers.get("x-cost")) or charged(_metrics(data).get("cost")) or _state(data) in _UNDER_WAY:
        return None
    message = error_message(status, body)
    if status == 406:
        return Refused(_unacceptable_class(message, sent), message, status)
    if status == 422:
        return Refused(failure_class(message), message, status)
    error_class = _SUBMIT_REFUSALS.get(status)
    if error_class is None:
        return None
    wait_s = pause_s(headers, now_us) if status == 429 else 0.0
    return Refused(error_class, message, status, wait_s)


def _unacceptable_class(message: str, sent: bytes = b"") -> ErrorClass:
    """406 is said of an account without credits, which stops the run, and of a value, which fails the row.

    A prompt about a payment terminal says nothing of the account: so what was `sent` is struck out of the message. If
    nothing is left by which to decide, the run stops, because a stop burns no row.
    """
    own = without_quotes_of(sent, message)
    is_undecided = _is_about_money(message) and not _ABOUT_A_VALUE.search(own)
    return ErrorClass.OUT_OF_CREDITS if _is_about_money(own) or is_undecided else ErrorClass.BAD_REQUEST


def _is_about_money(message: str) -> bool:
    is_about_credits = _ABOUT_CREDITS.search(message) and not _ABOUT_A_VALUE.search(message)
    return bool(_NO_MONEY.search(message) or is_about_credits)


def decode_upload(
    status: int, headers: Mapping[str, str], body: bytes, now_us: int, *, loopback_allowed: bool
) -> UploadReply:
    """The answer to an upload of one file, which is free: whatever is not clear may be asked again."""
    if refusal := decode_closed_door(status, headers, body, now_us):
        return refusal
    # An answer may quote what was sent, and a picture must not get into a table.
    message = _DATA.sub("…", error_message(status, body))
    if status in (404, 405, 410):
        # This is not about the file: whatever is at that address takes no uploads.
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
    """Whether a URL is plain enough to be sent on as a start image: https, without a user name or password in it."""
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
            return finished  # it failed and was charged for: so it is paid, whatever its status says
        message = said(data) or "the generation failed"
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
    return first_url(data.get("video"), 4) or first_url(data.get("output"), 4)


def pause_s(headers: Mapping[str, str], now_us: int) -> float:
    """How long to pause after a 429: until the stated reset if that is believable, else a guess."""
    text = headers.get("x-rate-limit-reset-at-utc", "")[:64].strip()
    reset_us = moment_us(text)
    # Held against the time in the same answer: this machine's clock may be minutes off.
    said_us = moment_us(headers.get("Date", "")[:64].strip())
    wait_s = (reset_us - (now_us if said_us is None else said_us)) / 1e6 if reset_us is not None else -1.0
    return wait_s if 0 <= wait_s <= LONGEST_PAUSE_S else PAUSE_GUESS_S
