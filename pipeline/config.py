"""The configuration: one file, the environment and the command line become one frozen `Config`.

Precedence: default < file < `KLING_BATCH_<SECTION>__<KEY>` in the environment < flags. Secrets are read from the
environment (or a `.env` file in the working directory) and are no part of `Config`, so that it may be written anywhere.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.engine.settings import Bounds, Doubt, EngineSettings, Limits, Polling, Retry
from pipeline.kernel import strict_yaml
from pipeline.kernel.clock import to_us
from pipeline.kernel.errors import InputError, Mistake
from pipeline.kernel.usd import MicroUsd, format_usd, parse_usd
from pipeline.media.settings import FetchSettings, MediaSettings
from pipeline.models import DEFAULT_MODEL, Model, find_model
from pipeline.provider.settings import ProviderSettings, check_origin

DEFAULT_FILE = Path("kling-batch.yaml")
ENVIRONMENT_PREFIX = "KLING_BATCH_"
SANDBOX_CAP_USD = "100.00"

_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,9})?")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(s|m|h)")
_KEY = re.compile(r"[!-~]{8,200}")


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
    return MicroUsd(0) if value in ("0", "0.00", 0) and value is not False else _money(value)


def duration_s(value: object) -> float:
    """Seconds from `90s`, `15m` or `8h`.

    Raises:
        ValueError: it is none of these, or zero.
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{str(value)[:40]!r} is not a duration like 90s, 15m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _time_of_day(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError(f"{str(value)[:40]!r} is not a time of day like 06:30")
    return value


Positive = Annotated[float, BeforeValidator(_plain_number), Field(gt=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_plain_number), Field(gt=0, le=1_000_000)]
CountOrZero = Annotated[int, BeforeValidator(_plain_number), Field(ge=0, le=1_000_000)]
Money = Annotated[int, BeforeValidator(_money)]
MoneyOrZero = Annotated[int, BeforeValidator(_money_or_zero)]
Seconds = Positive


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSection(Section):
    """Who makes the videos, and where."""

    kind: Literal["sandbox", "segmind"] = "sandbox"
    api: Literal["v1", "v2"] = "v2"
    base_url: str = "https://api.segmind.com"
    storage_url: str = "https://workflows-api.segmind.com"
    history_url: str = "https://api.spotprod.segmind.com"
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] = "SEGMIND_API_KEY"
    output_hosts: tuple[str, ...] = ("*.segmind.com",)
    time_scale: Positive = 1.0


class BudgetSection(Section):
    """The cap, the account's floor, and the prices (by model's price key)."""

    cap_usd: Money | None = None
    stop_below_credits_usd: MoneyOrZero = 0
    prices_usd: dict[str, Money] = Field(default_factory=dict)


class LimitsSection(Section):
    """The provider's rate limit, and how many generations may run at once."""

    requests_per_minute: Positive = 50
    max_in_flight: Count = 40
    adaptive: bool = True


class PollingSection(Section):
    """When to ask how a generation stands."""

    expected_s: Seconds = 317
    min_interval_s: Seconds = 2
    max_interval_s: Seconds = 30
    give_up_s: Seconds = 3600


class RetrySection(Section):
    """How often and how soon to try again."""

    max_attempts: Count = 4
    base_delay_s: Seconds = 2
    max_delay_s: Seconds = 120


class TimeoutsSection(Section):
    """How long to wait for the network."""

    connect_s: Seconds = 10
    submit_s: Seconds = 60
    read_s: Seconds = 60
    blocking_submit_s: Seconds = 1800
    download_s: Seconds = 600


class StopSection(Section):
    """What ends a run with work left."""

    after: Annotated[float, BeforeValidator(duration_s)] | None = None
    until: Annotated[str, BeforeValidator(_time_of_day)] | None = None
    failure_rate: Annotated[float, BeforeValidator(_plain_number), Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    failure_window: Count = 20


class CanarySection(Section):
    """A few jobs first."""

    jobs: CountOrZero = 0


class InDoubtSection(Section):
    """How long the history may lag, and how long the end of a run waits for it."""

    settle_after_s: Seconds = 7200
    wait_s: Seconds = 300


class MediaSection(Section):
    """How closely a video is looked at, and where."""

    verify: Literal["container", "frames", "full"] = "frames"
    executor: Literal["local", "dask"] = "local"
    workers: Annotated[int, BeforeValidator(_plain_number), Field(gt=0, le=64)] = 2
    scheduler: str | None = None


class OutputSection(Section):
    """Where run directories are made."""

    dir: Annotated[str, Field(min_length=1)] = "outputs"


class NotifySection(Section):
    """Whom to tell."""

    webhook_env: str | None = None


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
        return MediaSettings(verify=self.media.verify, workers=self.media.workers)

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
            limits=Limits(self.limits.requests_per_minute, self.limits.max_in_flight),
            polling=Polling(
                polling.expected_s / scale,
                polling.min_interval_s / scale,
                polling.max_interval_s / scale,
                polling.give_up_s / scale,
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

    def check_supported(self) -> None:
        """Refuse what this version cannot do yet, rather than do without it silently.

        Raises:
            InputError: names the key.
        """
        for wanted, key in (
            (self.canary.jobs > 0, "canary.jobs"),
            (self.media.executor == "dask", "media.executor: dask"),
            (self.notify.webhook_env is not None, "notify.webhook_env"),
        ):
            if wanted:
                raise InputError(f"`{key}` is not supported in this version yet; leave it out")
        if self.is_live:
            settings = self.provider_settings()
            for url in (settings.base_url, settings.storage_url, settings.history_url):
                check_origin(url, loopback_allowed=settings.is_loopback)


def _next_time_of_day(now: datetime, until: str) -> datetime:
    """The next moment at which the local clock shows `until`, whatever daylight saving does in between."""
    hour, minute = map(int, until.split(":"))
    naive = now.replace(tzinfo=None)
    wanted = naive.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if wanted <= naive:
        wanted += timedelta(days=1)
    # A naive time read in the local zone: the zone's rules at that moment hold, not those of now.
    return wanted.astimezone()


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
    raw: dict[str, Any] = _raw(node) if node is not None else {}
    changes = [
        *_from_environment(os.environ if environment is None else environment),
        *(Override(f"--set {text}", *_parse_setting(text)) for text in settings),
        *(Override(key, tuple(key.split(".")), value) for key, value in overrides.items() if value is not None),
    ]
    for change in changes:
        _put(raw, change)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise InputError("\n".join(_explain(error, file, node, changes))) from None
    config.check_supported()
    return config


def _read(file: Path) -> strict_yaml.Node:
    try:
        data = file.read_bytes() if file.is_file() else None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    if data is None:
        raise InputError(f"{file}: there is no such file")
    node = strict_yaml.parse(data, str(file))
    if node.value is None:
        return strict_yaml.parse("{}", str(file))
    if not isinstance(node.value, dict):
        raise InputError(f'{file}: a config is a mapping of sections, like `budget: {{cap_usd: "100.00"}}`')
    return node


def _raw(node: strict_yaml.Node) -> Any:
    """Plain values, numbers as they were written: money must not pass through a float."""
    if isinstance(node.value, dict):
        return {str(name): _raw(child) for name, child in node.children.items()}
    if isinstance(node.value, list):
        return [_raw(child) for child in node.children.values()]
    return node.value if node.value is None or isinstance(node.value, bool) else node.text


def _from_environment(environment: Mapping[str, str]) -> list[Override]:
    return [
        Override(name, tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")), value)
        for name, value in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    ]


def _parse_setting(text: str) -> tuple[tuple[str, ...], object]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: write it as section.key=value")
    return tuple(key.strip().split(".")), _raw(strict_yaml.parse(value, f"--set {key}"))


def _put(raw: dict[str, Any], change: Override) -> None:
    if len(change.path) < 2:
        sections = ", ".join(Config.model_fields)
        raise InputError(f"{change.source}: names no key of a section; the sections are {sections}")
    into = raw
    for step in change.path[:-1]:
        if not isinstance(into.setdefault(step, {}), dict):
            into[step] = {}
        into = into[step]
    into[change.path[-1]] = change.value


def _explain(
    error: ValidationError, file: Path | None, node: strict_yaml.Node | None, changes: list[Override]
) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        path = tuple(str(step) for step in problem["loc"] if not str(step).startswith(("function-", "constrained-")))
        path = path[: max(2, 3 if path[:2] == ("budget", "prices_usd") else 2)]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key `{'.'.join(path)}`{_suggest(path)}"
        else:
            message = f"`{'.'.join(path)}`: {message[0].lower()}{message[1:]}"
        source = next((change.source for change in reversed(changes) if change.path == path), None)
        if source is not None:
            lines.append(f"{source}: {message}")
        elif file is not None and node is not None:
            lines.append(str(Mistake(str(file), message, line=node.place(*path)[0])))
        else:
            lines.append(message)
    return lines


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


def _from_dotenv(name: str) -> str | None:
    if not Path(".env").is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(".env", interpolate=False).get(name)


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
        plain["stop"]["after"] = f"{plain['stop']['after']:g}s"
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
