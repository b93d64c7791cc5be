"""The faulty disk lives with the tests of the files; the ledger's tests break it too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "kernel"))

from disk_faults import Disk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the ledger of a test is or will be."""
    return tmp_path / "run" / "ledger"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Disk:
    """The ledger's disk."""
    return Disk(monkeypatch, folder)
