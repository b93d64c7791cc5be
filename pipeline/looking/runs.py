"""All run directories of a folder, each as a line: the newest first, and a damaged one says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.kernel.clock import iso
from pipeline.kernel.errors import KlingBatchError, MachineError
from pipeline.looking.view import look, row_of

UNREADABLE = "damaged"
"""The state of a run directory that cannot be read."""


def find_runs(folder: Path) -> list[Path]:
    """The run directories in `folder`, the one that was written to last first; none where there is no such folder.

    Raises:
        MachineError: it is there and cannot be read.
    """
    try:
        found = [folder / name for name in os.listdir(folder) if (folder / name / "ledger").is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(found, key=lambda path: (-_written_ns(path), path.name))


def rows_of(folders: Sequence[Path], now_us: int) -> list[Mapping[str, Any]]:
    """How each of these run directories stands, the latest activity first."""
    rows = list(_rows(folders, now_us))
    return sorted(rows, key=lambda row: row["last_activity_at"] or "", reverse=True)


def _rows(folders: Sequence[Path], now_us: int) -> Iterator[Mapping[str, Any]]:
    for folder in folders:
        try:
            yield row_of(look(folder, now_us))
        except (KlingBatchError, OSError) as error:
            yield _damaged(folder, error)


def _damaged(folder: Path, error: Exception) -> Mapping[str, Any]:
    counts = ("stored", "jobs", "failed", "in_doubt")
    facts = dict.fromkeys(("pid", *counts, "posted_usd", "in_doubt_usd", "cap_usd", "provider"))
    return {
        "name": folder.name,
        "directory": str(folder),
        "state": UNREADABLE,
        **facts,
        "last_activity_at": iso(_written_ns(folder) // 1_000),
        "error": str(error),
    }


def _written_ns(folder: Path) -> int:
    """When the ledger's folder was last changed; 0 where that cannot be told."""
    with contextlib.suppress(OSError):
        return (folder / "ledger").stat().st_mtime_ns
    return 0
