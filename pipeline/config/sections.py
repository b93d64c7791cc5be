"""The sections of the configuration: each key, its default and its description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config.values import (
    Count,
    Duration,
    Few,
    Hosts,
    Money,
    MoneyOrZero,
    NameOfVariable,
    NameOfWebhook,
    Positive,
    Prices,
    SchedulerAddress,
    Seconds,
    Share,
    Threads,
    TimeOfDay,
)
from pipeline.provider.settings import is_loopback


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is a mistake. Its page and editors show the descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSection(Section):
    """Who makes the videos, and where."""

    kind: Literal["sandbox", "segmind"] = Field(
        default="sandbox", description="sandbox: embedded, no key, no money. segmind: real"
    )
    api: Literal["v1", "v2"] = Field(default="v2", description="v2: submit and poll. v1: one blocking call")
    base_url: str = Field(
        default="https://api.segmind.com",
        description="where jobs are submitted and asked about. On this machine, it is the default of the next two",
    )
    storage_url: str = Field(
        default="https://workflows-api.segmind.com", description="where start images that are files are uploaded"
    )
    history_url: str = Field(default="https://api.spotprod.segmind.com", description="where the account's history is")
    api_key_env: NameOfVariable = Field(
        default="SEGMIND_API_KEY",
        description="the environment variable that holds the key. It goes to these three origins only",
    )
    output_hosts: Hosts = Field(
        default=("*.segmind.com",), description="hosts that a finished video may be downloaded from"
    )
    time_scale: Positive = Field(default=1.0, description="sandbox only: 100 makes a generation of 317 s take 3.17 s")

    @model_validator(mode="before")
    @classmethod
    def _all_on_this_machine(cls, said: Any) -> Any:
        """A double at a loopback `base_url` has history and storage, too, where nothing else is said.

        With those of the provider, the key would leave this machine, and another account's history would be asked.
        """
        if isinstance(said, dict) and isinstance(url := said.get("base_url"), str) and is_loopback(url):
            return {"storage_url": url, "history_url": url, **said}
        return said


class BudgetSection(Section):
    """The cap, the account's floor, and the prices (by model's price key)."""

    cap_usd: Money | None = Field(
        default=None,
        description="the cap of a run directory's life. The default is the sandbox's; a live run must say it",
    )
    stop_below_credits_usd: MoneyOrZero = Field(
        default=0, description="start nothing more when the account holds less; 0 asks nothing"
    )
    prices_usd: Prices = Field(default_factory=dict, description="the quote by length in seconds")


class LimitsSection(Section):
    """The provider's rate limit, and how many generations may run at once."""

    requests_per_minute: Positive = Field(default=50, description="what the provider allows; calls leave evenly spaced")
    max_in_flight: Count = Field(default=40, description="generations at the provider at once")
    adaptive: bool = Field(
        default=True,
        description="after a 429, or a long queue there, go on more slowly or with fewer at once, and climb back",
    )
    count_polls: bool = Field(
        default=True, description="whether the provider counts polls and results, too; false paces submissions alone"
    )


class PollingSection(Section):
    """When to ask how a generation stands."""

    expected_s: Seconds = Field(
        default=317, description="how long a generation takes; for plans, deadlines and the first poll"
    )
    min_interval_s: Seconds = Field(default=2, description="shortest time between two polls of a job")
    max_interval_s: Seconds = Field(
        default=30, description="longest usual time between two polls; more jobs in flight make it longer"
    )
    give_up_s: Seconds = Field(
        default=3600,
        description="from this age on the history is asked instead of the request; "
        "from twice this age on it is left to the next run",
    )


class RetrySection(Section):
    """How often and how soon to try again."""

    max_attempts: Count = Field(default=4, description="attempts of a job that reached the provider and failed")
    base_delay_s: Seconds = Field(default=2, description="first wait before another try; it doubles, with jitter")
    max_delay_s: Seconds = Field(default=120, description="longest such wait")


class TimeoutsSection(Section):
    """How long to wait for the network."""

    connect_s: Seconds = Field(default=10, description="for a connection, name look-up included")
    submit_s: Seconds = Field(default=60, description="for the answer to a submission; silence after that is doubt")
    read_s: Seconds = Field(default=60, description="for any other answer, and the longest silence within a download")
    blocking_submit_s: Seconds = Field(default=1800, description="for the answer to a v1 submission")
    download_s: Seconds = Field(default=600, description="for a whole download")


class StopSection(Section):
    """What ends a run with work left."""

    after: Duration | None = Field(
        default=None, description="a duration, 8h, 90m or 30s: start nothing that would not be done by then (--for)"
    )
    until: TimeOfDay | None = Field(default=None, description='a local time of day, "06:30" (--until)')
    failure_rate: Share = Field(default=0.5, description="stop when this share of the window failed")
    failure_window: Count = Field(
        default=20, description="so many of the latest submissions, and of the latest generations"
    )


class CanarySection(Section):
    """A few jobs first."""

    jobs: Few = Field(
        default=0,
        description="so many jobs first; the rest only if they are stored and cost what was quoted (--canary)",
    )


class InDoubtSection(Section):
    """How long the history may lag, and how long the end of a run waits for it."""

    settle_after_s: Seconds = Field(
        default=7200, description='how long the history may lag before "not listed" means "never accepted"'
    )
    wait_s: Seconds = Field(default=300, description="how long the end of a run waits for the history")


class MediaSection(Section):
    """How closely a video is looked at, and where."""

    verify: Literal["container", "frames", "full"] = Field(
        default="frames",
        description="container: the file's structure. frames: besides, every packet and a poster. full: every frame",
    )
    executor: Literal["local", "dask"] = Field(
        default="local",
        description="local: threads of the run. dask: the workers of a Dask cluster, which download, too",
    )
    workers: Threads = Field(
        default=2,
        description="threads that write and verify; with dask, processes that do; with a scheduler, threads of each",
    )
    scheduler: SchedulerAddress | None = Field(
        default=None,
        description="where a Dask scheduler is, tls://host:8786 or tcp://…; without it, a cluster here for the run",
    )


class OutputSection(Section):
    """Where run directories are made."""

    dir: str = Field(
        default="outputs",
        min_length=1,
        description="where run directories are made; also an address in object storage, like s3://bucket/runs",
    )
    local_dir: str = Field(
        default="outputs",
        min_length=1,
        description="where a run directory in object storage works on the disk: in s3/bucket/runs/… below this",
    )
    keep_videos: bool = Field(
        default=True,
        description="whether videos stay on the disk once they are in object storage",
    )


class NotifySection(Section):
    """Whom to tell."""

    webhook_env: NameOfWebhook | None = Field(
        default=None,
        description="the environment variable that holds the https address of a webhook: told how each run ended",
    )
