"""Downloads by real workers of real clusters, some of them killed: the same videos, and nothing half-made."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import distributed  # noqa: F401 - its settings are there once it is loaded
import pytest
from dask import config as dask_config
from media_doubles import LOCAL, TINY, RawServer, ok
from support import worker_pids

from pipeline.kernel.errors import ErrorClass, InputError, MachineError
from pipeline.media import Clip, Collector, MediaSettings, Trouble, collector_for
from pipeline.media.cluster import collector as clusters
from pipeline.media.cluster import local
from pipeline.media.cluster.collector import ClusterCollector
from pipeline.media.cluster.task import Order

NODE = Path(__file__).with_name("cluster_node.py")
AT_MOST_S = 60.0


class Foreign:
    """A cluster that was there before the run: a scheduler and workers, each a process."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(NODE), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        return process

    def cluster(self, workers: int) -> tuple[str, list[subprocess.Popen[str]]]:
        """The scheduler's address, and its workers, all there."""
        scheduler = self.start("scheduler")
        address = said(scheduler)
        started = [self.start("worker", address) for _ in range(workers)]
        for worker in started:
            assert said(worker)
        return address, started

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    yield made
    made.end()


def dask(scheduler: str | None = None, workers: int = 2) -> MediaSettings:
    return MediaSettings("frames", workers, "dask", scheduler)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class HalfSent:
    """An answer that stops in the middle until it is let go; counts who has come so far."""

    def __init__(self, body: bytes) -> None:
        self._answer = ok(body)
        self.go = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        half = len(self._answer) // 2
        writer.write(self._answer[:half])
        await writer.drain()
        self.waiting.release()
        await self.go.wait()
        writer.write(self._answer[half:])
        await writer.drain()


async def collect(collector: Collector, url: str, folder: Path, name: str) -> Clip | Trouble:
    return await collector.collect(url, folder / f"{name}.mp4", folder / f"{name}.jpg", TINY)


async def test_a_cluster_brings_what_this_process_would_to_the_byte(
    server: RawServer, tmp_path: Path, tiny: bytes, tiny_fast: bytes
) -> None:
    """Clips, posters and troubles are equal, and nothing else is left in either folder."""
    server.answers |= {
        "/a": ok(tiny),
        "/b": ok(tiny_fast),
        "/cut": ok(tiny[:500]),
        "/gone": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "/short": ok(tiny, length=len(tiny) + 1),
    }
    server.hang_up = True
    outcomes = {}
    delivered: dict[str, list[tuple[str, bytes, str | None, str]]] = {"local": [], "dask": []}
    for kind, settings in (("local", MediaSettings()), ("dask", dask())):
        folder = tmp_path / kind
        folder.mkdir()

        def deliver(video: Path, poster: Path | None, sha256: str, _: object, to: str = kind) -> None:
            delivered[to].append((video.name, video.read_bytes(), poster and poster.name, sha256))

        async with collector_for(LOCAL, settings, folder, deliver=deliver) as collector:
            calls = [collect(collector, server.url(path), folder, path[1:]) for path in server.answers]
            outcomes[kind] = [repr(outcome).replace(f"/{kind}/", "/") for outcome in await asyncio.gather(*calls)]
    assert outcomes["dask"] == outcomes["local"]
    assert sorted(delivered["dask"]) == sorted(delivered["local"])
    assert [name for name, *_ in sorted(delivered["dask"])] == ["a.mp4", "b.mp4"], "under their final names"
    assert names(tmp_path / "dask") == names(tmp_path / "local") == ["a.jpg", "a.mp4", "b.jpg", "b.mp4"]
    for name in names(tmp_path / "local"):
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


async def test_workers_of_a_foreign_cluster_may_die_in_the_middle(
    server: RawServer, tmp_path: Path, tiny: bytes, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three killed while each has downloads half done: every video comes. All killed: an error, in time."""
    monkeypatch.setattr(clusters, "LOOK_S", 0.1)
    monkeypatch.setattr(clusters, "NO_WORKER_S", 0.3)
    monkeypatch.setitem(dask_config.config["distributed"]["client"], "scheduler-info-interval", "50ms")
    server.answers["/a"] = half = HalfSent(tiny)
    address, workers = foreign.cluster(3)
    async with collector_for(LOCAL, dask(address), tmp_path) as collector:
        calls = [asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, str(n))) for n in range(6)]
        for _ in calls:
            await half.waiting.acquire()
        done, _ = await asyncio.wait(calls, timeout=0.8)
        assert not done, "a long download is taken for a lack of workers"
        for worker in workers[:2]:
            worker.kill()
        half.go.set()
        clips = await asyncio.gather(*calls)
        for n, clip in enumerate(clips):
            assert isinstance(clip, Clip)
            assert clip.sha256 == hashlib.sha256(tiny).hexdigest()
            assert (tmp_path / f"{n}.mp4").read_bytes() == tiny
        assert len(server.requests) > 6
        half.go.clear()
        late = asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, "late"))
        await half.waiting.acquire()
        workers[2].kill()
        async with asyncio.timeout(AT_MOST_S):
            with pytest.raises(MachineError, match="no worker any more"):
                await late
    half.go.set()
    assert names(tmp_path) == sorted(f"{n}.{kind}" for n in range(6) for kind in ("jpg", "mp4"))


async def test_a_scheduler_that_is_lost_stops_the_run_and_loses_nothing(
    server: RawServer, tmp_path: Path, tiny: bytes, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it gets this machine's error, what is asked later too and at once, and it closes in time."""
    monkeypatch.setattr(clusters, "CONNECT_S", 2 * AT_MOST_S)
    server.answers["/a"] = half = HalfSent(tiny)
    address, _ = foreign.cluster(1)
    async with collector_for(LOCAL, dask(address), tmp_path) as collector:
        call = asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, "a"))
        await half.waiting.acquire()
        foreign.processes[0].kill()
        async with asyncio.timeout(AT_MOST_S):
            with pytest.raises(MachineError, match="scheduler is gone"):
                await call
            with pytest.raises(MachineError, match="scheduler is gone"):
                await collect(collector, server.url("/a"), tmp_path, "a")
        began_s = time.monotonic()
    half.go.set()
    assert time.monotonic() - began_s < 15
    assert names(tmp_path) == []


async def test_dead_workers_of_its_own_are_replaced_and_a_deadly_download_ends(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One death costs nothing; a download at which each worker dies is a trouble like any other, and they live on."""
    monkeypatch.setitem(dask_config.config["distributed"]["scheduler"], "allowed-failures", 1)  # 3 is the default
    server.answers["/a"] = ok(tiny)
    async with ClusterCollector(LOCAL, dask(workers=1), tmp_path, 4) as collector:

        async def deadly(writer: asyncio.StreamWriter) -> None:
            for pid in worker_pids():
                os.kill(pid, signal.SIGKILL)

        server.answers["/deadly"] = deadly
        async with asyncio.timeout(AT_MOST_S):
            outcome = await collect(collector, server.url("/deadly"), tmp_path, "deadly")
            assert isinstance(outcome, Trouble)
            assert (outcome.error_class, outcome.http_status) == (ErrorClass.FETCH_FAILED, None)
            assert "died" in outcome.message
            assert isinstance(await collect(collector, server.url("/a"), tmp_path, "a"), Clip)
        pids = worker_pids()
        assert len([request for request in server.requests if "/deadly" in request]) == 2
    assert names(tmp_path) == ["a.jpg", "a.mp4"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_cannot_be_started_is_started_later(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last worker dies, this machine has no room for a process for a moment."""
    real, refused = asyncio.create_subprocess_exec, list[str]()

    async def refuse(*command: str, **how: Any) -> asyncio.subprocess.Process:
        if not refused:
            refused.append(command[-1])
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await real(*command, **how)

    monkeypatch.setattr(local, "REFUSED_S", 0.05)
    server.answers["/a"] = ok(tiny)
    async with ClusterCollector(LOCAL, dask(workers=1), tmp_path, 4) as collector:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(AT_MOST_S):
            assert isinstance(await collect(collector, server.url("/a"), tmp_path, "a"), Clip)
    assert refused


async def test_a_cancelled_download_leaves_nothing(server: RawServer, tmp_path: Path) -> None:
    """A second Ctrl-C cancels waits: no final name, and at the end no temporary file of the worker."""
    server.answers["/a"] = half = HalfSent(bytes(4 * 2**20))
    async with collector_for(LOCAL, dask(workers=1), tmp_path) as collector:
        call = asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, "a"))
        await half.waiting.acquire()
        while not names(tmp_path):
            os.sched_yield()  # until the worker has begun to write
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    half.go.set()
    assert names(tmp_path) == []


async def test_workers_are_out_of_reach_of_the_terminal_and_of_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of its own, an environment without the key, loopback alone, no talk without a certificate."""
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_0123456789abcdef")
    async with ClusterCollector(LOCAL, dask(workers=1), tmp_path, 4) as collector:
        (pid,) = worker_pids()
        assert os.getsid(pid) == pid != os.getsid(0)
        process = Path(f"/proc/{pid}")
        assert b"SG_0123456789abcdef" not in (process / "environ").read_bytes()
        assert b"BEGIN" not in (process / "cmdline").read_bytes()
        for each in (pid, os.getpid()):
            assert listening(each) <= {"0100007F"}
        assert collector._local is not None
        address = collector._local.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises(InputError, match="no Dask scheduler answers"):
            await clusters._connect(address.replace("tls:", "tcp:"), None)


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, as the kernel writes them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    lines = [line for kind in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]]
    fields = [line.split() for line in lines]
    return {each[1].split(":")[0] for each in fields if each[3] == "0A" and each[9] in inodes}


async def test_nothing_begins_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler, or no package: a sentence that says what to do, and exit code 2."""
    monkeypatch.setattr(clusters, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9\. Nothing was sent"):
        await collector_for(LOCAL, dask("tcp://127.0.0.1:9"), tmp_path).__aenter__()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'kling-batch\[dask\]'"):
        await collector_for(LOCAL, dask(), tmp_path).__aenter__()
    assert names(tmp_path) == []


async def test_a_worker_that_does_not_see_the_run_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Foreign
) -> None:
    """Before anything is sent; and likewise one that cannot load kling-batch."""
    address, _ = foreign.cluster(1)
    for answer, said_of_it in ((bool, "does not see .*under the same path"), (abs, r"cannot run kling-batch \(Type")):
        monkeypatch.setattr(clusters, "sees", (lambda path, answer=answer: answer("") if answer is bool else abs(path)))
        with pytest.raises(InputError, match=said_of_it):
            await collector_for(LOCAL, dask(address), tmp_path).__aenter__()
    assert names(tmp_path) == []


async def test_what_a_worker_writes_elsewhere_is_fetched_by_another(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch, foreign: Foreign
) -> None:
    """It joined a moment ago and nobody has looked at it yet: its videos are lost, and all come all the same."""
    server.answers["/a"] = half = HalfSent(tiny)
    address, _ = foreign.cluster(1)
    async with collector_for(LOCAL, dask(address), tmp_path) as collector, asyncio.timeout(AT_MOST_S):
        assert isinstance(collector, ClusterCollector)
        look = collector._look
        monkeypatch.setattr(collector, "_look", AsyncMock(return_value=True))
        astray = said(foreign.start("astray", address))
        calls = [asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, str(n))) for n in range(4)]
        for _ in calls[1:]:
            await half.waiting.acquire()  # two threads each: so one of them, or two, are at the wrong one
        half.go.set()
        assert all(isinstance(clip, Clip) for clip in await asyncio.gather(*calls))
        asked = len(server.requests)
        assert asked in (4 + 1, 4 + 2)
        assert await look()
        assert astray not in collector._trusted
        later = [collect(collector, server.url("/a"), tmp_path, str(n)) for n in range(4, 12)]
        assert all(isinstance(clip, Clip) for clip in await asyncio.gather(*later))
        assert len(server.requests) == asked + 8, "what failed once is given more"
    assert names(tmp_path) == sorted(f"{n}.{kind}" for n in range(12) for kind in ("jpg", "mp4"))


async def test_a_worker_that_joins_and_does_not_see_the_run_directory_gets_nothing_to_do(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch, foreign: Foreign
) -> None:
    """No video is fetched twice; one that joins and sees it is used; those that do not are no workers at all."""
    monkeypatch.setattr(clusters, "LOOK_S", 0.05)
    monkeypatch.setattr(clusters, "ASK_S", 1.0)
    monkeypatch.setattr(clusters, "NO_WORKER_S", 3.0)
    server.answers["/a"] = ok(tiny)
    address, workers = foreign.cluster(1)
    async with collector_for(LOCAL, dask(address), tmp_path) as collector, asyncio.timeout(AT_MOST_S):
        assert isinstance(collector, ClusterCollector)
        astray = said(foreign.start("astray", address))
        await until(lambda: astray in collector._refused)
        calls = [collect(collector, server.url("/a"), tmp_path, str(n)) for n in range(8)]
        assert all(isinstance(clip, Clip) for clip in await asyncio.gather(*calls))
        assert len(server.requests) == 8
        mute = said(foreign.start("mute", address))
        await until(lambda: mute in collector._threads)
        late = foreign.start("worker", address)
        joined = said(late)
        await until(lambda: joined in collector._trusted)
        workers[0].kill()
        assert isinstance(await collect(collector, server.url("/a"), tmp_path, "8"), Clip | Trouble)
        assert isinstance(await collect(collector, server.url("/a"), tmp_path, "9"), Clip)
        assert mute not in collector._trusted
        late.kill()
        await until(lambda: not collector._trusted)
        with pytest.raises(MachineError, match="no worker any more that sees"):
            await collect(collector, server.url("/a"), tmp_path, "10")
    assert "10.mp4" not in names(tmp_path)


async def until(it_is_so: Callable[[], bool]) -> None:
    while not it_is_so():  # noqa: ASYNC110 - what changes is in the collector and tells nobody
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("of", ["a scheduler", "a worker"])
async def test_one_that_freezes_is_not_waited_for_without_end(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Foreign, of: str
) -> None:
    """Its process lives and its connections stand. A scheduler's silence stops the run; a download has its time."""
    monkeypatch.setattr(clusters, "LOOK_S", 0.05)
    monkeypatch.setattr(clusters, "ASK_S", 0.3)
    monkeypatch.setattr(clusters, "NO_WORKER_S", 1.0)
    server.answers["/a"] = half = HalfSent(b"half a film")
    address, workers = foreign.cluster(1)
    fetch = dataclasses.replace(LOCAL, download_s=0.1)
    async with collector_for(fetch if of == "a worker" else LOCAL, dask(address), tmp_path) as collector:
        call = asyncio.ensure_future(collect(collector, server.url("/a"), tmp_path, "a"))
        await half.waiting.acquire()
        frozen = workers[0] if of == "a worker" else foreign.processes[0]
        frozen.send_signal(signal.SIGSTOP)
        began_s = time.monotonic()
        async with asyncio.timeout(AT_MOST_S):
            if of == "a worker":
                trouble = await call
                assert isinstance(trouble, Trouble)
                assert trouble.error_class is ErrorClass.FETCH_FAILED
                assert "within 1.8 s" in trouble.message  # 16 downloads by two threads, and a second
            else:
                with pytest.raises(MachineError, match="scheduler does not answer any more"):
                    await call
        assert time.monotonic() - began_s > 0.5, "a moment's silence is taken for the end"
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 15
    half.go.set()
    assert names(tmp_path) == []


def test_an_order_shows_no_url() -> None:
    """A cluster logs what it is given; a signed URL is as good as the video."""
    order = Order("https://x.segmind.com/a?sig=s3cret", Path("/v"), Path("/p"), TINY, LOCAL, MediaSettings())
    assert "s3cret" not in repr(order)
    assert "s3cret" not in str(order)
    assert pickle.loads(pickle.dumps(order)) == order


def test_a_rehearsals_videos_stay_in_memory(tmp_path: Path) -> None:
    """Connections made in this process cannot be used by another, so no cluster is asked for."""
    assert type(collector_for(LOCAL, dask(), tmp_path, lambda: None)) is Collector  # type: ignore[arg-type,return-value]


def test_what_is_passed_on_is_listed() -> None:
    """Not all but some: a list of what is left out would forget the next secret."""
    assert "SEGMIND_API_KEY" not in local._environment()
