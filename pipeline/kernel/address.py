"""What is an address of object storage, and what is a path: every door that takes either asks here."""

from __future__ import annotations

import re
from pathlib import PurePath

# One slash is enough: `Path` makes one of two. And one letter is a drive of Windows'.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def address_of(place: PurePath | str) -> str | None:
    """The address in object storage that this names, such as `s3://bucket/clips`; None for a path."""
    match = _ADDRESS.fullmatch(str(place))
    return f"{match[1].lower()}://{match[2].rstrip('/')}" if match else None


def is_address(place: PurePath | str) -> bool:
    """Whether this names a place in object storage."""
    return address_of(place) is not None
