"""A real browser, and a run directory that a real run has made: each once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fast_config, quick_provider, run_once

from pipeline.manifest import load_manifest
from pipeline.sandbox import Sandbox

MANIFEST = """
name: spring
rows:
  - id: moods
    prompt: "A {{ mood }} film of a {{ product }}"
    matrix: {product: [mug, lamp], mood: [cozy, bold, calm]}
    tags: [still, table]
  - id: hero
    prompt: A potter's studio at dawn
    duration: 10
    aspect_ratio: "9:16"
    count: 2
"""
"""Eight videos for $17.50: six of 5 s in a sweep, two of 10 s."""

BROWSER = shutil.which("chromium") or "/usr/bin/chromium"
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `MANIFEST`."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "spring.yaml").write_text(MANIFEST)

    async def make() -> None:
        async with Sandbox(quick_provider()) as provider:
            config = fast_config(provider.url, media__verify="frames", budget__cap_usd="40")
            done = await run_once(load_manifest(folder / "spring.yaml"), config, folder / "spring")
            assert done.exit_code == 0

    asyncio.run(make())
    return folder / "spring"


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """One browser for all tests of a file. Without one they are skipped, except where it must be there."""
    if not Path(BROWSER).exists():
        missing = "Chromium is not installed: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield browser
        browser.close()
