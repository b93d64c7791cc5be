"""The order of the layers is a test, and that test is tested."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of the `pyproject.toml` in `folder` on the `pipeline` in it."""
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the house that a test may spoil."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_down_only() -> None:
    """The house as it stands keeps all its contracts."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("kernel/usd.py", "from pipeline.jobs import Job"),
        ("ledger/fold.py", "from pipeline.provider.client import Client"),
        ("provider/client.py", "from pipeline.engine.worker import make"),
        ("sandbox/state.py", "from pipeline.kernel.usd import parse_usd"),
        ("engine/worker.py", "from pipeline.cli.screen import say"),
        ("report/tables.py", "from pipeline.forecast import Plan"),
        ("cli/run.py", "from pipeline.runner.running import run as run_engine"),
        ("settling.py", "from pipeline import Prepared"),
        ("config/sections.py", "from pipeline.config.settings import Config"),
        ("runner/opening.py", "from pipeline.runner.ending import exit_code"),
    ],
)
def test_a_forbidden_import_makes_it_fail(copy: Path, module: str, line: str) -> None:
    """An import that points up, or sideways, is found and named."""
    path = copy / "pipeline" / module
    path.write_text(path.read_text() + f"\n{line}  # noqa\n")
    done = lint(copy)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_a_room_that_no_layer_names_makes_it_fail(copy: Path) -> None:
    """The list is exhaustive: a new room must find its floor."""
    (copy / "pipeline" / "attic.py").write_text('"""Nobody knows where this belongs."""\n')
    assert lint(copy).returncode != 0


def test_what_the_command_line_may_import_is_named_and_all_else_forbidden() -> None:
    """A new room is either forbidden to it, or one of the few that it stands on."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    own = next(contract for contract in contracts if contract.get("source_modules") == ["pipeline.cli"])
    rooms = {room for floor in contracts[0]["layers"] for room in re.findall(r"\w+", floor)}
    allowed = {"__main__", "cli", "api", "kernel", "sandbox"}
    assert {f"pipeline.{room}" for room in rooms - allowed} == set(own["forbidden_modules"])
