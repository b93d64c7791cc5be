"""Where the provider is, and which addresses the key may travel to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from yarl import URL

from pipeline.kernel.errors import InputError


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where the provider is and how long to wait for it. Seconds; `blocking_submit_s` is for v1 calls."""

    base_url: str
    storage_url: str
    history_url: str
    connect_s: float = 10.0
    submit_s: float = 60.0
    read_s: float = 60.0
    blocking_submit_s: float = 1800.0

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.base_url)


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine by a literal loopback address or `localhost`."""
    host = URL(url).host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(url: str, *, loopback_allowed: bool) -> None:
    """Refuse an origin that the key must not travel to.

    Raises:
        InputError: plain http, a private or literal address, credentials or a path in the URL.
    """
    try:
        parsed = URL(url)
    except ValueError:
        raise InputError(f"{url[:200]!r} is not a URL") from None
    if parsed.user or parsed.password or parsed.query_string or parsed.fragment or parsed.path not in ("", "/"):
        raise InputError(f"{url[:200]!r}: an origin is scheme, host and port alone, like https://api.segmind.com")
    if loopback_allowed and is_loopback(url) and parsed.scheme in ("http", "https"):
        return
    if parsed.scheme != "https":
        raise InputError(f"{url[:200]!r}: the key travels over https only")
    if not parsed.host or _is_literal_address(parsed.host) or parsed.host == "localhost":
        raise InputError(f"{url[:200]!r}: the key goes to named public hosts only")


def _is_literal_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
