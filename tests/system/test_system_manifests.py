"""The manifests that come with the project, each run as its user would, against the provider's double."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from support import check_books, check_liability, fast_config, quick_provider, run_once

from pipeline.manifest import load_manifest
from pipeline.sandbox import Sandbox

MANIFESTS = Path(__file__).parents[2] / "manifests"


def results_of(folder: Path) -> pd.DataFrame:
    found = pd.read_csv(folder / "report" / "results.csv")
    assert all((folder / video).is_file() for video in found["video"].dropna())
    return found


def test_every_manifest_is_run_here() -> None:
    """And none of them has a warning."""
    there = sorted(path.stem for path in MANIFESTS.glob("*.yaml"))
    assert there == ["image-to-video", "overnight", "product-sweep", "prompt-list", "quickstart"]
    assert not [warning for name in there for warning in load_manifest(MANIFESTS / f"{name}.yaml").warnings]


@pytest.mark.parametrize(
    ("name", "jobs", "dollars"),
    [("quickstart", 14, 31.50), ("product-sweep", 16, 28.00), ("image-to-video", 6, 10.50)],
)
async def test_a_manifest_is_made_as_it_says(tmp_path: Path, name: str, jobs: int, dollars: float) -> None:
    """Every row and combination is stored, the bill is explained to the cent, and a second run buys nothing."""
    made, folder = load_manifest(MANIFESTS / f"{name}.yaml"), tmp_path / "run"
    async with Sandbox(quick_provider()) as provider:
        config = fast_config(provider.url)
        for _ in range(2):
            assert (await run_once(made, config, folder)).exit_code == 0
        check_books(folder, provider.invoice())
        sent = provider.requests()
        assert provider.state()["uploads"] == len(made.images) == (3 if name == "image-to-video" else 0)
    assert len(sent) == jobs
    results = results_of(folder)
    assert (len(results), results["cost_usd"].sum()) == (jobs, dollars)
    assert set(results["status"]) == {"stored"}


async def test_the_product_feed_comes_into_the_results(tmp_path: Path) -> None:
    """Ids, tags and prices are the feed's; what was excluded is not there, what was included is."""
    made = load_manifest(MANIFESTS / "product-sweep.yaml")
    rows = {entry.row_id: (entry.variables["price"], entry.tags) for entry in made.entries}
    assert rows == {
        "cobalt-mug": ("24.00", ("kitchen", "clay")),
        "nora-lamp": ("180.00", ("living room", "brass")),
        "oak-board": ("42.50", ("kitchen", "wood")),
        "linen-runner": ("39.00", ("kitchen", "linen")),
    }
    shapes = Counter((str(entry.axes["setting"])[:4], entry.job.params["aspect_ratio"]) for entry in made.entries)
    assert shapes == {("on a", "16:9"): 4, ("on a", "9:16"): 4, ("on a", "1:1"): 4, ("in a", "9:16"): 4}
    nights = [str(entry.job.params["prompt"]) for entry in made.entries if entry.axes["setting"].startswith("in a")]
    assert all("lit by neon reflections" in prompt for prompt in nights)


async def test_the_list_of_prompts_gets_one_take_of_each_first(tmp_path: Path) -> None:
    """A first run of six is one take of every prompt; a line that is added later buys its own takes and no other's."""
    for name in ("prompt-list.yaml", "prompts.txt"):
        (tmp_path / name).write_bytes((MANIFESTS / name).read_bytes())
    folder = tmp_path / "run"
    async with Sandbox(quick_provider()) as provider:
        config = fast_config(provider.url)
        first = await run_once(load_manifest(tmp_path / "prompt-list.yaml"), config, folder, limit=6)
        assert first.exit_code == 3
        results = results_of(folder)
        assert Counter(results.loc[results["status"] == "stored", "prompt"]) == dict.fromkeys(results["prompt"], 1)
        assert (await run_once(load_manifest(tmp_path / "prompt-list.yaml"), config, folder)).exit_code == 0
        assert len(provider.requests()) == 30
        with (tmp_path / "prompts.txt").open("a") as prompts:
            prompts.write("a kite over a harbour\n")
        assert (await run_once(load_manifest(tmp_path / "prompt-list.yaml"), config, folder)).exit_code == 0
        assert len(provider.requests()) == 35
        check_books(folder, provider.invoice())


async def test_the_night_stops_at_its_cap_with_everything_covered_evenly(tmp_path: Path) -> None:
    """The film first; then each pair, shape and mood alike; nothing of what comes last; exit 3, and it goes on."""
    made, folder = load_manifest(MANIFESTS / "overnight.yaml"), tmp_path / "run"
    async with Sandbox(quick_provider()) as provider:
        # $7.00 for the film, and $21.00 for 12 of the 24 seasons.
        stopped = await run_once(made, fast_config(provider.url, budget__cap_usd="28.00"), folder)
        assert (stopped.exit_code, stopped.summary["stopped_by"]) == (3, "cap")
        check_liability(folder, provider.requests())
        results = results_of(folder)
        stored = results[results["status"] == "stored"]
        assert Counter(stored["id"]) == {"film": 2, "seasons": 12}
        for axis, each in (("season", 3), ("scene", 3), ("aspect_ratio", 4), ("mood", 6)):
            assert set(stored.loc[stored["id"] == "seasons", axis].value_counts()) == {each}
        done = await run_once(made, fast_config(provider.url, budget__cap_usd="70.00"), folder)
        assert (done.exit_code, done.summary["posted_usd"]) == (0, "70.00")
        check_books(folder, provider.invoice())
