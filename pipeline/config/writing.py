"""A configuration written as a file, as it was used."""

from __future__ import annotations

from pipeline.config.settings import Config
from pipeline.kernel.usd import format_usd
from pipeline.models import DEFAULT_MODEL, find_model


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
