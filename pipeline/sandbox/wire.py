"""Answers on the connection: whole, cut, slow, or none at all."""

import asyncio
from email.utils import formatdate
from typing import TypeVar

from aiohttp import web

from pipeline.sandbox.core import Core
from pipeline.sandbox.replies import Reply, of

_PIECES = 20
_Response = TypeVar("_Response", bound=web.StreamResponse)


def whole(reply: Reply) -> web.Response:
    """The answer as it should be."""
    return web.Response(
        status=reply.status,
        body=reply.body,
        headers={"Content-Type": reply.content_type, **reply.headers} if reply.headers else None,
        content_type=None if reply.headers else reply.content_type,
    )


def dated(core: Core, response: _Response) -> _Response:
    """The answer with the time of this provider's own clock; what is on its way already is left as it is."""
    if not response.prepared:
        response.headers["Date"] = formatdate(core.now(), usegmt=True)
    return response


def json_reply(payload: object) -> web.Response:
    """A plain 200."""
    return whole(of(payload))


async def told(core: Core, request: web.BaseRequest, reply: Reply, call: str, **facts: object) -> web.StreamResponse:
    """The answer; if there is a hook, in two halves, and it is told of head, half and end of this `call`'s reply."""
    if core.settings.on_event is None:
        return whole(reply)
    response = await _begun(core, request, reply)
    core.event(f"{call}_reply_head", status=reply.status, **facts)
    half = len(reply.body) // 2
    await response.write(reply.body[:half])
    core.event(f"{call}_reply_half", status=reply.status, **facts)
    await response.write(reply.body[half:])
    await response.write_eof()
    core.event(f"{call}_reply_sent", status=reply.status, **facts)
    return response


async def _begun(core: Core, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """The answer with its head sent, and its body still to be written."""
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = reply.content_type
    response.content_length = len(reply.body)
    await dated(core, response).prepare(request)
    return response


def drop(request: web.BaseRequest, *, hard: bool = False) -> web.Response:
    """Close the connection without a word: with a reset when `hard`, else in an orderly way."""
    transport = request.transport
    if transport is not None:
        if hard:
            transport.abort()
        else:
            transport.close()
    return web.Response()  # finds the connection closed, and goes nowhere


async def hang(core: Core, request: web.BaseRequest) -> web.Response:
    """Say nothing for as long as a hanging call lasts, then close."""
    await core.pause(core.settings.hang_s)
    return drop(request)


def _head(reply: Reply, length: int) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} OK", f"Content-Type: {reply.content_type}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def cut(request: web.BaseRequest, reply: Reply) -> web.Response:
    """All headers and half of the body that they promise, then the end."""
    transport = request.transport
    if transport is not None and not transport.is_closing():
        transport.write(_head(reply, len(reply.body)) + reply.body[: len(reply.body) // 2])
    return drop(request)


async def in_pieces(
    core: Core, request: web.BaseRequest, reply: Reply, seconds: float, **facts: object
) -> web.StreamResponse:
    """The whole video bit by bit over some real seconds; the hook is told of head, first bytes, half and end."""
    response = await _begun(core, request, reply)
    core.event("file_reply_head", **facts)
    step = max(1, -(-len(reply.body) // _PIECES))
    for piece, at in enumerate(range(0, len(reply.body), step), 1):
        await response.write(reply.body[at : at + step])
        if piece == 1:
            core.event("file_first_bytes", **facts)
        if piece == _PIECES // 2:
            core.event("file_half", **facts)
        if seconds > 0 and not core.closing.is_set():
            await core.pause(seconds / _PIECES)
        else:
            await asyncio.sleep(0)
    await response.write_eof()
    core.event("file_done", **facts)
    return response
