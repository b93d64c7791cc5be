"""Who holds a ledger: the name in its lock, as the process that took it wrote it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from pipeline.kernel.clock import iso
from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import is_held, read_regular_file

LOCK = "_lock"

_LONGEST = 2**16
"""The most bytes that a name in a lock may have."""


def name_of_this_process(now_us: int) -> bytes:
    """What this process writes into a lock that it takes now; something else each time."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": iso(now_us), "token": secrets.token_hex(8)}
    return orjson.dumps(holder)


def who_holds(lock: Path) -> str:
    """Who holds a lock, in words."""
    holder = _read_holder(lock)
    return "another process holds it" if holder is None else held_by(holder)


def held_by(holder: Mapping[str, Any]) -> str:
    """A holder's `pid`, `host` and `since` in words."""
    return f"process {holder.get('pid')} on {holder.get('host')} has held it since {holder.get('since')}"


def lock_holder(folder: Path) -> dict[str, Any] | None:
    """Who holds the ledger in `folder` now (`pid`, `host`, `since`); None if nobody does.

    Raises:
        MachineError: the disk refused, or what is there is no lock.
    """
    try:
        if not is_held(folder / LOCK):
            return None
    except OSError as error:
        raise MachineError(f"{folder / LOCK} cannot be read: {error.strerror}") from None
    return _read_holder(folder / LOCK) or {"pid": None, "host": None, "since": None}


def _read_holder(lock: Path) -> dict[str, Any] | None:
    try:
        holder = orjson.loads(read_regular_file(lock, _LONGEST) or b"")
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) and {"pid", "host", "since"} <= holder.keys() else None
