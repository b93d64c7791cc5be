"""The second witness of absence: whether the account's balance knows of a charge that the ledger does not.

Between two looks at the account its balance falls by what was charged. It is not known whether the provider charges
when it accepts a request or when the request is done, so both are held against the ledger. Other work on the account
makes the balance fall further, and a top-up makes it rise: the first keeps doubt up, the second silences the witness.
"""

from __future__ import annotations

from enum import Enum

from pipeline.ledger.job import Account


class BalanceSays(Enum):
    """What two looks at the account say of an attempt between them that the history does not list."""

    NOT_CHARGED = "nothing is missing that would pay for it"
    PERHAPS_CHARGED = "money is missing that nothing else explains"
    NOT_YET = "what runs hides it: ask again when nothing runs"
    NOTHING = "the balance cannot tell"


def what_the_balance_says(before: Account | None, now: Account | None, quote: int) -> BalanceSays:
    """Judge an attempt of that quote by the account `before` it and `now`.

    Args:
        now: its `held` is only what surely was accepted and still runs; what is in doubt is what is asked about.
    """
    if before is None or now is None:
        return BalanceSays.NOTHING
    gone = before.balance - now.balance
    charged_when_done = now.posted - before.posted
    charged_when_accepted = charged_when_done + now.held - before.held
    # At the first look, any part of the money in doubt, from none to all of it, may already have been charged.
    assumptions = [
        (charged_when_done, charged_when_done),
        (charged_when_accepted - before.doubted, charged_when_accepted),
    ]
    # A balance that fell by less than all that was charged contradicts the assumption, or there was a top-up.
    unexplained = [(max(0, gone - most), gone - least) for least, most in assumptions if gone >= least]
    if not unexplained:
        return BalanceSays.NOTHING
    if max(most for _, most in unexplained) < quote:
        return BalanceSays.NOT_CHARGED
    if min(least for least, _ in unexplained) >= quote:
        return BalanceSays.PERHAPS_CHARGED
    return BalanceSays.NOT_YET if now.held else BalanceSays.NOTHING
