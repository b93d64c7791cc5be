"""From a paid URL to a verified file: download, check, poster, final name.

This room retries nothing, sleeps never and knows no ledger: it makes one try and returns what came of it, a `Clip` or
a `Trouble`. Only this machine's own failures travel as exceptions (`MachineError`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.media.gate import check_url
from pipeline.media.results import Clip, Expectation, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings, VerifyLevel

if TYPE_CHECKING:
    from pipeline.media.collect import Collector

__all__ = [
    "Clip",
    "Collector",
    "Expectation",
    "FetchSettings",
    "MediaSettings",
    "Trouble",
    "VerifyLevel",
    "check_url",
]


def __getattr__(name: str) -> Any:
    """Load the collector when it is asked for: whoever needs the settings alone does not wait for the HTTP client."""
    if name == "Collector":
        from pipeline.media.collect import Collector

        return Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
