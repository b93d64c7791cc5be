"""From paid to disk: a video that is billed is downloaded, verified, and recorded as stored."""

from __future__ import annotations

from pathlib import Path

import orjson

from pipeline.engine import retry
from pipeline.engine.context import RunContext
from pipeline.engine.retry import NOTHING_LEFT, Outcome
from pipeline.engine.troubles import facts_of
from pipeline.kernel.errors import ErrorClass
from pipeline.ledger.events import EventKind
from pipeline.ledger.job import JobRecord
from pipeline.media import Clip, Expectation, Trouble
from pipeline.models import find_model
from pipeline.provider.client import Delivered
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Finished

FETCH_TRIES = 5
"""Downloads of one video in a row. The dispatcher tries again later: the provider keeps the file for 7 days."""


async def collect(run: RunContext, record: JobRecord) -> Outcome:
    """Bring a paid video to the disk. A bad download is downloaded again, which is free; never generated again."""
    for tries in range(FETCH_TRIES):
        if tries:
            await run.pause(retry.backoff_s(run.settings.retry, tries, run.rng))
        if await _take_in(run, record, await _fetch(run, record)):
            break
    return NOTHING_LEFT


async def keep(run: RunContext, record: JobRecord, delivered: Delivered) -> bool:
    """Bring the video in the body of a blocking call's answer to the disk; whether it is there now.

    Raises:
        LeavingError: the run is being left; the next one downloads the video.
    """
    video, poster = _targets(run, record)
    length = delivered.content_length
    keeping = run.collector.keep(delivered.chunks(), length, video, poster, _expectation(record))
    return await _take_in(run, record, await run.stopping.unless_leaving(keeping))


async def _fetch(run: RunContext, record: JobRecord) -> Clip | Trouble:
    url = record.url if record.fetch_failures % 2 == 0 else None
    url = url or await _ask_for_url(run, record) or record.url
    if url is None:
        return Trouble(ErrorClass.FETCH_FAILED, None, "the provider does not say where the video is")
    video, poster = _targets(run, record)
    async with run.downloads:
        return await run.stopping.unless_leaving(run.collector.collect(url, video, poster, _expectation(record)))


async def _ask_for_url(run: RunContext, record: JobRecord) -> str | None:
    """Where the video is now, asked anew: its URL may be missing, or may have changed."""
    request_id = record.request_id
    assert request_id is not None
    row = await run.ask_history(request_id)
    if isinstance(row, HistoryRow) and row.url:
        return row.url
    result = await run.ask(lambda: run.provider.result(request_id))
    return result.url if isinstance(result, Finished) else None


async def _take_in(run: RunContext, record: JobRecord, collected: Clip | Trouble) -> bool:
    """Record what came of a download; whether the video is on the disk now."""
    if isinstance(collected, Trouble):
        await run.record(record.event(EventKind.FETCH_FAILED, **facts_of(collected), sha256=collected.sha256))
        return False
    await run.record(
        record.event(
            EventKind.STORED,
            path=record.path,
            poster=_poster_of(record) if collected.poster else None,
            sha256=collected.sha256,
            bytes=collected.bytes,
            duration_s=collected.duration_s,
            width=collected.width or 0,
            height=collected.height or 0,
            error_class=ErrorClass.NOT_AS_ASKED.label if collected.not_as_asked else None,
            detail=collected.not_as_asked,
        )
    )
    run.room.note(collected.bytes)
    return True


def _targets(run: RunContext, record: JobRecord) -> tuple[Path, Path]:
    """The final names of a job's video and poster, fixed when its money was reserved."""
    assert record.path is not None
    return run.folder / record.path, run.folder / _poster_of(record)


def _poster_of(record: JobRecord) -> str:
    assert record.path is not None
    return f"posters/{record.path.removeprefix('videos/').removesuffix('.mp4')}.jpg"


def _expectation(record: JobRecord) -> Expectation:
    """What the video should be, from the request as it was sent."""
    assert record.model is not None
    assert record.request is not None
    model = find_model(record.model)
    params = orjson.loads(record.request)
    width, height = model.frame_size(params) or (None, None)
    return Expectation(model.duration_s(params), width, height)
