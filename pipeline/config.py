"""The configuration: one file, the environment and the command line become one frozen `Config`.

Precedence: default < file < `KLING_BATCH_<SECTION>__<KEY>` in the environment < flags. Secrets are read from the
environment (or a `.env` file in the working directory) and are no part of `Config`, so that it may be written anywhere.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from yarl import URL

from pipeline.engine.settings import Bounds, Doubt, EngineSettings, Limits, Polling, Retry
from pipeline.kernel import strict_yaml
from pipeline.kernel.address import is_address
from pipeline.kernel.clock import to_us
from pipeline.kernel.errors import InputError, Mistake
from pipeline.kernel.files import read_regular_file
from pipeline.kernel.usd import MAX_MICROUSD, MICRO_PER_USD, MicroUsd, format_usd, parse_usd
from pipeline.media.settings import FetchSettings, MediaSettings
from pipeline.models import DEFAULT_MODEL, Model, find_model
from pipeline.provider.settings import ProviderSettings, check_origin, is_loopback

DEFAULT_FILE = Path("kling-batch.yaml")
ENVIRONMENT_PREFIX = "KLING_BATCH_"
SANDBOX_CAP_USD = "100.00"
MAX_FILE_BYTES = 2**20

_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h)")
MAX_DURATION_S = 999_999_999

SHORTEST_GIVE_UP_S = 60.0
"""However fast a sandbox's time passes: its clips are drawn in real time, on a machine that may be busy."""

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_WEBHOOK = re.compile(r"https?://[!-~]{1,2000}")
_SCHEDULER = re.compile(r"(tls|tcp)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_KEY = re.compile(r"[!-~]{8,200}")
_KEY_BEGINNING = "SG_"


def _plain_number(value: object) -> object:
    """Numbers as people write them: no `inf`, no `nan`, no underscores, no booleans."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
        raise ValueError(f"{value[:40]!r} is not a plain number")
    return value


def _money(value: object) -> MicroUsd:
    if isinstance(value, float):
        raise ValueError("write the amount in quotes, like '100.00'")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError("must be an amount of dollars, like '100.00'")  # noqa: TRY004 - as above
    return parse_usd(value)


def _money_or_zero(value: object) -> MicroUsd:
    if isinstance(value, str) and re.fullmatch(r"0+(\.0+)?", value.strip()):
        return MicroUsd(0)
    return _money(value)


def duration_s(value: object) -> float:
    """Seconds from `90s`, `15m` or `8h`.

    Raises:
        ValueError: it is none of these, zero, or longer than anybody waits.
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = round(float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]], 3) if match else 0
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError(f"{str(value)[:40]!r} is not a duration like 90s, 15m or 8h")
    return seconds


def _time_of_day(value: object) -> str:
    if not isinstance(value, str) or not _TIME_OF_DAY.fullmatch(value):
        raise ValueError(f"{str(value)[:40]!r} is not a time of day like 06:30")
    return value


def _hosts(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('must be a list of hosts, like ["*.segmind.com"]')
    for host in value:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise ValueError(f"{str(host)[:100]!r} is not a host like cdn.segmind.com or *.segmind.com")
    return tuple(value)


def _name_of_variable(value: object) -> object:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable, like SEGMIND_API_KEY")
    if value.startswith(_KEY_BEGINNING):
        # Not shown: whoever puts the key itself here must not find it on the screen and in config.yaml.
        raise ValueError("is the name of the environment variable that holds the key; the key itself stays out of here")
    return value


def _name_of_webhook(value: object) -> object:
    if value is not None and (not isinstance(value, str) or not _VARIABLE.fullmatch(value)):
        # Not shown: it may be the address, which is a secret.
        raise ValueError("must be the name of an environment variable, like WEBHOOK_URL; the address stays out of here")
    return value


def _scheduler_address(value: object) -> object:
    if not isinstance(value, str) or not _SCHEDULER.fullmatch(value):
        raise ValueError("must be the address of a Dask scheduler, like tls://10.0.0.5:8786")
    return value


def _prices(value: object) -> object:
    known = find_model(DEFAULT_MODEL).default_prices
    if not isinstance(value, dict):
        raise ValueError('must be prices by length, like {"5": "1.75"}')  # noqa: TRY004 - pydantic reports ValueError
    if unknown := [str(key) for key in value if key not in known]:
        names = " and ".join(f'"{key}"' for key in known)
        raise ValueError(f'there is no length "{unknown[0][:40]}" to have a price; there are {names}')
    return value


def _text(pattern: str, meant: str, **words: object) -> dict[str, Any]:
    """How a text is written in the file, for editors: its pattern, and a sentence for what does not match."""
    return {"type": "string", "pattern": f"^{pattern}$", "patternErrorMessage": meant, **words}


# An amount may stand without quotes: numbers of the file are read as they were written.
_DOLLARS = {"type": ["string", "number"], "maximum": MAX_MICROUSD // MICRO_PER_USD}
_DIGITS, _MEANT = r"[0-9]{1,9}(\.[0-9]{1,6})?", 'an amount of dollars, like "100.00"'
_AMOUNT = _text(rf"(?=.*[1-9]){_DIGITS}", _MEANT, **_DOLLARS, exclusiveMinimum=0)
_AMOUNT_OR_ZERO = _text(_DIGITS, _MEANT, **_DOLLARS, minimum=0)
_PRICES = {
    "type": "object",
    "properties": dict.fromkeys(find_model(DEFAULT_MODEL).default_prices, _AMOUNT),
    "additionalProperties": False,
}
_HOSTS = {"type": "array", "minItems": 1, "items": _text(_HOST.pattern, "a host, like *.segmind.com")}
_TIME = _text(_TIME_OF_DAY.pattern, "a time of day, like 06:30")
_LENGTH = _text(rf"(?=.*[1-9]){_DURATION.pattern}", "a duration, like 90s, 15m or 8h")
_SCHEDULER_ADDRESS = _text(_SCHEDULER.pattern, "tls://host:port or tcp://host:port")
_WEBHOOK_NAME = _text(_VARIABLE.pattern, "the name of the environment variable that holds the address")
_NAME = _text(rf"(?!{_KEY_BEGINNING}){_VARIABLE.pattern}", "the name of the environment variable that holds the key")

# The bounds stand before the validator: only so do they become bounds of the schema.
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), BeforeValidator(_plain_number)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), BeforeValidator(_plain_number)]
Count = Annotated[int, Field(gt=0, le=1_000_000), BeforeValidator(_plain_number)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_plain_number)]
Few = Annotated[int, Field(ge=0, le=1_000), BeforeValidator(_plain_number)]
Threads = Annotated[int, Field(gt=0, le=64), BeforeValidator(_plain_number)]
Money = Annotated[int, BeforeValidator(_money), WithJsonSchema(_AMOUNT)]
MoneyOrZero = Annotated[int, BeforeValidator(_money_or_zero), WithJsonSchema(_AMOUNT_OR_ZERO)]
Prices = Annotated[dict[str, Money], BeforeValidator(_prices), WithJsonSchema(_PRICES)]
Seconds = Positive
Duration = Annotated[float, BeforeValidator(duration_s), WithJsonSchema(_LENGTH)]
TimeOfDay = Annotated[str, BeforeValidator(_time_of_day), WithJsonSchema(_TIME)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_hosts), WithJsonSchema(_HOSTS)]
NameOfWebhook = Annotated[str, BeforeValidator(_name_of_webhook), WithJsonSchema(_WEBHOOK_NAME)]
SchedulerAddress = Annotated[str, BeforeValidator(_scheduler_address), WithJsonSchema(_SCHEDULER_ADDRESS)]
NameOfVariable = Annotated[str, BeforeValidator(_name_of_variable), WithJsonSchema(_NAME)]


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is a mistake. Its page and editors show the descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSection(Section):
    """Who makes the videos, and where."""

    kind: Literal["sandbox", "segmind"] = Field(
        default="sandbox", description="sandbox: embedded, no key, no money. segmind: real"
    )
    api: Literal["v1", "v2"] = Field(default="v2", description="v2: submit and poll. v1: one blocking call")
    base_url: str = Field(default="https://api.segmind.com", description="where jobs are submitted and asked about")
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
    give_up_s: Seconds = Field(default=3600, description="after this age the history is asked instead")


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
    failure_window: Count = Field(default=20, description="the latest attempts that are looked at")


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
        return FetchSettings(
            output_hosts=self.provider.output_hosts,
            allow_loopback=allow_loopback,
            connect_s=self.timeouts.connect_s,
            read_s=self.timeouts.read_s,
            download_s=self.timeouts.download_s,
        )

    def media_settings(self) -> MediaSettings:
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
        if self.stop.until is not None:
            ends.append(to_us(_next_time_of_day(now, self.stop.until)))
        return min(ends, default=None)

    def refusals(self) -> Iterator[tuple[str, str]]:
        """What is well written and cannot be done: the key, and a sentence. Nothing is silently done without."""
        if self.media.scheduler is not None and self.media.executor != "dask":
            yield "media.scheduler", "is nobody's without `media.executor: dask`; say that, or leave it out"
        if is_address(self.output.local_dir):
            yield "output.local_dir", "is an address, and must be a folder on a disk of this machine"
        if self.is_live:
            yield from self._refused_origins()

    def _refused_origins(self) -> Iterator[tuple[str, str]]:
        """The addresses that the key must not travel to."""
        try:
            loopback = is_loopback(self.provider.base_url)
        except ValueError:
            loopback = False
        for name in ("base_url", "storage_url", "history_url"):
            try:
                check_origin(getattr(self.provider, name).rstrip("/"), loopback_allowed=loopback)
            except InputError as error:
                yield f"provider.{name}", str(error)
            except ValueError:
                yield f"provider.{name}", "is not a URL like https://api.segmind.com"


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
            is_shown = moment.replace(tzinfo=None) == naive
            if moment > now and (is_shown or fold == 0):
                return moment
    raise AssertionError("a clock shows every time of day within two days")  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Override:
    """A value from outside the file: where it came from, for messages, and what it says."""

    source: str
    path: tuple[str, ...]
    value: object


def load_config(
    file: Path | None,
    overrides: Mapping[str, object],
    settings: list[str],
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration.

    Args:
        file: the one named with `-c`; `./kling-batch.yaml` is used without it, if it is there.
        overrides: flags, as `section.key` to value; None values were not given.
        settings: texts of `--set`, each `section.key=value`.
        environment: `os.environ` if not given.

    Raises:
        InputError: every mistake, each with its place.
    """
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    node = _read(file) if file is not None else None
    raw: dict[str, Any] = _raw_sections(node) if node is not None else {}
    changes: list[Override] = []
    mistakes: list[str] = []
    for source, path, text in _given_as_text(os.environ if environment is None else environment, settings):
        try:
            changes.append(_override(source, path, text))
        except InputError as error:
            mistakes.append(str(error))
    changes += _said(overrides)
    for change in changes:
        _put(raw, change)
    places = _Places(file, node, changes)
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        mistakes += [places.mistake(path, message) for path, message in map(_explained, error.errors())]
    if config is not None:
        for key, message in config.refusals():
            mistakes.append(places.mistake(tuple(key.split(".")), f"`{key}`: {message}"))
    if mistakes or config is None:
        raise InputError("\n".join(dict.fromkeys(mistakes)))
    return config


def change_config(config: Config, overrides: Mapping[str, object], settings: list[str]) -> Config:
    """A configuration with some keys said anew, each checked as it is when a configuration is loaded.

    Args:
        overrides: as for `load_config`, and so are `settings`; what is not said stays.

    Raises:
        InputError: every mistake, each with its place.
    """
    raw: dict[str, Any] = {}
    changes = [_override(*given) for given in _given_as_text({}, settings)] + _said(overrides)
    for change in changes:
        _put(raw, change)
    places = _Places(None, None, changes)
    try:
        said = Config.model_validate(raw)
    except ValidationError as error:
        mistakes = [places.mistake(path, message) for path, message in map(_explained, error.errors())]
        raise InputError("\n".join(dict.fromkeys(mistakes))) from None
    changed = config.model_copy(update={name: _laid_over(config, said, name) for name in said.model_fields_set})
    if refused := [places.mistake(tuple(key.split(".")), f"`{key}`: {why}") for key, why in changed.refusals()]:
        raise InputError("\n".join(refused))
    return changed


def _laid_over(config: Config, said: Config, name: str) -> Section:
    """A section of a configuration, with what is said of it now; prices that are not said anew stay."""
    before, now = getattr(config, name), getattr(said, name)
    values = {key: getattr(now, key) for key in now.model_fields_set}
    if "prices_usd" in values:
        values["prices_usd"] = {**before.prices_usd, **values["prices_usd"]}
    changed: Section = before.model_copy(update=values)
    return changed


def _said(overrides: Mapping[str, object]) -> list[Override]:
    return [
        Override(FLAGS.get(key, key), tuple(key.split(".")), value)
        for key, value in overrides.items()
        if value is not None
    ]


FLAGS = {
    "budget.cap_usd": "--budget-usd",
    "limits.requests_per_minute": "--rpm",
    "limits.max_in_flight": "--max-in-flight",
    "stop.after": "--for",
    "stop.until": "--until",
    "canary.jobs": "--canary",
}
"""Keys that have a flag of their own, for messages."""


def _read(file: Path) -> strict_yaml.Node:
    try:
        data = read_regular_file(file, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if data is None:
        raise InputError(f"{file}: is larger than {MAX_FILE_BYTES // 2**20} MiB, so it is no config file")
    node = strict_yaml.parse(data, str(file))
    if node.value is None:
        return strict_yaml.parse("{}", str(file))
    if not isinstance(node.value, dict):
        raise InputError(f'{file}: a config is a mapping of sections, like `budget: {{cap_usd: "100.00"}}`')
    return node


def _raw_sections(node: strict_yaml.Node) -> dict[str, Any]:
    """The sections of a file; one with nothing in it says nothing."""
    return {name: value for name, value in _raw(node).items() if value is not None or name not in Config.model_fields}


def _raw(node: strict_yaml.Node) -> Any:
    """Plain values, numbers as they were written: money must not pass through a float."""
    if isinstance(node.value, dict):
        return {str(name): _raw(child) for name, child in node.children.items()}
    if isinstance(node.value, list):
        return [_raw(child) for child in node.children.values()]
    return node.value if node.value is None or isinstance(node.value, bool) else node.text


def _given_as_text(
    environment: Mapping[str, str], settings: list[str]
) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """What the environment and `--set` say: the source for messages, the path, the text (None without an `=`)."""
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            yield name, tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")), environment[name]
    for setting in settings:
        key, equals, text = setting.partition("=")
        # What comes after the `=` is no part of the source: it may be a secret that should not be here.
        yield f"--set {key.strip()}", tuple(key.strip().split(".")), text if equals else None


def _override(source: str, path: tuple[str, ...], text: str | None) -> Override:
    if text is None or path == ("",):
        raise InputError(f"{source}: write it as section.key=value")
    if path[0] not in Config.model_fields:
        raise InputError(f"{source}: there is no section `{path[0]}`{_suggest(path[:1])}")
    if len(path) != 2 and not (path[:2] == ("budget", "prices_usd") and len(path) == 3):
        what = "names no key of a section" if len(path) < 2 else "names more than a section and a key"
        raise InputError(f"{source}: {what}; write it like limits.max_in_flight")
    return Override(source, path, _plain(text, source))


def _plain(text: str, source: str) -> object:
    """A value of one line, as YAML reads it. An empty one stays a text: `null` is how nothing is written."""
    if not text.strip():
        return ""
    try:
        return _raw(strict_yaml.parse(text, source))
    except strict_yaml.YamlProblem as problem:
        raise InputError(f"{source}: {problem.message}") from None


def _put(raw: dict[str, Any], change: Override) -> None:
    into = raw
    for step in change.path[:-1]:
        into = into.setdefault(step, {})
        if not isinstance(into, dict):
            return  # the file is wrong here, and that will be told
    into[change.path[-1]] = change.value


@dataclass(frozen=True, slots=True)
class _Places:
    """Says where a value came from: what was said last counts."""

    file: Path | None
    node: strict_yaml.Node | None
    changes: list[Override]

    def mistake(self, path: tuple[str, ...], message: str) -> str:
        source = next((each.source for each in reversed(self.changes) if each.path[: len(path)] == path), None)
        if source is not None:
            return f"{source}: {message}"
        if self.file is not None and self.node is not None:
            return str(Mistake(str(self.file), message, line=self.node.place(*path)[0]))
        return message


def _explained(problem: Any) -> tuple[tuple[str, ...], str]:
    """The path of a value that pydantic refuses, and a sentence in our own words."""
    depth = 3 if problem["loc"][:2] == ("budget", "prices_usd") else 2
    path = tuple(str(step) for step in problem["loc"])[:depth]
    if problem["type"] == "extra_forbidden":
        return path, f"unknown key `{'.'.join(path)}`{_suggest(path)}"
    limit = problem.get("ctx", {})
    match problem["type"]:
        case "value_error":
            message = problem["msg"].removeprefix("Value error, ")
        case "greater_than":
            message = f"must be more than {limit['gt']:g}"
        case "greater_than_equal":
            message = f"must be at least {limit['ge']:g}"
        case "less_than_equal":
            message = (
                f"must be at most {limit['le']:,g}" if limit["le"] < 1e6 else f"must be at most {limit['le']:,.0f}"
            )
        case "int_type" | "int_parsing" | "int_from_float":
            message = "must be a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            message = "must be a number"
        case "bool_type" | "bool_parsing":
            message = "must be true or false"
        case "literal_error":
            message = f"must be {limit['expected'].replace(chr(39), '')}"
        case "model_type" | "dict_type":
            message = "is a section: its keys stand below it, indented"
        case "string_too_short":
            message = "must not be empty"
        case "string_type":
            message = "must be text"
        case _:  # pragma: no cover - the fields above have no other mistakes
            message = problem["msg"]
    given = problem["input"]
    if problem["type"] != "value_error" and isinstance(given, str | int | float) and given != "":
        message += f", not {_shown(given)}"
    return path, f"`{'.'.join(path)}`: {message}"


def _shown(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:40]


def _suggest(path: tuple[str, ...]) -> str:
    fields = Config.model_fields
    if len(path) == 1:
        known = list(fields)
    else:
        section: Any = fields[path[0]].annotation
        known = list(section.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(known)}"


def read_key(config: Config, environment: Mapping[str, str] | None = None) -> str:
    """The API key, from the environment or a `.env` file in the working directory.

    Raises:
        InputError: there is none, or it cannot be a key.
    """
    name = config.provider.api_key_env
    environment = os.environ if environment is None else environment
    key = environment.get(name) or _from_dotenv(name)
    if not key:
        raise InputError(
            f"no API key: set {name} in the environment or in a .env file here, "
            "or use `provider: {kind: sandbox}`, which needs none. Nothing was sent."
        )
    if not _KEY.fullmatch(key):
        raise InputError(f"{name} does not hold an API key: it has spaces or control characters, or a wrong length")
    return key


def read_webhook(config: Config, environment: Mapping[str, str] | None = None) -> str | None:
    """The address that is told how a run ended, from the environment or `.env`; None where nobody is to be told.

    Raises:
        InputError: there is none, or none that may be used. It is a secret, and not shown.
    """
    name = config.notify.webhook_env
    if name is None:
        return None
    environment = os.environ if environment is None else environment
    url = environment.get(name) or _from_dotenv(name)
    if not url:
        raise InputError(
            f"`notify.webhook_env`: set {name} in the environment or in a .env file here, or leave the key out. "
            "Nothing was sent."
        )
    if not _is_webhook(url, loopback_allowed=not config.is_live or is_loopback(config.provider.base_url)):
        raise InputError(
            f"{name} does not hold the address of a webhook, https://, a host and a path without spaces. "
            "Nothing was sent."
        )
    return url


def _is_webhook(url: str, *, loopback_allowed: bool) -> bool:
    try:
        parts = URL(url)
        return bool(
            _WEBHOOK.fullmatch(url)
            and parts.host
            and (parts.scheme == "https" or (loopback_allowed and is_loopback(url)))
        )
    except ValueError:
        return False


def _from_dotenv(name: str) -> str | None:
    if not Path(".env").is_file():
        return None
    from dotenv import dotenv_values

    try:
        return dotenv_values(".env", interpolate=False).get(name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f".env cannot be read ({type(error).__name__})") from None


def dump_config(config: Config) -> str:
    """The configuration as used, as YAML that reads back to the same; it never holds a secret."""
    import yaml

    plain = config.model_dump(mode="json")
    budget = plain["budget"]
    budget["cap_usd"] = format_usd(config.cap)
    budget["stop_below_credits_usd"] = format_usd(budget["stop_below_credits_usd"])
    prices = {**find_model(DEFAULT_MODEL).default_prices, **budget["prices_usd"]}
    budget["prices_usd"] = {key: format_usd(price) for key, price in prices.items()}
    if plain["stop"]["after"] is not None:
        plain["stop"]["after"] = f"{_written(plain['stop']['after'])}s"
    for section in plain.values():
        for key, value in section.items():
            if isinstance(value, float):
                section[key] = _written(value)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _written(number: float) -> int | float | str:
    """A number as a person writes it, and as it is read again: 40, 0.5, never 4e+01."""
    if number.is_integer():
        return int(number)
    text = f"{number:.9f}".rstrip("0")
    return number if text == str(number) else text
