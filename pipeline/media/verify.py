"""Whether a downloaded file is whole, and whether it is what was asked for: two different questions.

A damaged file is worth nothing and is fetched again. A whole one that is not as asked is paid for: it is kept, and the
difference is put into words.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.media import boxes
from pipeline.media.results import Expectation
from pipeline.media.settings import VerifyLevel

DURATION_TOLERANCE_S = 0.3
"""Seconds by which a video may differ from the length asked for: a clip of n frames is rarely a round number."""
WANTED_CODEC = "h264"

READ_AT_ONCE = 2**17
"""Bytes of a file's beginning that are read in one go: all of a small clip, all that is looked at of most others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a whole file turned out to be. `codec` and `poster` (JPEG) are None below the level `frames`."""

    duration_s: float | None
    width: int | None
    height: int | None
    codec: str | None = None
    poster: bytes | None = None


def examine(path: Path, level: VerifyLevel, checkpoint: Callable[[], None]) -> Finding:
    """Look at the file at `path` as closely as `level` says.

    `checkpoint` is called now and then and may raise to give up.

    Raises:
        Damaged: it is not a whole video.
        OSError: this machine cannot read it.
    """
    facts = _walk(path)
    if level == "container":
        return Finding(facts.duration_s, facts.width, facts.height)
    from pipeline.media.probe import probe  # FFmpeg is loaded by the first file that needs it

    seen = probe(path, every_frame=level == "full", checkpoint=checkpoint)
    return Finding(seen.duration_s, seen.width, seen.height, seen.codec, seen.poster)


def _walk(path: Path) -> boxes.Facts:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        begin = os.pread(descriptor, READ_AT_ONCE, 0)

        def read(offset: int, length: int) -> bytes:
            if offset + length <= len(begin):
                return begin[offset : offset + length]
            return os.pread(descriptor, length, offset)

        return boxes.walk(read, size)
    finally:
        os.close(descriptor)


def differences(finding: Finding, expectation: Expectation) -> str | None:
    """How `finding` differs from `expectation`, in words; None when it does not. What is unknown does not differ."""
    said = [
        _duration_difference(finding.duration_s, expectation.duration_s),
        _size_difference(finding, expectation),
        None if finding.codec in (None, WANTED_CODEC) else f"{finding.codec} instead of {WANTED_CODEC}",
    ]
    return "; ".join(text for text in said if text) or None


def _duration_difference(found: float | None, asked: float) -> str | None:
    # A little more, because binary fractions may make slightly more of exactly 0.3 s.
    if found is None or abs(found - asked) <= DURATION_TOLERANCE_S + 1e-6:
        return None
    return f"{found:.1f} s instead of {asked:g} s"


def _size_difference(finding: Finding, asked: Expectation) -> str | None:
    wrong_width = None not in (asked.width, finding.width) and asked.width != finding.width
    wrong_height = None not in (asked.height, finding.height) and asked.height != finding.height
    if not (wrong_width or wrong_height):
        return None
    wanted = f"{asked.width or 'any'}x{asked.height or 'any'}"
    return f"{finding.width}x{finding.height} instead of {wanted}"
