"""Damaged ledgers: whatever became of the files, the ledger is refused by the name of one, or reads as it was.

Known limit: the newest segments can go unnoticed only together with `_head`, and a ledger of one segment can be
replaced unnoticed only together with it: no file of the folder remembers them then. A test asserts exactly that.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hunting import PATIENCE
from score import LONG, Score, in_tier
from support import KEY
from worlds import World, make_world

from pipeline.cli import main
from pipeline.kernel.errors import RunDirectoryError
from pipeline.ledger.encoding import encode_merged, link, table_of
from pipeline.ledger.events import Event
from pipeline.ledger.fold import fold
from pipeline.ledger.merge import merge_segments
from pipeline.ledger.reading import read_events
from pipeline.ledger.segments import SegmentName, ends_of, list_segments, read_segments
from pipeline.ledger.store import open_ledger

pytestmark = PATIENCE

SEED = 17
FORMS = ("segments", "merged")


@dataclass(frozen=True)
class Specimen:
    """A run directory with its ledger in one form, to be damaged; `whole` is kept to mend it from."""

    world: World
    run: Path
    whole: Path
    events: list[Event]

    @property
    def folder(self) -> Path:
        return self.run / "ledger"

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def names(self) -> list[SegmentName]:
        return [name for path in self.paths() if (name := SegmentName.parse(path.name))]

    def mend(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)


def specimen(world: World, home: Path, form: str) -> Specimen:
    run = home / form
    shutil.copytree(world.run_folder, run)
    folder = run / "ledger"
    if form == "merged":
        merge_segments(folder, list_segments(folder)[0])
    shutil.copytree(folder, home / f"{form}-whole")
    return Specimen(world, run, home / f"{form}-whole", read_events(folder))


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Specimen]:
    """Real ledgers of eleven events, as left and merged; the foreign ones are of another run just like it."""
    home = tmp_path_factory.mktemp("damage")
    found = {}
    for owner, seed in (("", 1), ("foreign ", 2)):
        world = make_world(home / f"{owner or 'own '}world", rows=2, seed=seed)
        assert world.live() == 0
        for form in FORMS:
            found[f"{owner}{form}"] = specimen(world, home / f"{owner or 'own '}runs", form)
    for form in FORMS:
        own, foreign = found[form], found[f"foreign {form}"]
        assert len(own.events) == len(foreign.events) == 11
        assert own.events != foreign.events
        assert [name.last for name in own.names()] == [name.last for name in foreign.names()]
    assert len(found["segments"].paths()) > 3
    assert len(found["merged"].paths()) == 1
    return found


Door = Callable[[Path], list[Event]]
"""A way to the events of a ledger."""


def judge(found: Specimen, score: Score, damage: str, *named: str, doors: Iterable[Door] | None = None) -> None:
    """Reader and writer refuse by one of the names `named`, or read every event as it was."""
    for opened in doors or (read_events, written):
        try:
            events = opened(found.folder)
        except RunDirectoryError as refused:
            told = f"{opened.__name__}: no word of {named} in: {refused}"
            assert any(name in str(refused) for name in named), told  # noqa: PT017
            assert refused.exit_code == 2  # noqa: PT017
            score.fired[f"{damage}: refused"] += 1
        else:
            assert events == found.events, f"{opened.__name__}: other events, silently"
            score.fired[f"{damage}: equal"] += 1


def written(folder: Path) -> list[Event]:
    """What a writer finds: the state that it opens with is that of the events that a reader finds after it."""
    with open_ledger(folder) as ledger:
        state = ledger.state
    events = read_events(folder)
    assert state == fold(events)
    return events


def read_alone(path: Path) -> None:
    """Read a segment as each reader of the ledger does, whatever stands before it."""
    name = SegmentName.parse(path.name)
    assert name is not None
    try:
        read_segments(path.parent, [name])
    except RunDirectoryError as refused:
        assert path.name in str(refused)  # noqa: PT017
    else:
        raise AssertionError("a damaged segment was read")


@pytest.mark.parametrize(
    ("form", "every"),
    [("segments", in_tier(quick=480, full=240, long=20)), ("merged", in_tier(quick=32, full=8, long=1))],
)
def test_each_flipped_byte(
    form: str, every: int, specimens: dict[str, Specimen], new_score: Callable[[str], Score]
) -> None:
    """A bit of every byte of every file: refused by that file's name, or equal.

    A ledger of many segments takes long to read, so each flip of a segment is shown to what reads that segment, and
    only every so manieth to the whole of reader and writer.
    """
    score = new_score(f"damage: flipped bytes, {form}")
    found = specimens[form]
    dice = random.Random(SEED)
    for path in [*found.paths(), found.folder / "_head"]:
        is_head, whole = path.name == "_head", path.read_bytes()
        descriptor = os.open(path, os.O_WRONLY)
        for position, byte in enumerate(whole):
            for bit in range(8) if LONG else (dice.randrange(8),):
                os.pwrite(descriptor, bytes([byte ^ 1 << bit]), position)
                with score.trial(f"bit {bit} of byte {position} of {path.name}"):
                    if not is_head:
                        read_alone(path)
                    if is_head or score.trials % every == 0:
                        judge(found, score, "head" if is_head else "segment", path.name)
            os.pwrite(descriptor, bytes([byte]), position)
        os.close(descriptor)
    assert read_events(found.folder) == found.events
    score.conclude(["segment: refused", "head: equal"])


@pytest.mark.parametrize("form", FORMS)
def test_each_changed_letter_of_a_name(
    form: str, specimens: dict[str, Specimen], new_score: Callable[[str], Score]
) -> None:
    """Each letter of each segment's name: refused by the old name, the new one or that after the gap, or equal."""
    score = new_score(f"damage: changed names, {form}")
    found = specimens[form]
    dice = random.Random(SEED)
    paths = found.paths()
    for path, following in zip(paths, [*paths[1:], None], strict=True):
        for position, letter in enumerate(path.name):
            likely = "0123456789abcdef" if letter.isalnum() and position < 58 else "._-~Aé"
            others = [other for other in likely if other != letter]
            for other in others if LONG else dice.sample(others, 1):
                changed = path.with_name(path.name[:position] + other + path.name[position + 1 :])
                os.rename(path, changed)
                with score.trial(f"{path.name} became {changed.name}"):
                    gap = [following.name] if following else []
                    door = read_events if score.trials % 2 else written
                    judge(found, score, "name", path.name, changed.name, *gap, doors=[door])
                os.rename(changed, path)
    assert read_events(found.folder) == found.events
    score.conclude(["name: refused"])


@pytest.mark.parametrize("form", FORMS)
def test_each_length(form: str, specimens: dict[str, Specimen], new_score: Callable[[str], Score]) -> None:
    """A segment cut to any length, to nothing, or grown by a byte is refused by its name."""
    score = new_score(f"damage: lengths, {form}")
    found = specimens[form]
    steps = {"merged": 61, "segments": 599}
    for path in found.paths():
        whole = path.read_bytes()
        lengths = {*range(0, len(whole), 1 if LONG else steps[form]), 1, len(whole) - 1, len(whole) + 1}
        for length in sorted(lengths):
            os.truncate(path, length)
            with score.trial(f"{path.name} of {length} bytes"):
                judge(found, score, "length", path.name)
            path.write_bytes(whole)
    assert score.fired["length: refused"] == 2 * score.trials
    score.conclude(["length: refused"])


Meddling = tuple[str, str, tuple[str, ...]]
"""What was done, to which file, and the names of which a refusal must hold one."""


def renumbered(path: Path, name: SegmentName, data: bytes) -> Path:
    """Put `data` into the place of `path`, under the range of `name` and a checksum that fits."""
    path.unlink()
    other = path.with_name(str(SegmentName.of(name.first, name.last, data)))
    other.write_bytes(data)
    return other


def meddle(found: Specimen, foreign: Specimen, strangers: Specimen) -> Iterator[Meddling]:
    """Everything else that can become of a ledger's files, one after the other; mended in between by the caller.

    `foreign` is another ledger in the same form, `strangers` the same one in the other form.
    """
    paths, names = found.paths(), found.names()
    after = [path.name for path in paths[1:]] + ["_head"]
    for path, name, gap, stranger in zip(paths, names, after, foreign.paths(), strict=True):
        data = path.read_bytes()

        path.unlink()
        yield "missing", path.name, (path.name, gap)

        path.unlink()
        shutil.copy(stranger, path.parent)
        yield "replaced by a foreign one", path.name, (stranger.name, path.name, gap)

        path.write_bytes(stranger.read_bytes())
        yield "replaced by a foreign one under its own name", path.name, (path.name,)

        shutil.copy(stranger, path.parent)
        yield "a foreign one beside it", path.name, (stranger.name, path.name, gap)

        copy = path.with_name(f"{path.stem} (1).parquet")
        copy.write_bytes(data)
        yield "copied beside itself", path.name, (copy.name,)

        double = path.with_name(str(SegmentName(name.first, name.last, name.checksum[::-1])))
        double.write_bytes(data)
        yield "doubled under another checksum", path.name, (double.name,)

        last = names[-1].last
        later = path.with_name(str(SegmentName(last + 1, last + name.last - name.first + 1, name.checksum)))
        later.write_bytes(data)
        yield "doubled as later events", path.name, (later.name,)

        hidden = path.with_name(f"_{path.name}")
        hidden.write_bytes(data)
        yield "copied out of sight", path.name, ()

        path.write_bytes(b"")
        yield "emptied", path.name, (path.name,)

        other = renumbered(path, name, b"")
        yield "emptied under a checksum that fits", path.name, (other.name, path.name)

        other = renumbered(path, name, b"PAR1" + data[4:-4] + b"PAR2")
        yield "no parquet under a checksum that fits", path.name, (other.name, path.name)

        path.unlink()
        path.mkdir()
        yield "a folder in its place", path.name, (path.name,)

        path.unlink()
        os.mkfifo(path)
        yield "a pipe in its place", path.name, (path.name,)

        path.unlink()
        path.symlink_to(path.with_name("nothing"))
        yield "a link to nothing in its place", path.name, (path.name,)

        path.unlink()
        path.symlink_to(found.whole / path.name)
        yield "a link to itself in its place", path.name, ()

    for path, name, source in zip(paths, names, paths[1:] + paths[:1], strict=True):
        if path != source:
            other = renumbered(path, name, source.read_bytes())
            yield "renumbered", path.name, (other.name, path.name)

    for one, two in pairwise(paths):
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        yield "swapped", one.name, (one.name,)

    for strange in ("notes.txt", "export.parquet", "000000000011-000000000011.parquet"):
        (found.folder / strange).write_bytes(b"")
        yield "a strange file", strange, (strange,)

    (found.folder / "old").mkdir()
    yield "a strange folder", "old", ("old",)

    (found.folder / "_head").unlink()
    yield "head missing", "_head", ()

    (found.folder / "_head").write_bytes(b"")
    yield "head emptied", "_head", ()

    (found.folder / "_head").unlink()
    (found.folder / "_head").mkdir()
    yield "head a folder", "_head", ("_head",)

    (found.folder / "_head").unlink()
    os.mkfifo(found.folder / "_head")
    yield "head a pipe", "_head", ("_head",)

    (found.folder / "_head").write_bytes((foreign.folder / "_head").read_bytes())
    yield "head of another ledger", "_head", ("_head",)

    for stranger in strangers.paths():
        shutil.copy(stranger, found.folder)
        yield "a foreign one of another range beside", stranger.name, (stranger.name, *(path.name for path in paths))

    for path in paths:
        path.unlink()
    yield "all missing", "the ledger", (paths[-1].name,)

    for path in paths:
        path.unlink()
    for path in foreign.paths():
        shutil.copy(path, found.folder)
    yield "another ledger under this head", "the ledger", (paths[-1].name,)


MEANS_NOTHING = {"copied out of sight", "a link to itself in its place", "head missing", "head emptied"}
"""After these the ledger is still all there."""


@pytest.mark.parametrize("form", FORMS)
def test_what_else_becomes_of_files(
    form: str, specimens: dict[str, Specimen], new_score: Callable[[str], Score]
) -> None:
    """Missing, swapped, doubled, foreign, renumbered, empty, no file at all: refused by name, or equal.

    The known limit is not among these: see the module.
    """
    score = new_score(f"damage: files, {form}")
    found = specimens[form]
    kinds = set()
    same, other = (f"foreign {each}" for each in (form, *(set(FORMS) - {form})))
    for kind, what, named in meddle(found, specimens[same], specimens[other]):
        kinds.add(kind)
        with score.trial(f"{kind}: {what}"):
            judge(found, score, kind, *named)
        found.mend()
    score.conclude([f"{kind}: {'equal' if kind in MEANS_NOTHING else 'refused'}" for kind in kinds])


def test_the_loss_of_the_newest_segments(specimens: dict[str, Specimen], new_score: Callable[[str], Score]) -> None:
    """However many of the newest are lost, it is noticed as long as `_head` is there, and only as long.

    This is the known limit: without `_head` too, what is left is a whole ledger, and reads as that shorter one.
    """
    score = new_score("damage: the newest lost")
    found = specimens["segments"]
    paths, names = found.paths(), found.names()
    for kept in range(1, len(paths)):
        for path in paths[kept:]:
            path.unlink()
        with score.trial(f"the last {len(paths) - kept} lost, with the head there"):
            judge(found, score, "head kept", paths[-1].name)
        (found.folder / "_head").unlink()
        with score.trial(f"the last {len(paths) - kept} lost, and the head"):
            assert read_events(found.folder) == found.events[: names[kept - 1].last]
            score.fired["head lost: shorter, in silence"] += 1
        found.mend()
    assert score.fired["head kept: refused"] == 2 * (len(paths) - 1)
    score.conclude(["head kept: refused", "head lost: shorter, in silence"])


def test_a_whole_segment_that_tells_another_story(
    specimens: dict[str, Specimen], new_score: Callable[[str], Score]
) -> None:
    """The newest event said otherwise, under a right chain and a right checksum: noticed by the head's name alone."""
    score = new_score("damage: the newest forged")
    found = specimens["segments"]
    events = read_segments(found.folder, found.names()[:-1])
    reached = ends_of(found.folder, found.names()[-2])[1]
    newest = [event._replace(detail='{"exit_code":0}') for event in found.events[len(events) :]]
    again = encode_merged([table_of(newest)], len(newest), reached, link(reached, newest))
    other = renumbered(found.paths()[-1], found.names()[-1], again)
    with score.trial("another end of the run"):
        judge(found, score, "newest", "_head", other.name)
    found.mend()
    score.conclude(["newest: refused"])


SAMPLE = (
    "missing",
    "replaced by a foreign one",
    "emptied",
    "a folder in its place",
    "a pipe in its place",
    "renumbered",
    "a strange file",
    "head a folder",
    "all missing",
)
VERBS = ("plan", "run", "status", "report")


def test_the_command_line(
    specimens: dict[str, Specimen],
    new_score: Callable[[str], Score],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every verb that reads a ledger refuses a damaged one with exit 2 and one sentence; the whole one it reads."""
    score = new_score("damage: the command line")
    found = specimens["segments"]
    damages = meddle(found, specimens["foreign segments"], specimens["foreign merged"])
    monkeypatch.setenv("SEGMIND_API_KEY", KEY)
    monkeypatch.chdir(found.run.parent)
    origin = f"http://127.0.0.1:{found.world.provider['port']}"
    live = ["-o", str(found.run), "--budget-usd", "100", "--set", "provider.kind=segmind"]
    live += [word for name in ("base", "storage", "history") for word in ("--set", f"provider.{name}_url={origin}")]

    def call(verb: str) -> tuple[int, str]:
        target = [str(found.world.manifest), *live] if verb in ("plan", "run") else [str(found.run)]
        monkeypatch.setattr(sys, "argv", ["kling-batch", verb, *target, *(["--yes"] if verb == "run" else [])])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    for verb in VERBS:
        assert call(verb) == (0, ""), f"{verb} of the whole ledger"
    found.mend()
    seen = set()
    for kind, what, named in damages:
        if kind in SAMPLE and kind not in seen:
            seen.add(kind)
            for verb in VERBS:
                with score.trial(f"{verb} after {kind}: {what}"):
                    code, told = call(verb)
                    assert code == 2
                    assert told.startswith("kling-batch: ")
                    assert told.count("\n") == 1, f"more than a sentence: {told}"
                    assert any(name in told for name in named), f"no word of {named} in: {told}"
                    score.fired[kind] += 1
        found.mend()
    score.conclude(SAMPLE)
