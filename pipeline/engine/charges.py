"""What a finished generation is booked at: plain functions, in which silence and a zero are never taken for free.

The cap is a wall, so of what the provider may have charged the most counts. The history is asked about each charge that
is not just the quote, because it is what the bill is made of; but it may be two hours late.
"""

from __future__ import annotations

from pipeline.kernel.usd import MicroUsd, dollars
from pipeline.provider.history import HistoryRow

LEAST_BELIEVED = 0.25
"""A lower price is believed as the result states it, down to this share of the quote: ledger and invoice are to agree.

Less looks like another unit, or like a part of the charge, and is believed only if the history shows it as well.
"""


def needs_confirmation(stated: MicroUsd | None, quote: int) -> bool:
    """Whether the history is to be asked about a charge, because the result does not state just what was quoted."""
    return stated != quote


def charge_to_book(stated: MicroUsd | None, quote: int, row: HistoryRow | None) -> tuple[MicroUsd, str | None]:
    """The charge: as the result states it, else as the history says, else the quote; and a note if it is not stated.

    A charge above the quote raises the price that all later jobs are reckoned at, for good, so there the history's
    word counts more than the result's.

    Args:
        stated: what the result states.
        row: what the history shows of the request; None if it shows nothing.
    """
    known = _charge_in(row, quote) if row is not None else None
    if stated == quote:
        best: int | None = stated
    elif not stated:
        best = known
    elif stated > quote:
        best = known or stated
    elif known:
        best = max(stated, known)
    else:
        best = stated if stated >= LEAST_BELIEVED * quote else None
    said = f"said {dollars(stated)}" if stated else "did not say it"
    if best is None:
        return MicroUsd(quote), f"booked at the quote: the result {said}, and the history confirms no charge yet"
    return MicroUsd(best), None if best == stated else f"the charge is the history's: the result {said}"


def _charge_in(row: HistoryRow, quote: int) -> MicroUsd | None:
    """What a row of the history says of the charge; None where its amount may only be booked later.

    A row of zero is one that is not booked yet, also when its request is done; only a failure is free.
    """
    if row.cost is None or row.cost >= quote:
        return row.cost
    is_booked = row.status == "FAILED" or (row.status == "COMPLETED" and row.cost > 0)
    return row.cost if is_booked else None
