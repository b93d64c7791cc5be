"""The budget: three sums that every money event moves, and the wall that they may never pass.

    reserve   free ──quote──> reserved
    doubt     reserved ─────> in doubt          settle   in doubt ─────> reserved
    post      reserved ─cost> posted            void     reserved or in doubt ──> free

An amount leaves `reserved` or `in doubt` in exactly one way. A move that cannot be true is refused before anything is
moved, also where Python strips assertions. Nothing here knows of errors or of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.kernel.usd import ZERO_USD, MicroUsd


class ImpossibleMoveError(AssertionError):
    """A move that nothing real can make: a defect, or a ledger that somebody edited."""


@dataclass(slots=True)
class Books:
    """The money of one ledger over its whole life, in micro-dollars."""

    posted: MicroUsd = ZERO_USD
    reserved: MicroUsd = ZERO_USD
    in_doubt: MicroUsd = ZERO_USD
    above_quotes: MicroUsd = ZERO_USD
    """How much of `posted` the provider has charged beyond what was quoted."""
    charged_above: dict[str | None, MicroUsd] = field(default_factory=dict)
    """By price key: the highest charge seen above a quote. Under None: charges of which the price key is not known."""

    @property
    def committed(self) -> MicroUsd:
        """All that is spent or may turn out to be: what the cap must cover."""
        return MicroUsd(self.posted + self.reserved + self.in_doubt)

    def free(self, cap: int) -> MicroUsd:
        """What may still be reserved under `cap`; never negative."""
        return MicroUsd(max(0, cap - self.committed))

    def quote(self, price: int, price_key: str | None = None) -> MicroUsd:
        """The most that a job of list price `price` may cost, as far as this account's charges have shown.

        The quote never falls. A charge above a quote counts for jobs of the same price key only, since short videos say
        nothing of long ones. A charge whose price key is not known counts for all jobs.

        Args:
            price_key: which price holds for the job; without it, any charge above a quote counts.
        """
        seen = self.charged_above
        charges = seen.values() if price_key is None else [seen.get(price_key, 0), seen.get(None, 0)]
        return MicroUsd(max((price, *charges)))

    def reserve(self, quote: int) -> None:
        """Set the quote of an attempt aside, before it is sent."""
        _require(quote > 0, "an unknown price is refused, never guessed at zero")
        self.reserved = MicroUsd(self.reserved + quote)

    def doubt(self, quote: int) -> None:
        """Keep a reservation, whose attempt may or may not be billed, as money in doubt."""
        _require(0 < quote <= self.reserved, "a reservation ends once")
        self.reserved = MicroUsd(self.reserved - quote)
        self.in_doubt = MicroUsd(self.in_doubt + quote)

    def settle(self, quote: int) -> None:
        """End a doubt: the attempt was accepted, and its quote is reserved again."""
        _require(0 < quote <= self.in_doubt, "a doubt ends once")
        self.in_doubt = MicroUsd(self.in_doubt - quote)
        self.reserved = MicroUsd(self.reserved + quote)

    def post(self, quote: int, cost: int, price_key: str | None = None) -> None:
        """Bill what was reserved; `price_key` says which price it was quoted by, None where that is not known."""
        _require(0 < quote <= self.reserved, "a reservation ends once")
        _require(cost >= 0, "posted money is never taken back")
        self.reserved = MicroUsd(self.reserved - quote)
        self.posted = MicroUsd(self.posted + cost)
        if cost > quote:
            self.above_quotes = MicroUsd(self.above_quotes + cost - quote)
            self.charged_above[price_key] = MicroUsd(max(cost, self.charged_above.get(price_key, 0)))

    def void(self, quote: int, *, doubted: bool) -> None:
        """Set the quote of an attempt that was certainly not billed free again; `doubted` says where it is held."""
        _require(0 < quote <= (self.in_doubt if doubted else self.reserved), "a reservation ends once")
        if doubted:
            self.in_doubt = MicroUsd(self.in_doubt - quote)
        else:
            self.reserved = MicroUsd(self.reserved - quote)


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ImpossibleMoveError(why)
