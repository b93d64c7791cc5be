"""From a paid URL to a verified file: download, check, poster, final name.

This room retries nothing, sleeps never and knows no ledger: it makes one try and returns what came of it, a `Clip` or
a `Trouble`. Only this machine's own failures travel as exceptions (`MachineError`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.media.gate import check_url
from pipeline.media.results import Clip, Expectation, Trouble
from pipeline.media.settings import FetchSettings, MediaSettings, VerifyLevel

if TYPE_CHECKING:
    from pipeline.media.collect import Collector
    from pipeline.media.fetch import Connect
    from pipeline.media.landing import Deliver

__all__ = [
    "DOWNLOADS_AT_ONCE",
    "Clip",
    "Collector",
    "Expectation",
    "FetchSettings",
    "MediaSettings",
    "Trouble",
    "VerifyLevel",
    "check_url",
    "collector_for",
]

DOWNLOADS_AT_ONCE = 16
"""Finished videos are small and quick to fetch: more at once only costs memory and sockets."""


def collector_for(
    fetch: FetchSettings,
    media: MediaSettings,
    folder: Path,
    connect: Connect | None = None,
    deliver: Deliver | None = None,
) -> Collector:
    """The collector for the run directory `folder`, an async context manager.

    `deliver` brings each video to a second place, and works in this process. The connections that `connect` makes exist
    in this process alone: with it the collector works here, whatever `media.executor` says.
    """
    if media.executor == "dask" and connect is None:
        from pipeline.media.cluster.collector import ClusterCollector

        return ClusterCollector(fetch, media, folder, DOWNLOADS_AT_ONCE, deliver)
    from pipeline.media.collect import Collector

    return Collector(fetch, media, connect, deliver)


def __getattr__(name: str) -> Any:
    """Load the collector when it is asked for: whoever needs the settings alone does not wait for the HTTP client."""
    if name == "Collector":
        from pipeline.media.collect import Collector

        return Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
