"""`kling-batch export`: the artifacts of a run directory as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import api
from pipeline.cli import INTERRUPTED, options
from pipeline.cli.screen import count, dollars, printable, say, say_json, working

if TYPE_CHECKING:
    from pipeline.api.types import Exported

SHOWN = 12


@click.command()
@options.run_directory
@click.option(
    "--to",
    required=True,
    metavar="PATH",
    help="The folder or s3:// address to write: new, empty, or an export to refresh.",
)
@click.option(
    "--format",
    "form",
    required=True,
    metavar="FORMAT",
    help="hf (Hugging Face video folder), webdataset (tar shards), csv or parquet (a table, and videos).",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only clips of which the results say so. Repeatable: all must hold.",
)
@click.option("--shard-size", metavar="SIZE", help="The most that a tar shard has: 1GB, 500MB.")
@click.option(
    "--license",
    "licence",
    default="other",
    metavar="NAME",
    help="The licence on the card, as Hugging Face names it: cc-by-4.0.",
)
@options.json
def export(
    directory: Path, to: str, form: str, where: tuple[str, ...], shard_size: str | None, licence: str, json: bool
) -> None:
    """Export the stored videos as a data set. Each is held against the ledger again; nothing is sent.

    Example: kling-batch export outputs/quickstart --to clips --format hf
    """
    shard_bytes = None if shard_size is None else _bytes(shard_size)
    try:
        with working(f"Exporting {directory}"):
            done = api.export(directory, to, format=form, where=where, license=licence, shard_bytes=shard_bytes)
    except KeyboardInterrupt:
        say(f"Interrupted: {printable(to)} is not whole. Export again to go on.")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if json:
        say_json(done.as_json())
    else:
        say(_screen(done))
    raise click.exceptions.Exit(done.exit_code)


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _bytes(text: str) -> int:
    """A size as people write it, in bytes."""
    import re

    from pipeline.kernel.errors import InputError

    found = re.fullmatch(r"([0-9]{1,12})\s*([kmgt]?i?)b?", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise InputError(f"--shard-size: {text[:40]!r} is no size; write it like 1GB or 500MB")
    return int(found[1]) * _UNITS[found[2]]


def _shown_size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return count(size, "byte")


def _screen(done: Exported) -> str:
    where = printable(str(done.path))
    what = (
        f"{count(done.clips, 'clip')}, {done.seconds:,.1f} s, {_shown_size(done.bytes)}, {dollars(done.cost_microusd)}"
    )
    lines = [f"{where}: {what}", f"  {_how(done)}"]
    lines += [
        f"  not in it: {count(n, 'job')} {status.replace('_', ' ')}" for status, n in done.facts()["not_stored"].items()
    ]
    if done.choice.passed_over:
        lines.append(f"  not in it: {count(done.choice.passed_over, 'stored video')}, by --where")
    if done.left_out:
        lines += ["", f"Left out, for {'it is' if len(done.left_out) == 1 else 'they are'} not as stored:"]
        lines += [f"  {printable(each.video)} {printable(each.reason)}" for each in done.left_out[:SHOWN]]
        if len(done.left_out) > SHOWN:
            lines.append(f"  … and {len(done.left_out) - SHOWN} more (--json lists all)")
    return "\n".join(lines)


def _how(done: Exported) -> str:
    if done.format == "webdataset":
        return f"in {count(done.shards, 'shard')}"
    if not done.linked:
        return f"{count(done.copied, 'video')} copied"
    copied = f", {done.copied:,} copied" if done.copied else ""
    return f"{count(done.linked, 'hard link')}: no room is needed{copied}"
