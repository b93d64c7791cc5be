"""A folder of one's own with a small manifest, and a run directory that is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_doubles import FAST, MANIFEST

from pipeline import run_sync


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, but for `m.csv`: two jobs, of $1.75 and $3.50. There is no key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGMIND_API_KEY", raising=False)
    Path("m.csv").write_text(MANIFEST)
    return tmp_path


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of that manifest, finished. It is only looked at."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "m.csv").write_text(MANIFEST)
    assert run_sync(folder / "m.csv", FAST, out=folder / "runs" / "m").exit_code == 0
    return folder / "runs" / "m"
