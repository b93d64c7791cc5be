"""The configuration as a whole: `Config`, and what the other rooms are told of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pipeline.config.sections import (
    BudgetSection,
    CanarySection,
    InDoubtSection,
    LimitsSection,
    MediaSection,
    NotifySection,
    OutputSection,
    PollingSection,
    ProviderSection,
    RetrySection,
    Section,
    StopSection,
    TimeoutsSection,
)
from pipeline.engine.settings import Bounds, Doubt, EngineSettings, Limits, Polling, Retry
from pipeline.kernel.address import is_address
from pipeline.kernel.clock import to_us
from pipeline.kernel.errors import InputError
from pipeline.kernel.usd import MicroUsd, parse_usd
from pipeline.media.settings import FetchSettings, MediaSettings
from pipeline.models import DEFAULT_MODEL, Model, find_model
from pipeline.provider.settings import ProviderSettings, check_origin, is_loopback

SANDBOX_CAP_USD = "100.00"

SHORTEST_GIVE_UP_S = 60.0
"""The least `give_up_s`, however fast a sandbox's time passes: it draws clips in real time, on a busy machine maybe."""


class Config(Section):
    """Everything that can be configured, checked and frozen. Amounts are micro-dollars, durations seconds."""

    provider: ProviderSection = ProviderSection()
    budget: BudgetSection = BudgetSection()
    limits: LimitsSection = LimitsSection()
    polling: PollingSection = PollingSection()
    retry: RetrySection = RetrySection()
    timeouts: TimeoutsSection = TimeoutsSection()
    stop: StopSection = StopSection()
    canary: CanarySection = CanarySection()
    in_doubt: InDoubtSection = InDoubtSection()
    media: MediaSection = MediaSection()
    output: OutputSection = OutputSection()
    notify: NotifySection = NotifySection()

    @property
    def is_live(self) -> bool:
        """Whether real money may move."""
        return self.provider.kind == "segmind"

    @property
    def cap(self) -> MicroUsd:
        """The cap in force; a sandbox has one without being told.

        Raises:
            InputError: a live run without one.
        """
        if self.budget.cap_usd is not None:
            return MicroUsd(self.budget.cap_usd)
        if self.is_live:
            raise InputError(
                'a live run needs a cap: say `budget: {cap_usd: "100.00"}` in the config file, or --budget-usd 100'
            )
        return parse_usd(SANDBOX_CAP_USD)

    def price(self, key: str, model: Model | None = None) -> MicroUsd:
        """The price of one generation under a price key.

        Raises:
            InputError: there is none; an unknown price is never guessed.
        """
        model = model or find_model(DEFAULT_MODEL)
        known = {**model.default_prices, **self.budget.prices_usd}
        if key not in known:
            raise InputError(f"no price is known for {key!r}: say it in `budget.prices_usd`")
        return MicroUsd(known[key])

    def provider_settings(self) -> ProviderSettings:
        """What the client is told: the three origins, without a slash at their ends, and how long to wait."""
        provider, timeouts = self.provider, self.timeouts
        return ProviderSettings(
            base_url=provider.base_url.rstrip("/"),
            storage_url=provider.storage_url.rstrip("/"),
            history_url=provider.history_url.rstrip("/"),
            connect_s=timeouts.connect_s,
            submit_s=timeouts.submit_s,
            read_s=timeouts.read_s,
            blocking_submit_s=timeouts.blocking_submit_s,
        )

    def fetch_settings(self, *, allow_loopback: bool) -> FetchSettings:
        """What the downloads are told.

        Args:
            allow_loopback: whether videos may come from this machine, as a sandbox's do.
        """
        return FetchSettings(
            output_hosts=self.provider.output_hosts,
            allow_loopback=allow_loopback,
            connect_s=self.timeouts.connect_s,
            read_s=self.timeouts.read_s,
            download_s=self.timeouts.download_s,
        )

    def media_settings(self) -> MediaSettings:
        """Where and how closely videos are checked."""
        media = self.media
        return MediaSettings(media.verify, media.workers, media.executor, media.scheduler)

    def engine_settings(self, now: datetime) -> EngineSettings:
        """What the engine is told. In a sandbox, the provider's seconds pass `time_scale` times as fast.

        Args:
            now: the local time, with its zone: deadlines count from it.
        """
        scale = self.provider.time_scale if not self.is_live else 1.0
        polling, doubt = self.polling, self.in_doubt
        return EngineSettings(
            api=self.provider.api,
            bounds=Bounds(
                cap=self.cap,
                deadline_us=self.deadline_us(now),
                after_s=self.stop.after,
                until_us=self.until_us(now),
                credits_floor=MicroUsd(self.budget.stop_below_credits_usd) or None,
                failure_rate=self.stop.failure_rate,
                failure_window=self.stop.failure_window,
            ),
            limits=Limits(**self.limits.model_dump()),
            polling=Polling(
                polling.expected_s / scale,
                polling.min_interval_s / scale,
                polling.max_interval_s / scale,
                polling.give_up_s if scale == 1 else max(polling.give_up_s / scale, SHORTEST_GIVE_UP_S),
            ),
            retry=Retry(self.retry.max_attempts, self.retry.base_delay_s / scale, self.retry.max_delay_s / scale),
            doubt=Doubt(doubt.settle_after_s / scale, doubt.wait_s / scale),
        )

    def deadline_us(self, now: datetime) -> int | None:
        """When the night ends: after so long, or at the next such time of day, whichever comes first."""
        ends = []
        if self.stop.after is not None:
            ends.append(to_us(now) + int(self.stop.after * 1e6))
        if (until_us := self.until_us(now)) is not None:
            ends.append(until_us)
        return min(ends, default=None)

    def until_us(self, now: datetime) -> int | None:
        """The next time of day at which the night ends; None without one."""
        return None if self.stop.until is None else to_us(_next_time_of_day(now, self.stop.until))

    def refusals(self) -> Iterator[tuple[str, str]]:
        """Settings that are well written and cannot work: the key, and a sentence. None is ignored silently."""
        if self.media.scheduler is not None and self.media.executor != "dask":
            yield "media.scheduler", "is used only with `media.executor: dask`; set that, or remove this key"
        shortest_s, longest_s = self.polling.min_interval_s, self.polling.max_interval_s
        if shortest_s > longest_s:
            other = f"`polling.max_interval_s` ({longest_s:g})"
            yield "polling.min_interval_s", f"is {shortest_s:g}, above {other}: lower the one, or raise the other"
        if is_address(self.output.local_dir):
            yield "output.local_dir", "is an address, and must be a folder on a disk of this machine"
        if self.is_live:
            yield from self._refused_origins()

    def _refused_origins(self) -> Iterator[tuple[str, str]]:
        """The addresses that the key must not travel to."""
        loopback = is_loopback(self.provider.base_url)
        for name in ("base_url", "storage_url", "history_url"):
            try:
                check_origin(getattr(self.provider, name).rstrip("/"), loopback_allowed=loopback)
            except InputError as error:
                yield f"provider.{name}", str(error)


def _next_time_of_day(now: datetime, until: str) -> datetime:
    """The next moment at which the local clock shows `until`, whatever daylight saving does in between.

    A time that the clock shows twice in one night has two such moments. One that it skips is the moment at which it
    would have come.
    """
    hour, minute = map(int, until.split(":"))
    today = now.replace(tzinfo=None, fold=0, hour=hour, minute=minute, second=0, microsecond=0)
    for naive in (today, today + timedelta(days=1), today + timedelta(days=2)):
        for fold in (0, 1):
            # A naive time read in the local zone: the zone's rules at that moment hold, not those of now.
            moment = datetime.fromtimestamp(naive.replace(fold=fold).timestamp(), UTC).astimezone()
            if moment > now:
                return moment
    raise AssertionError("a clock shows every time of day within two days")  # pragma: no cover
