"""The gate: where a video may come from."""

from __future__ import annotations

import pytest

from pipeline.media.gate import AddressRefused, SocketGate, check_address, check_url
from pipeline.media.settings import FetchSettings

LIVE = FetchSettings()
LOCAL = FetchSettings(allow_loopback=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://images.segmind.com/a.mp4",
        "https://images.segmind.com:443/a.mp4?sig=a%2Fb&x=1#t",
        "HTTPS://Images.Segmind.COM/a.mp4",
        "https://a.b.segmind.com/my video é.mp4",
        "https://images.segmind.com",
    ],
)
def test_a_plain_https_url_on_a_listed_host_passes(url: str) -> None:
    """What the provider really sends is let through, whatever its path and query are."""
    assert check_url(url, LIVE) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://images.segmind.com/a.mp4",
        "ftp://images.segmind.com/a.mp4",
        "file:///etc/passwd",
        "//images.segmind.com/a",
        "images.segmind.com/a",
        "",
        "https://",
        "https:///a",
        "https://segmind.com/a",
        "https://evilsegmind.com/a",
        "https://a.evilsegmind.com/a",
        "https://images.segmind.com.evil.org/a",
        "https://evil.org/images.segmind.com",
        "https://evil.org#.segmind.com",
        "https://evil.org?.segmind.com",
        "https://evil.org\\.segmind.com/a",
        "https://user@images.segmind.com/a",
        "https://user:pw@images.segmind.com/a",
        "https://images.segmind.com@evil.org/a",
        "https://evil.org%2f.segmind.com/a",
        "https://images%2esegmind.com/a",
        "https://images.segmind.com:22/a",
        "https://images.segmind.com:80/a",
        "https://images.segmind.com:/a",
        "https://images.segmind.com:99999/a",
        "https://images.segmind.com:0/a",
        "https://images.segmind.com./a",
        "https://.segmind.com/a",
        "https://-a.segmind.com/a",
        "https://a..segmind.com/a",
        "https://imágenes.segmind.com/a",
        "https://images。segmind.com/a",
        "https://ımages.segmind.com/a",
        "https://\u212aling.segmind.com/a",
        "https://images.segmind.com/a\r\nHost: evil",
        "https://images.segmind.com/a\x00",
        " https://images.segmind.com/a",
        "https://images.segmind.com /a",
        "https://images.segmind.com/" + "a" * 9_000,
        "https://" + "a" * 64 + ".segmind.com/",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/a",
        "https://0x7f.1/a",
        "https://127.1/a",
        "https://8.8.8.8/a",
        "https://localhost/a",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    """Other schemes, hosts, ports, spellings and every IP address have a reason against them."""
    assert check_url(url, LIVE)


@pytest.mark.parametrize(
    "url", ["https://8.8.8.8/a", "https://127.0.0.1/", "https://2130706433/a", "https://0x7f000001/", "https://[::1]/"]
)
def test_even_a_list_that_takes_any_host_takes_no_address(url: str) -> None:
    """`*` means any name; a number in any spelling is not a name."""
    assert check_url("https://anything.example/a", FetchSettings(output_hosts=("*",))) is None
    assert check_url(url, FetchSettings(output_hosts=("*",)))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/a", "http://[::1]:1/a", "https://127.9.9.9/a", "http://localhost:80/a"]
)
def test_loopback_passes_only_where_the_provider_is_loopback_itself(url: str) -> None:
    """The sandbox may hand out loopback URLs on any port; a live provider may not."""
    assert check_url(url, LOCAL) is None
    assert check_url(url, LIVE)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/a",
        "http://10.0.0.1/a",
        "http://0.0.0.0/a",
        "http://[::]/a",
        "http://images.segmind.com/a",
        "http://localhost.evil.org/a",
        "http://user@127.0.0.1/a",
    ],
)
def test_loopback_opens_nothing_but_loopback(url: str) -> None:
    """Private networks and plain http stay closed for everything that is not this machine."""
    assert check_url(url, LOCAL)


def test_a_host_without_a_star_matches_itself_alone() -> None:
    """A listed name opens neither its subdomains nor its parents."""
    settings = FetchSettings(output_hosts=("cdn.example.org",))
    assert check_url("https://cdn.example.org/a", settings) is None
    assert check_url("https://a.cdn.example.org/a", settings)
    assert check_url("https://example.org/a", settings)


def test_a_refusal_shows_the_host_and_never_the_query() -> None:
    """The reason is fit for a log: no token, no control character."""
    reason = check_url("https://evil.org/a?token=SECRET", LIVE)
    assert reason == "its host evil.org is not in output_hosts"


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "192.0.0.8",
        "192.0.0.171",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.5",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:a00:1::",
        "2001:db8::1",
        "2001:0:a00:1::",
        "127.1",
        "nonsense",
    ],
)
def test_no_connection_is_made_into_a_private_network(address: str) -> None:
    """Not in any of the clothes that IPv6 has for an IPv4 address, and not with loopback allowed either."""
    assert check_address(address, allow_loopback=False)
    assert check_address(address, allow_loopback=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_reached_only_if_allowed(address: str) -> None:
    """Loopback is a switch of its own."""
    assert check_address(address, allow_loopback=False)
    assert check_address(address, allow_loopback=True) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "104.16.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_reached(address: str) -> None:
    """The gate does not stand in the way of real servers."""
    assert check_address(address, allow_loopback=False) is None


def test_the_socket_itself_is_refused() -> None:
    """The check sits where the socket is made, so no way to connect leads around it."""
    import socket

    gate = SocketGate(allow_loopback=False)
    with pytest.raises(AddressRefused):
        gate((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 443)))
    gate((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 443))).close()
