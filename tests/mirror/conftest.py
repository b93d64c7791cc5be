"""A server of the S3 protocol on loopback, and a bucket that is empty for each test."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from bucket import BUCKET, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", "from moto.server import main; main()", "-p", str(port)]
    with subprocess.Popen(
        [*command, "-H", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()


@pytest.fixture(autouse=True)
def account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the storage is and whose it is, as its users say it: in the environment."""
    for name, value in server.account().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(account: None) -> Any:
    """The storage, as another hand sees it; empty."""
    import s3fs

    found = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    if found.exists(BUCKET):
        found.rm(BUCKET, recursive=True)
    found.mkdir(BUCKET)
    return found
