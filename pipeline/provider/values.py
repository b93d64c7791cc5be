"""Reading a stranger's JSON, numbers, times and texts: what cannot be believed is read as None, or as an empty text.

These are total functions, like those of `replies`: whatever arrives, they raise nothing.
"""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from pipeline.jobs import canonical_json
from pipeline.kernel.clock import to_us
from pipeline.kernel.usd import MAX_MICROUSD, MICRO_PER_USD, ZERO_USD, MicroUsd, parse_usd

MAX_MESSAGE_CHARS = 500
"""A provider's message is cut to this before it reaches a table."""

SHORTEST_BEGINNING = 12
"""A text that is quoted in part is known by so many characters; a shorter one is quoted whole."""

LONGEST_NUMBER = 64
"""Characters of the longest number that is read. A longer one measures nothing."""

LARGEST_EXPONENT = 30
"""Numbers are read from 1e-30 to 1e30. Arithmetic with an exponent of a stranger's choice can take for ever."""

_HTTP_URL = re.compile(r"https?://", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{8,64}")
_PLAIN_AMOUNT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,30})?")
_NUMBER_AS_TEXT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_EPOCH = re.compile(r"[0-9]{10,13}(\.[0-9]{1,9})?")


def charged(value: object) -> MicroUsd | None:
    """A charge in micro-dollars, as `parse_usd` reads it; None for what is no believable amount."""
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
        return ZERO_USD
    return charged(value)


def _amount(value: object) -> Decimal | None:
    """A number of a size that arithmetic is safe with; None otherwise."""
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


def first_url(value: object, depth: int) -> str | None:
    """The first http(s) URL in a value, at most so many lists and objects deep; None if there is none."""
    if isinstance(value, str):
        # It goes into the ledger: one line that any encoder can write.
        fit = len(value) <= 4096 and value.isprintable() and " " not in value
        return value if fit and _HTTP_URL.match(value) else None
    if depth == 0:
        return None
    if isinstance(value, list):
        return next((url for item in value[:16] if (url := first_url(item, depth - 1))), None)
    if isinstance(value, dict):
        keys = ["url", "video", "video_url", "output"]
        return next((url for key in keys if (url := first_url(value.get(key), depth - 1))), None)
    return None


def error_message(status: int, body: bytes) -> str:
    """One readable line for an error reply, whatever its shape."""
    text = said(parse_object(body))
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def said(value: object, depth: int = 4) -> str:
    """The message in an error body: text, or the first text in what it holds."""
    if isinstance(value, str):
        return clean_text(value)
    if depth and isinstance(value, list):
        return next((text for item in value[:4] if (text := said(item, depth - 1))), "")
    if depth and isinstance(value, dict):
        keys = ("error_description", "error", "message", "detail", "msg")
        return next((text for key in keys if (text := said(value.get(key), depth - 1))), "")
    return ""


def without_quotes_of(sent: bytes, message: str) -> str:
    """A message without the texts of a request that it quotes, whole or from their beginning on.

    For looking at its words only: its letters come out in one case.
    """
    rest = message.casefold()
    for value in (parse_object(sent) or {}).values():
        text = clean_text(value).casefold()
        if len(text) >= SHORTEST_BEGINNING:
            rest = _without_beginnings(text, rest)
        elif text:
            rest = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "…", rest)
    return rest


def _without_beginnings(text: str, message: str) -> str:
    at = message.find(text[:SHORTEST_BEGINNING])
    while at >= 0:
        alike = zip(text, message[at:], strict=False)
        quoted = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], alike))
        message = f"{message[:at]}…{message[at + quoted :]}"
        at = message.find(text[:SHORTEST_BEGINNING], at)
    return message


def clean_text(value: object) -> str:
    """A stranger's text, fit for a table and a terminal: one line, bounded, nothing that cannot be printed."""
    if not isinstance(value, str):
        return ""
    printable = "".join(char if char.isprintable() else " " for char in value[: 4 * MAX_MESSAGE_CHARS])
    return " ".join(printable.split())[:MAX_MESSAGE_CHARS].rstrip()


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
    """The moment of a date; cached, because all answers of one second carry the same date."""
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
