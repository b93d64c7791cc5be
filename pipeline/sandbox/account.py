"""The account's calls: balance, request history and uploads."""

import base64
import binascii
import hashlib
import mimetypes

import orjson
from aiohttp import web

from pipeline.sandbox import history, replies, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.replies import Reply
from pipeline.sandbox.settings import MICRO


async def credits_left(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """`GET /v1/get-user-credits`."""
    core.event("credits_head")
    refusal = core.admit(request)
    if refusal is not None:
        return await wire.told(core, request, refusal, "credits")
    core.settle()
    balance = replies.of({"credits": core.state.credits_microusd / MICRO, "free-credits": 0.0})
    return await wire.told(core, request, balance, "credits")


async def history_page(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """`GET /inference-request/request-history`."""
    core.event("history_head")
    now = core.settle()
    settings = core.settings
    try:
        query = history.HistoryQuery.read(request.query, now)
    except ValueError as problem:
        refusal = core.admit(request) or replies.error(400, str(problem))
        return await wire.told(core, request, refusal, "history")
    repeats, charge_at = settings.history_repeats, settings.charge_at
    page = history.page(core.state, query, now, core.base, repeats, charge_at)
    return await _serve(core, request, replies.of(page), "")


async def history_row(core: Core, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """`GET /inference-request/request-history/{request_id}`."""
    core.event("history_head", request_id=request_id)
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
        return await wire.told(core, request, refusal, "history")
    fault = core.fault("history", subject)
    if fault == "history_drop":
        return wire.drop(request)
    if fault is not None:
        reply = core.throttle(replies.call_fault(fault, reply, core.now()))
    return await wire.told(core, request, reply, "history")


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
    fault = core.fault("upload")
    if fault in ("upload_400", "upload_401", "upload_429", "upload_500"):
        return wire.whole(core.throttle(replies.call_fault(fault, replies.of({}), core.now())))
    urls = []
    for kind, data in files:
        name = hashlib.sha256(data).hexdigest()[:32] + (mimetypes.guess_extension(kind) or ".bin")
        if name not in core.assets:
            core.asset_path(name).write_bytes(data)
            core.assets[name] = kind
            core.journal.add("asset", name=name, type=kind)
        urls.append(f"{core.base}/assets/{name}")
    if fault == "upload_drop":
        return wire.drop(request)
    reply = replies.of({"file_urls": urls, "message": "Files uploaded successfully"})
    return wire.whole(reply if fault is None else replies.call_fault(fault, reply, core.now()))


def _decoded(url: str) -> tuple[str, bytes]:
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ValueError("not a base64 data URL")
    try:
        return head[5:-7], base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
