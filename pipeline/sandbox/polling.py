"""The free calls on a request: status, result, and the old poll URL that is both."""

from collections.abc import Callable

from aiohttp import web

from pipeline.sandbox import replies, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.replies import Reply
from pipeline.sandbox.state import Generation

Answer = Callable[[Core, Generation, float], Reply]


async def status(core: Core, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """`GET /v2/requests/{id}/status`."""
    return await _serve(core, request, request_id, "poll", _status)


async def result(core: Core, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """`GET /v2/requests/{id}`."""
    return await _serve(core, request, request_id, "result", _result)


async def poll(core: Core, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    """`GET /v1/requests/{id}`: the result once there is one, the status until then."""
    return await _serve(core, request, request_id, "poll", _result)


def _status(core: Core, generation: Generation, now: float) -> Reply:
    return replies.status_reply(generation, core.state.status(generation, now), core.settings.time_scale)


def _result(core: Core, generation: Generation, now: float) -> Reply:
    if not generation.completed:
        return _status(core, generation, now)
    size, balance = core.studio.size(generation), core.state.credits_microusd
    return replies.result_reply(core.base, generation, size, balance, core.settings.time_scale)


async def _serve(
    core: Core, request: web.BaseRequest, request_id: str, phase: str, answer: Answer
) -> web.StreamResponse:
    core.event(f"{phase}_head", request_id=request_id)
    refusal = core.admit(request)
    if refusal is not None:
        return await wire.told(core, request, refusal, phase, request_id=request_id)
    now = core.settle()
    generation = core.state.record(request_id, now)
    if generation is None:
        missing = replies.error(404, "Request not found or expired")
        return await wire.told(core, request, missing, phase, request_id=request_id)
    spare = ("poll_404",) if request_id in core.hidden_once else ()
    fault = core.fault(phase, generation.ordinal, spare=spare)
    if fault == "poll_404":
        core.hidden_once.add(request_id)
    if fault in ("poll_drop", "result_drop"):
        return wire.drop(request)
    if fault == "poll_hang":
        return await wire.hang(core, request)
    reply = answer(core, generation, now)
    if fault is not None:
        reply = core.throttle(replies.call_fault(fault, reply, now))
    return await wire.told(core, request, reply, phase, request_id=request_id)
