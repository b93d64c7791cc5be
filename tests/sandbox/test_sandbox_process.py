"""The sandbox as a process of its own, `kling-batch sandbox`: started, killed, started again."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_client import KEY

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """One `kling-batch sandbox`."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "sandbox", *flags],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"x-api-key": KEY, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def children(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[Served] = []

    def begin(*flags: str) -> Served:
        started.append(Served(*flags))
        return started[-1]

    yield begin
    for served in started:
        if served.process.poll() is None:
            served.end()


def until(check: Any) -> Any:
    deadline = time.monotonic() + 15
    while not (value := check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_url_and_ends_on_a_signal(serve: Any, number: int) -> None:
    """One line with the URL comes first, and a polite signal ends the process with 0."""
    served = serve("--clips", "tiny")
    assert served.url.startswith("http://127.0.0.1:")
    assert served.ask("/v1/get-user-credits")["credits"] == 1_000_000
    assert served.end(number) == 0


def test_a_killed_sandbox_goes_on_where_it_was(serve: Any, tmp_path: Path) -> None:
    """After SIGKILL and a new start at the same address the request is still running, or done."""
    flags = ("--clips", "tiny", "--time-scale", "500", "--state-dir", str(tmp_path))
    served = serve(*flags)
    request_id = served.ask("/v2/kling-2", {"prompt": "x"})["request_id"]
    served.end()
    again = serve(*flags)
    assert again.url == served.url
    until(lambda: again.ask(f"/v2/requests/{request_id}/status")["status"] == "COMPLETED")
    assert again.ask("/_sandbox/invoice")["total_usd"] == "1.75"


def test_no_drawing_process_outlives_a_killed_sandbox(serve: Any, tmp_path: Path) -> None:
    """The process that draws ends by itself when its sandbox is killed."""
    served = serve("--clips", "own", "--time-scale", "500", "--state-dir", str(tmp_path))
    served.ask("/v2/kling-2", {"prompt": "x"})
    (child,) = until(served.children)
    served.end()

    def gone() -> bool:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        return state == "Z"  # nobody is left to reap it in some containers

    until(gone)


def test_a_drawing_process_that_dies_is_replaced(serve: Any) -> None:
    """Killing the drawer costs a moment, not a video."""
    served = serve("--clips", "own", "--time-scale", "500")
    first = served.ask("/v2/kling-2", {"prompt": "x"})["request_id"]
    (child,) = until(served.children)
    os.kill(child, signal.SIGKILL)
    until(lambda: served.ask(f"/v2/requests/{first}/status")["status"] == "COMPLETED")
    assert served.children() != [child]
    assert served.end(signal.SIGTERM) == 0
