"""What a run may be asked for besides its manifest and configuration, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.api.configuring import AskedOfConfig
from pipeline.kernel.errors import InputError

if TYPE_CHECKING:
    from pipeline.runner.choice import RunOptions


class AskedOfRun(AskedOfConfig, total=False):
    """What `prepare` can be asked besides manifest and configuration; see there."""

    out: Path | str | None
    canary_approve: bool
    limit: int | None
    ids: Iterable[str] | None
    part: str | None
    order: str | None
    retry_failed: bool | Iterable[str]


def options_of(
    limit: int | None,
    ids: Iterable[str] | None,
    retry_failed: bool | Iterable[str],
    order: str | None,
    *,
    canary_approve: bool,
) -> RunOptions:
    """What is asked of a run, as `prepare` takes it, in the runner's form.

    Raises:
        InputError: one of these says what cannot be.
    """
    from pipeline.runner.choice import RunOptions

    return RunOptions(
        limit=_limit(limit),
        ids=_ids(ids),
        retry_classes=_error_classes(retry_failed),
        order=_order(order),
        canary_approve=canary_approve,
    )


def place_of(out: Path | str | None) -> Path | None:
    """The run directory that is asked for; None where none is named.

    Raises:
        InputError: its name is empty, which would be the current folder.
    """
    if out is not None and not str(out):
        advice = "(an unset shell variable?); leave it out for outputs/<name>, or use -o . for the current folder"
        raise InputError(f"-o is empty {advice}. Nothing was sent.")
    return None if out is None else Path(out)


def _limit(limit: int | None) -> int | None:
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(f"--limit: {limit!r} is no number of jobs; say 1 or more")
    return limit


def _ids(ids: Iterable[str] | None) -> frozenset[str]:
    """The ids that are asked for; empty for all. An empty list is refused: it must never widen a run to everything."""
    if ids is None:
        return frozenset()
    named = frozenset([ids] if isinstance(ids, str) else ids)
    if not named:
        raise InputError("--ids: names nothing; write it like --ids hero,closing")
    return named


def _order(order: str | None) -> str | None:
    from pipeline.manifest.campaign import ORDERS

    if order is not None and order not in ORDERS:
        raise InputError(f"--order: there is no order {order[:40]!r}; known: {', '.join(ORDERS)}")
    return order


def _error_classes(retry_failed: bool | Iterable[str]) -> frozenset[str] | None:
    """The error classes to try anew: None for none of them, empty for all."""
    from pipeline.kernel.errors import ERROR_CLASSES, Reaction
    from pipeline.kernel.suggestion import suggestion

    if isinstance(retry_failed, bool):
        return frozenset() if retry_failed else None
    wanted = frozenset([retry_failed] if isinstance(retry_failed, str) else retry_failed)
    if "all" in wanted:
        return frozenset()
    if not wanted:
        raise InputError("--retry-failed: names nothing; write it like --retry-failed all")
    if unknown := sorted(wanted - ERROR_CLASSES.keys()):
        given_up = (Reaction.RETRY_COUNTED, Reaction.FAIL_ROW)
        final = [each.label for each in ERROR_CLASSES.values() if each.reaction in given_up]
        advice = suggestion(unknown[0], ERROR_CLASSES, otherwise=f"known: all, {', '.join(final)}")
        raise InputError(f"--retry-failed: there is no error class {unknown[0][:40]!r}; {advice}")
    return wanted
