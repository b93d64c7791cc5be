"""Which addresses the key may travel to."""

from __future__ import annotations

import pytest
from provider_doubles import KEY, settings_for

from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import InputError
from pipeline.provider.client import Client
from pipeline.provider.settings import ProviderSettings, check_origin, is_loopback

PUBLIC = "https://api.segmind.com"


@pytest.mark.parametrize("url", [PUBLIC, f"{PUBLIC}/", f"{PUBLIC}:8443", "HTTPS://API.SEGMIND.COM"])
def test_a_public_host_over_https_is_allowed(url: str) -> None:
    """The provider's own addresses pass, however their letters are cased."""
    check_origin(url, loopback_allowed=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.segmind.com",
        "ftp://api.segmind.com",
        "api.segmind.com",
        "",
        "https://",
        "https://10.0.0.1",
        "https://192.168.1.10:8000",
        "https://169.254.169.254",
        "https://8.8.8.8",
        "https://[fe80::1]",
        "https://[::ffff:127.0.0.1]",
        "https://0.0.0.0",
        "https://intranet",
        "https://printer.local",
        "https://vault.internal",
        "https://localhost",
        "http://localhost",
        "https://127.0.0.1",
        "https://api.localhost",
        "https://localhost.",
    ],
)
def test_the_key_travels_to_named_public_hosts_over_https_only(url: str) -> None:
    """Plain http, literal addresses, private names and this machine are refused."""
    with pytest.raises(InputError):
        check_origin(url, loopback_allowed=False)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "0x7f000001", "1.2.3"])
def test_an_address_in_disguise_is_refused(host: str) -> None:
    """What a resolver reads as a number is no name, although it is no dotted address either."""
    with pytest.raises(InputError):
        check_origin(f"https://{host}", loopback_allowed=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://user@api.segmind.com",
        "https://user:secret@api.segmind.com",
        "https://@api.segmind.com",
        "https://api.segmind.com@evil.example",
        "https://api.segmind.com\\@evil.example",
        "https://api.segmind.com/v1",
        "https://api.segmind.com//",
        "https://api.segmind.com?x=1",
        "https://api.segmind.com?",
        "https://api.segmind.com#x",
        "https://api.segmind.com%2eevil.example",
        "https://api.segmind.com\n",
        "https://api.segmind.com ",
        "https://api.segmind.com:99999",
        "https://api.segmind.com:",
        "https://[::1",
        "https://api..segmind.com",
    ],
)
def test_an_origin_is_scheme_host_and_port_alone(url: str) -> None:
    """User, path, query, fragment and whatever two readers could split differently are refused."""
    with pytest.raises(InputError):
        check_origin(url, loopback_allowed=True)


@pytest.mark.parametrize(
    "host", ["аpi.segmind.com", "api.ѕegmind.com", "①②⑦.⓪.⓪.①", "api。segmind.com", "ａpi.segmind.com"]
)
def test_a_host_of_look_alike_letters_is_refused(host: str) -> None:
    """A Cyrillic a, a full-width dot or circled digits lead elsewhere than they read."""
    with pytest.raises(InputError):
        check_origin(f"https://{host}", loopback_allowed=True)


def test_a_refused_password_is_not_printed() -> None:
    """The sentence for the user does not repeat what stands before the @."""
    with pytest.raises(InputError) as refusal:
        check_origin("https://me:hunter2@api.segmind.com", loopback_allowed=False)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_loopback_is_allowed_only_where_it_is_the_base(url: str) -> None:
    """A rehearsal on this machine may speak http; a live run may not send the key here."""
    assert is_loopback(url)
    Client(settings_for(url), KEY, SystemClock())
    for field in ("storage_url", "history_url"):
        origins = {"base_url": PUBLIC, "storage_url": PUBLIC, "history_url": PUBLIC, field: url}
        with pytest.raises(InputError):
            Client(ProviderSettings(**origins), KEY, SystemClock())


def test_a_rehearsal_does_not_open_http_to_the_world() -> None:
    """With the base on loopback, another origin still must be loopback or public https."""
    with pytest.raises(InputError):
        Client(
            ProviderSettings("http://127.0.0.1:1", "http://127.0.0.1:1", "http://api.spotprod.segmind.com"),
            KEY,
            SystemClock(),
        )


@pytest.mark.parametrize("url", ["https://[::1", "http://4[]@", "https://a:b:c", "\x00", "https://127.0.0.1:99999"])
def test_a_malformed_base_is_a_mistake_of_the_user(url: str) -> None:
    """What no URL parser can read ends in a sentence, not in a traceback."""
    assert not is_loopback(url)
    with pytest.raises(InputError):
        Client(settings_for(url), KEY, SystemClock())
