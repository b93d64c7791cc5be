"""Reads the documents as a reader does: their commands, their tables, their files, their links.

After a change of wording on the screen, `python tests/docs/docs_support.py` runs every command again and writes what it
really prints into the documents. Look at the difference before you keep it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.kernel.virtual_time import run_virtually
from pipeline.manifest import load_manifest
from pipeline.rehearsal import Scenario
from pipeline.rehearsal.before import copy_run
from pipeline.rehearsal.night import _play
from pipeline.runner.watching import Watcher

ROOT = Path(__file__).parents[2]
QUICKSTART = "docs/quickstart.md"
"""Read in a folder of its own: it buys more for the demo's run directory, which all other pages show as it was."""

_IN_ORDER = ("README.md", QUICKSTART, "docs/plan.md", "docs/night.md", "docs/money.md")
PAGES = tuple(sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DOCUMENTS = (*_IN_ORDER, *(page for page in PAGES if page not in _IN_ORDER), "CONTRIBUTING.md", "CHANGELOG.md")
"""In the order in which they are run: a campaign is planned on one page, and made on a later one."""

COMMAND_S = 120
"""Longest that one command of a document may take, in seconds."""

NOT_RUN = {
    "make test": "it runs these very tests",
    "make lint": "it changes files",
    "python tests/docs/docs_support.py": "it changes the documents",
    "python3 -m venv .venv": "`make demo` does it; held against the Makefile instead",
    ".venv/bin/pip install": "`make demo` does it; held against the Makefile instead",
    ".venv/bin/kling-batch run manifests/quickstart.yaml": "`make demo` runs it; held against the Makefile instead",
    ".venv/bin/ruff check": "`make test` runs it; held against the Makefile instead",
    "kling-batch run manifests/quickstart.yaml --config configs/live.yaml": "real money",
    "kling-batch status outputs/quickstart-live": "there is no live run directory here",
    "kling-batch sandbox --port 8787": "it serves until Ctrl-C, at a port that may be taken; a test of its own runs it",
    "DOUBLE_KEY=": "it needs that sandbox; the same test runs it",
    "nohup kling-batch run": "real money, and a process that outlives the test",
    "tmux new-session": "real money, and needs a terminal",
    "systemd-run": "real money, and needs a service manager",
}
"""Commands that the tests do not run, by how they begin, and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, its lines, and the number of its first line."""

    document: str
    words: tuple[str, ...]
    lines: tuple[str, ...]
    line: int

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass(frozen=True)
class Command:
    """A command that a document shows, the exit code that it says (`# exit 3`), and the output that it may show."""

    document: str
    line: int
    text: str
    exit_code: int
    shown: tuple[str, ...]

    @property
    def why_not_run(self) -> str | None:
        return next((why for beginning, why in NOT_RUN.items() if self.text.startswith(beginning)), None)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Done:
    """What a command really did. Its output is that of both streams."""

    exit_code: int
    output: tuple[str, ...]


def read(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str) -> list[Block]:
    """Every fenced block of a document."""
    found = []
    words: tuple[str, ...] | None = None
    lines: list[str] = []
    for number, line in enumerate(read(document).split("\n"), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif words is None:
            words, lines, first = tuple(line[3:].split()), [], number + 1
        else:
            found.append(Block(document, words, tuple(lines), first))
            words = None
    assert words is None, f"{document}: a block is not closed"
    return found


def commands(document: str) -> list[Command]:
    """Every command in the `console` blocks of a document."""
    return [command for block in blocks(document) if block.words[:1] == ("console",) for command in _commands(block)]


def _commands(block: Block) -> Iterator[Command]:
    starts = [index for index, line in enumerate(block.lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"{block.document}:{block.line}: a console block begins with a command"
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        said = re.search(r"\s+# exit (\d+)$", block.lines[start])
        text = block.lines[start][2:].removesuffix(said[0] if said else "")
        yield Command(
            block.document, block.line + start, text, int(said[1]) if said else 0, block.lines[start + 1 : end]
        )


def recipe(target: str) -> list[str]:
    """The commands of a Makefile target, as `make` would print them; fails for a target that is not there."""
    lines = read("Makefile").split("\n")
    variables = dict(re.findall(r"^(\w+) \??:?= (.+)$", "\n".join(lines), re.MULTILINE))
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{target}:"))
    made = []
    for line in lines[start + 1 :]:
        if not line.startswith("\t"):
            break
        if not line.startswith("\t@"):
            made.append(re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], line[1:]))
    return made


def lay_out(folder: Path) -> None:
    """What a reader has: the project's manifests, configs and commands, and the files that the documents write."""
    for name in ("manifests", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for document in DOCUMENTS:
        for block in blocks(document):
            if len(block.words) == 2:
                (folder / block.words[1]).write_text(block.text)


def run_command(command: Command, folder: Path) -> Done:
    """Run a command as a reader would. `make` prints its recipe's last line and runs it; what is before is set up.

    A command of ours that asks nothing of the shell is forked with everything imported: starting Python and importing
    takes longer than most of them. `make` and what has more on its line begin where a reader's begin.
    """
    text = command.text
    if text.startswith("kling-batch ") and not _ASKS_THE_SHELL.search(text):
        return run_forked(_be_the_command, shlex.split(text), folder)
    echoed: list[str] = []
    if text.startswith("make "):
        text = recipe(text.removeprefix("make "))[-1]
        echoed = [text]
    done = _run_in_shell(text, folder)
    return Done(done.exit_code, (*echoed, *done.output))


_ASKS_THE_SHELL = re.compile(r"[|&;<>()$`\\*?\[#~]")


def _environment() -> dict[str, str]:
    """A reader's: the project's commands on the path, and none of our settings."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("KLING_BATCH_", "SEGMIND_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return keep | {"PATH": path, "COLUMNS": "120"}


def _run_in_shell(text: str, folder: Path) -> Done:
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", text],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return _done(done.returncode, done.stdout)


def run_forked(program: Callable[[Any], None], asked: Any, folder: Path) -> Done:
    """Run `program(asked)` in a process of its own in the reader's folder, forked with everything imported."""
    from worlds import exit_code, fork  # not for those who only read the documents

    with tempfile.NamedTemporaryFile() as said:
        process = fork(_in_readers_place, program, asked, folder, said.name, _environment())
        code = exit_code(process, COMMAND_S)
        if code is None:
            process.kill()
            raise AssertionError(f"{asked} was not over after {COMMAND_S} s")
        return _done(code, Path(said.name).read_text())


def _in_readers_place(program: Callable[[Any], None], asked: Any, folder: Path, said: str, env: dict[str, str]) -> None:
    """The main function of such a process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    silence, screen = os.open(os.devnull, os.O_RDONLY), os.open(said, os.O_WRONLY | os.O_APPEND)
    for descriptor, file in ((0, silence), (1, screen), (2, screen)):
        os.dup2(file, descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    program(asked)


def _be_the_command(arguments: list[str]) -> None:
    from pipeline.cli import main

    _draw_nothing()
    sys.argv = arguments
    main()


def _draw_nothing() -> None:
    """To draw clips takes longer than all else: those of the demo are drawn, which begins where a reader's begins."""
    from pipeline.runner import opening

    settings = opening._sandbox_settings
    opening._sandbox_settings = lambda *asked, **more: dataclasses.replace(settings(*asked, **more), clips="tiny")


def _be_python(text: str) -> None:
    _draw_nothing()
    warnings.simplefilter("error")
    exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})


def _done(code: int, output: str) -> Done:
    # What bash itself says of a killed child names a process and is no output of the command; and a busy machine takes
    # so long that it tells of its progress.
    passing = r"(/\S*)?bash: line \d+:|\d+/\d+ done, "
    lines = [line.rstrip() for line in output.split("\n") if not re.match(passing, line)]
    while lines and not lines[-1]:
        lines.pop()
    # A shell says 137 for a child that was killed, also where it let the child take its own place.
    return Done(code if code >= 0 else 128 - code, tuple(lines))


def run_all(folder: Path) -> dict[str, Done]:
    """Every command that is run, by its place, in the order of the documents; and a night for the ledger's page.

    Groups share no file and go on side by side. The demo is made once, and the quickstart goes on with a copy of it.
    """
    wanted = [command for document in DOCUMENTS for command in commands(document) if command.why_not_run is None]
    groups: dict[str, list[Command]] = {}
    for command in wanted:
        groups.setdefault(_group(command), []).append(command)
    done: dict[str, Done] = {}

    def run_in_order(group: list[Command], folder: Path) -> None:
        done.update({str(command): run_command(command, folder) for command in group})

    with ThreadPoolExecutor(4) as pool:
        going_on = [pool.submit(run_in_order, groups[name], folder) for name in ("spring", "others")]
        demo, *about_demo = groups["demo"]
        run_in_order([demo], folder)
        done.update({str(command): done[str(demo)] for command in groups["the same demo"]})
        second = folder / "second reader"
        second.mkdir()
        lay_out(second)
        shutil.copytree(folder / "outputs" / "quickstart", second / "outputs" / "quickstart")
        going_on.append(pool.submit(run_in_order, groups["first steps"], second))
        going_on.append(pool.submit(run_in_order, about_demo, folder))
        for each in going_on:
            each.result()
    play_night(folder)
    return done


def _group(command: Command) -> str:
    if command.text == "make demo" and command.document != "README.md":
        return "the same demo"
    if command.document == QUICKSTART and "quickstart-2" in command.text:
        return "first steps"
    if re.search(r"make demo|outputs/quickstart( |$)|quickstart-hf", command.text):
        return "demo"
    return "spring" if "spring" in command.text else "others"


NIGHT = "outputs/night"
"""The run directory that the ledger's page asks."""


def play_night(folder: Path) -> None:
    """A night with trouble of every kind of money, in virtual time, so that it is the same always."""
    config = load_config(None, {"budget.cap_usd": "70", "limits.max_in_flight": "1"}, [], environment={})
    faults = {
        "gen_failed": 0.12,
        "gen_failed_input": 0.05,
        "submit_500": 0.05,
        "submit_504_after": 0.08,
        "file_cut": 0.1,
    }
    evening_us = int(datetime(2026, 6, 1, 22, tzinfo=UTC).timestamp()) * 1_000_000
    night = folder / NIGHT
    playing = _play(
        load_manifest(folder / "manifests" / "overnight.yaml"),
        config,
        night,
        night,
        copy_run(night, night),
        Scenario(seed=4, mean_s=317, faults=faults),
        None,
        evening_us,
        Watcher(),
    )
    run_virtually(playing, threads=False)


_VARIES = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\bdone about .* if started now\b", "done about HOUR if started now"),
    (r"\b\d+ h \d\d min\b", "DURATION"),
    (r"\b(less than )?\d+ (s|min)\b(?! +\$)", "DURATION"),
    (r"\b\d+ polls?\b", "POLLS"),
    (r"\b[\d.]+ [kM]B\b", "SIZE"),
    (r"\bprocess \d+\b", "PROCESS"),
    (r" +", " "),
)


def normal(line: str) -> str:
    """A line of output without what differs from one run to the next: times, ids, counts of polls, sizes, and padding.

    A length with its price behind it stays: 5 s are not 10 s.
    """
    for pattern, word in _VARIES:
        line = re.sub(pattern, word, line)
    return line.strip()


def agrees(shown: tuple[str, ...], output: tuple[str, ...]) -> bool:
    """Whether the output is as shown; a line `…` stands for any lines, none included."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(normal(line)) + "\n" for line in _without_end(shown)
    )
    return re.fullmatch(pattern, "".join(normal(line) + "\n" for line in output)) is not None


def _without_end(lines: tuple[str, ...]) -> tuple[str, ...]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def table(document: str, *header: str) -> list[list[str]]:
    """The rows of the one table of a document that begins with these columns."""
    lines = read(document).split("\n")
    start = [index for index, line in enumerate(lines) if _cells(line)[: len(header)] == list(header)]
    assert len(start) == 1, f"{document}: {len(start)} tables begin with {header}"
    rows = []
    for line in lines[start[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def plain(cell: str) -> str:
    """A cell without its code marks."""
    return cell.replace("`", "")


def anchors(document: str) -> set[str]:
    """The anchors that a document's headings have on the web."""
    prose = re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def output_behind(block: Block) -> Block | None:
    """The `text` block that follows a block with nothing but a blank line between."""
    behind = block.line + len(block.lines) + 3
    return next((other for other in blocks(block.document) if other.line == behind and other.words == ("text",)), None)


def run_python(block: Block, folder: Path) -> Done:
    """Run a `python` block as it stands, forked with everything imported; a warning is a mistake."""
    return run_forked(_be_python, block.text, folder)


def rewrite() -> None:
    """Put what every command and Python block really prints into the documents, except where `…` shortens it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder)
        done = run_all(folder)
        for document in DOCUMENTS:
            shown = {command.line: (command.shown, done.get(str(command))) for command in commands(document)}
            for block in blocks(document):
                behind = output_behind(block) if block.words == ("python",) else None
                if behind is not None:
                    shown[behind.line - 1] = (behind.lines, run_python(block, folder))
            lines = read(document).split("\n")
            for line, (old, really) in sorted(shown.items(), reverse=True):
                if old and really is not None and not any(text.strip() == "…" for text in old):
                    print(f"{document}:{line}", file=sys.stderr)
                    lines[line : line + len(old)] = really.output
            (ROOT / document).write_text("\n".join(lines))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("torture", "system", "engine")]
    rewrite()
