"""The corpus of hostile replies: what a broken, overloaded or malicious provider may say.

Most distort whatever the honest reply would be, so that each of them fits every place; the rest lie about one value.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

from hostile_provider import PLACES, Answer, Line, Raw, Scene, Script, hang_up, whole

Say = Callable[[Scene], Answer]

EVERYWHERE = PLACES
JSON_PLACES = ("submit", "poll", "result", "history")
QUOTE = 1_750_000


@dataclass(frozen=True, slots=True)
class Reply:
    """One hostile reply, and what an honest reader may make of it."""

    name: str
    say: Say
    places: tuple[str, ...] = EVERYWHERE
    accepted: bool = True
    """Whether a submission that is answered so was accepted: False where the status says for sure that it was not."""
    cost_microusd: int = QUOTE
    """What the ledger must have posted in the end."""
    is_open_door: bool = False
    """Whether the canary is a place where a video may be fetched from, by the contract of a loopback provider."""

    @property
    def family(self) -> str:
        return self.name.partition(":")[0]


REFUSALS = frozenset({400, 401, 403, 404, 405, 406, 410, 422, 429, 500})
"""Statuses of a submission that mean, for sure, that nothing was accepted."""


def _statuses() -> Iterator[Reply]:
    for status in (204, 205, 206, 226, 300, 304, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413,
                   414, 415, 416, 417, 418, 421, 422, 423, 425, 426, 429, 431, 451, 500, 501, 502, 503, 504, 505, 507,
                   508, 511, 520, 522, 524, 529, 599, 700, 999):  # fmt: skip
        body = b"" if status in (204, 205, 304) else b'{"error": "no"}'
        yield Reply(f"status:{status}", partial(_status, status, body), accepted=status not in REFUSALS)
    yield Reply("status:429-reset-in-1970", partial(_reset, "Thu, 01 Jan 1970 00:00:00 GMT"), accepted=False)
    yield Reply("status:429-reset-in-9999", partial(_reset, "9999-12-31T23:59:59+00:00"), accepted=False)
    yield Reply("status:429-reset-is-nonsense", partial(_reset, "-1e999"), accepted=False)
    yield Reply("status:503-retry-after-for-ever", lambda it: it.honest("Retry-After: 99999999999", status=503))


def _status(status: int, body: bytes, it: Scene) -> bytes:
    return it.saying(body, status=status)


def _reset(moment: str, it: Scene) -> bytes:
    return it.saying(b"{}", f"X-Rate-Limit-Reset-At-UTC: {moment}", status=429)


# --- status lines and headers ---

LINES = {
    "none": b"",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 8,
    "version-2": b"HTTP/2.0 200 OK",
    "version-9.9": b"HTTP/9.9 200 OK",
    "icy": b"ICY 200 OK",
    "small-letters": b"http/1.1 200 ok",
    "letters-in-status": b"HTTP/1.1 2OO OK",
    "negative-status": b"HTTP/1.1 -200 OK",
    "long-status": b"HTTP/1.1 2000 OK",
    "short-status": b"HTTP/1.1 20 OK",
    "status-0": b"HTTP/1.1 000 OK",
    "no-status": b"HTTP/1.1",
    "reason-of-a-megabyte": b"HTTP/1.1 200 " + b"O" * 2**20,
    "reason-with-escapes": b"HTTP/1.1 200 \x1b[2J\x1b]0;owned\x07",
    "leading-blank-lines": b"\r\n\r\nHTTP/1.1 200 OK",
    "nul": b"HTTP/1.1 200 O\x00K",
}


def _lines() -> Iterator[Reply]:
    for name, line in LINES.items():
        yield Reply(f"line:{name}", partial(_first_line, line))


def _first_line(line: bytes, it: Scene) -> bytes:
    return line + it.honest()[len(b"HTTP/1.1 200 Said") :]


HEADERS = {
    "of-9000-bytes": ("Content-Security-Policy: " + "a" * 9_000,),
    "of-70000-bytes": ("X-Long: " + "a" * 70_000,),
    "of-a-megabyte": ("X-Long: " + "a" * 2**20,),
    "two-thousand": tuple(f"X-{n}: {n}" for n in range(2_000)),
    "without-colon": ("this is no header",),
    "without-name": (": empty",),
    "with-nul": ("X-Nul: a\x00b",),
    "with-escapes": ("X-Screen: \x1b]0;owned\x07\x1b[2J",),
    "folded": ("X-Folded: a\r\n b",),
    "space-before-colon": ("X-Space : a",),
    "not-ascii": ("X-Name: \xe9\xff\xfe",),
    "duplicate-length": ("Content-Length: 2",),
    "negative-length": ("Content-Length: -1",),
    "chunked-besides": ("Transfer-Encoding: chunked",),
    "gzip-transfer": ("Transfer-Encoding: gzip",),
    "cookies": tuple(f"Set-Cookie: c{n}=v; Domain=127.0.0.1; Path=/" for n in range(200)),
    "refresh": ("Refresh: 0; url={canary}/refresh", "Link: <{canary}/next>; rel=preload", "Alt-Svc: h2=\":443\""),
    "location-on-200": ("Location: {canary}/location", "Content-Location: {canary}/here"),
    "authenticate": ("WWW-Authenticate: Basic realm=\"key please\"", "Proxy-Authenticate: NTLM"),
    "upgrade": ("Upgrade: websocket", "Connection: Upgrade"),
    "close-and-keep": ("Connection: close, keep-alive", "Keep-Alive: timeout=0, max=-1"),
}  # fmt: skip


def _headers() -> Iterator[Reply]:
    for name, lines in HEADERS.items():
        yield Reply(f"header:{name}", partial(_with_headers, lines))


def _with_headers(lines: tuple[str, ...], it: Scene) -> bytes:
    return it.honest(*(line.replace("{canary}", it.canary) for line in lines))


# --- lengths, encodings, pieces ---


def _bodies() -> Iterator[Reply]:
    for name, say in BODIES.items():
        yield Reply(f"body:{name}", say)


def _chunked(it: Scene, *chunks: bytes) -> bytes:
    head = it.saying(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(chunks)


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _text(body: str, encoding: str, it: Scene) -> bytes:
    return it.saying(body.encode(encoding, "surrogatepass"))


def _recoded(encoding: str, it: Scene) -> bytes:
    return it.saying(json.dumps(dict(it.data)).encode(encoding))


def _bomb(wrapped: bool, it: Scene) -> bytes:
    return it.saying(_blank(), "Content-Encoding: gzip") if wrapped else it.saying(_blank())


@cache
def _blank() -> bytes:
    """64 MiB of blanks, as 64 kB."""
    made = zlib.compressobj(9, wbits=31)
    return b"".join(made.compress(b" " * 2**20) for _ in range(64)) + made.flush()


BODIES: dict[str, Say] = {
    "empty": lambda it: it.saying(b""),
    "blank": lambda it: it.saying(b" \r\n\t "),
    "html": lambda it: it.saying(b"<html><script>alert(1)</script><h1>502 Bad Gateway</h1></html>"),
    "null": lambda it: it.saying(b"null"),
    "true": lambda it: it.saying(b"true"),
    "number": lambda it: it.saying(b"0"),
    "string": lambda it: it.saying(b'"COMPLETED"'),
    "list-of-lists": lambda it: it.saying(b"[[[[]]]]"),
    "nan": lambda it: it.saying(b"NaN"),
    "nul-bytes": lambda it: it.saying(b"\x00" * 4096),
    "deep-list": lambda it: it.saying(b"[" * 200_000),
    "deep-object": lambda it: it.saying(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep-but-whole": lambda it: it.changed(extra=Raw("[" * 900 + "]" * 900)),
    "digits": lambda it: it.changed(extra=Raw("9" * 5_000)),
    "digits-of-a-megabyte": lambda it: it.changed(extra=Raw("9" * 2**20)),
    "exponent": lambda it: it.changed(extra=Raw("1e999999999999"), more=Raw("-1e400")),
    "duplicate-keys": lambda it: it.saying(it.body[:-1] + b", " + it.body[1:]),
    "duplicate-odd-keys": lambda it: it.saying(it.body[:-1] + b', "x": 1, "x": 2}'),
    "two-documents": lambda it: it.saying(it.body + b"\n" + it.body),
    "trailing-comma": lambda it: it.saying(it.body[:-1] + b",}"),
    "single-quotes": lambda it: it.saying(it.body.replace(b'"', b"'")),
    "comment": lambda it: it.saying(b"/* " + it.body + b" */ " + it.body),
    "bom": lambda it: it.saying(b"\xef\xbb\xbf" + it.body),
    "utf-16": partial(_recoded, "utf-16"),
    "utf-16-le": partial(_recoded, "utf-16-le"),
    "utf-32": partial(_recoded, "utf-32"),
    "utf-7": partial(_text, "+AHsAIgBhACIAOgAxAH0-", "ascii"),
    "bad-utf-8": lambda it: it.saying(it.body[:-1] + b', "error": "\xff\xfe\xc0\xaf"}'),
    "half-character": lambda it: it.changed(error=Raw('"\\ud800"'), message=Raw('"\\udfff\\ud800"')),
    "escapes": lambda it: it.changed(error="\x1b]0;owned\x07\x1b[2J\u202e\u2066\u061c", detail="=HYPERLINK(1)"),
    "formula": lambda it: it.changed(error='=cmd|" /C calc"!A0', message="@SUM(1)", request_body="=1"),
    "proto": lambda it: it.saying(it.body[:-1] + b', "__proto__": {"cost": 0}, "constructor": {"prototype": 1}}'),
    "five-megabytes": lambda it: it.changed(extra="a" * (5 * 2**20)),
    "cut-in-half": lambda it: it.honest()[: -len(it.body) // 2] if it.body else b"",
    "half-with-honest-length": lambda it: it.saying(it.body[: len(it.body) // 2]),
    "longer-than-said": lambda it: whole(200, it.body + b"x" * 999, *it.headers, length=len(it.body)),
    "shorter-than-said": lambda it: whole(200, it.body, *it.headers, length=len(it.body) + 999),
    "length-of-a-terabyte": lambda it: whole(200, it.body, *it.headers, length=10**12),
    "length-in-words": lambda it: whole(200, it.body, *it.headers, length="many"),
    "length-with-exponent": lambda it: whole(200, it.body, *it.headers, length="1e3"),
    "length-with-plus": lambda it: whole(200, it.body, *it.headers, length=f"+{len(it.body)}"),
    "length-zero": lambda it: whole(200, it.body, *it.headers, length=0),
    "two-replies": lambda it: it.honest() + whole(200, b'{"status": "FAILED", "request_id": "smuggled-0001"}'),
    "chunks": lambda it: _chunked(it, *(_piece(it.body[at : at + 7]) for at in range(0, 70, 7)), b"0\r\n\r\n"),
    "chunks-never-ended": lambda it: _chunked(it, _piece(it.body)),
    "chunk-size-negative": lambda it: _chunked(it, b"-1\r\n", it.body),
    "chunk-size-huge": lambda it: _chunked(it, b"ffffffffffffffffff\r\n", it.body),
    "chunk-size-nonsense": lambda it: _chunked(it, b"zz\r\n", it.body),
    "chunk-extension-of-a-megabyte": lambda it: _chunked(it, b"1;" + b"e" * 2**20 + b"\r\n{\r\n0\r\n\r\n"),
    "trailers": lambda it: _chunked(it, _piece(it.body), b"0\r\n", b"X-T: 1\r\n" * 5_000, b"\r\n"),
    "gzip": lambda it: it.saying(gzip.compress(it.body), "Content-Encoding: gzip"),
    "gzip-cut": lambda it: it.saying(gzip.compress(it.body)[:-6], "Content-Encoding: gzip"),
    "gzip-only-said": lambda it: it.honest("Content-Encoding: gzip"),
    "gzip-not-said": lambda it: it.saying(gzip.compress(it.body)),
    "deflate": lambda it: it.saying(zlib.compress(it.body), "Content-Encoding: deflate"),
    "brotli-only-said": lambda it: it.honest("Content-Encoding: br"),
    "gzip-bomb": partial(_bomb, True),
    "gzip-bomb-not-said": partial(_bomb, False),
    "another-film": lambda it: it.saying(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00" * 4096),
    "box-of-4-gigabytes": lambda it: it.saying(struct.pack(">I4s", 2**32 - 1, b"moov") + b"\x00" * 64),
    "box-of-nothing": lambda it: it.saying(struct.pack(">I4sQ", 1, b"mdat", 0) * 512),
    "bit-flip": lambda it: it.saying(bytes([*it.body[:40], it.body[40] ^ 0x10, *it.body[41:]])),
}


# --- replies that take their time, or have no end ---


def _scripts() -> Iterator[Reply]:
    for name, script in SCRIPTS.items():
        yield Reply(f"script:{name}", partial(_as_script, script))


def _as_script(script: Callable[[Scene, Line], Script], it: Scene) -> Script:
    return partial(script, it)  # type: ignore[arg-type]


async def _silence(_it: Scene, _line: Line) -> None:
    await asyncio.sleep(1e6)


async def _reset_connection(_it: Scene, line: Line) -> None:
    line.writer.transport.abort()


async def _half_head(it: Scene, line: Line) -> None:
    await line.say(it.honest()[:30])


async def _half_head_then_silence(it: Scene, line: Line) -> None:
    await line.say(it.honest()[:30])
    await asyncio.sleep(1e6)


async def _half_body_then_reset(it: Scene, line: Line) -> None:
    await line.say(it.honest()[: -len(it.body) // 2 - 1])
    await asyncio.sleep(1)
    line.writer.transport.abort()


async def _close_ends_the_body(it: Scene, line: Line) -> None:
    await line.say(b"HTTP/1.1 200 OK\r\n\r\n" + it.body)


async def _close_cuts_the_body(it: Scene, line: Line) -> None:
    await line.say(b"HTTP/1.1 200 OK\r\n\r\n" + it.body[:-7])


async def _informed_first(it: Scene, line: Line) -> None:
    await line.say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1_000 + it.honest())


async def _informed_for_ever(_it: Scene, line: Line) -> None:
    while True:
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(5)


async def _switching(it: Scene, line: Line) -> None:
    await line.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + it.body)


async def _drip(it: Scene, line: Line) -> None:
    data = it.honest()
    for at in range(len(data)):
        await line.say(data[at : at + 1])
        await asyncio.sleep(7)


async def _late(it: Scene, line: Line) -> None:
    await asyncio.sleep(300)
    await line.say(it.honest())


async def _head_for_ever(it: Scene, line: Line) -> None:
    await line.say(it.honest()[:20] + b"\r\n")
    while True:
        await line.say(b"X-More: " + b"m" * 2_000 + b"\r\n")


async def _body_for_ever(it: Scene, line: Line) -> None:
    await line.say(_chunked(it))
    while True:
        await line.say(_piece(b" " * 2**16))


async def _chunks_of_one_for_ever(it: Scene, line: Line) -> None:
    await line.say(_chunked(it))
    while True:
        await line.say(b"1\r\n \r\n" * 4_000)
        await asyncio.sleep(0.5)


SCRIPTS = {
    "silence": _silence,
    "reset": _reset_connection,
    "half-head": _half_head,
    "half-head-then-silence": _half_head_then_silence,
    "half-body-then-reset": _half_body_then_reset,
    "close-ends-the-body": _close_ends_the_body,
    "close-cuts-the-body": _close_cuts_the_body,
    "informed-first": _informed_first,
    "informed-for-ever": _informed_for_ever,
    "switching": _switching,
    "drip": _drip,
    "late": _late,
    "head-for-ever": _head_for_ever,
    "body-for-ever": _body_for_ever,
    "chunks-of-one-for-ever": _chunks_of_one_for_ever,
}


# --- URLs: as a redirect from every place, and as the address of the video ---

URLS = {
    "canary": "{canary}/film.mp4",
    "canary-by-name": "http://localhost:{port}/film.mp4",
    "canary-decimal": "http://2130706433:{port}/film.mp4",
    "canary-octal": "http://0177.0.0.1:{port}/film.mp4",
    "canary-hex": "http://0x7f000001:{port}/film.mp4",
    "canary-short": "http://127.1:{port}/film.mp4",
    "canary-dot": "http://localhost.:{port}/film.mp4",
    "canary-mapped": "http://[::ffff:127.0.0.1]:{port}/film.mp4",
    "canary-v6": "http://[::1]:{port}/film.mp4",
    "canary-any": "http://0.0.0.0:{port}/film.mp4",
    "canary-fullwidth": "http://１２７.０.０.１:{port}/film.mp4",
    "canary-userinfo": "http://user:password@127.0.0.1:{port}/film.mp4",
    "canary-behind-segmind": "https://cdn.segmind.com@127.0.0.1:{port}/film.mp4",
    "canary-backslash": "https://cdn.segmind.com\\@127.0.0.1:{port}/film.mp4",
    "canary-fragment": "https://127.0.0.1:{port}#@cdn.segmind.com/film.mp4",
    "canary-nip": "http://127.0.0.1.nip.io:{port}/film.mp4",
    "canary-no-scheme": "//127.0.0.1:{port}/film.mp4",
    "canary-tabbed": "ht\ttp://127.0.0.1:{port}/film.mp4",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata-v6": "http://[fd00:ec2::254]/latest/meta-data/",
    "link-local": "http://[fe80::1%25eth0]/film.mp4",
    "nat64": "https://[64:ff9b::7f00:1]/film.mp4",
    "private": "http://10.0.0.1/film.mp4",
    "private-https": "https://192.168.1.1/film.mp4",
    "file": "file:///etc/passwd",
    "file-host": "file://127.0.0.1/etc/passwd",
    "ftp": "ftp://cdn.segmind.com/film.mp4",
    "gopher": "gopher://127.0.0.1:{port}/_GET%20/",
    "data": "data:video/mp4;base64,AAAA",
    "javascript": "javascript:alert(1)",
    "unix": "unix:///var/run/docker.sock",
    "port-22": "https://cdn.segmind.com:22/film.mp4",
    "port-0": "https://cdn.segmind.com:0/film.mp4",
    "port-65536": "https://cdn.segmind.com:65536/film.mp4",
    "plain-http": "http://cdn.segmind.com/film.mp4",
    "look-alike": "https://cdn.segmind.com.evil.example/film.mp4",
    "suffix": "https://evilsegmind.com/film.mp4",
    "idn": "https://cdn.segmínd.com/film.mp4",
    "idn-dot": "https://cdn。segmind。com.evil.example/film.mp4",
    "punycode": "https://xn--segmnd-7va.com/film.mp4",
    "nul": "https://cdn.segmind.com\x00.evil.example/film.mp4",
    "crlf": "{canary}/film.mp4\r\nX-Api-Key: taken",
    "space": "{canary}/film one.mp4",
    "escape": "{canary}/\x1b]0;owned\x07",
    "long": "{canary}/" + "a" * 9_000,
    "empty": "",
    "relative-up": "../../../../etc/passwd",
    "bracket": "http://[::1/film.mp4",
    "percent-host": "http://%31%32%37.0.0.1:{port}/film.mp4",
}


def url_of(name: str, it: Scene) -> str:
    """The hostile URL of a name in `URLS`, aimed at the canary where it can be."""
    return URLS[name].replace("{canary}", it.canary).replace("{port}", it.canary.rpartition(":")[2])


OPEN_DOORS = frozenset(
    {
        "canary",
        "canary-by-name",
        "canary-mapped",
        "canary-v6",
        "canary-fullwidth",
        "canary-no-scheme",
        "crlf",
        "space",
        "escape",
    }
)
"""Plain loopback URLs, or such as a redirect is read as: a provider on loopback may keep its files behind them."""


def _redirects() -> Iterator[Reply]:
    for number, name in enumerate(URLS):
        status = (301, 302, 303, 307, 308)[number % 5]
        yield Reply(f"redirect:{status}-{name}", partial(_redirect, status, name), is_open_door=name in OPEN_DOORS)
    yield Reply("redirect:302-to-itself", lambda it: it.saying(b"", "Location: /file.mp4", status=302))
    yield Reply("redirect:307-to-nowhere", lambda it: it.saying(b"", status=307))
    yield Reply("redirect:301-twice", partial(_two_locations, 301), is_open_door=True)


def _redirect(status: int, name: str, it: Scene) -> bytes:
    location = url_of(name, it).encode("utf-8")
    return it.saying(b"", "Location: @", status=status).replace(b"Location: @", b"Location: " + location)


def _two_locations(status: int, it: Scene) -> bytes:
    return it.saying(b"", f"Location: {it.canary}/one", f"Location: {it.canary}/two", status=status)


def _addresses() -> Iterator[Reply]:
    """The address of the video, in the result and in the history."""
    for name in URLS:
        yield Reply(f"url:{name}", partial(_address, name), ("result", "history"))
    for name, value in URL_SHAPES.items():
        yield Reply(f"url:shape-{name}", partial(_address_shaped, value), ("result", "history"))


def _address(name: str, it: Scene) -> bytes:
    return _address_shaped(url_of(name, it), it)


def _address_shaped(value: object, it: Scene) -> bytes:
    if "video" in it.data:
        return it.changed(video__url=value, output=[value])
    if "data" in it.data:
        return it.saying(_rows(it, generation_url=value))
    return it.changed(generation_url=value)


URL_SHAPES: dict[str, object] = {
    "null": Raw("null"),
    "number": 7,
    "true": True,
    "empty-list": [],
    "list-of-lists": [[[[[["https://cdn.segmind.com/a.mp4"]]]]]],
    "object": {"url": {"url": {"url": {"url": "https://cdn.segmind.com/a.mp4"}}}},
    "half-character": Raw('"https://cdn.segmind.com/\\ud800.mp4"'),
    "many": ["x"] * 10_000,
}


def _rows(it: Scene, **changes: object) -> bytes:
    """A page of the history with other values in each of its rows."""
    from hostile_provider import as_json

    return as_json({"data": [{**row, **changes} for row in it.data["data"]]})


# --- ids, costs, states ---

IDS: dict[str, object] = {
    "path": "../../../../x",
    "absolute": "/etc/passwd",
    "backslash": "..\\..\\x",
    "dots": "..",
    "slash": "abcdefgh/../../x",
    "percent": "%2e%2e%2fabcdefgh",
    "query": "abcdefgh?x=1",
    "fragment": "abcdefgh#",
    "number": 12345678,
    "float": 1.5,
    "null": Raw("null"),
    "true": True,
    "list": ["3f2c1a9e-0000-4000-8000-000000000001"],
    "object": {"id": "3f2c1a9e-0000-4000-8000-000000000001"},
    "empty": "",
    "blank": "        ",
    "short": "abc",
    "megabyte": "a" * 2**20,
    "unicode": "идентификатор",
    "fullwidth": "ａｂｃｄｅｆｇｈ",
    "bidi": "abcdefgh\u202e4321",
    "newline": "abcdefgh\r\nX-Evil: 1",
    "trailing-newline": "abcdefgh1234\n",
    "nul": "abcdefgh\x00",
    "escape": "\x1b[2Jabcdefgh",
    "half-character": Raw('"abcdefgh\\ud800"'),
    "formula": "=1+1+1+1+1",
    "markup": "<b>abcdefgh</b>",
    "template": "{{7*7}}abcdefgh",
    "digits": Raw("9" * 5_000),
    "host": "@127.0.0.1:1",
}


def _ids() -> Iterator[Reply]:
    for name, value in IDS.items():
        yield Reply(f"id:{name}", partial(_id, value), ("submit", "history"))
        yield Reply(f"id:other-{name}", partial(_id, value), ("poll", "result"))
    yield Reply("id:missing", lambda it: it.saying(b'{"status": "QUEUED"}'), ("submit",))


def _id(value: object, it: Scene) -> bytes:
    if "data" in it.data:
        return it.saying(_rows(it, request_id=value))
    return it.changed(request_id=value)


COSTS: dict[str, tuple[object, int]] = {
    "nan": (Raw("NaN"), QUOTE),
    "infinity": (Raw("Infinity"), QUOTE),
    "minus-infinity": (Raw("-Infinity"), QUOTE),
    "negative": (-1, QUOTE),
    "negative-small": (Raw("-0.0000001"), QUOTE),
    "huge": (Raw("1e400"), QUOTE),
    "exponent": (Raw("1e9999999999"), QUOTE),
    "tiny": (Raw("1e-400"), QUOTE),
    "digits": (Raw("9" * 5_000), QUOTE),
    "nines": (Raw("1.7" + "9" * 5_000), QUOTE),
    "true": (True, QUOTE),
    "false": (False, QUOTE),
    "null": (Raw("null"), QUOTE),
    "missing": (None, QUOTE),
    "zero": (0, QUOTE),
    "minus-zero": (Raw("-0"), QUOTE),
    "list": ([1.75], QUOTE),
    "object": ({"usd": 1.75}, QUOTE),
    "empty": ("", QUOTE),
    "words": ("free", QUOTE),
    "dollars": ("$3.50", QUOTE),
    "comma": ("3,50", QUOTE),
    "underscore": ("3_50", QUOTE),
    "arabic-digits": ("٣٫٥٠", QUOTE),
    "hex": ("0x3", QUOTE),
    "exponent-as-text": ("1e3", QUOTE),
    "nan-as-text": ("NaN", QUOTE),
    "as-text": ("1.75", QUOTE),
    "padded": (" 1.75 ", QUOTE),
    "long-but-exact": (Raw("1.750000000000000000000"), QUOTE),
}


def _costs() -> Iterator[Reply]:
    # One above the quote is held against the history, which knows better.
    yield Reply("cost:above", partial(_cost, "3.50"), ("result",), cost_microusd=QUOTE)
    for name, (value, expected) in COSTS.items():
        yield Reply(f"cost:{name}", partial(_cost, value), ("result",), cost_microusd=expected)
        # The history's word is only taken where the request's own is missing; nobody's word means the quote.
        if expected == QUOTE:
            yield Reply(f"cost:row-{name}", partial(_cost, value), ("history",))


def _cost(value: object, it: Scene) -> bytes:
    if "metrics" in it.data:
        return it.changed(metrics__cost=value)
    if "data" in it.data:
        return it.saying(_rows(it, credits_deduction=Raw("null") if value is None else value))
    return it.changed(credits_deduction=value)


STATES: dict[str, object] = {
    "unknown": "BANANA",
    "empty": "",
    "null": Raw("null"),
    "number": 200,
    "true": True,
    "list": ["COMPLETED"],
    "queued-for-ever": "QUEUED",
    "processing-for-ever": "PROCESSING",
    "small": "completed",
    "padded": " COMPLETED ",
    "nul": "COMPLETED\x00",
    "half-character": Raw('"COMPLETED\\ud800"'),
    "kelvin": "COMPLETED\u212a",
    "megabyte": "C" * 2**20,
    "escape": "\x1b[2JCOMPLETED",
}


def _states() -> Iterator[Reply]:
    for name, value in STATES.items():
        yield Reply(f"state:{name}", partial(_state, value), ("poll", "result", "history"))
    charged = {"status": "FAILED", "metrics": {"cost": 1.75}, "error": "failed, and charged all the same"}
    yield Reply("state:failed-and-charged", lambda it: it.changed(**charged), ("poll",))
    yield Reply("state:completed-then-failed", lambda it: it.changed(status="FAILED", metrics={}), ("result",))
    yield Reply("state:failed-with-422", partial(_other_request, 422), ("poll", "result"))
    for status in (400, 401, 404, 406, 422, 429, 500):
        says = partial(_contradiction, status)
        yield Reply(f"state:refused-with-{status}-but-charged", says, ("submit",))
        yield Reply(f"state:refused-with-{status}-but-queued", partial(_queued, status), ("submit",))


def _state(value: object, it: Scene) -> bytes:
    if "data" in it.data:
        return it.saying(_rows(it, model_status=value))
    return it.changed(model_status=value) if "model_status" in it.data else it.changed(status=value)


def _other_request(status: int, it: Scene) -> bytes:
    return it.saying(b'{"request_id": "99999999-0000-4000-8000-000000000000", "status": "FAILED"}', status=status)


def _contradiction(status: int, it: Scene) -> bytes:
    return it.saying(b'{"error": "refused"}', "X-Cost: 1.75", status=status)


def _queued(status: int, it: Scene) -> bytes:
    return it.saying(b'{"error": "refused", "status": "QUEUED"}', status=status)


def _elsewhere() -> Iterator[Reply]:
    yield Reply("script:hang-up", lambda _it: hang_up)


def corpus() -> dict[str, Reply]:
    """Every reply by its name."""
    made = [
        *_statuses(),
        *_lines(),
        *_headers(),
        *_bodies(),
        *_scripts(),
        *_elsewhere(),
        *_redirects(),
        *_addresses(),
        *_ids(),
        *_costs(),
        *_states(),
    ]
    return {reply.name: reply for reply in made}


def pairs(*, all_places: bool) -> list[tuple[str, str]]:
    """Every reply with each of its places; or a fourth with one of them, and more where the money is."""
    replies = list(corpus().values())
    if all_places:
        return [(reply.name, place) for reply in replies for place in reply.places]
    chosen = [(reply.name, reply.places[number % len(reply.places)]) for number, reply in enumerate(replies[::4])]
    money = [(reply.name, "submit") for reply in replies if "submit" in reply.places][1::4]
    costs = [(reply.name, "result") for reply in replies if reply.family == "cost" and "result" in reply.places]
    return list(dict.fromkeys(chosen + money + costs))
