"""`kling-batch status`: how a run directory stands, beside a live run or at rest; without one, how all of them do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipeline import api
from pipeline.api.places import runs_folder
from pipeline.cli import options
from pipeline.cli.screen import hush, printable, safe_json, say, say_json, shortened, terminal_width, working
from pipeline.cli.status_screen import list_screen, status_screen
from pipeline.kernel.address import address_of

WATCH_INTERVAL_S = 2.0

LISTED = 50
"""At most this many run directories are looked at for the list on the screen; --json lists all."""

EMPTY, HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
"""What a terminal is told: everything is cleared once, then each line is written over what stood there."""


@click.command()
@click.argument(
    "directory",
    type=Path,
    required=False,
    metavar="[DIR]",
    help="A run directory, like outputs/quickstart; without one, all runs are listed.",
)
@options.config_file
@options.settings
@options.json
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
def status(directory: Path | None, config: Path | None, settings: tuple[str, ...], json: bool, watch: bool) -> None:
    """Show how a run directory stands, beside a live run or at rest. Jobs, money, pace, what expires, what went wrong.

    Example: kling-batch status outputs/quickstart --watch
    """
    look = Directory(directory) if directory is not None else AllRuns(_output_folder(config, settings), json=json)
    if watch:
        _watch(look, json=json)
        return
    with working(f"Reading {look.name}"):
        shown: Any = look.facts() if json else "\n".join(look.lines(terminal_width()))
    if json:
        say_json(shown)
    else:
        say(shown)


class Directory:
    """One run directory, looked at again and again."""

    def __init__(self, folder: Path) -> None:
        self.name = address_of(folder) or str(folder)
        self._run = api.open_run(folder)

    def facts(self) -> dict[str, Any]:
        """How it stands now, as `--json` prints it."""
        return self._run.status()

    def lines(self, width: int) -> list[str]:
        """The same for people, in lines of at most `width` characters."""
        return status_screen(self.name, self.facts(), width)


class AllRuns:
    """The run directories of a folder, the newest first."""

    def __init__(self, folder: Path, *, json: bool) -> None:
        self.name = str(folder)
        self._folder = folder
        self._most = None if json else LISTED

    def facts(self) -> dict[str, Any]:
        """How each stands now, as `--json` prints it."""
        from pipeline.kernel.clock import SystemClock, iso

        found = len(api.find_runs(self._folder))
        rows = api.list_runs(self._folder, most=self._most)
        return {"at": iso(SystemClock().now_us()), "folder": self.name, "found": found, "runs": rows}

    def lines(self, width: int) -> list[str]:
        """The same for people, in lines of at most `width` characters."""
        return list_screen(self.facts(), width)


def _output_folder(config: Path | None, settings: tuple[str, ...]) -> Path:
    return runs_folder(api.load_config(config, settings=settings))


def _watch(look: Directory | AllRuns, *, json: bool) -> None:
    """Show it again and again, until Ctrl-C or until nobody reads any more; either is a good end."""
    import time

    try:
        for shown in _screens(look, json=json):
            sys.stdout.write(shown)
            sys.stdout.flush()
            time.sleep(WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        hush()


def _screens(look: Directory | AllRuns, *, json: bool) -> Iterator[str]:
    """One screen after another. Trouble with the first ends the command; later it is shown, since it may pass."""
    from pipeline.kernel.errors import KlingBatchError

    show = _json_line if json else _in_place if sys.stdout.isatty() else _page
    is_first = True
    while True:
        try:
            shown = show(look)
        except KlingBatchError as error:
            if is_first:
                raise
            shown = _trouble(str(error), json=json)
        yield EMPTY + shown if is_first and show is _in_place else shown
        is_first = False


def _json_line(look: Directory | AllRuns) -> str:
    import orjson

    return safe_json(orjson.dumps(look.facts()).decode()) + "\n"


def _page(look: Directory | AllRuns) -> str:
    return "\n".join([*look.lines(terminal_width()), "", ""])


def _in_place(look: Directory | AllRuns) -> str:
    size = shutil.get_terminal_size()
    return in_place(look.lines(size.columns), size)


def _trouble(message: str, *, json: bool) -> str:
    import orjson

    if json:
        return safe_json(orjson.dumps({"error": message}).decode()) + "\n"
    lines = [f"{printable(message)} It is tried again."]
    return in_place(lines, shutil.get_terminal_size()) if sys.stdout.isatty() else "\n".join([*lines, "", ""])


def in_place(lines: list[str], size: os.terminal_size) -> str:
    """Lines over those of the last time, cut to the terminal: nothing scrolls, and nothing is blank in between."""
    room = max(1, size.lines - 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines"]
    return HOME + "".join(f"{shortened(line, size.columns)}{REST_OF_LINE}\n" for line in lines) + REST_OF_SCREEN
