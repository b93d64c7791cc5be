"""Real films, encoded once for the whole session, and a server that says exactly the bytes it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from media_doubles import RawServer, encode


@pytest.fixture(scope="session")
def film_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="session")
def tiny(film_folder: Path) -> bytes:
    """64x36, three pictures in 0.125 s, tables at the end."""
    return encode(film_folder / "tiny.mp4", 64, 36, frames=3)


@pytest.fixture(scope="session")
def tiny_fast(film_folder: Path) -> bytes:
    """The same with its tables at the beginning."""
    return encode(film_folder / "tiny-fast.mp4", 64, 36, frames=3, movflags="faststart")


@pytest.fixture(scope="session")
def in_fragments(film_folder: Path) -> bytes:
    """The same in fragments, each with its tables before it."""
    return encode(film_folder / "fragments.mp4", 64, 36, frames=3, movflags="frag_keyframe+empty_moov")


@pytest.fixture(scope="session")
def clip_720p(film_folder: Path) -> bytes:
    """1280x720, five seconds, as the provider makes them but for the low bit rate."""
    return encode(film_folder / "clip-720p.mp4", 1280, 720, frames=120, bit_rate=600_000)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer() as running:
        yield running
