"""Where the provider is, and which addresses the key may travel to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from yarl import URL

from pipeline.kernel.address import is_loopback_host
from pipeline.kernel.errors import InputError

_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(:[0-9]{1,5})?/?")
_PUBLIC_NAME = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+([a-z]{2,63}|xn--[a-z0-9-]+)")
_PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


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
        """Whether it is on this machine: see the function `is_loopback`."""
        return is_loopback(self.base_url)


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine by a literal loopback address or `localhost`."""
    return is_loopback_host(host_of(url) or "")


def host_of(url: str) -> str | None:
    """The host that a URL names; None where it names none, or cannot be read."""
    try:
        return URL(url).host
    except (ValueError, IndexError):  # yarl raises an IndexError for brackets before an empty host: `http://4[]@`
        return None


def check_origin(url: str, *, loopback_allowed: bool) -> None:
    """Refuse an origin that the key must not travel to.

    Only the plainest spelling passes: ASCII, a scheme, a host and a port. So no reader of the URL, human or machine,
    can take its host for another one.

    Raises:
        InputError: plain http, a private or literal address, credentials or a path in the URL, a name that is not
            public.
    """
    # What is before an @ may be a password.
    shown = repr(re.sub(r"//[^/]*@", "//…@", url)[:200])
    parts = _ORIGIN.fullmatch(url)
    if parts is None or int((parts[3] or ":0")[1:]) > 65535:
        raise InputError(
            f"{shown} must be only scheme, host and port, without a path or a user name, like https://api.segmind.com"
        )
    scheme, host = parts[1].lower(), parts[2].lower()
    if loopback_allowed and is_loopback(url) and scheme in ("http", "https"):
        return
    if scheme != "https":
        raise InputError(f"{shown}: the key travels over https only")
    if not _PUBLIC_NAME.fullmatch(host) or host.endswith(_PRIVATE_ENDINGS):
        raise InputError(f"{shown}: the key goes to named public hosts only")
