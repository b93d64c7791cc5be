"""What comes after an attempt: nothing, another try and when, or giving up. Pure decisions."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.engine.settings import Retry
from pipeline.kernel.errors import ErrorClass, Reaction
from pipeline.ledger.job import JobRecord


@dataclass(frozen=True, slots=True)
class Again:
    """Try again, not before `delay_s` from now."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class PutBack:
    """Nothing was reserved and nothing paid was sent: the job goes back to the place in the queue that it had."""


@dataclass(frozen=True, slots=True)
class NothingLeft:
    """Nothing is left to do for this job in this run: it is stored, failed, in doubt, or left to the next run."""


Outcome = NothingLeft | Again | PutBack
NOTHING_LEFT = NothingLeft()


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again: the job has failed for good."""


def backoff_s(retry: Retry, tries: int, rng: random.Random) -> float:
    """Full jitter: anything up to the base delay doubled with each of `tries`, bounded."""
    return rng.uniform(0, min(retry.max_delay_s, retry.base_delay_s * 2 ** min(tries, 30)))


def decide(
    retry: Retry, error_class: ErrorClass, counted_failures: int, tries: int, rng: random.Random
) -> Again | GiveUp:
    """What to do with a job whose attempt was certainly not charged.

    Args:
        counted_failures: failures that count against `retry.max_attempts`, this one included.
        tries: attempts so far, this one included; they lengthen the wait.
    """
    match error_class.reaction:
        case Reaction.FAIL_ROW:
            return GiveUp()
        case Reaction.RETRY_COUNTED if counted_failures >= retry.max_attempts:
            return GiveUp()
        case Reaction.PAUSE | Reaction.STOP_ACCOUNT:
            return Again(0.0)
        case _:
            return Again(backoff_s(retry, tries, rng))


def wants_retry(record: JobRecord, classes: Collection[str] | None) -> bool:
    """Whether a job that failed for good is to be tried anew: all are if `classes` is empty, none if it is None."""
    return classes is not None and (not classes or record.error_class in classes)
