"""The three sums: what may not be moved is not moved, and quotes only ever rise."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.budget import Books, ImpossibleMoveError


@pytest.mark.parametrize(
    "move",
    [
        lambda books: books.reserve(0),
        lambda books: books.reserve(-1),
        lambda books: books.doubt(8),
        lambda books: books.doubt(0),
        lambda books: books.doubt(-1),
        lambda books: books.settle(6),
        lambda books: books.settle(-1),
        lambda books: books.post(8, 1),
        lambda books: books.post(1, -1),
        lambda books: books.post(-1, 1),
        lambda books: books.void(8, doubted=False),
        lambda books: books.void(-1, doubted=False),
        lambda books: books.void(6, doubted=True),
        lambda books: books.void(-1, doubted=True),
    ],
)
def test_a_move_that_cannot_be_moves_nothing(move: Callable[[Books], None]) -> None:
    """More than is there, nothing, or less than nothing: refused, with every sum as it was."""
    books = Books(posted=3, reserved=7, in_doubt=5)
    before = copy.deepcopy(books)
    with pytest.raises(ImpossibleMoveError):
        move(books)
    assert books == before


def test_what_is_free_is_never_negative() -> None:
    """A cap that was lowered below what is spent leaves nothing, not a debt."""
    books = Books(posted=3, reserved=7, in_doubt=5)
    assert (books.committed, books.free(20), books.free(15), books.free(1)) == (15, 5, 0, 0)


def test_a_charge_above_its_quote_raises_what_follows() -> None:
    """Link by link, to the highest ever charged; at or below the quote nothing moves."""
    books = Books(reserved=1_000)
    books.post(100, 100)
    books.post(100, 40)
    assert books.quote(100) == 100
    books.post(100, 150)
    assert books.quote(100) == 150
    books.post(150, 200)
    assert (books.quote(100), books.quote(150), books.quote(250)) == (200, 200, 250)


def test_a_late_smaller_excess_lowers_no_quote() -> None:
    """A job reserved at the old quote that ends late does not make the next one look cheaper than it was seen to be."""
    books = Books(reserved=1_000)
    books.post(100, 150)
    books.post(150, 200)
    books.post(100, 160)
    assert books.quote(100) == 200
    books.post(200, 90)
    assert (books.posted, books.above_quotes) == (600, 160), "what another cost less makes up for nothing"


def test_a_charge_says_nothing_of_another_length_save_where_its_own_is_not_known() -> None:
    """Also where short videos were raised to what long ones cost; whoever does not say which hears of all."""
    books = Books(reserved=1_000)
    for quote, cost, price_key in ((100, 200, "5"), (200, 300, "5"), (200, 250, "10")):
        books.post(quote, cost, price_key)
    assert (books.quote(100, "5"), books.quote(200, "10"), books.quote(100)) == (300, 250, 300)
    books.post(100, 260)
    assert (books.quote(100, "5"), books.quote(200, "10")) == (300, 260)


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14), st.sampled_from(("5", "10", None))), max_size=60))
def test_quotes_only_rise(charges: list[tuple[int, int, str | None]]) -> None:
    """In any order of charges no quote falls, or is below a charge seen for it."""
    books = Books(reserved=1_000)
    for quote, cost, price_key in charges:
        asked = [(price, key) for price in range(1, 15) for key in ("5", "10", None)]
        before = {each: books.quote(*each) for each in asked}
        books.post(quote, cost, price_key)
        after = {each: books.quote(*each) for each in asked}
        assert all(after[each] >= before[each] >= each[0] for each in asked)
        assert after[quote, price_key] >= cost
