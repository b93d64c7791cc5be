"""From what is said of a configuration, in whatever form, to the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

if TYPE_CHECKING:
    from pipeline.config import Config

AnyConfig: TypeAlias = "Config | Mapping[str, object] | Path | str | None"
"""A configuration, keys and values of one, its file, or none but the defaults and `./kling-batch.yaml`."""


class AskedOfConfig(TypedDict, total=False):
    """What `load_config` can be told besides the configuration; see there."""

    settings: Iterable[str]
    budget_usd: Decimal | int | str | None
    requests_per_minute: float | str | None
    max_in_flight: int | str | None
    run_for: str | None
    until: str | None
    canary: int | str | None


def load_config(
    config: AnyConfig = None,
    *,
    settings: Iterable[str] = (),
    budget_usd: Decimal | int | str | None = None,
    requests_per_minute: float | str | None = None,
    max_in_flight: int | str | None = None,
    run_for: str | None = None,
    until: str | None = None,
    canary: int | str | None = None,
) -> Config:
    """The configuration, as the command line would have it: default < file < `KLING_BATCH_…` environment < arguments.

    Args:
        config: the config file, `./kling-batch.yaml` if it is there without one; or keys and values, like
            `{"limits.max_in_flight": 10}`; or a configuration, of which only what the arguments say is changed.
        settings: texts like `limits.max_in_flight=10`, as `--set` takes them.
        budget_usd: the cap in dollars over the run directory's whole life; a live run must have one.
        requests_per_minute: calls a minute that the provider allows.
        max_in_flight: generations at once.
        run_for: start nothing that would not be done after so long: `8h`, `90m`.
        until: start nothing that would not be done by this time of day: `06:30`.
        canary: so many jobs first; the rest only if they are stored and cost what was quoted.

    Raises:
        InputError: every mistake, each with its place. What the command line has as a flag is named by it.
    """
    from pipeline import config as configuration

    said: dict[str, object] = {
        "budget.cap_usd": budget_usd,
        "limits.requests_per_minute": requests_per_minute,
        "limits.max_in_flight": max_in_flight,
        "stop.after": run_for,
        "stop.until": until,
        "canary.jobs": canary,
    }
    if isinstance(config, configuration.Config):
        return configuration.change_config(config, said, list(settings))
    if isinstance(config, Mapping):
        said = {**config, **{key: value for key, value in said.items() if value is not None}}
        config = None
    return configuration.load_config(None if config is None else Path(config), said, list(settings))


def config_of(directory: Path | str, config: AnyConfig = None, settings: Iterable[str] = ()) -> Config:
    """The configuration of a run directory: the one that is given, else that of its last run.

    Args:
        config: a file or a configuration; or keys and values that differ from the last run's.
        settings: texts like `in_doubt.wait_s=60`, as `--set` takes them.

    Raises:
        InputError: neither is there, or it has mistakes.
    """
    from pipeline import config as configuration
    from pipeline import settling
    from pipeline.api.places import folder_of

    if isinstance(config, configuration.Config):
        return configuration.change_config(config, {}, list(settings))
    if isinstance(config, Mapping):
        return configuration.change_config(settling.config_of(folder_of(directory), None, []), config, list(settings))
    return settling.config_of(folder_of(directory), None if config is None else Path(config), list(settings))


def key_of(config: Config) -> str:
    """The key that calls are made with; the embedded sandbox takes any.

    Raises:
        InputError: a live provider needs a key, and there is none, or what is there can be none.
    """
    from pipeline.config import read_key
    from pipeline.runner.opening import SANDBOX_KEY

    return read_key(config) if config.is_live else SANDBOX_KEY
