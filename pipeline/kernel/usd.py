"""Money is an integer count of micro-dollars, and this is its one door.

A float has no exact cents, so it is refused here with `TypeError`: text and integers come in, `Decimal` does the
arithmetic of the edge, and everything inside adds and compares integers.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import NewType

MicroUsd = NewType("MicroUsd", int)
"""An amount in millionths of a US dollar: 1_750_000 is $1.75."""

ZERO_USD = MicroUsd(0)

MICRO_PER_USD = 1_000_000
MAX_MICROUSD = 1_000_000_000 * MICRO_PER_USD
"""A billion dollars: above it an amount is a mistake or an attack, never a price."""

_EXACT = Context(prec=40, traps=[Inexact])
"""Refuses to round, whatever context the caller computes in."""

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,12})?")


def parse_usd(value: str | int | Decimal, *, zero_allowed: bool = False) -> MicroUsd:
    """Turn an amount in dollars into micro-dollars.

    Takes plain decimal text ("1.75"), an integer or a `Decimal`; the amount must be finite, positive (or zero where
    `zero_allowed`), at most `MAX_MICROUSD`, and a whole number of micro-dollars.

    Raises:
        TypeError: for a float or a bool, which are defects of the caller.
        ValueError: for everything that is not such an amount, with a sentence a user can act on.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise TypeError(f"money is never a {type(value).__name__}")
    amount = _to_decimal(value)
    if amount < 0 or (amount == 0 and not zero_allowed):
        raise ValueError(f"{str(value)[:40]!r} is not a positive amount of dollars")
    if amount > MAX_MICROUSD // MICRO_PER_USD:
        raise ValueError(f"{str(value)[:40]!r} is more than a billion dollars")
    try:
        micro = _EXACT.to_integral_exact(_EXACT.multiply(amount, MICRO_PER_USD))
    except Inexact:
        raise ValueError(f"{str(value)[:40]!r} is finer than a millionth of a dollar") from None
    return MicroUsd(int(micro))


def _to_decimal(value: str | int | Decimal) -> Decimal:
    if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
        raise ValueError(f"{value[:40]!r} is not a plain amount of dollars like 1.75")
    if isinstance(value, int) and abs(value) > MAX_MICROUSD:
        raise ValueError("that is more than a billion dollars")
    try:
        amount = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:  # pragma: no cover - the pattern above leaves no such text
        raise ValueError(f"{str(value)[:40]!r} is not an amount of dollars") from None
    if not amount.is_finite():
        raise ValueError(f"{str(value)[:40]!r} is not a finite amount of dollars")
    return amount


def format_usd(micro: int) -> str:
    """Write micro-dollars as dollars with exact cents: `1_750_000` becomes `"1.75"`.

    More than two decimals appear only where the amount has them, so nothing is ever rounded away.
    """
    sign = "-" if micro < 0 else ""
    dollars, rest = divmod(abs(micro), MICRO_PER_USD)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def dollars(micro: int) -> str:
    """An amount as people read it: `$1,234.50`."""
    return f"${Decimal(format_usd(micro)):,}"
