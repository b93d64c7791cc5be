"""What the provider accepts as the body of a submission."""

from typing import Any, Final

import orjson

MODELS: Final = ("kling-2",)
ASPECTS: Final = ("16:9", "9:16", "1:1")
_NAMES: Final = frozenset(("prompt", "negative_prompt", "cfg_scale", "duration", "aspect_ratio", "start_image"))


class BodyRefusedError(Exception):
    """A submission that is refused before the run, with the status and the words of the provider."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def read_body(raw: bytes) -> dict[str, Any]:
    """The body as it was sent, checked; raises BodyRefusedError as the provider would answer."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BodyRefusedError(400, "Malformed JSON body") from None
    if not isinstance(body, dict):
        raise BodyRefusedError(400, "The body must be a JSON object")
    prompt = body.get("prompt")
    if prompt is None or prompt == "":
        raise BodyRefusedError(400, "Missing required field: prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise BodyRefusedError(406, "Invalid value for parameter prompt: a non-empty string is required")
    for name in body:
        if name not in _NAMES:
            raise BodyRefusedError(406, f"Unknown parameter {name}")
    if not isinstance(body.get("negative_prompt", ""), str):
        raise BodyRefusedError(406, "Invalid value for parameter negative_prompt: must be a string")
    scale = body.get("cfg_scale", 0.5)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 1:
        raise BodyRefusedError(406, "Invalid value for parameter cfg_scale: must be between 0 and 1")
    duration = body.get("duration", 5)
    if isinstance(duration, bool) or not isinstance(duration, int) or duration not in (5, 10):
        raise BodyRefusedError(406, "Invalid value for parameter duration: must be one of 5, 10")
    if body.get("aspect_ratio", "16:9") not in ASPECTS:
        raise BodyRefusedError(406, "Invalid value for parameter aspect_ratio: must be one of 16:9, 9:16, 1:1")
    image = body.get("start_image", "http://")
    if not isinstance(image, str) or not image.startswith(("http://", "https://")):
        raise BodyRefusedError(406, "Invalid value for parameter start_image: must be a URI")
    return body


def shape_of(body: dict[str, Any]) -> tuple[str, int]:
    """Aspect ratio and duration in seconds of a checked body, defaults filled in."""
    return body.get("aspect_ratio", "16:9"), body.get("duration", 5)
