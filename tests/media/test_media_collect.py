"""From the body to the final name: whole or nothing, whatever fails or is cancelled."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from media_doubles import HD, LOCAL, TINY, RawServer, ok
from PIL import Image

from pipeline.kernel.errors import ErrorClass, MachineError
from pipeline.media import Clip, Collector, Expectation, MediaSettings, Trouble, VerifyLevel, landing

CONTAINER = MediaSettings(verify="container")


async def pieces(data: bytes, size: int = 1_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def keep(
    data: bytes,
    folder: Path,
    expectation: Expectation = TINY,
    level: VerifyLevel = "container",
    length: int | None = None,
) -> Clip | Trouble:
    async with Collector(LOCAL, MediaSettings(verify=level)) as collector:
        return await collector.keep(pieces(data), length, folder / "v.mp4", folder / "v.jpg", expectation)


async def test_a_collected_film_is_the_servers_to_the_byte(server: RawServer, tmp_path: Path, clip_720p: bytes) -> None:
    """Under its final name, with its hash, its facts and a poster of its shape; nothing else is left."""
    server.answers["/a"] = ok(clip_720p)
    async with Collector(LOCAL, MediaSettings(verify="full")) as collector:
        outcome = await collector.collect(server.url("/a"), tmp_path / "v.mp4", tmp_path / "v.jpg", HD)
    assert outcome == Clip(
        path=tmp_path / "v.mp4",
        sha256=hashlib.sha256(clip_720p).hexdigest(),
        bytes=len(clip_720p),
        duration_s=5.0,
        width=1280,
        height=720,
        poster=tmp_path / "v.jpg",
        not_as_asked=None,
    )
    assert (tmp_path / "v.mp4").read_bytes() == clip_720p
    with Image.open(tmp_path / "v.jpg") as poster:
        assert (poster.format, poster.size) == ("JPEG", (640, 360))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.jpg", "v.mp4"]


async def test_a_film_larger_than_a_batch_is_written_while_it_comes(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds a batch, not the film; hash and size are of the whole."""
    monkeypatch.setattr("pipeline.media.collect.BATCH", 700)
    held: list[int] = []
    write_all = landing.write_all

    def counting(descriptor: int, data: bytes) -> None:
        held.append(len(data))
        write_all(descriptor, data)

    monkeypatch.setattr(landing, "write_all", counting)
    async with Collector(LOCAL, CONTAINER) as collector:
        outcome = await collector.keep(pieces(tiny, 300), len(tiny), tmp_path / "v.mp4", tmp_path / "v.jpg", TINY)
    assert isinstance(outcome, Clip)
    assert (outcome.bytes, outcome.sha256) == (len(tiny), hashlib.sha256(tiny).hexdigest())
    assert (tmp_path / "v.mp4").read_bytes() == tiny
    assert max(held) == 900
    assert len(held) > 2


async def test_a_whole_film_that_is_not_as_asked_is_kept(tmp_path: Path, tiny: bytes) -> None:
    """It is paid for: it has its final name, and the difference is said."""
    outcome = await keep(tiny, tmp_path, HD, "frames")
    assert isinstance(outcome, Clip)
    assert outcome.not_as_asked == "0.1 s instead of 5 s; 64x36 instead of 1280x720"
    assert (tmp_path / "v.mp4").read_bytes() == tiny


@pytest.mark.parametrize("level", ["container", "frames", "full"])
@pytest.mark.parametrize("cut", [0, 1, 500, -1])
async def test_a_damaged_film_leaves_nothing_but_its_hash(
    tmp_path: Path, tiny: bytes, level: VerifyLevel, cut: int
) -> None:
    """So that a bad download can be told from a bad original."""
    outcome = await keep(tiny[:cut], tmp_path, TINY, level)
    assert isinstance(outcome, Trouble)
    assert outcome.error_class is ErrorClass.BAD_FILE
    assert outcome.sha256 == hashlib.sha256(tiny[:cut]).hexdigest()
    assert list(tmp_path.iterdir()) == []


async def test_a_web_page_is_a_bad_file(server: RawServer, tmp_path: Path) -> None:
    """Servers say 200 and mean 404."""
    server.answers["/a"] = ok(b"<!DOCTYPE html><h1>Sorry</h1>", "Content-Type: text/html")
    async with Collector(LOCAL, CONTAINER) as collector:
        outcome = await collector.collect(server.url("/a"), tmp_path / "v.mp4", tmp_path / "v.jpg", TINY)
    assert isinstance(outcome, Trouble)
    assert (outcome.error_class, outcome.http_status) == (ErrorClass.BAD_FILE, 200)
    assert "web page" in outcome.message


@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_kept_body_must_have_its_announced_length(tmp_path: Path, tiny: bytes, difference: int) -> None:
    """Both lies are a failed fetch."""
    outcome = await keep(tiny, tmp_path, length=len(tiny) + difference)
    assert isinstance(outcome, Trouble)
    assert outcome.error_class is ErrorClass.FETCH_FAILED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [aiohttp.ClientPayloadError("SECRET"), ConnectionResetError("SECRET"), TimeoutError("SECRET")]
)
async def test_a_kept_body_that_breaks_off_is_a_failed_fetch(tmp_path: Path, tiny: bytes, error: Exception) -> None:
    """In our words, not in the exception's."""

    async def breaking() -> AsyncIterator[bytes]:
        yield tiny[:100]
        raise error

    async with Collector(LOCAL, CONTAINER) as collector:
        outcome = await collector.keep(breaking(), None, tmp_path / "v.mp4", tmp_path / "v.jpg", TINY)
    assert isinstance(outcome, Trouble)
    assert outcome.error_class is ErrorClass.FETCH_FAILED
    assert "SECRET" not in repr(outcome)


async def test_planted_links_are_replaced_and_not_followed(tmp_path: Path, tiny: bytes) -> None:
    """What they point at stays as it was."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("v.mp4", "v.jpg"):
        (folder / name).symlink_to(victim)
    assert isinstance(await keep(tiny, folder, level="frames"), Clip)
    assert victim.read_bytes() == b"precious"
    assert not (folder / "v.mp4").is_symlink()
    assert not (folder / "v.jpg").is_symlink()
    assert (folder / "v.mp4").read_bytes() == tiny


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["open_temporary", "write_all", "put_in_place", "write_file"])
async def test_a_full_disk_is_this_machines_failure(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Wherever it shows: a MachineError with the file and the reason, and no leftover."""
    monkeypatch.setattr(landing, call, full_disk)
    with pytest.raises(MachineError, match=r"cannot write .*/v\.(mp4|jpg): No space left on device"):
        await keep(tiny, tmp_path, level="frames")
    assert [path.name for path in tmp_path.iterdir() if path.name != "v.jpg"] == []


async def test_a_failed_flush_gives_no_final_name(tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that the disk did not confirm are not a result."""
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(MachineError):
        await keep(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_in_the_middle_of_a_body_is_not_called_network_trouble(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while bytes still come, a disk error is not taken for the connection's."""
    monkeypatch.setattr("pipeline.media.collect.BATCH", 500)
    monkeypatch.setattr(landing, "write_all", full_disk)
    with pytest.raises(MachineError):
        await keep(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_the_flush_comes_before_the_name_and_the_folder_after(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a power loss; the poster has its name before the film has."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        steps.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    assert isinstance(await keep(tiny, tmp_path, level="frames"), Clip)
    assert steps == ["file", "v.jpg", "folder", "file", "v.mp4", "folder"]


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_in_the_middle_of_a_body_leaves_nothing(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a final name nor a temporary file."""
    monkeypatch.setattr("pipeline.media.collect.BATCH", 500)
    stalled = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield tiny[:1_000]
        stalled.set()
        await asyncio.Event().wait()

    async with Collector(LOCAL, CONTAINER) as collector:
        task = asyncio.ensure_future(collector.keep(stalling(), None, tmp_path / "v.mp4", tmp_path / "v.jpg", TINY))
        await stalled.wait()
        assert len(list(tmp_path.glob(".*.part"))) == 1
        await cancel(task)
        assert list(tmp_path.iterdir()) == []


async def test_a_cancel_waits_for_the_thread_that_writes(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed after its writer has let go of it, however often the task is cancelled meanwhile."""
    inside, go_on = threading.Event(), threading.Event()
    write_all = landing.write_all

    def slow(descriptor: int, data: bytes) -> None:
        inside.set()
        go_on.wait(10)
        write_all(descriptor, data)

    monkeypatch.setattr(landing, "write_all", slow)
    async with Collector(LOCAL, CONTAINER) as collector:
        task = asyncio.ensure_future(collector.keep(pieces(tiny), None, tmp_path / "v.mp4", tmp_path / "v.jpg", TINY))
        await asyncio.to_thread(inside.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        assert len(list(tmp_path.iterdir())) == 1
        go_on.set()
        await cancel(task)
        assert list(tmp_path.iterdir()) == []


async def test_cancelled_at_any_step_it_is_whole_or_nothing(
    server: RawServer, tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel after each number of turns of the loop, from before the request until the end."""
    monkeypatch.setattr("pipeline.media.collect.BATCH", 500)
    server.answers["/a"] = ok(tiny)
    cancelled = finished = 0
    async with Collector(LOCAL, CONTAINER) as collector:
        for turns in range(400):
            folder = tmp_path / str(turns)
            folder.mkdir()
            task = asyncio.ensure_future(collector.collect(server.url("/a"), folder / "v.mp4", folder / "v.jpg", TINY))
            for _ in range(turns):
                await asyncio.sleep(0)
                if task.done():
                    break
            task.cancel()
            try:
                outcome = await task
            except asyncio.CancelledError:
                cancelled += 1
            else:
                assert isinstance(outcome, Clip)
                finished += 1
            for path in folder.iterdir():
                assert (path.name, path.read_bytes()) == ("v.mp4", tiny)
            if finished >= 3:
                break
    assert cancelled > 5
    assert finished


async def test_the_deadline_too_waits_for_the_thread(
    tmp_path: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is a cancel from within: the same care, and a failed fetch."""
    from dataclasses import replace

    monkeypatch.setattr("pipeline.media.collect.BATCH", 500)

    async def slowly() -> AsyncIterator[bytes]:
        yield tiny[:1_000]
        await asyncio.sleep(10)

    async with Collector(replace(LOCAL, download_s=0.05), CONTAINER) as collector:
        outcome = await collector.keep(slowly(), None, tmp_path / "v.mp4", tmp_path / "v.jpg", TINY)
    assert outcome == Trouble(ErrorClass.FETCH_FAILED, None, "not finished within 0.05 s")
    assert list(tmp_path.iterdir()) == []


async def test_many_at_once_share_the_pool(server: RawServer, tmp_path: Path, tiny: bytes) -> None:
    """Forty downloads over two threads give forty films."""
    server.answers["/a"] = ok(tiny)
    async with Collector(LOCAL, CONTAINER) as collector:
        outcomes = await asyncio.gather(
            *(
                collector.collect(server.url("/a"), tmp_path / f"{n}.mp4", tmp_path / f"{n}.jpg", TINY)
                for n in range(40)
            )
        )
        assert sum(thread.name.startswith("media") for thread in threading.enumerate()) == 2
    assert all(isinstance(outcome, Clip) for outcome in outcomes)
    assert len(list(tmp_path.iterdir())) == 40
    assert not any(thread.name.startswith("media") for thread in threading.enumerate())


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after `code`."""
    report = f"{code}; import sys; print(*(set(sys.modules) & {{'av', 'PIL', 'aiohttp'}}))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_heavy_libraries_are_loaded_when_they_are_needed() -> None:
    """The settings load none, the collector no FFmpeg."""
    assert loaded_after("from pipeline.media import FetchSettings, MediaSettings, Clip") == set()
    assert loaded_after("from pipeline.media import Collector") == {"aiohttp"}
