"""From one file, the environment and the command line to a `Config`, or to every mistake in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.mistakes import Override, Places, explained, suggest
from pipeline.config.sections import Section
from pipeline.config.settings import Config
from pipeline.kernel import strict_yaml
from pipeline.kernel.errors import InputError
from pipeline.kernel.files import read_regular_file

DEFAULT_FILE = Path("kling-batch.yaml")
ENVIRONMENT_PREFIX = "KLING_BATCH_"
MAX_FILE_BYTES = 2**20

FLAGS = {
    "budget.cap_usd": "--budget-usd",
    "limits.requests_per_minute": "--rpm",
    "limits.max_in_flight": "--max-in-flight",
    "stop.after": "--for",
    "stop.until": "--until",
    "canary.jobs": "--canary",
}
"""Keys that have a flag of their own, for messages."""


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
    places = Places(file, node, changes)
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        mistakes += [places.mistake(path, message) for path, message in map(explained, error.errors())]
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
    places = Places(None, None, changes)
    try:
        said = Config.model_validate(raw)
    except ValidationError as error:
        mistakes = [places.mistake(path, message) for path, message in map(explained, error.errors())]
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
        # Messages show the source, so it leaves out what comes after the `=`: that may be a secret.
        yield f"--set {key.strip()}", tuple(key.strip().split(".")), text if equals else None


def _override(source: str, path: tuple[str, ...], text: str | None) -> Override:
    if text is None or path == ("",):
        raise InputError(f"{source}: write it as section.key=value")
    if path[0] not in Config.model_fields:
        raise InputError(f"{source}: there is no section `{path[0]}`{suggest(path[:1])}")
    if len(path) != 2 and not (path[:2] == ("budget", "prices_usd") and len(path) == 3):
        what = "names no key of a section" if len(path) < 2 else "names more than a section and a key"
        raise InputError(f"{source}: {what}; write it like limits.max_in_flight")
    return Override(source, path, _plain(text, source))


def _plain(text: str, source: str) -> object:
    """A value of one line, as YAML reads it. An empty one stays an empty text; `null` unsets a key."""
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
