"""The ledger held against rows of the history: decided without any network."""

from __future__ import annotations

from pipeline.engine.reconcile import Comparison, held_against
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.fold import State
from pipeline.provider.history import HistoryRow
from pipeline.provider.values import fingerprint

NOW_US = 1_800_000_000_000_000
QUOTE = 1_750_000
LAMP = '{"prompt":"a lamp","duration":5}'
ASKED = {fingerprint(LAMP) or b"": "lamp"}


def ledger(*steps: tuple[str, EventKind, dict[str, object]]) -> State:
    """The fold of events about jobs; each `reserved` begins the next attempt of its job."""
    state, attempts = State(), {}
    for job_id, kind, facts in steps:
        attempts[job_id] = attempts.get(job_id, 0) + (kind is EventKind.RESERVED)
        given = {"quote_microusd": QUOTE, "model": "kling-2"} if kind is EventKind.RESERVED else {}
        seq = state.last_seq + 1
        event = Event(event=kind, job_id=job_id, attempt=attempts[job_id], seq=seq, at_us=NOW_US, **given, **facts)  # type: ignore[arg-type]
        state.apply(event)
    return state


def accepted(job_id: str, request_id: str) -> list[tuple[str, EventKind, dict[str, object]]]:
    return [(job_id, EventKind.RESERVED, {}), (job_id, EventKind.SUBMITTED, {"request_id": request_id})]


def stored(job_id: str, request_id: str, cost: int = QUOTE) -> list[tuple[str, EventKind, dict[str, object]]]:
    return [*accepted(job_id, request_id), (job_id, EventKind.POSTED, {"cost_microusd": cost})]


def row(request_id: str, cost: int | None = QUOTE, status: str = "COMPLETED", prompt: str = "a mug") -> HistoryRow:
    body = fingerprint({"prompt": prompt, "duration": 5})
    return HistoryRow(request_id, status, None if cost is None else MicroUsd(cost), None, "", body, (NOW_US,))


def compared(state: State, *rows: HistoryRow) -> Comparison:
    return held_against(state, ASKED, rows, NOW_US, NOW_US)


def test_what_both_know_agrees_to_the_cent() -> None:
    """Each request once, whether it was billed or failed."""
    failed = [*accepted("b", "request-b"), ("b", EventKind.VOIDED, {"error_class": "generation_failed"})]
    found = compared(ledger(*stored("a", "request-a"), *failed), row("request-a"), row("request-b", 0, "FAILED"))
    assert (found.agreed, found.agreed_microusd, found.is_clean) == (2, QUOTE, True)
    assert not found.unknown + found.different + found.unlisted


def test_a_charge_that_no_attempt_explains_is_named_with_the_job_it_resembles() -> None:
    """The same request as one of ours spoils the agreement; other work on the account does not."""
    found = compared(ledger(*stored("a", "request-a")), row("request-a"), row("request-x", prompt="a lamp"))
    assert [(charge.request_id, charge.same_request_as) for charge in found.unknown] == [("request-x", "lamp")]
    assert not found.is_clean
    found = compared(ledger(*stored("a", "request-a")), row("request-a"), row("request-y", prompt="a fish"))
    assert [(charge.prompt, charge.same_request_as) for charge in found.unknown] == [("a fish", None)]
    assert found.is_clean


def test_what_costs_nothing_and_is_not_ours_is_no_charge() -> None:
    """Somebody else's failures and running requests are not listed."""
    found = compared(State(), row("request-x", 0, "FAILED"), row("request-y", None, "PENDING"))
    assert found.unknown == ()


def test_amounts_that_differ_are_told_both_ways() -> None:
    """A dearer row, and a charge for an attempt that the ledger holds for failed."""
    failed = [*accepted("b", "request-b"), ("b", EventKind.VOIDED, {"error_class": "generation_failed"})]
    again = [*failed, *stored("b", "request-c")]
    state = ledger(*stored("a", "request-a"), *again)
    found = compared(state, row("request-a", 2 * QUOTE), row("request-b", QUOTE), row("request-c"))
    told = {each.request_id: (each.ledger_microusd, each.history_microusd) for each in found.different}
    assert told == {"request-a": (QUOTE, 2 * QUOTE), "request-b": (0, QUOTE)}
    assert not found.is_clean


def test_what_runs_is_not_compared_and_what_is_not_listed_is_told() -> None:
    """A running request has no amount yet; an accepted one without a row is named."""
    found = compared(ledger(*accepted("a", "request-a"), *stored("b", "request-b")), row("request-a", 0, "PENDING"))
    assert found.different == ()
    assert [(each.job_id, each.request_id) for each in found.unlisted] == [("b", "request-b")]
    assert (found.is_clean, found.differs) == (False, False), "nothing was held against it, so nothing agrees"


def test_a_row_that_does_not_say_its_amount_proves_no_difference() -> None:
    """Nothing stated is not zero."""
    assert compared(ledger(*stored("a", "request-a")), row("request-a", None)).different == ()
