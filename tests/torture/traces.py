"""Looks for a key in files, screens and traffic: plain, or in any spelling that leads back to it."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq

BASE64: Mapping[str, Callable[[bytes], bytes]] = {"base64": base64.b64encode, "base64url": base64.urlsafe_b64encode}


def spellings(key: str) -> dict[str, str]:
    """Texts in which a stranger may write the key, each with its name."""
    data = key.encode()
    made = {
        "plain": key,
        "small": key.lower(),
        "json": json.dumps(key)[1:-1],
        "json-escaped": "".join(f"\\u{ord(char):04x}" for char in key),
        "url": quote(key, safe=""),
        "url-plus": quote_plus(key),
        "url-escaped": "".join(f"%{byte:02X}" for byte in data),
        "html": "".join(f"&#{byte};" for byte in data),
        "hex": data.hex(),
        "large-hex": data.hex().upper(),
    }
    for name, encode in BASE64.items():
        made |= {f"{name}-at-{n}": encode(b"key"[:n] + data + b"!").decode() for n in range(3)}
    return made


@functools.cache
def traces(key: str) -> dict[str, bytes]:
    """Bytes that give the key away wherever they stand: what of each spelling does not depend on its surroundings."""
    made = {name: text.encode() for name, text in spellings(key).items() if not name.startswith("base64")}
    made |= {encoding: key.encode(encoding) for encoding in ("utf-16-le", "utf-16-be")}
    for name, encode in BASE64.items():
        for offset in range(3):
            texts = [encode(fill * offset + key.encode() + fill * 3) for fill in (b"\x00", b"\xff")]
            same = bytes(one if one == other else 0 for one, other in zip(*texts, strict=True))
            made[f"{name}-at-{offset}"] = max(same.split(b"\x00"), key=len)
    return made


def found_in(key: str, name: str, data: bytes) -> list[str]:
    """Where in `data`, called `name`, the key can be found."""
    found = [spelling for spelling, trace in traces(key).items() if trace in data]
    # However often its quotes and backslashes were escaped: in a repr in a message in JSON, say.
    if key.replace("\\", "").encode() in data.replace(b"\\", b""):
        found.append("less its backslashes")
    return [f"{name} holds the key ({spelling})" for spelling in found]


def found_below(key: str, folder: Path) -> list[str]:
    """Where below `folder` the key can be found: in names, in bytes, and in the cells of every table."""
    found = []
    for path in sorted(folder.rglob("*")):
        found += found_in(key, f"the name of {path.name}", str(path.relative_to(folder)).encode())
        if path.is_file() and not path.is_symlink():
            found += found_in(key, path.name, path.read_bytes())
        if path.suffix == ".parquet":
            for column, cells in pq.ParquetFile(path).read().to_pydict().items():
                text = "\n".join(str(cell) for cell in cells)
                found += found_in(key, f"column {column} of {path.name}", text.encode("utf-8", "surrogatepass"))
    return found
