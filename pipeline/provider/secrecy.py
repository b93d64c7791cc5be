"""Strikes the API key out of what the provider says, in every spelling that can be turned back into it."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re

SHORTEST_KEY = 8
"""A shorter text is no key, and its letters could be part of any answer."""

_STRUCK_OUT = "(the key)"


def key_mark(salt: str, key: str) -> str:
    """A mark by which two keys are told apart.

    It is shorter than a key on purpose: billions of keys have the same one, so no search brings the key to light.
    """
    return hashlib.sha256(f"{salt} {key}".encode()).hexdigest()[:8]


class Eraser:
    """Strikes one key out: as it is, in JSON's, URLs' and HTML's escapes, as UTF-16, in hex and in base64."""

    def __init__(self, key: str) -> None:
        self._key = key
        data = key.encode()
        own = [_own_base64(data, offset).encode() for offset in range(3)]
        self._unescaped = tuple(map(_alike, (data, data.hex().encode(), *own)))

    def strike_out(self, body: bytes) -> bytes:
        """The body without the key, in UTF-8; one that no JSON reader could read either stays as it is."""
        if len(self._key) < SHORTEST_KEY or self._is_clean(body):
            return body
        try:
            text = body.decode(json.detect_encoding(body), "surrogatepass")
        except UnicodeDecodeError:
            return body
        struck = self._pattern.sub(_STRUCK_OUT, text)
        return body if struck == text else struck.encode("utf-8", "surrogatepass")

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        """A pattern of every spelling. It takes long to compile, and few runs need it."""
        return re.compile(_spellings(self._key), re.IGNORECASE)

    def _is_clean(self, body: bytes) -> bool:
        """Whether it certainly has no spelling of the key: plain text without any escape, and without the key in it.

        Most answers are that, and the pattern costs as much as reading them.
        """
        if not body.isascii() or any(sign in body for sign in _ESCAPING):
            return False
        text = _alike(body)
        return not any(key in text for key in self._unescaped)


_ESCAPING = (b"\\", b"%", b"&", b"\0")
"""One of these begins every escape; the last one is half of an ASCII letter in UTF-16."""


def _alike(data: bytes) -> bytes:
    """The bytes in lower case and in one of base64's alphabets, so that spellings which differ in these are equal."""
    return data.lower().translate(_ONE_ALPHABET)


_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")


def _spellings(key: str) -> str:
    """A pattern of every spelling, in any case of letters: a look-alike that is struck out is no loss."""
    data = key.encode()
    # The zeros of UTF-16, as JSON writes them, may stand between the characters.
    plain = r"(?:\x00|\\{1,4}u0000)?".join(_escaped(char) for char in key)
    own = [_own_base64(data, offset) for offset in range(3)]
    # Only a few characters can begin a spelling: all others are passed over at once.
    begins = re.escape("".join(sorted({key[0], data.hex()[0], *(text[0] for text in own), *"\\%&+-/_"})))
    return rf"(?=[{begins}])(?:{'|'.join([plain, data.hex(), *map(_in_base64, own)])})"


def _in_base64(text: str) -> str:
    """A pattern of base64 in both of its alphabets."""
    twins = {"+": "[+-]", "/": "[/_]"}
    return "".join(rf"(?:{twins[char]}|{_escaped(char)})" if char in twins else _escaped(char) for char in text)


def _own_base64(data: bytes, offset: int) -> str:
    text = base64.b64encode(bytes(offset) + data).decode()
    return text[-(-8 * offset // 6) : 8 * (offset + len(data)) // 6]


def _escaped(char: str) -> str:
    """A pattern of the character and its escapes, which may have been escaped again.

    All repeats are bounded: else a long row of backslashes would be searched anew from each of them.
    """
    code = ord(char)
    in_html = rf"&#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});"
    return rf"(?:\\{{0,4}}{re.escape(char)}|\\{{1,4}}u{code:04x}|%(?:25){{0,2}}{code:02x}|{in_html})"
