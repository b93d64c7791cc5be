"""Money comes in as plain decimal text or not at all, and goes out without losing a micro-dollar."""

from __future__ import annotations

import decimal
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernel.usd import MAX_MICROUSD, format_usd, parse_usd

amounts = st.integers(1, MAX_MICROUSD)


@given(amounts)
def test_what_is_written_reads_back(micro: int) -> None:
    """Every amount up to the ceiling survives text and back, as text and as `Decimal`, with or without a plus."""
    text = format_usd(micro)
    assert parse_usd(text) == parse_usd(f"+{text}") == parse_usd(Decimal(text)) == micro
    assert format_usd(-micro) == f"-{text}"


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (1_750_000, "1.75"),
        (0, "0.00"),
        (1, "0.000001"),
        (100_000, "0.10"),
        (-3_500_000, "-3.50"),
        (10**15, "1000000000.00"),
    ],
)
def test_amounts_are_written_with_exact_cents(micro: int, text: str) -> None:
    """Two decimals always, more only where the amount has them, nothing rounded."""
    assert format_usd(micro) == text


@given(st.lists(amounts, max_size=30), st.randoms(use_true_random=False))
def test_a_sum_does_not_depend_on_the_order(micros: list[int], rng: random.Random) -> None:
    """A bill of parsed amounts comes to the same in any order, and equals the exact decimal sum."""
    texts = [format_usd(micro) for micro in micros]
    shuffled = rng.sample(texts, len(texts))
    assert sum(map(parse_usd, texts)) == sum(map(parse_usd, shuffled)) == sum(map(Decimal, texts)) * 10**6


@pytest.mark.parametrize("value", [1.75, 0.0, float("nan"), True, False, None, b"1.75", [1]])
def test_what_has_no_exact_cents_is_a_defect(value: object) -> None:
    """Floats, bools and what is no amount at all never become money, whatever they are equal to."""
    with pytest.raises(TypeError):
        parse_usd(value)  # type: ignore[arg-type]


NO_AMOUNTS: list[str | int | Decimal] = [
    *("inf", "-inf", "nan", "NaN", "Infinity", ".inf", ".nan", "1e400", "1e3", "1E-3", "0x10", "0b1"),
    *("", " ", "-", ".", ".5", "5.", "1.", "1,75", "1_000", "1 000", "$1", "1.75 USD", "1.2.3", "--1", "+-1"),
    *("-1", "-0.01", "0", "0.00", "-0", "٣", "１", "1٫5", "²", "1\x00", "1\n2", "0.0000001", "1.0000001"),
    *("9" * 5_000, "1." + "0" * 5_000, "1000000000.000001", "1000000001"),
    *(0, -1, 10**9 + 1, 10**5_000, -(10**5_000)),
    *map(Decimal, ("inf", "-inf", "nan", "snan", "1e400", "1e999999", "-1", "0", "-0", "0.0000001", "1e-400")),
    *map(
        Decimal,
        ("1e-1999999", "1.00000000000000000000000000000000000001", "1000000000.0000000000000000000000000001"),
    ),
]


@pytest.mark.parametrize("value", NO_AMOUNTS, ids=[str(index) for index in range(len(NO_AMOUNTS))])
def test_what_is_no_amount_is_refused_with_a_short_sentence(value: str | int | Decimal) -> None:
    """Not finite, not positive, not plain, too fine or too large: one short sentence, never a rounded amount."""
    with pytest.raises(ValueError, match="dollar") as caught:
        parse_usd(value)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", ["0", "0.00", 0, Decimal(0), Decimal("-0"), Decimal("0e-30")])
def test_zero_is_an_amount_only_where_it_is_allowed(value: str | int | Decimal) -> None:
    """A floor may be zero, a price never."""
    assert parse_usd(value, zero_allowed=True) == 0
    with pytest.raises(ValueError, match="positive"):
        parse_usd(value)
    with pytest.raises(ValueError, match="positive"):
        parse_usd("-0.01", zero_allowed=True)


def test_the_callers_arithmetic_does_not_reach_in() -> None:
    """A coarse decimal context around the call rounds nothing, and trailing zeros without end are no fineness."""
    with decimal.localcontext(prec=2):
        assert parse_usd("1234.567891") == 1_234_567_891
        assert parse_usd(Decimal("1.75" + "0" * 100)) == 1_750_000
        with pytest.raises(ValueError, match="finer"):
            parse_usd(Decimal("1.7500001"))


@given(st.one_of(st.text(max_size=30), st.text("0123456789.+-eE_, ", max_size=30)))
def test_any_text_is_an_exact_amount_or_refused(text: str) -> None:
    """Whatever is accepted is exactly what the text says in plain decimal."""
    try:
        micro = parse_usd(text, zero_allowed=True)
    except ValueError:
        return
    assert 0 <= micro <= MAX_MICROUSD
    assert Decimal(text.strip()) * 10**6 == micro
    assert text.strip().isascii()
