"""What a user may set about downloads and checks, as frozen values; the configuration assembles them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VerifyLevel = Literal["container", "frames", "full"]
Executor = Literal["local", "dask"]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """The bounds of one download: where from, how long, how much, how slow."""

    output_hosts: tuple[str, ...] = ("*.segmind.com",)
    """Hosts a video may come from; a leading `*` stands for one or more whole labels."""
    allow_loopback: bool = False
    """Loopback addresses and plain http to them: only where the provider's own base URL is loopback."""
    connect_s: float = 10
    """Longest wait for a connection, name lookup included, in seconds."""
    read_s: float = 60
    """Longest silence within a body, in seconds."""
    download_s: float = 600
    """Longest whole download, redirects included, in seconds."""
    max_bytes: int = 512 * 2**20
    """Largest body."""
    min_bytes_per_s: float = 16 * 2**10
    """Slowest average rate that is waited for, once `min_rate_after_s` have gone by; 0 switches it off."""
    min_rate_after_s: float = 30
    """Seconds of waiting for the network before the average rate counts."""


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """How closely a file is looked at, by whom, and by how many threads."""

    verify: VerifyLevel = "frames"
    """`container`: the boxes; `frames`: besides, PyAV reads every packet and decodes a poster; `full`: every frame."""
    workers: int = 2
    """Threads that write, verify and flush; with a cluster of this run's own, worker processes."""
    executor: Executor = "local"
    """`local`: threads of this process; `dask`: the workers of a Dask cluster."""
    scheduler: str | None = None
    """The address of that cluster's scheduler; None starts a cluster on this machine for this run."""
