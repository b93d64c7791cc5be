"""What becomes of a verb where nobody reads what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson
import pytest

MANIFEST = "defaults:\n  duration: 5\nrows:\n  - {id: mug, prompt: a mug}\n"
QUICK = ["--set", "provider.time_scale=10000", "--set", "polling.expected_s=10"]


@pytest.fixture
def no_reader() -> Iterator[int]:
    """The end of a pipe at whose other end nobody is any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    """A disk on which there is no room."""
    with open("/dev/full", "wb", buffering=0) as device:
        yield device


def kling(folder: Path, *arguments: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    (folder / "m.yaml").write_text(MANIFEST)
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=folder, env=environment, timeout=60, check=False, **streams)


def is_all_stored(folder: Path) -> bool:
    summary = orjson.loads((folder / "night/report/summary.json").read_bytes())
    return (summary["stored"], summary["exit_code"]) == (1, 0)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_that_nobody_reads_is_made_all_the_same(tmp_path: Path, no_reader: int, more: list[str]) -> None:
    """`kling-batch run … | head -1`: the plan is not heard to its end, and that is no reason not to work."""
    ended = kling(tmp_path, "run", "m.yaml", "-o", "night", *QUICK, *more, stdout=no_reader, stderr=subprocess.PIPE)
    assert (ended.returncode, is_all_stored(tmp_path)) == (0, True), ended.stderr
    assert b"Error" not in ended.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_whose_words_find_no_room_is_made_all_the_same(tmp_path: Path, full: IO[bytes], more: list[str]) -> None:
    """Nor is a full disk for what it prints, on either stream."""
    ended = kling(tmp_path, "run", "m.yaml", "-o", "night", *QUICK, *more, stdout=full, stderr=full)
    assert (ended.returncode, is_all_stored(tmp_path)) == (0, True)


LIVE = "provider: {kind: segmind, base_url: 'http://127.0.0.1:9', api_key_env: A_KEY}\nbudget: {cap_usd: '9.00'}\n"


def test_nobody_agrees_to_a_bill_that_they_cannot_see(
    tmp_path: Path, no_reader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live run, its plan piped away, and a terminal at which somebody could say yes."""
    (tmp_path / "live.yaml").write_text(LIVE)
    monkeypatch.setenv("A_KEY", "SG_0123456789abcdef")
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"y\n")
        live = ("run", "m.yaml", "--config", "live.yaml", "-o", "night")
        ended = kling(tmp_path, *live, stdin=theirs, stdout=no_reader, stderr=subprocess.PIPE)
    finally:
        os.close(ours)
        os.close(theirs)
    said = b"kling-batch: a live run of which nobody can see the plan needs --yes. Nothing was sent.\n"
    assert (ended.returncode, ended.stderr, (tmp_path / "night").exists()) == (2, said, False)


def close(*descriptors: int) -> Callable[[], None]:
    return lambda: [os.close(descriptor) for descriptor in descriptors] and None


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_without_any_streams_is_made_all_the_same(tmp_path: Path, more: list[str]) -> None:
    """As some schedulers start what they start."""
    ended = kling(tmp_path, "run", "m.yaml", "-o", "night", *QUICK, *more, preexec_fn=close(0, 1, 2))
    assert (ended.returncode, is_all_stored(tmp_path)) == (0, True)


@pytest.mark.parametrize("verb", [["plan", "m.yaml"], ["plan", "m.yaml", "--json"], ["schema"], ["status"]])
def test_what_only_prints_ends_well_when_its_reader_has_read_enough(
    tmp_path: Path, no_reader: int, verb: list[str]
) -> None:
    """`kling-batch plan … | head -1` is no failure; exit 1 would say that jobs have failed."""
    ended = kling(tmp_path, *verb, stdout=no_reader, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("verb", [["plan", "m.yaml"], ["plan", "m.yaml", "--json"], ["schema"]])
def test_what_only_prints_and_finds_no_room_says_so(tmp_path: Path, full: IO[bytes], verb: list[str]) -> None:
    """What a script would read is not whole: the machine is not in order, whether or not that can be told."""
    ended = kling(tmp_path, *verb, stdout=full, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (6, b"kling-batch: this machine: No space left on device\n")
    assert kling(tmp_path, *verb, stdout=full, stderr=full).returncode == 6
