"""What is an address, a path, a path below a folder, and this machine: one answer for every door."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kernel.address import address_of, is_address, is_loopback_host, names_below


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("s3://films/night", "s3://films/night"),
        ("s3://films/night/", "s3://films/night"),
        (Path("s3://films/night"), "s3://films/night"),  # which has one slash by now
        ("S3:/films", "s3://films"),
        ("abfs+x://films", "abfs+x://films"),
    ],
)
def test_an_address_is_known_also_where_a_path_has_eaten_a_slash(written: Path | str, means: str) -> None:
    """It comes back with its scheme in lower case, two slashes behind it, and none at the end."""
    assert address_of(written) == means


@pytest.mark.parametrize("path", ["outputs", "/tmp/s3:/x", "./s3:/x", "C:/films", "s3:films", "", "a b:/c", "1s:/x"])
def test_a_path_is_no_address(path: str) -> None:
    """Also with a colon in it: of a drive of Windows, of a folder's name, or behind what can be no scheme."""
    assert not is_address(path)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("videos/a.mp4", ("videos", "a.mp4")),
        ("./a.mp4", ("a.mp4",)),
        ("a..b/c", ("a..b", "c")),
        *((path, None) for path in (None, "", ".", "/etc/passwd", "//a", "../a", "videos/../../a", "videos/..")),
    ],
)
def test_a_path_that_may_leave_its_folder_has_no_names_below_it(
    path: str | None, names: tuple[str, ...] | None
) -> None:
    """An absolute one, one that leads upwards, also if it came down again, and none at all."""
    assert names_below(path) == names


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_known_by_its_name_and_by_each_of_its_addresses(host: str) -> None:
    """Also by an IPv4 address that is written as IPv6."""
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.1", "2130706433", "10.0.0.1", "localhost.", "a.localhost"])
def test_another_host_is_not_this_machine(host: str) -> None:
    """Neither is what only a resolver would read as an address of it."""
    assert not is_loopback_host(host)
