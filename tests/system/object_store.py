"""A server of the S3 protocol on loopback, for whoever tests against one."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

SERVE = "from moto.server import main; main()"


@dataclass(frozen=True, slots=True)
class Server:
    """The server: its URL, and its process."""

    url: str
    process: subprocess.Popen[bytes]

    def account(self) -> dict[str, str]:
        """Where it is and whose it is, as the environment of a process says it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process work with it, as its users do: by the environment.

        Its description of all of AWS is read from the disk once: each client reads it anew, for longer than most calls
        take.
        """
        from botocore import session

        monkeypatch.setattr(session, "create_loader", _loader)
        for name, value in self.account().items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)


@functools.cache
def _loader(search_path: str | None = None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(search_path)


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """Such a server, for the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", SERVE, "-p", str(port), "-H", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()


def empty_bucket(name: str) -> Any:
    """The storage as another hand sees it, with this bucket in it, empty."""
    import s3fs

    found = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    if found.exists(name):
        found.rm(name, recursive=True)
    found.mkdir(name)
    return found
