"""A plan for scripts: what `plan --json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.screen import places_json

if TYPE_CHECKING:
    from pipeline.api.types import Axis, Difference, Entry, Plan, PriceLine, Scalar, Trial
    from pipeline.kernel.errors import Mistake

VALUES_SHOWN = 1_000
"""The most values of one axis that are listed; `more` says how many others there are."""


def plan_json(
    name: str,
    plan: Plan,
    folder: str,
    *,
    live: bool,
    order: str,
    warnings: Iterable[Mistake],
    changes: Difference | None = None,
    canary: Trial | None = None,
    credits_microusd: int | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """The plan for scripts. Money as text with exact cents."""
    from pipeline.kernel.usd import format_usd

    return {
        "name": name,
        "run_directory": folder,
        "address": address,
        "live": live,
        "order": order,
        "rows": plan.rows,
        "jobs": plan.jobs,
        "duplicates": plan.duplicates,
        "changes": None if changes is None else _changes_json(changes),
        "by_duration": [_length_json(line) for line in plan.lines],
        "by_axis": [_axis_json(axis) for axis in plan.axes],
        "stored": plan.stored,
        "failed": plan.failed,
        "in_doubt": plan.in_doubt,
        "running": plan.running,
        "unfetched": plan.unfetched,
        "to_do": len(plan.to_do),
        **_money_json(plan),
        "not_allowed": [
            _held_json(plan, entry, "cap" if place < plan.held_by_cap else "limit")
            for place, entry in enumerate(plan.held)
        ],
        "canary": None if canary is None else _canary_json(plan, canary),
        "expected_s": round(plan.expected_s, 1),
        "in_time": plan.in_time,
        "credits_usd": None if credits_microusd is None else format_usd(credits_microusd),
        "warnings": places_json(warnings),
    }


def _length_json(line: PriceLine) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "duration_s": int(line.price_key),
        "price_usd": format_usd(line.price),
        "listed_usd": format_usd(line.listed),
        "jobs": line.jobs,
        "to_do": line.to_do,
        "cost_usd": format_usd(line.cost),
    }


def _money_json(plan: Plan) -> dict[str, Any]:
    """The cost of what is left to make, what is free under the cap, and how much cap and limit let through."""
    from pipeline.kernel.usd import format_usd

    return {
        "cost_usd": format_usd(plan.cost),
        "cap_usd": format_usd(plan.cap),
        "committed_usd": format_usd(plan.committed),
        "free_usd": format_usd(plan.free),
        "allowed": plan.allowed,
        "allowed_cost_usd": format_usd(plan.allowed_cost),
        "held_by_limit": plan.held_by_limit,
        "held_by_cap": plan.held_by_cap,
    }


def _axis_json(axis: Axis) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "axis": _plain(axis.name),
        "values": [
            {"value": _plain(value.value), "jobs": value.jobs, "to_do": value.to_do, "cost_usd": format_usd(value.cost)}
            for value in axis.values[:VALUES_SHOWN]
        ],
        "more": max(0, len(axis.values) - VALUES_SHOWN),
    }


def _canary_json(plan: Plan, canary: Trial) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "passed": canary.is_passed,
        "job_ids": [*(record.job_id for record in canary.proven), *canary.under_way]
        + [job.job_id for job in canary.to_start],
        "cost_usd": format_usd(sum(plan.price_of(job) for job in canary.to_start)),
    }


def _held_json(plan: Plan, entry: Entry, held_by: str) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "row": entry.row,
        "id": entry.row_id,
        "replicate": entry.job.replicate,
        "job_id": entry.job.job_id,
        "axes": {str(_plain(name)): _plain(value) for name, value in entry.axes.items()},
        "price_usd": format_usd(plan.price_of(entry.job)),
        "held_by": held_by,
    }


def _plain(value: Scalar) -> Scalar:
    """A value that JSON can hold: half of a surrogate pair becomes `?`, a whole number beyond 64 bits becomes text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def _changes_json(changes: Difference) -> Mapping[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        name: {
            "rows": change.rows,
            "jobs": change.jobs,
            "to_do": change.to_do,
            "cost_usd": format_usd(change.cost),
            "videos": change.videos,
            "on_their_way": change.on_their_way,
            "spent_usd": format_usd(change.spent),
        }
        for name, change in (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed))
    }
