"""One run directory for all tests of exports, made by a real run in the sandbox; each test spoils its own copy."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from export_rows import ROWS, Export
from support import fast_config, quick_provider, run_once

from pipeline.dataset.write import AskedOfExport, Exported, export
from pipeline.kernel.clock import SystemClock
from pipeline.looking.view import look
from pipeline.manifest import load_manifest
from pipeline.sandbox import Sandbox


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with four stored videos, posters included, and a row that is pending."""
    folder = tmp_path_factory.mktemp("exported")
    manifest = folder / "films.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    async def main() -> None:
        async with Sandbox(quick_provider()) as provider:
            config = fast_config(provider.url, media__verify="frames")
            result = await run_once(load_manifest(manifest), config, folder / "films", limit=4, order="file")
            assert (result.exit_code, result.summary["stored"]) == (3, 4)

    asyncio.run(main())
    return folder / "films"


@pytest.fixture
def films(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "films"))


@pytest.fixture
def exported(films: Path, tmp_path: Path) -> Export:
    """`exported("hf")` writes to `tmp_path/hf`."""

    def call(form: str, to: Path | None = None, **asked: object) -> Exported:
        seen = look(films, SystemClock().now_us())
        return export(films, seen.lines(), seen.state, to or tmp_path / form, AskedOfExport(form, **asked))

    return call
