"""Kling 2: a video of 5 or 10 seconds at 720p, from text or from a start image.

The provider's page prints a sample prompt and a sample image as "defaults". They belong to its playground: nothing
here knows them, and a parameter that is not given and has no default is not sent.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from pipeline.kernel.usd import MicroUsd
from pipeline.models.base import Problem, Scalar
from pipeline.models.values import finite_number, is_image_hash, whole_number

MAX_TEXT = 10_000
"""Characters of a prompt. The provider publishes no limit; a longer one is a table read wrongly."""
MAX_URL = 2_048

FRAME_SIZES = {"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (720, 720)}
DURATIONS = (5, 10)
DEFAULT_CFG_SCALE = 0.5
DEFAULT_DURATION = DURATIONS[0]
DEFAULT_ASPECT_RATIO = "16:9"

_PARAMETERS = ("prompt", "negative_prompt", "cfg_scale", "duration", "aspect_ratio", "start_image")
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_AS_MINUTES = {16 * 60 + 9: "16:9", 9 * 60 + 16: "9:16", 61: "1:1"}
"""What YAML 1.1 readers make of a ratio without quotes: a number of minutes."""


@dataclass(frozen=True, slots=True)
class Kling2:
    """The model `kling-2` of Segmind."""

    name: str = "kling-2"
    parameters: tuple[str, ...] = _PARAMETERS
    text_parameters: frozenset[str] = frozenset({"prompt", "negative_prompt", "start_image"})
    usual_prompt_length: int = 2_500
    default_prices: Mapping[str, MicroUsd] = field(
        default_factory=lambda: MappingProxyType({"5": MicroUsd(1_750_000), "10": MicroUsd(3_500_000)}),
        hash=False,
    )

    def normalise(self, given: Mapping[str, object]) -> tuple[dict[str, Scalar], list[Problem]]:
        """Parameters in normal form, and every problem (see `Model.normalise`)."""
        params: dict[str, Scalar] = {
            "prompt": "",
            "negative_prompt": "",
            "cfg_scale": DEFAULT_CFG_SCALE,
            "duration": DEFAULT_DURATION,
            "aspect_ratio": DEFAULT_ASPECT_RATIO,
        }
        problems: list[Problem] = []
        for name, value in given.items():
            try:
                params[name] = _normal(name, value)
            except ValueError as error:
                problems.append((name, str(error)))
        if "prompt" not in given:
            problems.append(("prompt", "is missing; every video needs a prompt"))
        return params, problems

    def normal_prompt(self, prompt: object) -> str:
        """A prompt in normal form (see `Model.normal_prompt`)."""
        if not (text := _text(prompt)):
            raise ValueError("is empty; every video needs a prompt")
        return text

    def normal_prompts(self, prompts: Sequence[object]) -> list[str]:
        """Many prompts in normal form (see `Model.normal_prompts`)."""
        texts = [prompt.strip() for prompt in prompts if isinstance(prompt, str)]
        # A printable text has no line ends and no unwanted characters.
        is_plain = all(texts) and max(map(len, texts), default=0) <= MAX_TEXT and "".join(texts).isprintable()
        return texts if is_plain and len(texts) == len(prompts) else list(map(self.normal_prompt, prompts))

    def price_key(self, params: Mapping[str, Scalar]) -> str:
        """The price depends on the length alone: "5" or "10"."""
        return str(params["duration"])

    def duration_s(self, params: Mapping[str, Scalar]) -> float:
        """5.0 or 10.0 seconds."""
        return float(str(params["duration"]))

    def frame_size(self, params: Mapping[str, Scalar]) -> tuple[int, int] | None:
        """Width and height in pixels by the aspect ratio; None with a start image, which then decides."""
        return None if "start_image" in params else FRAME_SIZES[str(params["aspect_ratio"])]


def _normal(name: str, value: object) -> Scalar:
    """One parameter in normal form; ValueError with the sentence for the user."""
    if name == "prompt":
        return KLING_2.normal_prompt(value)
    if name in _CHOICES:
        return _choice(name, value) if isinstance(value, str | int | float) else _CHOICES[name](value)
    if name == "negative_prompt":
        return _text(value)
    if name == "start_image":
        return _start_image(value)
    raise ValueError(f"is no parameter of kling-2; it has {', '.join(_PARAMETERS)}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text; put it in quotes")  # noqa: TRY004 - a user's mistake
    # Windows line ends are the same text: the same work must not be bought twice.
    text = value.replace("\r\n", "\n").strip() if "\r" in value else value.strip()
    # `isprintable` is fast, and only the few texts that fail it are searched.
    if not text.isprintable() and (unwanted := _UNWANTED.search(text)):
        raise ValueError(f"has the control character U+{ord(unwanted[0]):04X} in it; remove it")
    if len(text) > MAX_TEXT:
        raise ValueError(f"is {len(text):,} characters long; {MAX_TEXT:,} are the most")
    return text


def _cfg_scale(value: object) -> float:
    number = finite_number(value)
    if number is None or not 0 <= number <= 1:
        comma = re.fullmatch(r"\s*([01]),([0-9]{1,9})\s*", value) if isinstance(value, str) else None
        hint = f"; write {comma[1]}.{comma[2]}, with a point" if comma else ""
        raise ValueError(f"{_shown(value)} is not a number from 0 to 1{hint}")
    return float(number) + 0.0  # + 0.0 turns -0.0 into 0.0: equal numbers, one id


def _duration(value: object) -> int:
    seconds = whole_number(value)
    if seconds not in DURATIONS:
        raise ValueError(f"{_shown(value)} is not allowed; it is 5 or 10 (seconds)")
    return seconds


def _aspect_ratio(value: object) -> str:
    if isinstance(value, str) and (ratio := value.strip()) in FRAME_SIZES:
        return ratio
    meant = _AS_MINUTES.get(value) if isinstance(value, int) else ":".join(re.findall("[1-9][0-9]*", str(value)[:20]))
    hint = f'; did you mean "{meant}"?{_cure(value)}' if meant in FRAME_SIZES else ""
    raise ValueError(f'{_shown(value)} is not allowed; it is "16:9", "9:16" or "1:1"{hint}')


def _cure(value: object) -> str:
    """How a ratio is written where its reader, or a spreadsheet before it, took it for something else."""
    if isinstance(value, int):
        return " Put it in quotes"
    return " If a spreadsheet made a time of it, format its column as text there" if ":" in str(value)[:20] else ""


_CHOICES: dict[str, Callable[[object], Scalar]] = {
    "cfg_scale": _cfg_scale,
    "duration": _duration,
    "aspect_ratio": _aspect_ratio,
}


@functools.lru_cache(maxsize=256, typed=True)
def _choice(name: str, value: str | float) -> Scalar:
    """A parameter with few values, checked once for each. Typed, because True == 1."""
    return _CHOICES[name](value)


def _start_image(value: object) -> str:
    url = value.strip() if isinstance(value, str) else ""
    if is_image_hash(url):
        return url  # a local file, of which only the bytes count: its URL is known once it is uploaded
    if not url:
        found = (
            "is empty" if value is None or isinstance(value, str) else f"{_shown(value)} is no https URL and no file"
        )
        raise ValueError(
            f"{found}; give an https URL or a file, or leave `start_image` out to start from the prompt alone "
            "(in `rows_from`, `where` can skip records without an image)"
        )
    try:
        parts = urlsplit(url)
        host, user = parts.hostname, parts.username
    except ValueError:
        host, user, parts = None, None, urlsplit("")
    if parts.scheme != "https" or not host:
        raise ValueError(f"{_shown(url)} is not an https URL")
    if user is not None:
        raise ValueError("has a user name or password in its URL; give a URL without one")
    if len(url) > MAX_URL or not re.fullmatch("[\x21-\x7e]+", url):
        raise ValueError(f"is not a plain URL: at most {MAX_URL:,} ASCII characters, spaces written as %20")
    return url


def _shown(value: object) -> str:
    """A value as a message shows it: short, and the way JSON and YAML write it."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return "so large a number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…"


KLING_2 = Kling2()
