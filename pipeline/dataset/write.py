"""An export from beginning to end: choose, verify and place the clips, describe them, and commit."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline.dataset import rows as described
from pipeline.dataset.card import NO_LICENSE, CardFacts, LeftOut, card
from pipeline.dataset.clips import Choice, Clips, ExportedClip, choose_clips, clips_table, parse_conditions
from pipeline.dataset.place import Place, open_place
from pipeline.dataset.remote import Store
from pipeline.dataset.shards import Shards
from pipeline.dataset.sources import NotAsStored, open_source, read_poster
from pipeline.kernel.address import is_loopback_host
from pipeline.kernel.arrow import total
from pipeline.kernel.errors import InputError, MachineError
from pipeline.kernel.files import hold_folder
from pipeline.kernel.usd import format_usd
from pipeline.ledger.fold import State
from pipeline.report.lines import Line

FORMATS = ("hf", "webdataset", "csv", "parquet")

DEFAULT_SHARD_BYTES = 10**9

SOME_LEFT_OUT = 1
"""The exit code of an export that has left out videos because they are not as they were stored."""

_FOLDER = {"hf": "train", "csv": "videos", "parquet": "videos"}
"""Where the videos of a format lie.

Outside of `train`, Hugging Face would take a video with `test` in its name for one of the test split.
"""

_TABLE: dict[str, tuple[str, Callable[..., bytes]]] = {
    "hf": ("train/metadata.jsonl", described.as_metadata),
    "csv": ("clips.csv", described.as_csv),
    "parquet": ("clips.parquet", described.as_parquet),
}
_DATA_FILES = {"hf": "train/**", "webdataset": "clips-*.tar", "csv": "clips.csv", "parquet": "clips.parquet"}

_HOW_TO_LOAD = {
    "hf": 'from datasets import load_dataset\n\nclips = load_dataset("videofolder", data_dir=".", split="train")',
    "csv": 'import pandas as pd\n\nclips = pd.read_csv("clips.csv", dtype={"cost_usd": "string"})',
    "parquet": 'import pandas as pd\n\nclips = pd.read_parquet("clips.parquet")',
}

_STAGING = ".export-"

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")


@dataclass(frozen=True, slots=True)
class AskedOfExport:
    """What a person asks of an export. `where` are conditions as written; `shard_bytes` is for `webdataset`."""

    format: str
    where: tuple[str, ...] = ()
    license: str = NO_LICENSE
    shard_bytes: int = DEFAULT_SHARD_BYTES


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written. Money in micro-dollars."""

    path: Path | str
    """The folder, or its address in object storage."""
    format: str
    clips: int
    seconds: float
    bytes: int
    cost_microusd: int
    linked: int
    copied: int
    shards: int
    choice: Choice
    left_out: tuple[LeftOut, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 if a stored video is not as it was stored and was left out."""
        return SOME_LEFT_OUT if self.left_out else 0

    def as_json(self) -> dict[str, Any]:
        """The same for scripts. Money as text with exact cents."""
        return {
            "to": str(self.path),
            **self.facts(),
            "linked": self.linked,
            "copied": self.copied,
            "exit_code": self.exit_code,
        }

    def facts(self) -> dict[str, Any]:
        """What does not depend on where or how often it is exported: the content of the marker."""
        return {
            "format": self.format,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "cost_usd": format_usd(self.cost_microusd),
            "shards": self.shards,
            "not_stored": dict(sorted(self.choice.not_stored.items())),
            "passed_over": self.choice.passed_over,
            "left_out": [
                {"id": each.id, "job_id": each.job_id, "video": each.video, "reason": each.reason}
                for each in self.left_out
            ],
        }


def export(folder: Path, lines: Sequence[Line], state: State, to: Path, asked: AskedOfExport) -> Exported:
    """Export the stored videos of a run directory.

    Args:
        folder: the run directory, whose campaign is `lines` and whose ledger says `state`.
        to: the folder to write; an export that is there is refreshed.

    Raises:
        InputError: something asked for makes no sense, nothing is stored, or `to` is not ours; nothing was written.
        MachineError: the disk refused; what is there has no marker, and exporting again goes on.
    """
    _check(asked)
    conditions = parse_conditions(asked.where)
    choice = choose_clips(lines, state, conditions, dots=asked.format != "webdataset")
    if not choice.clips:
        which = "for which every --where is true" if conditions and choice.passed_over else "in it yet"
        raise InputError(f"{folder} has no stored video {which}. Nothing was exported.")
    try:
        names, shards = _names(choice.clips, asked.format), _most_shards(choice.clips, asked)
        with open_place(to, _FOLDER.get(asked.format), names, shards) as place:
            return _fill(folder, place, choice, state, asked)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{to}: {error.strerror}. Nothing was exported.") from None
        raise MachineError(f"{to} cannot be written: {error.strerror}. The export is not whole; export again") from None


def export_to_store(folder: Path, lines: Sequence[Line], state: State, to: str, asked: AskedOfExport) -> Exported:
    """Export as `export` does, to an address in object storage such as `s3://bucket/clips`.

    The export is made in the run directory first, where hard links need no room, and is deleted there at the end.

    Raises:
        InputError: as `export`, or the address cannot be used.
        MachineError: the disk or the storage refused; what is there has no marker, and exporting again goes on.
    """
    store = Store(to)
    with _staging(folder) as stage:
        done = export(folder, lines, state, stage / "export", asked)
        store.send(stage / "export")
    return replace(done, path=store.url, linked=0, copied=done.linked + done.copied)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder of our own in the run directory, removed at the end; those of killed exports are removed first."""
    try:
        for left in folder.glob(f"{_STAGING}*"):
            # Only folders that nobody holds. Another export may be removing the same one.
            with contextlib.suppress(OSError), hold_folder(left):
                shutil.rmtree(left)
        with contextlib.ExitStack() as stack:
            made = None
            while made is None or not made.is_dir():  # another export may have removed it before it was held
                made = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
                with contextlib.suppress(BlockingIOError, FileNotFoundError):
                    stack.enter_context(hold_folder(made))
            stack.callback(shutil.rmtree, made, ignore_errors=True)
            yield made
    except OSError as error:
        raise MachineError(f"{folder} cannot be written: {error.strerror}. Nothing was exported.") from None


def _check(asked: AskedOfExport) -> None:
    if asked.format not in FORMATS:
        raise InputError(f"--format: there is no format {asked.format[:40]!r}; known: {', '.join(FORMATS)}")
    if not _LICENSE.fullmatch(asked.license):
        raise InputError(
            f"--license: {asked.license[:40]!r} is no licence's short name as Hugging Face lists them, "
            "like cc-by-4.0 or mit"
        )


def _names(clips: Iterable[ExportedClip], form: str) -> list[str]:
    """The files that an export will write, but for shards: their number is not known yet, so they are claimed later."""
    if form == "webdataset":
        return ["README.md"]
    return ["README.md", _TABLE[form][0], *(f"{_FOLDER[form]}/{clip.stem}.mp4" for clip in clips)]


def _most_shards(clips: Clips, asked: AskedOfExport) -> int:
    """About how many shards there may be: any two that follow each other hold more than one can take.

    This counts the videos alone. What stands beside them may need some more shards, which are claimed as they come.
    """
    if asked.format != "webdataset":
        return 0
    return min(len(clips), 1 + 2 * int(total(clips.facts["bytes"])) // asked.shard_bytes)


def _fill(folder: Path, place: Place, choice: Choice, state: State, asked: AskedOfExport) -> Exported:
    # Paths in the table are relative to its folder.
    table = clips_table(choice.clips, "videos/" if _FOLDER.get(asked.format) == "videos" else "")
    shards = 0
    if asked.format == "webdataset":
        left_out, shards = _into_shards(folder, place, choice.clips, described.rows_of(table), asked.shard_bytes)
    else:
        left_out = _into_folder(folder, place, choice.clips, _FOLDER[asked.format])
    facts = choice.clips.facts
    if left_out:
        gone = {each.job_id for each in left_out}
        is_there = pa.array([job_id not in gone for job_id in table["job_id"].to_pylist()], pa.bool_())
        table, facts = table.filter(is_there), facts.filter(is_there)
    if asked.format != "webdataset":
        name, written = _TABLE[asked.format]
        place.add_bytes(name, written(table))
    done = Exported(
        path=place.path,
        format=asked.format,
        clips=len(table),
        seconds=float(total(table["duration_s"])),
        bytes=total(table["bytes"]),
        cost_microusd=total(facts["cost_microusd"]),
        linked=place.linked,
        copied=place.copied,
        shards=shards,
        choice=choice,
        left_out=tuple(left_out),
    )
    place.add_bytes("README.md", card(table, _facts(folder, state, asked, done)))
    place.commit(done.facts())
    return done


def _facts(folder: Path, state: State, asked: AskedOfExport, done: Exported) -> CardFacts:
    last = max(0, done.shards - 1)
    shards = f"clips-{{{0:06d}..{last:06d}}}.tar"
    loaded = f'import webdataset as wds\n\nclips = wds.WebDataset("{shards}", shardshuffle=False).decode()'
    return CardFacts(
        name=folder.resolve().name,
        license=asked.license,
        is_sandbox=_is_sandbox(state),
        data_files=_DATA_FILES[asked.format],
        how_to_load=_HOW_TO_LOAD.get(asked.format, loaded),
        cost_microusd=done.cost_microusd,
        not_stored=dict(sorted(done.choice.not_stored.items())),
        passed_over=done.choice.passed_over,
        where=asked.where,
        left_out=done.left_out,
    )


def _is_sandbox(state: State) -> bool:
    """Whether the videos were drawn by a sandbox: the embedded one, or one that was served on this machine."""
    facts = state.runs[-1].facts if state.runs else {}
    host = urlsplit(str(facts.get("base_url", ""))).hostname
    return facts.get("provider") == "sandbox" or is_loopback_host(host or "")


def _into_folder(folder: Path, place: Place, clips: Iterable[ExportedClip], under: str) -> list[LeftOut]:
    left_out = []
    for clip in clips:
        try:
            with open_source(folder, clip) as source:
                place.add_file(f"{under}/{clip.stem}.mp4", source)
        except NotAsStored as difference:
            left_out.append(_left_out(clip, difference))
    return left_out


def _into_shards(
    folder: Path, place: Place, clips: Iterable[ExportedClip], rows: Iterable[Mapping[str, Any]], limit: int
) -> tuple[list[LeftOut], int]:
    """Returns what was left out, and the number of archives."""
    left_out = []
    with Shards(place, limit) as shards:
        for clip, row in zip(clips, rows, strict=True):
            sidecars = {"json": described.as_json(row), "txt": str(row["prompt"]).encode()}
            poster = read_poster(folder, clip)
            if poster is not None:
                sidecars["jpg"] = poster
            try:
                with open_source(folder, clip) as source:
                    shards.add(clip.stem, source, sidecars)
            except NotAsStored as difference:
                left_out.append(_left_out(clip, difference))
        shards.close()
        return left_out, shards.number


def _left_out(clip: ExportedClip, difference: NotAsStored) -> LeftOut:
    return LeftOut(clip.id, clip.job_id, clip.path or "", str(difference))
