"""The collector whose downloads are made by the workers of a Dask cluster. What they bring is named here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.kernel.errors import ErrorClass, InputError, MachineError
from pipeline.kernel.files import discard, open_temporary, put_in_place, remove_leftovers
from pipeline.media.cluster.local import LocalCluster, close_soon, silence
from pipeline.media.cluster.task import Brought, Failed, Order, download, sees, under_final_names
from pipeline.media.collect import Collector, until_done
from pipeline.media.landing import Abandoned, Deliver
from pipeline.media.results import Clip, Expectation, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings

CONNECT_S = 10.0
"""Longest wait for the scheduler when a run begins, in seconds."""

START_S = 60.0
"""Longest wait for the first worker then, and for the workers' answers, in seconds."""

NO_WORKER_S = 60.0
"""How long a run goes on without any worker, or without a word of the scheduler, in seconds: either may come back."""

LOOK_S = 1.0
"""How often a waiting download looks whether the cluster is still there, and the scheduler is asked, in seconds."""

ASK_S = 30.0
"""Longest wait for one answer of the scheduler, or of a worker that has joined, in seconds: either may be busy."""


class ClusterCollector(Collector):
    """As `Collector`, but `collect` is done by a worker, under a temporary name that gets its final name here.

    A cancelled `collect` leaves nothing under a final name; what its worker still makes is swept up at the end. `keep`
    takes a body that is on its way to this process, and is done here.
    """

    def __init__(
        self,
        fetch: FetchSettings,
        media: MediaSettings,
        folder: Path,
        downloads: int,
        deliver: Deliver | None = None,
    ) -> None:
        """`folder`: the run directory, which all workers must see. `downloads`: how many are under way at once."""
        super().__init__(fetch, media, deliver=deliver)
        self._fetch = fetch
        self._media = media
        self._folder = folder
        self._downloads = downloads
        self._stack = contextlib.AsyncExitStack()
        self._client: Any = None
        self._local: LocalCluster | None = None
        self._out = 0
        self._threads: dict[str, int] = {}
        self._trusted: set[str] = set()
        self._refused: set[str] = set()
        self._silent_s = 0.0
        self._alone_s = 0.0
        self._used: set[Path] = set()

    async def __aenter__(self) -> Self:
        """Raises `InputError` where there is no cluster to work with. Nothing was sent then."""
        _load()
        async with self._stack as stack:
            await super().__aenter__()
            stack.push_async_exit(super().__aexit__)
            stack.callback(self._sweep)
            address, security = self._media.scheduler, None
            if address is None:
                workers = self._media.workers
                self._local = await stack.enter_async_context(LocalCluster(workers, -(-self._downloads // workers)))
                address, security = self._local.address, self._local.security
            self._client = await _connect(address, security)
            stack.push_async_callback(close_soon, self._client)
            await self._meet_workers()
            stack.push_async_callback(_end, asyncio.create_task(self._watch()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def collect(self, url: str, video: Path, poster: Path, expectation: Expectation) -> Clip | Trouble:
        """As `Collector.collect`.

        Raises:
            MachineError: this machine's disk failed, or two workers did, one after the other, or the only one; or the
                cluster is gone. Nothing is left under a final name.
        """
        self._used |= {video.parent, poster.parent}
        media = self._worker_settings()
        order = Order(url, _absolute(video), _absolute(poster), expectation, self._fetch, media)
        self._out += 1
        try:
            outcome = await self._try(order, await self._place(), video, poster)
            if isinstance(outcome, Failed) and self._trusted:
                # It may be this one worker's fault: its disk, or a folder of that name which the run does not see.
                outcome = await self._try(order, sorted(self._trusted), video, poster)
        finally:
            self._out -= 1
        if isinstance(outcome, Failed):
            raise MachineError(outcome.message)
        return outcome

    def _worker_settings(self) -> MediaSettings:
        """One thread in each of our own processes; in others', as many as are asked for."""
        return MediaSettings(self._media.verify, 1 if self._media.scheduler is None else self._media.workers)

    async def _try(self, order: Order, workers: list[str] | None, video: Path, poster: Path) -> Clip | Trouble | Failed:
        """Have a worker do it, and name here what it brings. A worker that failed is given nothing more."""
        worker, outcome = await self._ask(order, workers)
        if isinstance(outcome, Clip):
            outcome = await self._adopt(outcome, video, poster)
        if isinstance(outcome, Failed) and worker is not None:
            self._trusted.discard(worker)
            self._refused.add(worker)
        return outcome

    async def _place(self) -> list[str] | None:
        """Who may do it: None for all, as long as each one that is there is known to see the folder."""
        self._check_cluster()
        while not self._trusted:
            await asyncio.sleep(LOOK_S)
            self._check_cluster()
        return None if self._trusted >= self._threads.keys() else sorted(self._trusted)

    async def _ask(self, order: Order, workers: list[str] | None) -> Brought:
        """Have one of `workers` do it. The scheduler gives it to another when that one dies, within bounds."""
        now, bounds = asyncio.get_running_loop().time, {} if workers is None else {"workers": workers}
        began_s = now()
        # Each has a key of its own: the cluster must not answer with the outcome of an earlier try.
        future = self._client.submit(download, order, key=f"download-{secrets.token_hex(12)}", pure=False, **bounds)
        waiting = asyncio.ensure_future(_outcome(future))
        try:
            while True:
                await asyncio.wait([waiting], timeout=LOOK_S)
                if waiting.done():
                    return waiting.result()
                self._check_cluster()
                if workers is not None and self._threads.keys().isdisjoint(workers):
                    return _not_fetched("the workers that were to download it are gone")
                if now() - began_s > self._longest_s():
                    return _not_fetched(f"no worker of the Dask cluster brought it within {self._longest_s():g} s")
        finally:
            waiting.cancel()
            future.release()

    def _longest_s(self) -> float:
        """What all downloads of this run may take, if each takes the longest and this one is the last of them."""
        threads = sum(self._threads.get(worker, 0) for worker in self._trusted) or 1
        return -(-self._downloads // threads) * self._fetch.download_s + NO_WORKER_S

    def _check_cluster(self) -> None:
        if self._client.status != "running":
            raise _gone()
        if self._silent_s > NO_WORKER_S:
            raise MachineError("the Dask scheduler does not answer any more; what is paid is collected by the next run")
        if self._alone_s > NO_WORKER_S or (not self._trusted and self._local is not None and self._local.is_dead):
            raise MachineError(
                f"the Dask cluster has no worker any more that sees {_absolute(self._folder)}; what is paid is "
                "collected by the next run"
            )

    async def _watch(self) -> None:
        """Know who is there, and for how long nobody was while something was asked for, until it is cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            began_s = now()
            answered = await self._look()
            await asyncio.sleep(LOOK_S)
            # A turn that took longer is one in which this process itself stood still: that is nobody's silence.
            turn_s = min(now() - began_s, ASK_S + LOOK_S)
            if not self._out:
                self._silent_s = self._alone_s = 0.0
            elif not answered:
                self._silent_s += turn_s
            else:
                self._silent_s = 0.0
                self._alone_s = 0.0 if self._trusted else self._alone_s + turn_s

    async def _look(self) -> bool:
        """Ask the scheduler who is there, not the client, which believes what it heard last; whether it answers."""
        try:
            async with asyncio.timeout(ASK_S):
                self._threads = await self._client.nthreads()
        except Exception:  # whatever it is, it is no answer
            return False
        there = self._threads.keys()
        self._trusted &= there
        self._refused &= there
        joined = there - self._trusted - self._refused
        if joined:
            with contextlib.suppress(OSError), self._something_to_see() as path:
                # Each by itself: one that never answers must not keep the others from their work.
                await asyncio.gather(*(self._meet(worker, path) for worker in joined))
        return True

    async def _meet(self, worker: str, path: str) -> None:
        """Trust a worker that has joined if it sees the folder: one that fails at once would draw all work to itself.

        Who does not answer gets nothing to do yet, and is asked again.
        """
        try:
            async with asyncio.timeout(ASK_S):
                answers = await self._client.run(sees, path, workers=[worker], on_error="return")
        except Exception:  # whatever it is, it is no answer
            return
        answer = answers.get(worker)
        if isinstance(answer, OSError):  # of the way there, not of the worker
            return
        if answer is True and worker not in self._refused:
            self._trusted.add(worker)
        else:
            self._refused.add(worker)

    @contextlib.contextmanager
    def _something_to_see(self) -> Iterator[str]:
        """The absolute path of a file in the run directory, for the block."""
        descriptor, path = open_temporary(self._folder)
        os.close(descriptor)
        try:
            yield str(_absolute(path))
        finally:
            discard(path)

    async def _adopt(self, clip: Clip, video: Path, poster: Path) -> Clip | Failed:
        """Give a worker's files their final names and deliver them; if cancelled, wait for the step under way."""
        forsaken = threading.Event()

        def checkpoint() -> None:
            if forsaken.is_set():
                raise Abandoned

        def adopt() -> Clip | Failed:
            adopted = _put_in_place(clip, video, poster)
            if self._deliver is not None and isinstance(adopted, Clip):
                self._deliver(adopted.path, adopted.poster, adopted.sha256, checkpoint)
            return adopted

        future = asyncio.get_running_loop().run_in_executor(self._pool, adopt)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            forsaken.set()
            await until_done(future)
            raise

    async def _meet_workers(self) -> None:
        """Wait for the first worker, and check that each one that is there can run kling-batch and sees the folder.

        Raises:
            InputError: there is none, or one of them cannot.
        """
        where = "media.executor: dask" if self._local is not None else "media.scheduler"
        with self._something_to_see() as path:
            try:
                async with asyncio.timeout(START_S):
                    await self._client.wait_for_workers(1, timeout=START_S)
                    answers = await self._client.run(sees, path, on_error="return")
            except (TimeoutError, OSError):
                raise InputError(f"{where}: no worker answers within {START_S:g} s. Nothing was sent.") from None
        for worker, answer in answers.items():
            if isinstance(answer, BaseException):
                raise InputError(
                    f"{where}: the worker {worker} cannot run kling-batch ({type(answer).__name__}): "
                    "install the same version there. Nothing was sent."
                )
            if not answer:
                raise InputError(
                    f"{where}: the worker {worker} does not see {_absolute(self._folder)}: all workers must see the "
                    "run directory under the same path. Nothing was sent."
                )
        self._trusted = set(answers)
        self._threads = dict.fromkeys(answers, 1)

    def _sweep(self) -> None:
        """Remove what dead or abandoned workers have left; nobody else writes there while this run holds its lock."""
        for folder in self._used:
            with contextlib.suppress(OSError):  # the next run does this, too
                remove_leftovers(folder)


def _load() -> None:
    try:
        import distributed  # noqa: F401 - seconds of loading that only a run with a cluster waits for
    except ImportError:
        raise InputError(
            "media.executor: dask needs more packages: pip install 'kling-batch[dask]'. Nothing was sent."
        ) from None
    silence()


async def _connect(address: str, security: Any) -> Any:
    from distributed import Client

    client = Client(
        address, security=security, asynchronous=True, timeout=CONNECT_S, set_as_default=False, name="kling-batch"
    )
    try:
        return await client
    except BaseException as error:
        await close_soon(client)
        if not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        raise InputError(f"media.scheduler: no Dask scheduler answers at {address}. Nothing was sent.") from None


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _outcome(future: Any) -> Brought:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        brought: Brought = await future.result()
    except KilledWorker:
        return _not_fetched("the workers that downloaded it died, one after the other")
    except (CancelledError, OSError):  # no task raises these: the connection is lost
        raise _gone() from None
    except asyncio.CancelledError:
        if future.cancelled():
            raise _gone() from None
        raise
    except Exception as error:
        message = f"a worker of the Dask cluster failed with {type(error).__name__}: "
        return Brought(None, Failed(message + "install the same version of kling-batch there"))
    return brought


def _not_fetched(message: str) -> Brought:
    return Brought(None, Trouble(ErrorClass.FETCH_FAILED, None, message))


def _gone() -> MachineError:
    return MachineError("the Dask scheduler is gone; what is paid is collected by the next run")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # without following links: a worker may see them lead elsewhere


def _put_in_place(clip: Clip, video: Path, poster: Path) -> Clip | Failed:
    try:
        if clip.path.stat().st_size != clip.bytes:
            return Failed(
                f"{video}: a worker wrote {clip.bytes} bytes, but the file on this machine has another size. "
                "Do all machines share this folder?"
            )
        # The poster goes first: the video's name is the sign that nothing is left to do.
        if clip.poster is not None:
            put_in_place(clip.poster, poster)
        put_in_place(clip.path, video)
    except FileNotFoundError:
        return Failed(f"{video}: a worker wrote it, but it is not on this machine. Do all machines share this folder?")
    except OSError as error:
        raise MachineError(f"cannot write {video}: {error.strerror or type(error).__name__}") from error
    return under_final_names(clip, video, poster)
