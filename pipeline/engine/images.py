"""Start images that are files: each content is uploaded once, before any money is set aside for a job that needs it.

Uploads are free and repeatable: if the process dies during one, nothing is lost and the upload is made again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from pipeline.engine.context import RunContext
from pipeline.kernel.errors import ErrorClass, Reaction
from pipeline.ledger.events import Event, EventKind
from pipeline.manifest.images import kind_of, read_planned
from pipeline.provider.replies import Refused, Unavailable, Uploaded

UPLOADS_AT_ONCE = 3
"""An image takes four times its size in memory while it is uploaded, and more at once do not go any faster."""


async def bring_up(run: RunContext, image: str) -> Refused | None:
    """Upload an image in the turn that was taken for its job, or wait: for its upload by another, or for room.

    Returns why the image cannot be had now; None when there is nothing to say but to look again.

    Raises:
        LeavingError: the run is being left.
    """
    if image in run.refused_images:
        return run.refused_images[image]
    is_full = len(run.uploading) >= UPLOADS_AT_ONCE
    if others := run.uploading.get(image) or (next(iter(run.uploading.values())) if is_full else None):
        await run.stopping.unless_leaving(others.wait())
        return None
    run.uploading[image] = over = asyncio.Event()
    try:
        refusal = await _upload(run, image)
    finally:
        del run.uploading[image]
        over.set()
    if refusal is not None and refusal.error_class.reaction is Reaction.FAIL_ROW:
        run.refused_images[image] = refusal
    return refusal


async def _upload(run: RunContext, image: str) -> Refused | None:
    """Upload an image and remember where it is, durably, before anything names its URL."""
    path = run.images.get(image, Path())
    data = await run.stopping.unless_leaving(asyncio.to_thread(read_planned, path, image))
    if data is None:
        return Refused(ErrorClass.BAD_IMAGE, f"{path.name} changed since it was planned, or is gone; run again")
    reply = await run.stopping.unless_leaving(run.provider.upload(data, f"image/{kind_of(data)}"))
    match reply:
        case Uploaded(url):
            run.outages.note_answer()
            sha256 = image.removeprefix("sha256:")
            await run.record(Event(event=EventKind.UPLOADED, sha256=sha256, url=url, bytes=len(data), path=path.name))
            return None
        case Unavailable(message, status):
            return Refused(ErrorClass.SERVER_ERROR, f"the upload of {path.name}: {message}", status)
        case Refused():
            return replace(reply, message=f"the upload of {path.name}: {reply.message}")
