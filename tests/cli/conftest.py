"""The command, called as the shell calls it, in a folder of its own."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.runner import opening

FAST = ("--set", "provider.time_scale=1000", "--set", "limits.requests_per_minute=60000")
"""A sandbox that takes a third of a second for a generation."""


@dataclass(frozen=True)
class Ended:
    """What a command left behind on the screen."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _tiny_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded sandbox has the smallest clips at hand: to draw one takes longer than all else of a command."""
    settings = opening._sandbox_settings
    monkeypatch.setattr(
        opening, "_sandbox_settings", lambda *asked, **more: dataclasses.replace(settings(*asked, **more), clips="tiny")
    )


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("plan", "m.csv")` in an empty working directory without a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGMIND_API_KEY", raising=False)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["kling-batch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 1, told.out, told.err)

    return call


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Two jobs, of $1.75 and $3.50."""
    (tmp_path / "m.csv").write_text("id,prompt,duration,mood\none,a lamp,5,cozy\ntwo,a mug,10,bold\n")
    return "m.csv"
