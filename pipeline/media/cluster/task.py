"""What a worker of the cluster does: one try at one video, under a name that nobody else has.

Whoever asked gives the files their final names. So a task that is done twice, or that goes on after its run is over,
changes nothing but temporary files, which the next run sweeps up.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.kernel.errors import MachineError
from pipeline.kernel.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, discard
from pipeline.media.collect import Collector
from pipeline.media.results import Clip, Expectation, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings


@dataclass(frozen=True, slots=True, repr=False)  # its URL may be signed, and the cluster logs what it is given
class Order:
    """What to download, and how; `video` and `poster` are the final names, absolute."""

    url: str
    video: Path
    poster: Path
    expectation: Expectation
    fetch: FetchSettings
    media: MediaSettings


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker's machine failed, in one sentence. A value: the cluster would log an exception with all it carries."""

    message: str


class Brought(NamedTuple):
    """What came of an order, and the address of the worker that did it, if that is known."""

    worker: str | None
    outcome: Clip | Trouble | Failed


_collectors: dict[tuple[asyncio.AbstractEventLoop, FetchSettings, MediaSettings], Collector] = {}
"""Open for the life of a worker's process, so that connections are used again."""


async def download(order: Order) -> Brought:
    """Make one try; the `Clip` has temporary names, beside the final ones. Never raises, unless it is cancelled."""
    video, poster = _beside(order.video), _beside(order.poster)
    outcome: Clip | Trouble | Failed | None = None
    try:
        collector = await _collector(order.fetch, order.media)
        outcome = await collector.collect(order.url, video, poster, order.expectation)
    except MachineError as error:
        said = str(error).replace(str(video), str(order.video)).replace(str(poster), str(order.poster))
        outcome = Failed(said)
    except Exception as error:
        outcome = Failed(f"a worker failed with {type(error).__name__}")
    finally:
        if not isinstance(outcome, Clip):
            discard(video)
            discard(poster)
    return Brought(_address(), outcome)


def _address() -> str:
    from distributed import get_worker

    worker = get_worker()
    return str(worker.contact_address or worker.address)


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody has, and that is swept up if it is forgotten."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(12)}{TEMPORARY_SUFFIX}")


async def _collector(fetch: FetchSettings, media: MediaSettings) -> Collector:
    key = asyncio.get_running_loop(), fetch, media
    if key not in _collectors:
        collector = _collectors[key] = Collector(fetch, media)
        await collector.__aenter__()
    return _collectors[key]


def sees(path: str) -> bool:
    """Whether this worker sees a file of the run directory, by its absolute path."""
    with contextlib.suppress(OSError):
        return Path(path).is_file()
    return False


def under_final_names(clip: Clip, video: Path, poster: Path) -> Clip:
    """The same clip, with the names that it is about to get."""
    return dataclasses.replace(clip, path=video, poster=None if clip.poster is None else poster)
