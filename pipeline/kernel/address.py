"""What a written place is: an address in object storage or a path, a path that stays in its folder, this machine.

Every door that takes such a text asks here, so that all of them judge it alike.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePath, PurePosixPath

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# One slash is enough, because `Path` makes one of two. One letter is no scheme but a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def address_of(place: PurePath | str) -> str | None:
    """The address in object storage that this names, such as `s3://bucket/clips`; None for a path."""
    match = _ADDRESS.fullmatch(str(place))
    return f"{match[1].lower()}://{match[2].rstrip('/')}" if match else None


def is_address(place: PurePath | str) -> bool:
    """Whether this names a place in object storage."""
    return address_of(place) is not None


def names_below(path: str | None) -> tuple[str, ...] | None:
    """The names that lead down to `path` from a folder; None where it is empty, absolute or leads upwards."""
    below = PurePosixPath(path or "")
    return below.parts if below.parts and not below.is_absolute() and ".." not in below.parts else None


def parse_ip(text: str) -> IPAddress | None:
    """A literal IP address, None for anything else. An IPv4 address that is written as IPv6 is the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback_host(host: str) -> bool:
    """Whether a URL's host, in lower case and without brackets, is this machine: `localhost` or a loopback address."""
    address = parse_ip(host)
    return host == "localhost" or (address is not None and address.is_loopback)
