"""Whole runs whose videos are collected by a Dask cluster: the same results, the same books, whoever dies."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    FAST,
    KEY,
    campaign,
    check_books,
    check_nothing_bought_twice,
    check_videos,
    durable_state,
    fast_config,
    quick_provider,
    run_once,
    worker_pids,
)

from pipeline.kernel.errors import InputError
from pipeline.ledger.events import Event, EventKind
from pipeline.media.cluster import collector as clusters
from pipeline.runner.watching import LiveRun, Watcher
from pipeline.sandbox import Sandbox

# A worker that is killed while a connection to it is made leaves a socket that the cluster's library never closes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

NODE = Path(__file__).parents[1] / "media" / "cluster_node.py"
DASK = {"media__executor": "dask", "media__verify": "frames"}


@pytest.fixture(autouse=True)
def no_socket_is_left_to_the_next_module() -> Iterator[None]:
    """What is collected here is warned of here."""
    yield
    gc.collect()


class AtStored(Watcher):
    """Does something to the run's collector after so many videos are stored."""

    def __init__(self, befall: dict[int, Callable[[Any], None]]) -> None:
        self._befall = befall
        self._stored = 0
        self._collector: Any = None

    def started(self, live: LiveRun) -> None:
        self._collector = live.context.collector

    def event(self, event: Event) -> None:
        if event.event is EventKind.STORED:
            self._stored += 1
            self._befall.get(self._stored, lambda _collector: None)(self._collector)


class Foreign:
    """A cluster that was there before the run, each part a process."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> str:
        """Start a part of it; its address, once it is there."""
        command = [sys.executable, str(NODE), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def kill(self, place: int) -> None:
        process = self._processes[place]
        process.kill()
        process.wait()

    def end(self) -> None:
        for place, process in enumerate(self._processes):
            self.kill(place)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    cluster = Foreign()
    yield cluster
    cluster.end()


def results(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What the ledger says of each job, but for times and the provider's names."""
    return {
        job_id: (record.state, record.path, record.poster, record.sha256, record.bytes, record.error_class)
        for job_id, record in durable_state(folder).jobs.items()
    }


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for name in ("videos", "posters") for path in (folder / name).iterdir()}


async def test_a_run_whose_workers_are_killed_ends_as_a_local_one(tmp_path: Path) -> None:
    """Each worker is killed once in the middle: results, videos and posters are equal to the byte, and paid once."""
    workers: list[int] = []

    def kill_another(_collector: Any) -> None:
        workers.extend(() if workers else worker_pids())
        os.kill(workers.pop(0), signal.SIGKILL)

    made = campaign(tmp_path, 12)
    async with Sandbox(quick_provider()) as provider:
        paid = fast_config(provider.url, timeouts__download_s="0.000001")
        assert (await run_once(made, paid, tmp_path / "dask")).exit_code == 5
        shutil.copytree(tmp_path / "dask", tmp_path / "local")
        for kind, changes, watcher in (
            ("local", {"media__verify": "frames"}, None),
            ("dask", DASK, AtStored({2: kill_another, 3: kill_another})),
        ):
            config = fast_config(provider.url, **changes)
            result = await run_once(made, config, tmp_path / kind, watcher=watcher)
            assert result.exit_code == 0, result.summary
            check_books(tmp_path / kind, provider.invoice())
            check_nothing_bought_twice(made, provider.invoice())
            check_videos(tmp_path / kind, provider.requests())
    assert results(tmp_path / "dask") == results(tmp_path / "local")
    assert files(tmp_path / "dask") == files(tmp_path / "local")


async def test_a_run_that_loses_its_scheduler_is_resumed_by_anybody(tmp_path: Path, foreign: Foreign) -> None:
    """Exit 6; then a local run collects what is paid, and no job was bought twice."""
    address = foreign.start("scheduler")
    foreign.start("worker", address)
    made = campaign(tmp_path, 12)
    async with Sandbox(quick_provider()) as provider:
        config = fast_config(provider.url, media__scheduler=address, limits__max_in_flight="4", **DASK)
        result = await run_once(
            made, config, tmp_path / "run", watcher=AtStored({2: lambda _collector: foreign.kill(0)})
        )
        assert result.exit_code == 6
        assert "scheduler is gone" in result.message
        result = await run_once(made, fast_config(provider.url), tmp_path / "run")
        assert result.exit_code == 0
        check_books(tmp_path / "run", provider.invoice())
        check_nothing_bought_twice(made, provider.invoice())
        check_videos(tmp_path / "run", provider.requests())


async def test_a_run_without_its_scheduler_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2, and the next run goes on."""
    monkeypatch.setattr(clusters, "CONNECT_S", 0.5)
    made = campaign(tmp_path, 1)
    async with Sandbox(quick_provider()) as provider:
        config = fast_config(provider.url, media__scheduler="tcp://127.0.0.1:9", **DASK)
        with pytest.raises(InputError, match="Nothing was sent") as refused:
            await run_once(made, config, tmp_path / "run")
        assert refused.value.exit_code == 2
        assert provider.state()["submissions"] == 0
        assert (await run_once(made, fast_config(provider.url), tmp_path / "run")).exit_code == 0


async def test_a_run_that_waits_for_workers_can_be_left(
    tmp_path: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two signals before any worker is there: exit 130 at once, nothing sent, nothing left behind."""
    address, run_folder, waiting = foreign.start("scheduler"), tmp_path / "run", asyncio.Event()
    make = clusters.open_temporary
    monkeypatch.setattr(clusters, "open_temporary", lambda folder: waiting.set() or make(folder))
    async with Sandbox(quick_provider()) as provider:
        config = fast_config(provider.url, media__scheduler=address, **DASK)
        running = asyncio.create_task(run_once(campaign(tmp_path, 1), config, run_folder))
        async with asyncio.timeout(30):
            await waiting.wait()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0)
            result = await running
        assert result.exit_code == 130
        assert provider.state()["submissions"] == 0
        assert not list(run_folder.glob(".*.part"))


@pytest.mark.parametrize("times", [1, 2])
async def test_the_terminals_interrupt_reaches_the_run_alone(tmp_path: Path, times: int) -> None:
    """A Ctrl-C goes to the whole group: one lets the download under way end, two leave it to the next run, in time."""
    half = asyncio.Event()
    trouble = {"faults": {"file_slow": 1.0}, "file_slow_s": 0.6 if times == 1 else 30.0}

    def hear(instant: str, _facts: dict[str, Any]) -> None:
        if instant == "file_first_bytes":
            half.set()

    made = campaign(tmp_path, 3)
    async with Sandbox(quick_provider(on_event=hear, fault_limit={"file_slow": 1}, **trouble)) as provider:
        urls = {f"provider.{name}_url": provider.url for name in ("base", "storage", "history")}
        settings = FAST | urls | {"media.executor": "dask", "limits.max_in_flight": "1", "timeouts.read_s": "60"}
        settings |= {"timeouts.download_s": "60"}
        flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "run", str(made.source), "-o", str(tmp_path / "run"), "--yes", *flags),
            env=os.environ | {"SEGMIND_API_KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        async with asyncio.timeout(60):
            await half.wait()
            began_s = asyncio.get_running_loop().time()
            for _ in range(times):
                os.killpg(run.pid, signal.SIGINT)
                while (Path(f"/proc/{run.pid}/status").read_text().split("ShdPnd:\t")[1][:16]) != "0" * 16:
                    os.sched_yield()  # two of a kind must not melt into one
            said, _ = await run.communicate()
        assert run.returncode == 130, said
        assert b"Traceback" not in said
        assert b"distributed" not in said
        assert asyncio.get_running_loop().time() - began_s < 15
        stored = len(list((tmp_path / "run" / "videos").iterdir()))
        assert stored == (len(provider.invoice()["charges"]) if times == 1 else 0)
        assert (await run_once(made, fast_config(provider.url), tmp_path / "run")).exit_code == 0
        check_books(tmp_path / "run", provider.invoice())
        check_nothing_bought_twice(made, provider.invoice())
