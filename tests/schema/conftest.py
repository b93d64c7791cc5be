"""Writes small files for the code to judge."""

from __future__ import annotations

from pathlib import Path

import both_say
import pytest
from both_say import Ask


@pytest.fixture
def code_says(tmp_path: Path) -> Ask:
    """`code_says("config", text)`: whether the code takes a file of that text, beside a table `more.csv`."""
    (tmp_path / "more.csv").write_text("Name,Len\na lamp,5\na mug,10\n")

    def ask(kind: str, text: str) -> bool:
        path = tmp_path / "file.yaml"
        path.write_text(text)
        return both_say.code_says(kind, path)

    return ask
