"""The account's request history: which rows a question asks for, and how they look. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pipeline.sandbox import replies
from pipeline.sandbox.settings import MICRO
from pipeline.sandbox.state import Generation, ProviderState

_WINDOW_DAYS: Final = 7
_MAX_DAYS: Final = 31
_STATUSES: Final = ("COMPLETED", "FAILED", "PENDING")
_SORTS: Final = ("model_created", "model_name", "credits_deduction")


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """One question to the history, defaults filled in. Dates are UTC days, both ends in."""

    page: int
    per_page: int
    first_day: dt.date
    last_day: dt.date
    model_name: str
    status: str
    sort_by: str
    descending: bool

    @classmethod
    def read(cls, query: Mapping[str, str], now: float) -> Self:
        """Read a query string; ValueError says what is wrong with it."""
        today = dt.datetime.fromtimestamp(now, dt.UTC).date()
        last_day = _day(query, "to_date") or today
        first_day = _day(query, "from_date") or last_day - dt.timedelta(days=_WINDOW_DAYS)
        if first_day > last_day:
            raise ValueError("from_date is after to_date")
        if (last_day - first_day).days > _MAX_DAYS:
            raise ValueError(f"The date window may span at most {_MAX_DAYS} days")
        return cls(
            page=_whole(query, "page", 1, None),
            per_page=_whole(query, "per_page", 20, 100),
            first_day=first_day,
            last_day=last_day,
            model_name=query.get("model_name", ""),
            status=_choice(query, "status", "", _STATUSES),
            sort_by=_choice(query, "sort_by", "model_created", _SORTS),
            descending=_choice(query, "sort_order", "desc", ("desc", "asc")) == "desc",
        )


def _day(query: Mapping[str, str], name: str) -> dt.date | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be YYYY-MM-DD") from None


def _whole(query: Mapping[str, str], name: str, default: int, high: int | None) -> int:
    text = query.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if value < 1 or (high is not None and value > high):
        raise ValueError(f"{name} must be at least 1" + (f" and at most {high}" if high else ""))
    return value


def _choice(query: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = query.get(name) or default
    if value != default and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}")
    return value


def row_status(generation: Generation) -> str:
    """COMPLETED, FAILED or PENDING."""
    if generation.ended_at is None:
        return "PENDING"
    return "COMPLETED" if generation.error is None else "FAILED"


def row(generation: Generation, base: str, charge_at: str) -> dict[str, Any]:
    """One request as the history shows it."""
    status = row_status(generation)
    ended_at = generation.ended_at
    charged = status == "COMPLETED" or (status == "PENDING" and charge_at == "accept")
    return {
        "request_id": generation.id,
        "model_name": generation.model,
        "model_status": status,
        "credits_deduction": generation.cost_microusd / MICRO if charged else 0.0,
        "request_body": generation.body,
        "generation_url": replies.video_url(base, generation) if status == "COMPLETED" else None,
        "latency_ms": None if ended_at is None else round((ended_at - generation.accepted_at) * 1000),
        "created_at": _stamp(generation.accepted_at),
        "updated_at": _stamp(generation.accepted_at if ended_at is None else ended_at),
        "error": generation.error if status == "FAILED" else None,
    }


def _stamp(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(
    state: ProviderState, query: HistoryQuery, now: float, base: str, repeats: int, charge_at: str
) -> dict[str, Any]:
    """One page of the history, as the provider envelops it."""
    start = dt.datetime.combine(query.first_day, dt.time(), dt.UTC).timestamp()
    end = dt.datetime.combine(query.last_day + dt.timedelta(days=1), dt.time(), dt.UTC).timestamp()
    chosen = [
        item
        for item in state.listed(now)
        if start <= item.accepted_at < end
        and query.model_name in item.model
        and (not query.status or row_status(item) == query.status)
    ]
    if query.sort_by == "credits_deduction":
        chosen.sort(key=lambda item: item.cost_microusd)
    elif query.sort_by == "model_name":
        chosen.sort(key=lambda item: item.model)
    if query.descending:
        chosen.reverse()
    total = len(chosen) * repeats
    first = (query.page - 1) * query.per_page
    rows = [
        row(chosen[index // repeats], base, charge_at) for index in range(first, min(first + query.per_page, total))
    ]
    return {
        "data": rows,
        "page": query.page,
        "per_page": query.per_page,
        "total": total,
        "total_pages": -(-total // query.per_page),
    }
