"""The request history, as a pure question to the books."""

import datetime as dt
from typing import Any

import pytest
from sandbox_client import NOON
from test_sandbox_state import make, take

from pipeline.sandbox import history
from pipeline.sandbox.state import ProviderState

DAY = 86_400.0


def ask(state: ProviderState, now: float = NOON, repeats: int = 1, **query: Any) -> dict[str, Any]:
    read = history.HistoryQuery.read({name: str(value) for name, value in query.items()}, now)
    return history.page(state, read, now, "http://base", repeats, "accept")


def ids(answer: dict[str, Any]) -> list[str]:
    return [row["request_id"] for row in answer["data"]]


def test_rows_appear_only_after_the_lag() -> None:
    """A request is in the history from its lag after submission on, in provider time."""
    state = make(history_lag_s=7200, time_scale=100)
    item = take(state)
    assert ids(ask(state, NOON + 71.9)) == []
    assert ids(ask(state, NOON + 72.1)) == [item.id]


def test_a_row_says_what_was_sent_what_it_cost_and_how_it_ended() -> None:
    """Completed, failed and running requests are told apart, and only billed ones have a deduction and a URL."""
    state = make(faults={"gen_failed": 1}, fault_limit={"gen_failed": 1}, sigma=0)
    failed, good, running = take(state), take(state, duration=10), take(state, NOON + 300)
    now = NOON + 320
    state.advance(now)
    rows = {row["request_id"]: row for row in ask(state, now)["data"]}
    assert [rows[item.id]["model_status"] for item in (failed, good, running)] == ["FAILED", "COMPLETED", "PENDING"]
    assert [rows[item.id]["credits_deduction"] for item in (failed, good, running)] == [0.0, 3.5, 1.75]
    assert rows[failed.id]["error"]
    assert rows[good.id]["generation_url"] == f"http://base/files/{good.id}.mp4"
    assert rows[good.id]["request_body"] == {"prompt": "x", "duration": 10}
    assert rows[good.id]["latency_ms"] == 317_000
    assert dt.datetime.fromisoformat(rows[running.id]["created_at"]).timestamp() == NOON + 300
    assert rows[running.id]["generation_url"] is rows[running.id]["latency_ms"] is None


def test_pages_tile_the_rows_newest_first() -> None:
    """Reading page after page gives every row once, the repeated ones as often as asked."""
    state = make()
    made = [take(state, NOON + index).id for index in range(25)]
    seen: list[str] = []
    for page in (1, 2, 3, 4):
        seen += ids(ask(state, NOON + 60, page=page, per_page=10))
    assert seen == made[::-1]
    assert ids(ask(state, NOON + 60, per_page=3, sort_order="asc")) == made[:3]
    assert ids(ask(state, NOON + 60, repeats=2, per_page=4)) == [made[24], made[24], made[23], made[23]]
    assert ask(state, NOON + 60, repeats=2)["total"] == 50


def test_filters_and_sorting_hold() -> None:
    """Status, model and cost select and order as documented."""
    state = make(sigma=0)
    cheap, dear = take(state), take(state, duration=10)
    late = take(state, NOON + 300)
    state.advance(NOON + 320)
    now = NOON + 320
    assert ids(ask(state, now, status="PENDING")) == [late.id]
    assert ids(ask(state, now, status="COMPLETED")) == [dear.id, cheap.id]
    assert ids(ask(state, now, model_name="kling")) == [late.id, dear.id, cheap.id]
    assert ids(ask(state, now, model_name="veo")) == []
    assert ids(ask(state, now, sort_by="credits_deduction"))[0] == dear.id


def test_the_window_is_a_week_by_default_and_a_month_at_most() -> None:
    """Rows outside the window are not shown; days are UTC and both ends count."""
    state = make()
    old = take(state, NOON - 20 * DAY)
    new = take(state, NOON)
    day = dt.datetime.fromtimestamp(NOON - 20 * DAY, dt.UTC).date()
    assert ids(ask(state)) == [new.id]
    assert ids(ask(state, from_date=day)) == [new.id, old.id]
    assert ids(ask(state, from_date=day, to_date=day)) == [old.id]


@pytest.mark.parametrize(
    "query",
    [
        {"per_page": 101},
        {"per_page": 0},
        {"page": 0},
        {"page": "x"},
        {"from_date": "yesterday"},
        {"from_date": "2026-01-01", "to_date": "2026-02-02"},
        {"from_date": "2026-02-02", "to_date": "2026-01-01"},
        {"status": "DONE"},
        {"sort_by": "mood"},
        {"sort_order": "up"},
    ],
    ids=str,
)
def test_a_wrong_question_is_refused(query: dict[str, Any]) -> None:
    """A parameter outside its range is a ValueError that the route answers with 400."""
    with pytest.raises(ValueError):
        ask(make(), **query)
