"""The account's history: its rows and its pages.

A page that cannot be read whole is refused, because a request that is absent from one may be paid for again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.kernel.usd import MicroUsd
from pipeline.provider.values import (
    charged,
    clean_text,
    fingerprint,
    first_url,
    moment_us,
    parse_json,
    valid_request_id,
)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One request as the account's history shows it. `times_us` are all its fields that read as a time."""

    request_id: str
    status: str
    cost: MicroUsd | None
    url: str | None
    error: str
    fingerprint: bytes | None
    times_us: tuple[int, ...]


def decode_history(body: bytes) -> list[HistoryRow] | None:
    """The rows of a page of history, each request once; None when they cannot be read whole.

    A request that is absent here may be paid for again. So a page counts as empty only if it plainly says so, and a row
    without a usable request id makes it unreadable. The envelope is not documented: lists of rows are recognised by
    their rows.
    """
    envelope = parse_json(body)
    if isinstance(envelope, dict) and (envelope.get("error") or envelope.get("success") is False):
        return None
    lists = list(_lists(envelope, 3))
    listed = [item for found in lists if any("request_id" in item for item in _objects(found)) for item in found]
    if not listed and (not lists or any(lists)):
        return None
    rows: dict[str, HistoryRow] = {}
    for item in listed:
        row = decode_history_row(item)
        if row is None:
            if not _is_failure(item):
                return None
        elif row.request_id not in rows or rank(row) > rank(rows[row.request_id]):
            rows[row.request_id] = row
    return list(rows.values())


def decode_history_one(body: bytes) -> list[HistoryRow] | None:
    """The row of a single-request answer, bare or inside an envelope; empty if there plainly is none."""
    data = parse_json(body)
    candidates = [data, *data.values()] if isinstance(data, dict) else [data]
    rows = [row for item in candidates if (row := decode_history_row(item)) is not None]
    return rows or decode_history(body)


def _lists(value: object, depth: int) -> Iterator[list[Any]]:
    """Every list in an envelope that is empty or holds objects, except lists of errors and warnings."""
    if isinstance(value, list):
        if not value or _objects(value):
            yield value
    elif isinstance(value, dict) and depth:
        for key, item in value.items():
            if key not in ("error", "errors", "warnings", "messages"):
                yield from _lists(item, depth - 1)


def _objects(items: list[Any]) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)]


def _is_failure(item: object) -> bool:
    """Whether a row without a usable request id is certainly no charge, so that it may be passed over."""
    if not isinstance(item, dict) or clean_text(item.get("model_status")).upper() != "FAILED":
        return False
    return item.get("credits_deduction") is None or charged(item["credits_deduction"]) == 0


def rank(row: HistoryRow) -> tuple[bool, int]:
    """The rank of a row among those of one request: the one that says the most about money counts."""
    return row.status == "COMPLETED", row.cost or 0


def decode_history_row(item: object) -> HistoryRow | None:
    """One row of the history; None without a usable request id."""
    if not isinstance(item, dict):
        return None
    request_id = valid_request_id(item.get("request_id"))
    if request_id is None:
        return None
    return HistoryRow(
        request_id=request_id,
        status=clean_text(item.get("model_status")).upper(),
        cost=charged(item.get("credits_deduction")),
        url=first_url(item.get("generation_url"), 3),
        error=clean_text(item.get("error")),
        fingerprint=fingerprint(item.get("request_body")),
        times_us=tuple(
            moment
            for key, value in item.items()
            if not isinstance(value, dict | list) and "latency" not in key and (moment := moment_us(value))
        ),
    )
