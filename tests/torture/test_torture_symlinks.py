"""Links planted in a run directory: what they point at stays as it was, and the run says so or replaces them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hostile_battle import one_life
from hostile_provider import HostileProvider, WatchedLoop
from score import Score
from virtual_time import VirtualClock
from worlds import fork, side_by_side

from pipeline.kernel.errors import KlingBatchError
from pipeline.manifest import Campaign, load_manifest

FOLDERS = ("videos", "posters", "report", "ledger")
FILES = (
    "videos/{stem}.mp4",
    "posters/{stem}.jpg",
    "report/results.csv",
    "report/results.parquet",
    "report/errors.csv",
    "report/errors-by-class.csv",
    "report/summary.json",
    "report/index.html",
    "config.yaml",
    "manifest.jsonl",
    "jobs.parquet",
    "run.log",
    "ledger/_lock",
    "ledger/_head",
)
LINKS = ("to a victim", "to nothing", "after a first run")
NewScore = Callable[[str], Score]


def test_no_link_is_followed_for_writing(new_score: NewScore, tmp_path: Path) -> None:
    """Each name of the run directory as a link: the victim keeps its bytes, and nothing is made beside it."""
    score = new_score("hostile: planted links")
    trials = [(place, link) for place in (*FOLDERS, *FILES) for link in LINKS]

    def plant(share: Sequence[tuple[str, str]]) -> None:
        folder = tmp_path / f"links-{trials.index(share[0])}"
        folder.mkdir()
        life = fork(_plant, share, folder)
        life.join()
        path = folder / "told.json"
        told = json.loads(path.read_text()) if path.exists() else {}
        for place, link in share:
            with score.trial(f"{place} as a link {link}"):
                wrong = told.get(f"{place} {link}", f"the life ended with {life.exitcode} and told nothing")
                assert wrong in ("refused", "replaced"), wrong
                score.fired[wrong] += 1
                score.fired[link] += 1

    side_by_side(plant, [trials[0::2], trials[1::2]])
    score.conclude(("refused", "replaced", *LINKS))


def _plant(share: Sequence[tuple[str, str]], folder: Path) -> None:
    """The main function of a life that plants one link after the other and runs into it."""
    told = {}
    for number, (place, link) in enumerate(share):
        ground = folder / str(number)
        ground.mkdir()
        try:
            told[f"{place} {link}"] = _run_into(place, link, ground)
        except AssertionError as error:
            told[f"{place} {link}"] = str(error)
    (folder / "told.json").write_text(json.dumps(told))


def _run_into(place: str, link: str, ground: Path) -> str:
    run, outside = ground / "run", ground / "outside"
    outside.mkdir()
    provider = HostileProvider(VirtualClock(), "nowhere", lambda it: it.honest())
    campaign = _campaign(ground, ["lamp"])
    planted = run / place.format(stem=campaign.jobs[0].stem)
    if link == "after a first run":
        assert _live(provider, campaign, run) is None
        campaign = _campaign(ground, ["lamp", "mug"])
        planted = run / place.format(stem=campaign.jobs[-1].stem)
    victim = _victim(planted, outside, is_folder=place in FOLDERS)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(outside / "nothing" if link == "to nothing" else victim)
    before = _contents(outside)
    refusal = _live(provider, campaign, run)
    assert _contents(outside) == before, f"outside there is now {sorted(_contents(outside).keys() - before.keys())}"
    if refusal is not None:
        assert planted.name in refusal, f"the refusal does not name it: {refusal}"
        planted.unlink()
        (victim.rename if place in FOLDERS and link == "after a first run" else _keep)(planted)
        refusal = _live(provider, campaign, run)
        assert refusal is None, f"once the link is gone: {refusal}"
        return "refused"
    assert not planted.is_symlink(), "it was not replaced"
    assert sorted(path.name for path in (run / "videos").iterdir()) == sorted(
        f"{job.stem}.mp4" for job in campaign.jobs
    )
    return "replaced"


def _keep(_path: Path) -> None:
    """Leave the victim where it is."""


def _victim(planted: Path, outside: Path, *, is_folder: bool) -> Path:
    """What the link shall point at: what was there, or something precious."""
    victim = outside / planted.name
    if planted.exists():
        shutil.move(planted, victim)
    elif is_folder:
        victim.mkdir()
        (victim / "keep").write_bytes(b"precious")
    else:
        victim.write_bytes(b"precious")
    return victim


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))}


def _campaign(ground: Path, prompts: Sequence[str]) -> Campaign:
    path = ground / "links.jsonl"
    path.write_text("".join(json.dumps({"id": prompt, "prompt": prompt}) + "\n" for prompt in prompts))
    return load_manifest(path)


def _live(provider: HostileProvider, campaign: Campaign, run: Path) -> str | None:
    """One run; the sentence of its refusal, None if everything is stored."""

    async def main() -> str | None:
        async with provider:
            try:
                result = await one_life(provider, campaign, run, media__verify="frames")
            except KlingBatchError as refusal:
                return str(refusal)
            return None if result.exit_code == 0 else f"exit {result.exit_code}: {result.message}"

    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        return runner.run(main())
