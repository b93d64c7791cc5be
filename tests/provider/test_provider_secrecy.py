"""No spelling of the key that a provider sends back can be turned into the key again."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from pipeline.provider.secrecy import Eraser

KEY = "SG_0123+56/89abcdef"
ODD_KEY = 'SG_canary+/="\\<&%7e9d31c0'
"""A key with every character that is written differently somewhere."""

SPELLINGS = {
    "plain": KEY,
    "other case": KEY.lower(),
    "json": json.dumps(KEY)[1:-1],
    "json with slashes": KEY.replace("/", "\\/"),
    "json, all escaped": "".join(f"\\u{ord(char):04x}" for char in KEY),
    "json, some escaped": f"\\u0053{KEY[1:]}",
    "json in json": json.dumps("".join(f"\\u{ord(char):04X}" for char in KEY))[1:-1],
    "utf-16 in json": "".join(f"{char}\\u0000" for char in KEY),
    "url": KEY.replace("+", "%2B").replace("/", "%2f"),
    "url, all escaped": "".join(f"%{ord(char):02X}" for char in KEY),
    "url in url": "".join(f"%25{ord(char):02x}" for char in KEY),
    "html": "".join(f"&#{ord(char)};" for char in KEY),
    "html in hex": "".join(f"&#x{ord(char):X};" for char in KEY),
    "hex": KEY.encode().hex(),
    "large hex": KEY.encode().hex().upper(),
    **{f"base64 at {n}": base64.b64encode(bytes(range(n)) + KEY.encode() + b"end").decode() for n in range(5)},
    **{f"base64url at {n}": base64.urlsafe_b64encode(b"\xfb" * n + KEY.encode()).decode() for n in range(3)},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_key_is_struck_out(spelling: str) -> None:
    """At least every character that says something of the key goes, and what stands around it stays."""
    struck = Eraser(KEY).strike_out(b'{"error": "no: ' + SPELLINGS[spelling].encode() + b'"}').decode()
    assert struck.startswith('{"error": "no: ')
    assert struck.endswith('"}')
    rest = struck.removeprefix('{"error": "no: ').removesuffix('"}')
    assert "(the key)" in rest
    assert len(rest.replace("(the key)", "")) <= 12


def test_a_key_of_odd_characters_is_struck_out() -> None:
    """Also one whose own backslash could be taken for an escape."""
    for said in (ODD_KEY, json.dumps(ODD_KEY)[1:-1], json.dumps(json.dumps(ODD_KEY)), ODD_KEY.encode().hex()):
        struck = Eraser(ODD_KEY).strike_out(f"no: {said} after".encode()).decode()
        assert "(the key)" in struck, said
        assert "canary" not in struck


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(3))
def test_both_alphabets_of_base64_are_known(encode: Callable[[bytes], bytes], before: int) -> None:
    """Also where the key's own characters make the signs that they differ in."""
    key = "SG_>>>???~~~>>>???"
    said = encode(bytes(before) + key.encode())
    assert {*said.decode()} & {*"+/-_"}
    assert b"(the key)" in Eraser(key).strike_out(said)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_bodys_encoding_hides_nothing(encoding: str) -> None:
    """A JSON reader understands these by themselves, so the eraser does too."""
    struck = Eraser(KEY).strike_out(json.dumps({"error": KEY}).encode(encoding))
    assert json.loads(struck) == {"error": "(the key)"}


def test_whatever_does_not_hold_the_key_stays_as_it_is() -> None:
    """Also what is no text at all, and a stub of a key would stand in any answer."""
    for body in (b"", b'{"request_id": "abc"}', b"\xff\xfe\x00", b"\x80", "ключ".encode()):
        assert Eraser(KEY).strike_out(body) == body
    assert Eraser("e").strike_out(b'{"e": 1}') == b'{"e": 1}'


@pytest.mark.parametrize("piece", ["\\", "%25", "&#0", "SG_0123", "S\\u0000"])
def test_no_body_takes_long(piece: str) -> None:
    """Nothing is looked through anew from each of its characters."""
    begun_s = time.process_time()
    Eraser(KEY).strike_out(piece.encode() * (2**18 // len(piece)))
    assert time.process_time() - begun_s < 1
