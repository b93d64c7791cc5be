"""What the project says to installers: every dependency pinned and with its reason, and no package host named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PINNED = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def normal(name: str) -> str:
    """A package's name in its one normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies() -> list[str]:
    """Everything that the project asks for, by name; not itself, which stands for its own extras."""
    project = tomllib.loads(PYPROJECT)["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = [normal(re.split(r"[<>=!~ \[]", line)[0]) for line in asked]
    return [name for name in names if name != project["name"]]


def test_every_dependency_has_its_reason_beside_it() -> None:
    """A line of `pyproject.toml` that names a package says what for."""
    lines = [line for line in PYPROJECT.splitlines() if re.match(r'    "[A-Za-z0-9_.-]+[><=]?.*",', line)]
    packages = [
        line for line in lines if normal(re.split(r"[<>=\[]", line.strip(' ",'))[0].split('"')[0]) in dependencies()
    ]
    assert len(packages) >= len(dependencies())
    assert [line for line in packages if not re.search(r"#\s+\w+", line)] == []


def test_every_dependency_is_pinned_and_no_host_is_named() -> None:
    """The lock holds each by version, and neither it nor any other file says where packages come from."""
    assert set(dependencies()) <= {normal(name) for name in PINNED}
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|index-url|extra-index", lock)


def test_the_customers_top_level_stands() -> None:
    """`pyproject.toml`, `pipeline/`, `configs/`, `manifests/`, `tests/` and `outputs/.gitkeep`."""
    for name in ("pyproject.toml", "pipeline", "configs", "manifests", "tests", "outputs/.gitkeep"):
        assert (ROOT / name).exists(), name
