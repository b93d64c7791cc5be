"""The ballast: room on the disk that the ledger holds while there is some, and gives up when there is none.

A disk that fills up while requests run must not keep their ids and charges from being written down. The file means
nothing; only the room that it takes does.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipeline.kernel.files import discard, fsync_folder, write_all

BALLAST_BYTES = 2**20
"""Room for more than a hundred segments of one event each: three for each of forty requests in flight."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk says that has no room left."""

_NAME = "_ballast"


def take_ballast(folder: Path) -> None:
    """Hold the room, unless it is held already. A disk that has too little is no error: a commit will find it full."""
    path = folder / _NAME
    try:
        if path.exists() and path.stat().st_size >= BALLAST_BYTES:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            # Random, so that no file system stores it in less room than it is to hold. It need not be durable.
            write_all(descriptor, os.urandom(BALLAST_BYTES))
        finally:
            os.close(descriptor)
    except OSError:
        discard(path)


def give_up_ballast(folder: Path) -> bool:
    """Free the room that is held; False if none is."""
    try:
        (folder / _NAME).unlink()
        # Some file systems give room back only once its release is on the disk.
        fsync_folder(folder)
    except OSError:
        return False
    return True
