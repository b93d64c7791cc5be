"""A job as the ledger knows it: where it stands, what is known of it, and the account before its latest attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.kernel.usd import ZERO_USD, MicroUsd
from pipeline.ledger.events import Event, EventKind


class JobState(Enum):
    """Where a job stands, by its latest attempt."""

    RESERVED = "the quote is reserved and the request may be on its way"
    IN_DOUBT = "the request may have been accepted; its money stays reserved"
    SUBMITTED = "the provider has accepted it and is working"
    POSTED = "it is billed, and its video is not yet on disk"
    STORED = "its verified video is on disk"
    VOIDED = "the attempt was certainly not billed; another may follow"
    FAILED = "given up for good, unless a person grants another try"

    # A member is equal to itself alone, so its identity will do; an enumeration's own hash is several times slower.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Account:
    """What the account held at one moment, and what the ledger knew of its charges then.

    `held` is the money that was reserved, and `doubted` the money in doubt. The provider may or may not have taken
    either off the balance already, and may never take what was in doubt.
    """

    balance: MicroUsd
    posted: MicroUsd
    held: MicroUsd
    doubted: MicroUsd = ZERO_USD


@dataclass(slots=True)
class JobRecord:
    """What is known of one job: its latest attempt, and what counts over its life.

    Money in micro-dollars, times in microseconds since 1970. `counted_failures` are those that count against
    `retry.max_attempts` since the last grant; `fetch_failures` those of the latest attempt. `reserved_seq` is the event
    that the latest attempt began with, and `first_reserved_seq` that of the first one. `skew_us` is how far the
    provider's clock was ahead of ours, as known when the latest attempt began, and `account` the last look at the
    account before it. `first_began_us` is when the first attempt began, by the provider's clock as known then.
    """

    job_id: str
    state: JobState = JobState.RESERVED
    attempt: int = 0
    quote_microusd: int = 0
    cost_microusd: int = 0
    model: str | None = None
    request: str | None = None
    request_id: str | None = None
    is_named_by_hand: bool = False
    """Whether only a person gave its request id, which the provider has not confirmed: it may be mistyped."""
    error_class: str | None = None
    error: str | None = None
    http_status: int = 0
    first_began_us: int = 0
    reserved_us: int = 0
    first_reserved_seq: int = 0
    reserved_seq: int = 0
    skew_us: int = 0
    account: Account | None = None
    doubted_us: int | None = None
    submitted_us: int | None = None
    posted_us: int | None = None
    ended_us: int | None = None
    counted_failures: int = 0
    fetch_failures: int = 0
    url: str | None = None
    path: str | None = None
    poster: str | None = None
    sha256: str | None = None
    bytes: int = 0
    duration_s: float | None = None
    width: int = 0
    height: int = 0
    queue_s: float | None = None
    inference_s: float | None = None

    @property
    def attempt_name(self) -> str:
        """`JOB_ID/NUMBER`: how the latest attempt is told to people, and named by them."""
        return f"{self.job_id}/{self.attempt}"

    @property
    def accepted_us(self) -> int:
        """When the provider accepted the latest attempt; while that is not known, when its money was reserved."""
        return self.submitted_us or self.reserved_us

    @property
    def began_us(self) -> int:
        """When the latest attempt began, by the provider's clock as far as it was known then."""
        return self.reserved_us + self.skew_us

    @property
    def liability_microusd(self) -> int:
        """What this attempt has cost or may yet cost: posted cost, nothing once voided, else its quote."""
        if self.state in (JobState.POSTED, JobState.STORED):
            return self.cost_microusd
        return 0 if self.state in (JobState.VOIDED, JobState.FAILED) else self.quote_microusd

    def event(self, kind: EventKind, **facts: Any) -> Event:
        """An event of the latest attempt; `facts` are fields of `Event`."""
        return Event(event=kind, job_id=self.job_id, attempt=self.attempt, **facts)
