"""Manifests and configs that attack: each is told in a sentence with its place, at once, and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import hostile_manifests
from hostile_manifests import CONFIG, MANIFEST, REFUSED
from inspection import Ended, call, forbid_network, warm_command
from score import LONG, Score
from worlds import fork, side_by_side

FEWEST_FILES = 150
NewScore = Callable[[str], Score]


def test_no_file_is_obeyed_or_waited_for(new_score: NewScore, tmp_path: Path) -> None:
    """`plan` refuses each with file and place, or takes it where it is lawful; quickly, quietly, without a socket."""
    score = new_score("hostile: manifests and configs")
    names = [name for number, name in enumerate(hostile_manifests.corpus()) if LONG or number % 2 or _is_small(name)]
    assert len(names) >= FEWEST_FILES

    def inspect(share: Sequence[str]) -> None:
        folder = tmp_path / f"files-{share[0]}"
        folder.mkdir()
        life = fork(_inspect, share, folder)
        life.join()
        told = json.loads(path.read_text()) if (path := folder / "told.json").exists() else {}
        for name in share:
            with score.trial(name):
                assert told[name] is None, told[name]
                score.fired[name.partition("-")[0]] += 1

    side_by_side(inspect, [names[0::2], names[1::2]])
    score.conclude(["yaml", "csv", "jsonl", "template", "config", "manifest"])


def _is_small(name: str) -> bool:
    """Whether a file is tried in every tier; of the others every second is, and in the long tier all."""
    return name.startswith(("template-", "manifest-is-", "config-is-"))


def _inspect(names: Sequence[str], folder: Path) -> None:
    """The main function of a life that lays files out and calls `plan` on each."""
    warm_command()
    corpus = hostile_manifests.corpus()
    told: dict[str, str | None] = {}
    for number, name in enumerate(names):
        ground = folder / str(number)
        ground.mkdir()
        try:
            _judge(corpus[name], _plan(corpus[name], ground))
            told[name] = None
        except AssertionError as error:
            told[name] = str(error)
    (folder / "told.json").write_text(json.dumps(told))


def _plan(sheet: hostile_manifests.Sheet, ground: Path) -> Ended:
    path = ground / f"hostile{sheet.suffix}"
    sheet.lay(path)
    honest = ground / "honest.yaml"
    honest.write_text(MANIFEST if sheet.is_config else CONFIG)
    manifest, config = (honest, path) if sheet.is_config else (path, honest)
    ended = call(["plan", manifest.name, "-c", config.name], ground, before=forbid_network)
    left = {entry.name for entry in ground.iterdir()} - {"stdout", "stderr", "honest.yaml", "other.yaml", path.name}
    assert not left, f"`plan` left {left} behind"
    return ended


def _judge(sheet: hostile_manifests.Sheet, ended: Ended) -> None:
    ended.check_bounds()
    assert ended.code == sheet.code, f"exit {ended.code}: {(ended.err or ended.out)[:300]}"
    if sheet.code == REFUSED:
        for word in sheet.says:
            assert word in ended.err, f"{word!r} is not in: {ended.err[:400]}"
        assert f"hostile{sheet.suffix}" in ended.err or "cap" in sheet.says, f"no file in: {ended.err[:300]}"
        assert len(ended.err) < 100_000, f"{len(ended.err)} characters of explanation"
