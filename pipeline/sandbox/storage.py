"""The storage host: finished videos and uploaded files, public, no key wanted."""

import gzip

from aiohttp import web

from pipeline.sandbox import replies, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.mp4 import corrupt
from pipeline.sandbox.replies import MP4, Reply


def _note_leak(core: Core, request: web.BaseRequest) -> None:
    # A key that reaches this host is a defect of the client, whatever it asked for.
    core.key_leaks += "x-api-key" in request.headers or "authorization" in request.headers


async def video(core: Core, request: web.BaseRequest, name: str) -> web.StreamResponse:
    """`GET /files/{request_id}.mp4`."""
    _note_leak(core, request)
    request_id = name.removesuffix(".mp4")
    core.event("file_head", request_id=request_id)
    generation = core.state.video(request_id, core.settle())
    if generation is None:
        return wire.whole(replies.error(404, "File not found"))
    data = core.studio.data(generation)
    reply = Reply(200, data, MP4)
    fault = core.fault("file", generation.ordinal)
    match fault:
        case None:
            return await _whole(core, request, reply, request_id)
        case "file_drop":
            return wire.drop(request)
        case "file_cut":
            core.event("file_first_bytes", request_id=request_id)
            return wire.cut(request, reply)
        case "file_slow":
            return await wire.in_pieces(core, request, reply, core.settings.file_slow_s, request_id=request_id)
    return await _whole(core, request, spoilt(fault, data), request_id)


def spoilt(fault: str, data: bytes) -> Reply:
    """What a download with this fault is answered with."""
    half = data[: len(data) // 2]
    match fault:
        case "file_404":
            return replies.error(404, "File not found")
        case "file_500":
            return replies.error(500, "Internal server error")
        case "file_short":
            return Reply(200, data[: len(data) * 9 // 10], MP4)
        case "file_corrupt":
            return Reply(200, corrupt(data), MP4)
        case "file_html":
            return Reply(200, replies.page(200).body, MP4)
        case "file_empty":
            return Reply(200, b"", MP4)
        case "file_gzip":
            return Reply(200, gzip.compress(data, 1), MP4, {"Content-Encoding": "gzip"})
        case "file_206":
            return Reply(206, half, MP4, {"Content-Range": f"bytes 0-{len(half) - 1}/{len(data)}"})
        case "file_redirect_out":
            return replies.redirect_out()
    raise AssertionError(f"no such fault of a file: {fault}")


async def _whole(core: Core, request: web.BaseRequest, reply: Reply, request_id: str) -> web.StreamResponse:
    if core.settings.on_event is None or reply.status != 200:
        return wire.whole(reply)
    return await wire.in_pieces(core, request, reply, 0.0, request_id=request_id)


async def asset(core: Core, request: web.BaseRequest, name: str) -> web.StreamResponse:
    """`GET /assets/{name}`: a file that was uploaded here."""
    _note_leak(core, request)
    kind = core.assets.get(name)
    if kind is None:
        return wire.whole(replies.error(404, "File not found"))
    return wire.whole(Reply(200, core.asset_path(name).read_bytes(), kind))
