"""What the Python interface is made of: its names, what it costs to import, and what a type checker sees of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio
from pathlib import Path

from pipeline import (
    Campaign, Event, Following, InputError, LiveRun, Plan, RunResult, Watcher, export, load_config, load_manifest,
    open_run, plan, rehearse, run,
)


class Counting(Watcher):
    def started(self, live: LiveRun) -> None:
        self.far = Following(live)

    def event(self, event: Event) -> None:
        print(event.event, event.cost_microusd)


async def main() -> int:
    campaign: Campaign = load_manifest("m.csv")
    config = load_config({"limits.max_in_flight": 10}, budget_usd="10")
    planned: Plan = plan(campaign, config, limit=1, ids=["one"])
    print(planned.cost + 1, rehearse(campaign, config, faults={"submit_500": 0.1}).stored + 1)
    try:
        done: RunResult = await run(campaign, config, out=Path("there"), watcher=Counting())
    except InputError:
        return 2
    table = open_run("there").results()
    print(table.groupby("mood")["status"].count(), export("there", "to", format="hf").clips + 1)
    return done.exit_code


asyncio.run(main())
"""


def test_every_name_is_there_whatever_was_imported_before() -> None:
    """No name is taken by a module of the same name: all modules are loaded, and each name is what its home has."""
    code = (
        "import importlib, pkgutil, pipeline, pipeline.api\n"
        "for found in pkgutil.walk_packages(pipeline.__path__, 'pipeline.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "api = {name for name in pipeline.__all__ if getattr(pipeline.api, name, None) is getattr(pipeline, name)}\n"
        "rest = {name for name in pipeline.__all__ if isinstance(getattr(pipeline, name), type)}\n"
        "print(*sorted(set(pipeline.__all__) - api - rest), len(pipeline.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(len(pipeline.__all__))]


def test_what_a_type_checker_sees_is_what_is_there() -> None:
    """The names under `TYPE_CHECKING` are those of `__all__`, and each of them can be had."""
    tree = ast.parse(Path(pipeline.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == sorted(pipeline.__all__)
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)
    assert set(pipeline.__all__) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = pipeline.runn


def test_importing_it_costs_nothing() -> None:
    """Nothing but the standard library is loaded before a function is called."""
    code = (
        "import sys; before = set(sys.modules); import pipeline; from pipeline import run, open_run\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["pipeline"]


def test_a_typed_program_passes_the_strictest_check(tmp_path: Path) -> None:
    """The package says that it is typed, and what it returns has its type."""
    assert (ROOT / "pipeline" / "py.typed").is_file()
    program = tmp_path / "program.py"
    program.write_text(f"{PROGRAM}\nreveal_type(plan('m.csv').cost)\n")
    # In the project's folder and under its rules, which are strict: so mypy knows what it found there before.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert "Success: no issues found" in done.stdout, done.stdout + done.stderr
    assert 'Revealed type is "pipeline.kernel.usd.MicroUsd"' in done.stdout
