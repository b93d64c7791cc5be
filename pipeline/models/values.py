"""Values as manifests and tables hold them: how they are spelled, and the number or the image that one stands for.

`5`, `5.0`, `"5"` and `" 5 "` are one number, and `true` is none. An image is known by the hash of its bytes.
"""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0{0,18})?")
_IMAGE_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


def spelled(value: object) -> str:
    """A value in the manifest's spelling, as templates print it: truth values as YAML and JSON write them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def whole_number(value: object) -> int | None:
    """The integer that `value` stands for, or None if it stands for none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and _WHOLE.fullmatch(text := value.strip()):
        return int(text.partition(".")[0])
    return None


def finite_number(value: object) -> int | float | None:
    """The finite number that `value` stands for, or None if it stands for none."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def is_image_hash(value: object) -> bool:
    """Whether `value` is the normal form of a local image: `sha256:` and the hash of its bytes, 64 hex digits."""
    return isinstance(value, str) and _IMAGE_HASH.fullmatch(value) is not None
