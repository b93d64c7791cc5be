"""`kling-batch reconcile`: hold the ledger against the provider's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import api
from pipeline.cli import options
from pipeline.cli.screen import SANDBOX_NOTE, count, dollars, printable, say, say_json, sentence, table
from pipeline.kernel.address import address_of
from pipeline.kernel.clock import duration

if TYPE_CHECKING:
    from pipeline.api.types import Comparison, JobRecord, Reconciliation, Settled, UnknownCharge

SHOWN = 12


@click.command()
@options.run_directory
@click.option("-c", "--config", type=Path, metavar="FILE", help="The config file; the run directory's own without it.")
@options.settings
@options.json
def reconcile(directory: Path, config: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """Hold the ledger against the provider's history. Settles what is in doubt; submits nothing, and costs nothing.

    Example: kling-batch reconcile outputs/quickstart
    """
    import asyncio

    used = api.config_of(directory, config, settings)
    found = asyncio.run(api.reconcile(directory, used))
    if json:
        say_json(_as_json(found))
    else:
        say(_screen(found, address_of(directory) or str(found.folder), live=used.is_live))
    raise click.exceptions.Exit(found.exit_code)


def _as_json(found: Reconciliation) -> dict[str, Any]:
    """The findings for scripts. Money as text with exact cents, times as ISO 8601 in UTC."""
    return {
        "run_directory": str(found.folder),
        "settled": [_settled_json(each) for each in found.settled],
        "in_doubt": [_doubted_json(record, found.why_in_doubt[record.attempt_name]) for record in found.left],
        "to_collect": found.to_collect,
        **({} if found.comparison is None else _comparison_json(found.comparison)),
        "exit_code": found.exit_code,
        "message": found.message or None,
    }


def _settled_json(each: Settled) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "job_id": each.job_id,
        "attempt": each.attempt,
        "became": each.state.name.lower(),
        "request_id": each.request_id,
        "cost_usd": format_usd(each.cost_microusd),
        "evidence": each.evidence,
    }


def _doubted_json(record: JobRecord, why: str) -> dict[str, Any]:
    from pipeline.kernel.usd import format_usd

    return {
        "job_id": record.job_id,
        "attempt": record.attempt,
        "quote_usd": format_usd(record.quote_microusd),
        "error": record.error,
        "why": why or None,
    }


def _comparison_json(held: Comparison) -> dict[str, Any]:
    from pipeline.kernel.clock import iso
    from pipeline.kernel.usd import format_usd

    return {
        "from": iso(held.from_us),
        "to": iso(held.to_us),
        "listed": held.listed,
        "agreed": held.agreed,
        "agreed_usd": format_usd(held.agreed_microusd),
        "unknown_charges": [_charge_json(charge) for charge in held.unknown],
        "different_amounts": [
            {
                "job_id": each.job_id,
                "request_id": each.request_id,
                "ledger_usd": format_usd(each.ledger_microusd),
                "history_usd": format_usd(each.history_microusd),
            }
            for each in held.different
        ],
        "unlisted": [
            {
                "job_id": each.job_id,
                "attempt": each.attempt,
                "request_id": each.request_id,
                "age_s": round(each.age_s, 1),
            }
            for each in held.unlisted
        ],
    }


def _charge_json(charge: UnknownCharge) -> dict[str, Any]:
    from pipeline.kernel.clock import iso
    from pipeline.kernel.usd import format_usd

    return {
        "request_id": charge.request_id,
        "at": iso(charge.at_us),
        "cost_usd": format_usd(charge.cost_microusd),
        "same_request_as": charge.same_request_as,
        "prompt": charge.prompt,
        "url": charge.url,
    }


def _screen(found: Reconciliation, directory: str, *, live: bool) -> str:
    directory = printable(directory)
    lines = [] if live else [SANDBOX_NOTE]
    held = found.comparison
    if held is None:
        lines.append(f"{directory}: not held against the history: {sentence(found.message)}")
    else:
        lines.append(f"{directory}: held against the account's history, {count(held.listed, 'request')}")
        lines += ["", _counts(held)]
    if found.settled:
        lines += ["", "Settled:", _cut([_settled_row(each, found.row_ids) for each in found.settled])]
    if held is not None:
        lines += _findings(held, found.row_ids)
    return "\n".join([*lines, "", *_next_steps(found, directory)])


def _counts(held: Comparison) -> str:
    unknown = sum(charge.cost_microusd for charge in held.unknown)
    rows = [
        ["in both", f"{held.agreed:,}", dollars(held.agreed_microusd)],
        ["only in the history", f"{len(held.unknown):,}", dollars(unknown)],
        ["only in the ledger", f"{len(held.unlisted):,}", ""],
        ["different amounts", f"{len(held.different):,}", ""],
    ]
    return table(rows, right=frozenset({1, 2}))


def _settled_row(each: Settled, row_ids: Mapping[str, str]) -> list[str]:
    outcome = {
        "POSTED": f"billed {dollars(each.cost_microusd)}",
        "SUBMITTED": "accepted, its end is not known yet",
        "VOIDED": f"not billed: {dollars(each.quote_microusd)} is free again",
    }.get(each.state.name, each.state.name.lower())
    return [row_ids.get(each.job_id, "-"), f"{each.job_id}/{each.attempt}", outcome, each.request_id or ""]


def _findings(held: Comparison, row_ids: Mapping[str, str]) -> list[str]:
    """What only one side knows, and where the amounts differ."""
    from pipeline.kernel.clock import iso

    def charge_row(charge: UnknownCharge) -> list[str]:
        row_id = row_ids.get(charge.same_request_as or "", "-")
        at = (iso(charge.at_us) or "")[:19].replace("T", " ")
        return [row_id, dollars(charge.cost_microusd), at, charge.request_id, printable(charge.prompt)[:40]]

    lines: list[str] = []
    if own := [charge_row(charge) for charge in held.unknown if charge.same_request_as]:
        lines += ["", "Charges that the ledger does not know, for requests that this directory makes:", _cut(own)]
    if others := [charge_row(charge) for charge in held.unknown if not charge.same_request_as]:
        lines += ["", "Charges for other requests: other work on this account, it seems:", _cut(others)]
    if held.different:
        rows = [
            [
                row_ids.get(each.job_id, "-"),
                f"ledger {dollars(each.ledger_microusd)}",
                f"history {dollars(each.history_microusd)}",
                each.request_id,
            ]
            for each in held.different
        ]
        lines += ["", "Different amounts:", _cut(rows)]
    if held.unlisted:
        rows = [
            [row_ids.get(each.job_id, "-"), f"{each.job_id}/{each.attempt}", duration(each.age_s), each.request_id]
            for each in held.unlisted
        ]
        lines += ["", "Accepted, and not in the history; its rows may come up to two hours late:", _cut(rows)]
    return lines


def _cut(rows: Sequence[Sequence[str]]) -> str:
    more = f"\n  … and {len(rows) - SHOWN} more (--json lists all)" if len(rows) > SHOWN else ""
    return table(rows[:SHOWN]) + more


def _next_steps(found: Reconciliation, directory: str) -> list[str]:
    lines = []
    if found.left:
        money = dollars(sum(record.quote_microusd for record in found.left))
        what = f"{count(len(found.left), 'attempt')}, {money}"
        lines.append(f"Still in doubt: {what}. Ask again later, or look at your invoice and say what it says:")
        for record in found.left[:SHOWN]:
            name = record.attempt_name
            row_id = found.row_ids.get(record.job_id, "-")
            # Not ready to be pasted, on purpose: the wrong one of the two answers would pay again.
            lines.append(
                f"  kling-batch resolve {directory} {name} --billed <REQUEST_ID>   # row {row_id}; or --not-billed"
            )
            if why := found.why_in_doubt[name]:
                lines.append(f"    {sentence(why)}")
    if found.to_collect:
        lines.append(
            f"Accepted or paid, and not on disk: {count(found.to_collect, 'job')}. Run again: collecting is free."
        )
    held = found.comparison
    if held is not None and held.differs:
        lines.append("The bill differs from the ledger: take it up with the provider. Nothing was changed for it.")
    if held is not None and held.unlisted:
        lines.append(f"The history does not show {count(len(held.unlisted), 'request')} yet: ask again in two hours.")
    if found.exit_code == 0:
        lines.append("Ledger and history agree to the cent.")
    return lines
