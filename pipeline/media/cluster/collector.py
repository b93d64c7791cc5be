"""The collector whose downloads are made by the workers of a Dask cluster. What they bring is named here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.kernel.errors import ErrorClass, InputError, MachineError
from pipeline.kernel.files import discard, open_temporary, put_in_place, remove_leftovers
from pipeline.media.cluster.local import LocalCluster, silence
from pipeline.media.cluster.task import Failed, Order, download, sees, under_final_names
from pipeline.media.collect import Collector, until_done
from pipeline.media.landing import Abandoned, Deliver
from pipeline.media.results import Clip, Expectation, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings

CONNECT_S = 10.0
"""Longest wait for the scheduler when a run begins, in seconds."""

START_S = 60.0
"""Longest wait for the first worker then, and for the workers' answers, in seconds."""

NO_WORKER_S = 60.0
"""How long a run goes on without any worker, in seconds: one that died may be replaced."""

LOOK_S = 1.0
"""How often a waiting download looks whether the cluster is still there."""

CLOSE_S = 5.0
"""Longest wait for the connection to the scheduler to close."""


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
        self._alone_since_s: float | None = None
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
            stack.push_async_callback(_close, self._client)
            await self._meet_workers()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def collect(self, url: str, video: Path, poster: Path, expectation: Expectation) -> Clip | Trouble:
        """As `Collector.collect`.

        Raises:
            MachineError: a worker's disk failed, or the cluster is gone; nothing is left under a final name.
        """
        self._used |= {video.parent, poster.parent}
        media = self._worker_settings()
        order = Order(url, _absolute(video), _absolute(poster), expectation, self._fetch, media)
        outcome = await self._ask(order)
        if isinstance(outcome, Failed):
            raise MachineError(outcome.message)
        if isinstance(outcome, Trouble):
            return outcome
        return await self._adopt(outcome, video, poster)

    def _worker_settings(self) -> MediaSettings:
        """One thread in each of our own processes; in others', as many as are asked for."""
        return MediaSettings(self._media.verify, 1 if self._media.scheduler is None else self._media.workers)

    async def _ask(self, order: Order) -> Clip | Trouble | Failed:
        """Have a worker do it. The scheduler gives it to another when that one dies, within bounds."""
        self._check_cluster()
        # Each has a key of its own: the cluster must not answer with the outcome of an earlier try.
        future = self._client.submit(download, order, key=f"download-{secrets.token_hex(12)}", pure=False)
        waiting = asyncio.ensure_future(_outcome(future))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=LOOK_S)
                if not waiting.done():
                    self._check_cluster()
            return waiting.result()
        finally:
            waiting.cancel()
            future.release()

    def _check_cluster(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._client.status != "running":
            raise _gone()
        # The number, not the list of workers: the client keeps only the number up to date.
        if self._client.scheduler_info().get("n_workers"):
            self._alone_since_s = None
        elif self._alone_since_s is None:
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > NO_WORKER_S or (self._local is not None and self._local.is_dead):
            raise MachineError("the Dask cluster has no worker any more; what is paid is collected by the next run")

    async def _adopt(self, clip: Clip, video: Path, poster: Path) -> Clip:
        """Give a worker's files their final names and deliver them; if cancelled, wait for the step under way."""
        forsaken = threading.Event()

        def checkpoint() -> None:
            if forsaken.is_set():
                raise Abandoned

        def adopt() -> Clip:
            adopted = _put_in_place(clip, video, poster)
            if self._deliver is not None:
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
        descriptor, path = open_temporary(self._folder)
        os.close(descriptor)
        try:
            async with asyncio.timeout(START_S):
                await self._client.wait_for_workers(1, timeout=START_S)
                answers = await self._client.run(sees, str(_absolute(path)), on_error="return")
        except (TimeoutError, OSError):
            raise InputError(f"{where}: no worker answers within {START_S:g} s. Nothing was sent.") from None
        finally:
            discard(path)
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
        await _close(client)
        if not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        raise InputError(f"media.scheduler: no Dask scheduler answers at {address}. Nothing was sent.") from None


async def _close(client: Any) -> None:
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(CLOSE_S):
            await client.close()


async def _outcome(future: Any) -> Clip | Trouble | Failed:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        outcome: Clip | Trouble | Failed = await future.result()
    except KilledWorker:
        message = "the workers that downloaded it died, one after the other"
        return Trouble(ErrorClass.FETCH_FAILED, None, message)
    except (CancelledError, OSError):  # no task raises these: the connection is lost
        raise _gone() from None
    except asyncio.CancelledError:
        if future.cancelled():
            raise _gone() from None
        raise
    except Exception as error:
        raise MachineError(
            f"a worker of the Dask cluster failed with {type(error).__name__}: "
            "install the same version of kling-batch there"
        ) from None
    return outcome


def _gone() -> MachineError:
    return MachineError("the Dask scheduler is gone; what is paid is collected by the next run")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # without following links: a worker may see them lead elsewhere


def _put_in_place(clip: Clip, video: Path, poster: Path) -> Clip:
    try:
        if clip.path.stat().st_size != clip.bytes:
            raise MachineError(
                f"{video}: a worker wrote {clip.bytes} bytes, but the file on this machine has another size. "
                "Do all machines share this folder?"
            )
        # The poster goes first: the video's name is the sign that nothing is left to do.
        if clip.poster is not None:
            put_in_place(clip.poster, poster)
        put_in_place(clip.path, video)
    except FileNotFoundError:
        raise MachineError(
            f"{video}: a worker wrote it, but it is not on this machine. Do all machines share this folder?"
        ) from None
    except OSError as error:
        raise MachineError(f"cannot write {video}: {error.strerror or type(error).__name__}") from error
    return under_final_names(clip, video, poster)
