"""Which URLs a video may be fetched from, and which addresses may be connected to.

The URL comes from outside, so both are checked: the text before anything is done with it, and the address at the one
place where a socket is made, which covers names, literals and whatever a resolver answers.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Any

from pipeline.kernel.address import is_loopback_host, parse_ip
from pipeline.media.results import safe_text
from pipeline.media.settings import FetchSettings

MAX_URL = 8_192

# The authority is spelled out instead of parsed: what is not letters, digits, dots and hyphens (userinfo, percent
# escapes, backslashes, other scripts) has no match, so that no two parsers can read two different hosts.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?",
    re.IGNORECASE | re.ASCII,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# Ranges that `is_global` lets through and that lead, or once led, into somebody's own network.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4 in IPv6, the old way
        "64:ff9b::/96",  # NAT64: an IPv4 address of any kind behind it
        "64:ff9b:1::/48",
        "2002::/16",  # 6to4: likewise
        "fec0::/10",  # site-local
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
    )
)


def check_url(url: str, settings: FetchSettings) -> str | None:
    """Why nothing may be fetched from `url`, as a safe phrase; None when it may."""
    if len(url) > MAX_URL:
        return f"its URL is longer than {MAX_URL} characters"
    match = None if _CONTROL.search(url) else _URL.fullmatch(url)
    if match is None:
        return "its URL is not a plain https URL"
    host = match["host"].lower()
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port < 65_536:
        return "its URL has no valid port"
    if settings.allow_loopback and is_loopback_host(host.strip("[]")):
        return None
    if match["scheme"].lower() != "https":
        return "its URL is not https"
    if port not in (None, 443):
        return f"its URL names port {port}; only 443 is allowed"
    return _check_host(host, settings.output_hosts)


def _check_host(host: str, allowed: tuple[str, ...]) -> str | None:
    labels = host.split(".")
    if host.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return "its URL names an IP address instead of a host"
    if not all(_LABEL.fullmatch(label) for label in labels):
        return "its URL names no valid host"
    if not any(_matches(labels, pattern.lower().split(".")) for pattern in allowed):
        return f"its host {safe_text(host, 100)} is not in output_hosts"
    return None


def _matches(labels: list[str], pattern: list[str]) -> bool:
    """Label by label; a leading `*` takes one label or more."""
    if pattern[0] != "*":
        return labels == pattern
    rest = pattern[1:]
    return len(labels) > len(rest) and labels[len(labels) - len(rest) :] == rest


def check_address(text: str, *, allow_loopback: bool) -> str | None:
    """Why no connection may be made to the address `text`; None when it may."""
    address = parse_ip(text)
    if address is None:
        return "its host has no proper address"
    if address.is_loopback:
        return None if allow_loopback else "its host is this machine"
    if not address.is_global or address.is_multicast or address.is_reserved:
        return "its host has no public address"
    if any(address.version == network.version and address in network for network in _NEVER):
        return "its host's address leads into a private network"
    return None


class AddressRefused(OSError):  # noqa: N818 - reads as what happened
    """The socket factory refuses to connect to this address."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


class SocketGate:
    """Makes the sockets of a connector, and none to an address that is not allowed.

    A resolver is the wrong place for this check: aiohttp does not ask one about IP literals. Here every address
    passes, and it is the one that is connected to, so nothing can change between the check and the use.
    """

    def __init__(self, *, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback

    def __call__(self, address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, peer = address_info
        reason = check_address(str(peer[0]), allow_loopback=self._allow_loopback)
        if reason is not None:
            raise AddressRefused(reason)
        return socket.socket(family=family, type=kind, proto=protocol)
