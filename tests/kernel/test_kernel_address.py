"""What is an address, and what is a path: one answer for every door."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kernel.address import address_of, is_address


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
    assert address_of(written) == means


@pytest.mark.parametrize("path", ["outputs", "/tmp/s3:/x", "./s3:/x", "C:/films", "s3:films", "", "a b:/c", "1s:/x"])
def test_a_path_is_no_address(path: str) -> None:
    assert not is_address(path)
