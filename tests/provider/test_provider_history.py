"""What the account's history says. A request that is overlooked here may be paid for a second time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_doubles import JOB, NOW_US, OTHER_ID, REQUEST_ID

from pipeline.jobs import canonical_json
from pipeline.kernel.clock import iso
from pipeline.provider.history import HistoryRow, decode_history
from pipeline.provider.values import fingerprint

Body = dict[str, Any]


def row(request_id: object = REQUEST_ID, **changes: Any) -> Body:
    """A row as the provider documents it."""
    return {
        "request_id": request_id,
        "model_name": "kling-2",
        "model_status": "COMPLETED",
        "credits_deduction": 1.75,
        "request_body": dict(JOB.params),
        "generation_url": "https://images.segmind.com/a.mp4",
        "latency_ms": 317_180,
        "created_at": iso(NOW_US),
        "error": None,
        **changes,
    }


def read(answer: object) -> list[HistoryRow] | None:
    return decode_history(json.dumps(answer).encode())


def decoded(item: object) -> HistoryRow:
    found = read([item])
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    "envelope",
    [
        lambda rows: rows,
        lambda rows: {"data": rows},
        lambda rows: {"data": rows, "page": 1, "per_page": 100, "total": 2, "total_pages": 1},
        lambda rows: {"rows": rows, "page": {"number": 1, "models": ["kling-2"]}},
        lambda rows: {"success": True, "error": None, "data": {"rows": rows, "total": 2}},
        lambda rows: {"result": {"page": {"items": rows}}},
        lambda rows: {"filters": [{"name": "model"}], "columns": ["request_id"], "data": rows},
        lambda rows: {"errors": [], "warnings": [{"text": "late"}], "data": rows},
    ],
)
def test_rows_are_found_in_any_envelope(envelope: Callable[[list[Body]], object]) -> None:
    """The envelope is not documented: the rows are known by their request ids, not by where they stand."""
    found = read(envelope([row(), row(OTHER_ID)]))
    assert found is not None
    assert [item.request_id for item in found] == [REQUEST_ID, OTHER_ID]


@pytest.mark.parametrize(
    "answer", [[], {"data": []}, {"rows": [], "page": {"number": 9}}, {"models": ["kling-2"], "data": {"rows": []}}]
)
def test_a_page_is_empty_where_it_says_so(answer: object) -> None:
    """A list without rows is the end of the history."""
    assert read(answer) == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        "text",
        {},
        {"data": None},
        {"data": "none"},
        {"message": "temporarily unavailable", "errors": []},
        {"error": "database timeout", "data": []},
        {"success": False, "data": []},
        {"filters": [{"name": "model"}], "data": []},
        {"data": [{"id": REQUEST_ID, "model_status": "COMPLETED"}]},
        {"data": [row(), row("../../x")]},
        {"data": [row(), row(None)]},
        {"data": [row(), row(12345678)]},
        {"data": [row(), None]},
        {"data": [row(None, model_status="FAILED", credits_deduction=1.75)]},
    ],
)
def test_a_page_that_cannot_be_read_whole_is_no_empty_page(answer: object) -> None:
    """Absence is evidence that a job was never accepted; what was not understood is no evidence."""
    assert read(answer) is None


@pytest.mark.parametrize("body", [b"", b"{", b"<html></html>", b"\xff", b"[" * 100_000, b'{"data": [], "data": []}'])
def test_bytes_that_are_no_json_are_no_page(body: bytes) -> None:
    """Half an answer is asked for again."""
    assert decode_history(body) is None


@pytest.mark.parametrize("cost", [None, 0, 0.0, "0"])
def test_a_nameless_row_is_passed_over_only_if_it_was_free(cost: object) -> None:
    """A call that failed before it got an id must not block the settling of every other."""
    found = read({"data": [row(), row(None, model_status="failed", credits_deduction=cost)]})
    assert found is not None
    assert [item.request_id for item in found] == [REQUEST_ID]


def test_a_request_with_several_outputs_counts_once() -> None:
    """It shows once per output, each time with its full cost."""
    found = read({"data": [row(), row(), row()]})
    assert found is not None
    assert [(item.request_id, item.cost) for item in found] == [(REQUEST_ID, 1_750_000)]


def test_of_contradicting_rows_the_paid_one_stands() -> None:
    """One output that failed does not make the request free, whichever row comes first."""
    rows = [row(), row(model_status="FAILED", credits_deduction=0), row(model_status="PENDING", credits_deduction=None)]
    for seed in range(6):
        found = read(random.Random(seed).sample(rows, 3))
        assert found is not None
        assert [(item.status, item.cost) for item in found] == [("COMPLETED", 1_750_000)]


@pytest.mark.parametrize(
    ("deduction", "cost"),
    [(1.75, 1_750_000), ("3.50", 3_500_000), (3.5000000000000004, 3_500_000), (-1, None), (None, None), (True, None)],
)
def test_a_rows_cost_is_exact_or_unknown(deduction: object, cost: int | None) -> None:
    """The history's money goes through the same door."""
    assert decoded(row(credits_deduction=deduction)).cost == cost


@pytest.mark.parametrize(
    "stamp",
    [
        iso(NOW_US),
        "2026-09-21T14:13:20Z",
        "2026-09-21 14:13:20 UTC",
        "2026-09-21T14:13:20",
        "2026-09-21T16:13:20.000000+02:00",
        "2026-09-21 14:13:20+00",
        "Mon, 21 Sep 2026 14:13:20 GMT",
        NOW_US // 10**6,
        NOW_US // 10**3,
        str(NOW_US // 10**6),
        NOW_US / 1e6,
    ],
)
@pytest.mark.parametrize("name", ["created_at", "model_created", "timestamp", "ts"])
def test_a_moment_is_read_under_any_name_and_in_any_usual_form(stamp: object, name: str) -> None:
    """The names of the history's timestamps are not documented."""
    plain = {key: value for key, value in row().items() if key != "created_at"}
    assert decoded({**plain, name: stamp}).times_us == (NOW_US,)


@pytest.mark.parametrize("value", [0, 1, 317_180, 123_456_789, 10**20, -1, "soon", "", True, None, "1970", "9" * 100])
def test_a_size_or_a_count_is_no_moment(value: object) -> None:
    """A file size taken for a time would mix up which attempt a row belongs to."""
    assert decoded(row(file_size=value)).times_us == (NOW_US,)


def test_the_urls_of_a_row_may_be_text_or_a_list() -> None:
    """`generation_url` of several outputs is a list; what is no URL is None."""
    assert decoded(row(generation_url=["https://x.example/a.mp4"])).url == "https://x.example/a.mp4"
    assert decoded(row(generation_url="")).url is None
    assert decoded(row(generation_url={"no": "url"})).url is None


@pytest.mark.parametrize(
    "copy",
    [
        dict(JOB.params),
        dict(reversed(JOB.params.items())),
        JOB.body.decode(),
        json.dumps(dict(JOB.params), indent=2),
        {**JOB.params, "cfg_scale": 0.50, "duration": 5.0},
        {**JOB.params, "cfg_scale": "0.50", "duration": "5"},
        {**JOB.params, "start_image": None, "seed": None},
        {**JOB.params, "start_image": ""},
        {key: value for key, value in JOB.params.items() if value != ""},
        json.dumps({**JOB.params, "duration": 5.0}),
    ],
)
def test_the_historys_copy_of_a_request_is_recognised(copy: object) -> None:
    """Key order, ways to write a number, added nulls and JSON as text do not make another request of it."""
    assert decoded(row(request_body=copy)).fingerprint == fingerprint(JOB.body) == fingerprint(JOB.body.decode())


@pytest.mark.parametrize(
    "other",
    [
        {**JOB.params, "prompt": "a lamp."},
        {**JOB.params, "duration": 10},
        {**JOB.params, "cfg_scale": 0.51},
        {**JOB.params, "aspect_ratio": "9:16"},
        {**JOB.params, "start_image": "https://x.example/a.png"},
    ],
)
def test_another_request_has_another_fingerprint(other: Body) -> None:
    """Somebody else's row must not settle our doubt."""
    assert fingerprint(canonical_json(other)) != fingerprint(JOB.body)


@pytest.mark.parametrize(
    "body", [None, 7, "", "text", "[]", [], "{", '"\ud800', "\ud800", {"x": "\ud800"}, {"x": float("inf")}, b"\xff"]
)
def test_what_is_no_request_body_has_no_fingerprint(body: object) -> None:
    """Somebody else's odd row in the same account never raises."""
    assert fingerprint(body) is None


prompts = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=30)
requests = st.fixed_dictionaries(
    {
        "prompt": prompts,
        "negative_prompt": st.just("") | prompts,
        "cfg_scale": st.floats(0, 1),
        "duration": st.sampled_from([5, 10]),
        "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1"]),
    }
)


@given(requests, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_any_request_is_recognised_in_any_writing(
    request: Body, shuffle: random.Random, as_text: bool, ascii_only: bool
) -> None:
    """Whatever the prompt: what was sent and what is listed have one fingerprint."""
    items = [*request.items(), ("seed", None)]
    shuffle.shuffle(items)
    copy: Any = {**dict(items), "duration": float(request["duration"])}
    if as_text:
        copy = json.dumps(copy, ensure_ascii=ascii_only)
    found = decode_history(json.dumps([row(request_body=copy)], ensure_ascii=ascii_only).encode())
    assert found is not None
    assert found[0].fingerprint == fingerprint(canonical_json(request)) is not None
