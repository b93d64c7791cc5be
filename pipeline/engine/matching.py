"""Which row of the account's history may be which attempt's: plain functions, by which doubt is settled.

Two mistakes can pay twice: to give an attempt a row that is not its own, and to believe that an attempt has no row. So
a mere possibility is enough to keep from either.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import orjson

from pipeline.kernel.clock import DAY_US
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.fold import State, Unnamed
from pipeline.ledger.job import JobRecord
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Finished, Refused, Working, failure_class
from pipeline.provider.values import fingerprint

CLOCK_SKEW_US = 120_000_000
"""How far the provider's clock and ours may be apart without being noticed."""

LONGEST_SUBMIT_US = 120_000_000
"""How long after its reservation a submission may at most have reached the provider."""

MAX_ASKED_BY_NAME = 50
"""Of the doubts whose request is known and not listed, at most this many are asked for singly with each sweep."""


def ending_of(row: HistoryRow) -> Finished | Refused | Working:
    """What a row of the history says of its request's end."""
    # A failure that was charged for is paid: its money cannot be freed.
    if row.status == "COMPLETED" or (row.status == "FAILED" and row.cost):
        return Finished(cost=row.cost, url=row.url)
    if row.status == "FAILED":
        message = row.error or "the generation failed"
        return Refused(failure_class(message), message, 422)
    return Working()


def match_rows(
    doubted: Iterable[JobRecord],
    rows: Iterable[HistoryRow],
    owned: Collection[str],
    first_seen_seq: Mapping[str, int],
) -> list[tuple[JobRecord, HistoryRow]]:
    """Pair attempts in doubt with rows of the history, one to one.

    Attempts at the same request cannot be told apart, so of k such attempts and m rows that no other attempt owns,
    the earlier min(k, m) are paired. `owned` are the request ids that belong to other attempts.
    """
    free: dict[bytes, list[HistoryRow]] = defaultdict(list)
    by_id: dict[str, HistoryRow] = {}
    for row in sorted(rows, key=lambda row: min(row.times_us, default=0)):
        by_id.setdefault(row.request_id, row)
        if row.fingerprint is not None and row.request_id not in owned:
            free[row.fingerprint].append(row)
    pairs = []
    taken: set[str] = set()
    for record in sorted(doubted, key=lambda record: record.reserved_us):
        if record.request_id in by_id:
            pairs.append((record, by_id[record.request_id]))
            continue
        if record.request_id is not None and not record.is_named_by_hand:
            continue  # its id is known, only its record had expired: no other row can be its own
        for row in free.get(fingerprint(record.request) or b"", ()):
            if row.request_id not in taken and _may_be_its_row(record, row, first_seen_seq):
                taken.add(row.request_id)
                pairs.append((record, row))
                break
    return pairs


def _may_be_its_row(record: JobRecord, row: HistoryRow, first_seen_seq: Mapping[str, int]) -> bool:
    """Whether a row of the same request is near enough in time to be this attempt's."""
    if first_seen_seq.get(row.request_id, record.reserved_seq) < record.reserved_seq:
        return False
    return _is_near(row, record.began_us)


def _is_near(row: HistoryRow, began_us: int) -> bool:
    """Whether a row is of the time of an attempt that began then."""
    # The submission left right after the reservation; only its answer may have taken long.
    earliest_us = began_us - CLOCK_SKEW_US
    latest_us = began_us + LONGEST_SUBMIT_US + CLOCK_SKEW_US
    return any(earliest_us <= moment_us <= latest_us for moment_us in row.times_us)


def rows_to_set_aside(
    unnamed: Iterable[Unnamed], unanswered: Iterable[JobRecord], rows: Iterable[HistoryRow], owned: Collection[str]
) -> frozenset[str]:
    """The rows that may belong to attempts which are not in doubt, and whose request ids nobody knows.

    If such a row were given to another attempt at the same request, one whose answer was lost, and the row failed, that
    attempt's money would be freed and it would be sent again. The other mistake is harmless: an attempt that failed and
    whose row is set aside counts as absent when its time has come.

    Args:
        unnamed: attempts whose answer said that they failed, but not their request id: one row each.
        unanswered: attempts that still wait for their answer, as a blocking call does for minutes: any row.
    """
    free = [row for row in rows if row.request_id not in owned and not isinstance(ending_of(row), Finished)]
    # A row that has failed already is the likelier one of an attempt whose answer said that it failed.
    free.sort(key=lambda row: (not isinstance(ending_of(row), Refused), min(row.times_us, default=0)))
    aside: set[str] = set()
    for attempt in unnamed:
        for row in _rows_near(free, attempt.request, attempt.began_us):
            if row.request_id not in aside:
                aside.add(row.request_id)
                break
    for record in unanswered:
        aside.update(row.request_id for row in _rows_near(free, record.request, record.began_us))
    return frozenset(aside)


def rows_unexplained(rows: Iterable[HistoryRow], owned: Collection[str], aside: Collection[str]) -> list[HistoryRow]:
    """The rows that belong to nobody. One that is set `aside` is left out only once it has failed.

    Until then it may be anybody's, and be charged in the end.
    """
    free = [row for row in rows if row.request_id not in owned]
    return [row for row in free if not (row.request_id in aside and isinstance(ending_of(row), Refused))]


def rows_without_owner(
    unnamed: Iterable[Unnamed], rows: Iterable[HistoryRow], owned: Collection[str]
) -> list[HistoryRow]:
    """The rows that are or may be charged, that no attempt owns, and that may be of attempts which failed unnamed."""
    free = [row for row in rows if row.request_id not in owned and not isinstance(ending_of(row), Refused)]
    found = {row.request_id: row for each in unnamed for row in _rows_near(free, each.request, each.began_us)}
    return list(found.values())


def _rows_near(rows: Iterable[HistoryRow], request: str | None, began_us: int) -> Iterator[HistoryRow]:
    """Those of the same request and the same time as an attempt."""
    body = fingerprint(request)
    return (row for row in rows if row.fingerprint == body and _is_near(row, began_us))


def speaks_against_absence(record: JobRecord, row: HistoryRow) -> bool:
    """Whether a row that belongs to nobody might be this attempt's all the same: then absence proves nothing.

    Far more counts as possible here than for a match, since a mistake would pay twice: a body to which the provider has
    added its own defaults, a time without its zone.
    """
    asked = prompt_of(fingerprint(record.request))
    possible = row.fingerprint is None or prompt_of(row.fingerprint) in (None, asked)
    earliest_us = min(record.reserved_us, record.began_us) - DAY_US
    return possible and max(row.times_us, default=earliest_us) >= earliest_us


def prompt_of(body: bytes | None) -> str | None:
    """The prompt in a request body; None where there is none."""
    prompt = orjson.loads(body).get("prompt") if body else None
    return str(prompt) if prompt is not None else None


def surely_missing(state: State, listed: Iterable[HistoryRow], from_us: int, until_us: int) -> Iterator[str]:
    """The requests of a period that the provider surely accepted, and that a list of its history lacks.

    A list that lacks one is another account's, or is out of date: that an attempt is absent from it proves nothing.

    Args:
        from_us: where the list begins, by the provider's clock.
        until_us: by the same; the rows of what began later may be on their way.
    """
    # Half a day inside the list, because the time zone of the provider's days is not known.
    from_us += DAY_US // 2
    ids = {row.request_id for row in listed}
    # Chosen by our clock first, which is less than a day from the provider's wherever absence proves anything.
    for record in state.jobs.submitted(from_us - DAY_US, until_us + DAY_US, beside=ids):
        if was_surely_accepted(record) and from_us <= record.began_us <= until_us:
            yield str(record.request_id)


def was_surely_accepted(record: JobRecord) -> bool:
    """Whether the provider itself has named an attempt, and nobody has said since that there is no such request."""
    is_denied = record.error_class == ErrorClass.NOT_BILLED.label
    return record.request_id is not None and not record.is_named_by_hand and not is_denied


def to_ask_by_name(doubted: Iterable[JobRecord], rows: Iterable[HistoryRow], rng: random.Random) -> list[str]:
    """The known requests in doubt that a list does not show, at most as many as a sweep may ask for, in random order.

    They are drawn at random, so that requests which the history never shows do not keep the others from their turn.
    """
    listed = {row.request_id for row in rows}
    named = [record.request_id for record in doubted if record.request_id is not None]
    unlisted = [request_id for request_id in named if request_id not in listed]
    return rng.sample(unlisted, min(len(unlisted), MAX_ASKED_BY_NAME))
