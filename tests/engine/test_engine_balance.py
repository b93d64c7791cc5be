"""The account's balance as the second witness of absence: decided without any network."""

from __future__ import annotations

import pytest

from pipeline.engine.balance import BalanceSays, what_the_balance_says
from pipeline.ledger.job import Account

QUOTE = 1_750_000


def account(balance: int, posted: int = 0, held: int = 0, doubted: int = 0) -> Account:
    """Amounts in clips of the quote."""
    return Account(balance * QUOTE, posted * QUOTE, held * QUOTE, doubted * QUOTE)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (account(100), account(100), BalanceSays.NOT_CHARGED),
        (account(100), account(99), BalanceSays.PERHAPS_CHARGED),
        (account(100), account(90, posted=10), BalanceSays.NOT_CHARGED),
        (account(100), account(89, posted=10), BalanceSays.PERHAPS_CHARGED),
        # Ten run: charged when accepted they explain the gap, charged when done they do not.
        (account(100), account(80, posted=10, held=10), BalanceSays.NOT_YET),
        (account(100), account(90, posted=10, held=10), BalanceSays.NOT_CHARGED),
        (account(100), account(79, posted=10, held=10), BalanceSays.PERHAPS_CHARGED),
        # Five ran already at the first look. They were charged before it, or after it.
        (account(100, held=5), account(100, posted=5), BalanceSays.NOT_CHARGED),
        (account(100, held=5), account(99, posted=5), BalanceSays.PERHAPS_CHARGED),
        (account(100, held=5), account(95, posted=5), BalanceSays.NOTHING),
        (account(100, held=5), account(94, posted=5), BalanceSays.PERHAPS_CHARGED),
        # Five more were in doubt at the first look: some were charged before it, and some never.
        (account(100, doubted=5), account(99, posted=2), BalanceSays.NOTHING),
        (account(100, doubted=5), account(100), BalanceSays.NOTHING),
        (account(100, held=5, doubted=5), account(99, posted=5), BalanceSays.PERHAPS_CHARGED),
    ],
)
def test_money_that_is_missing_keeps_an_attempt_in_doubt(before: Account, now: Account, says: BalanceSays) -> None:
    """Whether the provider charges at acceptance or at the end, only a gap that nothing explains speaks up."""
    assert what_the_balance_says(before, now, QUOTE) is says


def test_a_topped_up_account_or_an_unknown_one_says_nothing() -> None:
    """A balance that rose, or that nobody could read, is no witness."""
    assert what_the_balance_says(account(10), account(110, posted=3), QUOTE) is BalanceSays.NOTHING
    assert what_the_balance_says(None, account(10), QUOTE) is BalanceSays.NOTHING
    assert what_the_balance_says(account(10), None, QUOTE) is BalanceSays.NOTHING


def test_less_than_the_quote_is_no_charge() -> None:
    """Cents that go elsewhere do not keep a dear attempt in doubt."""
    nearly = Account(100 * QUOTE - QUOTE + 1, 0, 0)
    assert what_the_balance_says(account(100), nearly, QUOTE) is BalanceSays.NOT_CHARGED
