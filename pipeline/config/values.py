"""How a value of the configuration is written: its type, its check, and what editors are told of it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipeline.kernel.usd import MAX_MICROUSD, MICRO_PER_USD, ZERO_USD, MicroUsd, parse_usd
from pipeline.models import DEFAULT_MODEL, find_model

_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,9})?")
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h)")
MAX_DURATION_S = 999_999_999
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SCHEDULER = re.compile(r"(tls|tcp)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_KEY_BEGINNING = "SG_"


def _plain_number(value: object) -> object:
    """Numbers as people write them: no `inf`, no `nan`, no underscores, no booleans."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
        raise ValueError(f"{value[:40]!r} is not a plain number: write it in digits, like 50 or 0.5")
    return value


def _money(value: object) -> MicroUsd:
    if isinstance(value, float):
        raise ValueError("write the amount in quotes, like '100.00'")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be an amount of dollars, like '100.00'")  # noqa: TRY004 - as above
    return parse_usd(value)


def _money_or_zero(value: object) -> MicroUsd:
    if isinstance(value, str) and re.fullmatch(r"0+(\.0+)?", value.strip()):
        return ZERO_USD
    return _money(value)


def duration_s(value: object) -> float:
    """Seconds from `90s`, `15m` or `8h`.

    Raises:
        ValueError: it is none of these, zero, or longer than anybody waits.
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = round(float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]], 3) if match else 0
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError(f"{str(value)[:40]!r} is not a duration like 90s, 15m or 8h")
    return seconds


def _time_of_day(value: object) -> str:
    if not isinstance(value, str) or not _TIME_OF_DAY.fullmatch(value):
        raise ValueError(f"{str(value)[:40]!r} is not a time of day like 06:30")
    return value


def _hosts(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('must be a list of hosts, like ["*.segmind.com"]')
    for host in value:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise ValueError(f"{str(host)[:100]!r} is not a host like cdn.segmind.com or *.segmind.com")
    return tuple(value)


def _name_of_variable(value: object) -> object:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable, like SEGMIND_API_KEY")
    if value.startswith(_KEY_BEGINNING):
        # Not shown: whoever puts the key itself here must not find it on the screen and in config.yaml.
        raise ValueError("is the name of the environment variable that holds the key; the key itself stays out of here")
    return value


def _name_of_webhook(value: object) -> object:
    if value is not None and (not isinstance(value, str) or not _VARIABLE.fullmatch(value)):
        # Not shown: it may be the address, which is a secret.
        raise ValueError("must be the name of an environment variable, like WEBHOOK_URL; the address stays out of here")
    return value


def _scheduler_address(value: object) -> object:
    if not isinstance(value, str) or not _SCHEDULER.fullmatch(value):
        raise ValueError("must be the address of a Dask scheduler, like tls://10.0.0.5:8786")
    return value


def _prices(value: object) -> object:
    known = find_model(DEFAULT_MODEL).default_prices
    if not isinstance(value, dict):
        raise ValueError('must be prices by length, like {"5": "1.75"}')  # noqa: TRY004 - pydantic reports ValueError
    if unknown := [str(key) for key in value if key not in known]:
        names = " and ".join(f'"{key}"' for key in known)
        raise ValueError(f'there is no length "{unknown[0][:40]}" to have a price; there are {names}')
    return value


def _text(pattern: str, meant: str, **words: object) -> dict[str, Any]:
    """How a text is written in the file, for editors: its pattern, and a sentence for what does not match."""
    return {"type": "string", "pattern": f"^{pattern}$", "patternErrorMessage": meant, **words}


# An amount may stand without quotes: numbers of the file are read as they were written.
_DOLLARS = {"type": ["string", "number"], "maximum": MAX_MICROUSD // MICRO_PER_USD}
_DIGITS, _MEANT = r"[0-9]{1,9}(\.[0-9]{1,6})?", 'an amount of dollars, like "100.00"'
_AMOUNT = _text(rf"(?=.*[1-9]){_DIGITS}", _MEANT, **_DOLLARS, exclusiveMinimum=0)
_AMOUNT_OR_ZERO = _text(_DIGITS, _MEANT, **_DOLLARS, minimum=0)
_PRICES = {
    "type": "object",
    "properties": dict.fromkeys(find_model(DEFAULT_MODEL).default_prices, _AMOUNT),
    "additionalProperties": False,
}
_HOSTS = {"type": "array", "minItems": 1, "items": _text(_HOST.pattern, "a host, like *.segmind.com")}
_TIME = _text(_TIME_OF_DAY.pattern, "a time of day, like 06:30")
_LENGTH = _text(rf"(?=.*[1-9]){_DURATION.pattern}", "a duration, like 90s, 15m or 8h")
_SCHEDULER_ADDRESS = _text(_SCHEDULER.pattern, "tls://host:port or tcp://host:port")
_WEBHOOK_NAME = _text(_VARIABLE.pattern, "the name of the environment variable that holds the address")
_NAME = _text(rf"(?!{_KEY_BEGINNING}){_VARIABLE.pattern}", "the name of the environment variable that holds the key")

# The bounds stand before the validator: only so do they become bounds of the schema.
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), BeforeValidator(_plain_number)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), BeforeValidator(_plain_number)]
Count = Annotated[int, Field(gt=0, le=1_000_000), BeforeValidator(_plain_number)]
Few = Annotated[int, Field(ge=0, le=1_000), BeforeValidator(_plain_number)]
Threads = Annotated[int, Field(gt=0, le=64), BeforeValidator(_plain_number)]
Money = Annotated[int, BeforeValidator(_money), WithJsonSchema(_AMOUNT)]
MoneyOrZero = Annotated[int, BeforeValidator(_money_or_zero), WithJsonSchema(_AMOUNT_OR_ZERO)]
Prices = Annotated[dict[str, Money], BeforeValidator(_prices), WithJsonSchema(_PRICES)]
Seconds = Positive
Duration = Annotated[float, BeforeValidator(duration_s), WithJsonSchema(_LENGTH)]
TimeOfDay = Annotated[str, BeforeValidator(_time_of_day), WithJsonSchema(_TIME)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_hosts), WithJsonSchema(_HOSTS)]
NameOfWebhook = Annotated[str, BeforeValidator(_name_of_webhook), WithJsonSchema(_WEBHOOK_NAME)]
SchedulerAddress = Annotated[str, BeforeValidator(_scheduler_address), WithJsonSchema(_SCHEDULER_ADDRESS)]
NameOfVariable = Annotated[str, BeforeValidator(_name_of_variable), WithJsonSchema(_NAME)]
