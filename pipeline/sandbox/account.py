"""The account's calls: balance, request history and uploads."""

import base64
import binascii
import hashlib
import mimetypes
from typing import Final

import orjson
from aiohttp import web

from pipeline.sandbox import history, replies, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.replies import Reply
from pipeline.sandbox.settings import MICRO

_EVENT: Final = "history_reply_sent"


async def credits_left(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """`GET /v1/get-user-credits`."""
    refusal = core.admit(request)
    if refusal is not None:
        return wire.whole(refusal)
    core.settle()
    return wire.json_reply({"credits": core.state.credits_microusd / MICRO, "free-credits": 0.0})


async def history_page(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """`GET /inference-request/request-history`."""
    now = core.settle()
    settings = core.settings
    try:
        query = history.HistoryQuery.read(request.query, now)
    except ValueError as problem:
        refusal = core.admit(request) or replies.error(400, str(problem))
        return await wire.told(core, request, refusal, _EVENT)
    repeats, charge_at = settings.history_repeats, settings.charge_at
    page = history.page(core.state, query, now, core.base, repeats, charge_at)
    return await _serve(core, request, replies.of(page), "")


async def history_row(core: Core, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """`GET /inference-request/request-history/{request_id}`."""
    now = core.settle()
    generation = core.state.generations.get(request_id)
    if generation is None or not core.state.is_listed(generation, now):
        reply = replies.error(404, "Request not found")
    else:
        reply = replies.of(history.row(generation, core.base, core.settings.charge_at))
    return await _serve(core, request, reply, request_id)


async def _serve(core: Core, request: web.BaseRequest, reply: Reply, subject: str) -> web.StreamResponse:
    refusal = core.admit(request)
    if refusal is not None:
        return await wire.told(core, request, refusal, _EVENT)
    fault = core.fault("history", subject)
    if fault == "history_drop":
        return wire.drop(request)
    if fault is not None:
        reply = core.throttle(replies.call_fault(fault, reply, core.now()))
    return await wire.told(core, request, reply, _EVENT)


async def upload(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """`POST /upload-asset`: keep the files of data URLs and say where they are served."""
    raw = await request.read()
    refusal = core.admit(request)
    if refusal is not None:
        return wire.whole(refusal)
    try:
        files = [_decoded(url) for url in orjson.loads(raw)["data_urls"]]
    except (ValueError, TypeError, KeyError, AttributeError):  # whatever the body was instead
        return wire.whole(replies.error(400, "data_urls must be a list of base64 data URLs"))
    urls = []
    for kind, data in files:
        name = hashlib.sha256(data).hexdigest()[:32] + (mimetypes.guess_extension(kind) or ".bin")
        if name not in core.assets:
            core.asset_path(name).write_bytes(data)
            core.assets[name] = kind
            core.journal.add("asset", name=name, type=kind)
        urls.append(f"{core.base}/assets/{name}")
    return wire.json_reply({"file_urls": urls, "message": "Files uploaded successfully"})


def _decoded(url: str) -> tuple[str, bytes]:
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ValueError("not a base64 data URL")
    try:
        return head[5:-7], base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
