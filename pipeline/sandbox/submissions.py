"""The two calls that cost money: v2 submit and v1 blocking."""

from aiohttp import web

from pipeline.sandbox import replies, wire
from pipeline.sandbox.core import Core
from pipeline.sandbox.params import MODELS, BodyRefusedError, read_body
from pipeline.sandbox.replies import Reply
from pipeline.sandbox.state import Generation

_BAD_ID = "../../x"
_HUGE = "default-src 'self' " * 500  # 9,500 bytes: more than common clients take by default
_SPOIL_THE_REPLY = ("submit_half_reply_after", "submit_bad_id_after", "submit_huge_header_after")


async def submit(
    core: Core, request: web.BaseRequest, api: str, model: str, *, moved: bool = False
) -> web.StreamResponse:
    """Take a submission through the provider's checks, its faults and, if accepted, to its answer."""
    core.event("submit_head", api=api, model=model)
    raw = await request.read()
    core.event("submit_body", api=api, model=model, size=len(raw))
    checked = _check(core, request, model, raw)
    if isinstance(checked, Reply):
        return await _answer(core, request, checked)
    core.redirects_followed += moved
    state = core.state
    now = core.settle()
    ordinal = state.next_ordinal()
    # Whoever follows a redirect meets no fault: the point of that path is what a second acceptance costs.
    fault = None if moved else core.faults.draw("submit", ordinal)
    if fault is not None:
        core.journal.add("fault", name=fault, ordinal=ordinal)
        if not fault.endswith("_after"):
            return await _lose(core, request, fault, api, model, ordinal, state.price(checked))
    generation = state.accept(ordinal, model, api, checked, now)
    if core.journal.is_kept:
        core.journal.add("gen", **state.dump(generation))
    core.draw(generation)
    core.event("submit_accepted", request_id=generation.id, ordinal=ordinal, fault=fault)
    if fault is not None and fault not in _SPOIL_THE_REPLY:
        return await _lose(core, request, fault, api, model, ordinal, generation.cost_microusd)
    if api == "v2":
        reply = replies.accepted(core.base, generation.id)
        if fault == "submit_bad_id_after":
            reply = replies.accepted(core.base, _BAD_ID)
    else:
        if not await core.until_ended(generation):
            return wire.drop(request)
        reply = blocking_reply(core, generation)
        if fault == "submit_bad_id_after":
            reply.headers["x-request-id"] = _BAD_ID
    if fault == "submit_huge_header_after":
        reply.headers["content-security-policy"] = _HUGE
    if fault == "submit_half_reply_after":
        return wire.cut(request, reply)
    return await _answer(core, request, reply, generation)


def _check(core: Core, request: web.BaseRequest, model: str, raw: bytes) -> dict[str, object] | Reply:
    """The checked body, or the refusal."""
    refusal = core.admit(request)
    if refusal is not None:
        return refusal
    if model not in MODELS:
        return replies.error(404, f"Model not found: {model}")
    if request.content_type != replies.JSON:
        return replies.error(406, "Content-Type must be application/json")
    try:
        body = read_body(raw)
    except BodyRefusedError as refused:
        return replies.error(refused.status, refused.message)
    now = core.settle()
    most = core.settings.max_in_flight
    if most is not None and core.state.in_flight >= most:
        return core.throttle(replies.too_many(now + 1, "Too many generations in flight"))
    price, balance = core.state.price(body), core.state.credits_microusd
    if price > balance:
        return replies.no_credits(balance, price)
    return body


async def _answer(
    core: Core, request: web.BaseRequest, reply: Reply, generation: Generation | None = None
) -> web.StreamResponse:
    request_id = None if generation is None else generation.id
    return await wire.told(core, request, reply, "submit", request_id=request_id)


async def _lose(
    core: Core, request: web.BaseRequest, fault: str, api: str, model: str, ordinal: int, price_microusd: int
) -> web.StreamResponse:
    """Refuse a submission, or lose its answer, as the fault says."""
    name = fault.removesuffix("_before").removesuffix("_after")
    if name == "submit_hang":
        return await wire.hang(core, request)
    if name == "submit_drop":
        return wire.drop(request, hard=ordinal % 2 == 1)
    if name == "submit_3xx":
        reply = Reply(307, b"", replies.HTML, {"Location": f"/{api}/moved/{model}"})
    else:
        balance = core.state.credits_microusd
        reply = replies.submit_fault(fault, model, balance, price_microusd, core.now())
    return await _answer(core, request, core.throttle(reply))


def blocking_reply(core: Core, generation: Generation) -> Reply:
    """The v1 answer to a generation that has ended."""
    if generation.error is not None:
        return replies.error(500, generation.error)
    state, scale = core.state, core.settings.time_scale
    headers = replies.accounting(generation, state.credits_microusd, scale)
    if core.settings.v1_body == "video":
        return Reply(200, core.studio.data(generation), replies.MP4, headers)
    size = core.studio.size(generation)
    reply = replies.result_reply(core.base, generation, size, state.credits_microusd, scale)
    reply.headers.update(headers)
    return reply
