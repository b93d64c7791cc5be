"""One reader's folder for all documents: README's demo is run once, and the pages go on with what it made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docs_support import Done, lay_out, run_all
from worlds import close_nursery


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before the first command."""
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder)
    return folder


@pytest.fixture(scope="session")
def done(folder: Path) -> dict[str, Done]:
    """What every command of the documents really did."""
    return run_all(folder)


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    """The process that commands are forked from goes with the session."""
    yield
    close_nursery()
