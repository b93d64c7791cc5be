"""Secrets, from the environment or a `.env` file: no part of `Config`, so that it may be written anywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.settings import Config
from pipeline.kernel.errors import InputError
from pipeline.provider.settings import host_of, is_loopback

_WEBHOOK = re.compile(r"https?://[!-~]{1,2000}")
_KEY = re.compile(r"[!-~]{8,200}")


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
    may_be_sent_to = url.startswith("https:") or (loopback_allowed and is_loopback(url))
    return bool(_WEBHOOK.fullmatch(url) and host_of(url) and may_be_sent_to)


def _from_dotenv(name: str) -> str | None:
    if not Path(".env").is_file():
        return None
    from dotenv import dotenv_values

    try:
        return dotenv_values(".env", interpolate=False).get(name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f".env cannot be read ({type(error).__name__})") from None
