"""A server of the S3 protocol on loopback, and a bucket that is empty for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bucket import BUCKET
from object_store import Server, empty_bucket, s3_server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with s3_server() as made:
        yield made


@pytest.fixture(autouse=True)
def account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the storage is and whose it is, as its users say it: in the environment."""
    server.enter(monkeypatch)


@pytest.fixture
def files(account: None) -> Any:
    """The storage, as another hand sees it; empty."""
    return empty_bucket(BUCKET)
