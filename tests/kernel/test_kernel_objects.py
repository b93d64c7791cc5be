"""Object storage that fails: how long it is tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.kernel.errors import MachineError
from pipeline.kernel.objects import FIRST_WAIT_S, LONGEST_WAIT_S, Objects, Silence, patiently, watched


@pytest.mark.parametrize("takes_s", [0.0, 1.0, 50.0, 200.0])
def test_patience_ends_by_the_clock_however_long_each_try_hangs(takes_s: float) -> None:
    """Two minutes are two minutes, and the try and the wait in which they pass, whether it refuses at once or hangs."""
    now_s, tries = 0.0, 0

    def work() -> None:
        nonlocal now_s, tries
        now_s += takes_s
        tries += 1
        raise OSError("unreachable")

    def sleep(seconds: float) -> None:
        nonlocal now_s
        assert FIRST_WAIT_S <= seconds <= LONGEST_WAIT_S
        now_s += seconds

    with pytest.raises(MachineError, match="gone"):
        patiently(work, 120.0, lambda _error: MachineError("gone"), sleep, now_s=lambda: now_s)
    assert 120 <= now_s <= 120 + LONGEST_WAIT_S + takes_s
    assert (tries == 1) == (takes_s >= 120)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What no call is answered before; the test's end lets them go."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_that_hangs_is_given_up_when_its_time_is_over(never: threading.Event) -> None:
    with pytest.raises(Silence):
        watched(never.wait, 0.01, lambda _taken_s: None)


def test_a_call_that_hangs_is_given_up_when_whoever_watches_says_so(never: threading.Event) -> None:
    """Long before its time is over; and where nobody wants an answer, nothing is asked."""
    asked: list[float] = []

    def leave(taken_s: float) -> None:
        asked.append(taken_s)
        if len(asked) == 3:
            raise MachineError("left")

    with pytest.raises(MachineError, match="left"):
        watched(never.wait, 3_600.0, leave)
    assert asked[0] == 0.0 < asked[1] < asked[2]
    with pytest.raises(ZeroDivisionError):
        watched(lambda: asked.append(0.0), 3_600.0, lambda _taken_s: 1 // 0)
    assert len(asked) == 3


def test_what_a_watched_call_brings_is_handed_on() -> None:
    assert watched(lambda: 7, 3_600.0, lambda _taken_s: None) == 7
    with pytest.raises(KeyError):
        watched(lambda: {}["none"], 3_600.0, lambda _taken_s: None)


@pytest.mark.parametrize("status", [503, 500])
def test_a_request_that_is_watched_is_made_once(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Whoever watches tries again: a storage's own packages would do so for minutes, unseen."""
    requests: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815 - the name that the server wants

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Exception):  # noqa: B017 - each package has its own
            Objects("s3://films/runs", lambda _taken_s: None).read("x")
        server.shutdown()
    assert requests == ["/films/runs/x"]
