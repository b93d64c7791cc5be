"""What is asked of a video, and the two things that can come of collecting it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.kernel.errors import ErrorClass

MAX_MESSAGE = 300
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What was asked of the provider: length in seconds and picture size in pixels (None: any)."""

    duration_s: float
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A whole video under its final name.

    `not_as_asked` says in words how it differs from what was asked: it is paid for and kept all the same. Facts that
    the level of verification does not reveal are None, and so is `poster` below the level `frames`.
    """

    path: Path
    sha256: str
    bytes: int
    duration_s: float | None
    width: int | None
    height: int | None
    poster: Path | None
    not_as_asked: str | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no video: `FETCH_FAILED` (the way here) or `BAD_FILE` (what came).

    `http_status` is the last status a server really sent. `message` is safe to show and to store: no query of a URL,
    no control character, bounded length. `sha256` is that of a bad file, to tell one bad download from a bad original.
    """

    error_class: ErrorClass
    http_status: int | None
    message: str
    sha256: str | None = None


class FetchFailed(Exception):  # noqa: N818 - an outcome inside this package, never an error that leaves it
    """A download ended without its whole body; `message` is fit for a `Trouble`."""

    def __init__(self, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status

    def as_trouble(self, http_status: int | None) -> Trouble:
        """The same, as the value that leaves this package; `http_status` is the one seen before, if any."""
        return Trouble(ErrorClass.FETCH_FAILED, self.http_status or http_status, safe_text(self.message))


class Damaged(Exception):  # noqa: N818 - as above
    """The bytes are not a whole video; the message says why, after "the file is damaged: "."""


def bad_file(damage: Damaged, http_status: int | None, sha256: str) -> Trouble:
    """The trouble of a download that came whole and is no video."""
    return Trouble(ErrorClass.BAD_FILE, http_status, safe_text(f"the file is damaged: {damage}"), sha256)


def safe_text(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` without characters that move a terminal's cursor or turn its writing, at most `limit` characters."""
    clean = _UNPRINTABLE.sub(" ", text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
