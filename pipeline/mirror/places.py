"""Where the state of a run directory in object storage is on the disk, and which address a folder belongs to."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import orjson

from pipeline.kernel.address import is_address
from pipeline.kernel.errors import InputError, MachineError, RunDirectoryError
from pipeline.kernel.files import make_folder, read_regular_file, write_file

FILE = ".mirror.json"
"""In a run directory: the address that it is mirrored to, and the name of this folder."""

_LONGEST = 2**16
"""The most bytes that this file may have."""

_PART = re.compile(r"[A-Za-z0-9_+=,@%-][A-Za-z0-9._+=,@% -]*")


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A folder's address, and the name by which the folder is told from its copies on other machines."""

    address: str
    state_id: str


def local_folder(address: str, below: Path) -> Path:
    """The folder where a run directory at an address works: `s3://films/spring` in `<below>/s3/films/spring`.

    Raises:
        InputError: the address names no bucket, or has a part that is no name for a folder; or `below` is no folder.
    """
    if is_address(below):
        raise InputError(f"output.local_dir: {str(below)[:80]!r} is an address, and must be a folder on a disk here")
    scheme, _, rest = address.partition("://")
    parts = rest.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise InputError(
            f"{address[:80]!r} cannot be used for a run directory: write it like s3://bucket/runs, with letters, "
            "digits, `-`, `_` and `.` between the slashes. Nothing was sent."
        )
    return below.joinpath(scheme, *parts)


def mirrored(folder: Path) -> Mirrored | None:
    """Where a run directory is mirrored to; None where it is on the disk alone.

    Raises:
        RunDirectoryError: what says so is damaged.
        MachineError: the disk refused.
    """
    try:
        said = orjson.loads(read_regular_file(folder / FILE, _LONGEST) or b"")
        return Mirrored(str(said["address"]), str(said["state_id"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MachineError(f"{folder / FILE} cannot be read: {error.strerror}. Nothing was sent.") from None
    except (ValueError, TypeError, KeyError):
        raise RunDirectoryError(f"{folder / FILE} is damaged. Nothing was sent.") from None


def attach(folder: Path, address: str) -> Mirrored:
    """Have `folder`, which is made if missing, be the local state of the run directory at `address` from now on.

    Raises:
        RunDirectoryError: it is that of another address.
        OSError: the disk refused.
    """
    found = mirrored(folder)
    if found is None:
        make_folder(folder)
        found = Mirrored(address, secrets.token_hex(8))
        write_file(folder / FILE, orjson.dumps({"address": found.address, "state_id": found.state_id}))
    if found.address != address:
        raise RunDirectoryError(f"{folder} belongs to {found.address}, not to {address}. Nothing was sent.")
    return found
