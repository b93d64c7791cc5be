"""Where clips come from and where they are kept."""

import asyncio
import contextlib
import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.sandbox.clips import shared_clip, tiny_clip
from pipeline.sandbox.mp4 import mark
from pipeline.sandbox.params import shape_of
from pipeline.sandbox.state import Generation

_PACKAGE_ROOT: Final = str(Path(__file__).resolve().parents[2])
_BASES: Final[dict[tuple[str, str, int], bytes]] = {}  # kind, aspect, duration -> bytes; the same in every sandbox


class DrawingError(Exception):
    """A clip could not be drawn."""


class _Hand:
    """One drawing process, started at its first order."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False

    def draw(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have one clip drawn; a process that died is replaced once."""
        line = orjson.dumps(order) + b"\n"
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
            except (OSError, ValueError):
                answer = b""
            if answer.endswith(b"\n"):
                told: dict[str, Any] = orjson.loads(answer)
                if "error" in told:
                    raise DrawingError(told["error"])
                return told
            self._end()
            if self._closing:
                break
        raise DrawingError("the drawing process died over this clip")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            path = os.pathsep.join(filter(None, (_PACKAGE_ROOT, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sandbox.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                process_group=0,  # a Ctrl-C at the terminal is for the client; this one ends with its stdin
            )
        if self._closing:  # closed while the process was being started: whoever closes could not see it yet
            self._process.kill()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # an order was still in the buffer
                if pipe is not None:
                    pipe.close()

    def interrupt(self) -> None:
        """Kill the process under a drawing thread, which then gives up; callable from any thread."""
        self._closing = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Clear away what is left, once no thread draws any more."""
        self._end()


class Studio:
    """Makes every generation's clip and hands out its bytes."""

    def __init__(self, kind: str, folder: Path | None, workers: int) -> None:
        self._kind = kind
        self._kept = folder is not None
        self._folder = folder
        self._workers = workers
        self._hands: queue.SimpleQueue[_Hand] = queue.SimpleQueue()
        self._all: list[_Hand] = []
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[tuple[str, int], asyncio.Future[bytes]] = {}

    @property
    def folder(self) -> Path:
        """Where files are kept; a temporary one is made when none was given."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kling-sandbox-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def at_once(self, generation: Generation) -> bool:
        """Whether this generation's clip can be served without drawing anything."""
        return self._kind != "own" and (self._kind, *shape_of(generation.body)) in _BASES

    async def make(self, generation: Generation, image: Path | None) -> tuple[int | None, str | None]:
        """Draw the clip; its size and sha256 where they are known. Raises DrawingError."""
        if self._kind != "own":
            await self._base(shape_of(generation.body))
            return None, None
        order = {
            "request_id": generation.id,
            "body": generation.body,
            "path": str(self._path(generation)),
            "image": None if image is None else str(image),
        }
        loop = asyncio.get_running_loop()
        told = await loop.run_in_executor(self._threads(), self._draw, order)
        return told["size"], told["sha256"]

    async def prepare(self, shapes: Iterable[tuple[str, int]]) -> None:
        """Have the clips of these shapes at hand, where one clip serves a shape."""
        if self._kind != "own":
            for shape in shapes:
                await self._base(shape)

    async def _base(self, shape: tuple[str, int]) -> bytes:
        key = (self._kind, *shape)
        if key in _BASES:
            return _BASES[key]
        future = self._pending.get(shape)
        if future is None:
            draw = shared_clip if self._kind == "shared" else tiny_clip
            future = asyncio.get_running_loop().run_in_executor(self._threads(), draw, *shape)
            self._pending[shape] = future
        _BASES[key] = await asyncio.shield(future)
        return _BASES[key]

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="sandbox-studio")
            self._all = [_Hand() for _ in range(self._workers)]
            for hand in self._all:
                self._hands.put(hand)
        return self._pool

    def _draw(self, order: dict[str, Any]) -> dict[str, Any]:
        hand = self._hands.get()
        try:
            return hand.draw(order)
        finally:
            self._hands.put(hand)

    def _path(self, generation: Generation) -> Path:
        return self.folder / f"{generation.id}.mp4"

    def size(self, generation: Generation) -> int:
        """Bytes of its clip."""
        return generation.size if generation.size is not None else len(self.data(generation))

    def sha256(self, generation: Generation) -> str:
        """Digest of its clip."""
        if generation.sha256 is None:
            generation.sha256 = hashlib.sha256(self.data(generation)).hexdigest()
        return generation.sha256

    def has(self, generation: Generation) -> bool:
        """Whether its clip is there to be served."""
        return self.at_once(generation) if self._kind != "own" else self._path(generation).is_file()

    def data(self, generation: Generation) -> bytes:
        """The bytes of its clip, which must have been made."""
        if self._kind == "own":
            return self._path(generation).read_bytes()
        return _BASES[self._kind, *shape_of(generation.body)] + mark(generation.id)

    def close(self) -> None:
        """Stop drawing at once and leave nothing behind but what was meant to be kept."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for hand in self._all:
                hand.interrupt()
            # A shared clip in the making is dropped with its thread: it takes a second and leaves nothing.
            self._pool.shutdown(wait=self._kind == "own")
            for hand in self._all:
                hand.close()
            self._pool = None
        if not self._kept and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
