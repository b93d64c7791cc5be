"""Files that are no manifests are refused quickly and clearly, and everything wrong is told at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import Fail

from pipeline.kernel.errors import ManifestError
from pipeline.manifest import load_manifest, sources


def refused(path: Path) -> str:
    started = time.process_time()
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert time.process_time() - started < 2
    [mistake] = caught.value.mistakes
    assert mistake.file == str(path)
    assert caught.value.exit_code == 2
    return mistake.message


@pytest.mark.parametrize("suffix", [".yaml", ".csv", ".jsonl", ".txt"])
def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    """Missing, a directory, a FIFO that nobody writes to, an endless device, not UTF-8, NUL in the name."""
    assert "No such file" in refused(tmp_path / f"missing{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "is a directory" in refused(tmp_path / f"folder{suffix}")
    os.mkfifo(tmp_path / f"fifo{suffix}")
    assert "not a regular file" in refused(tmp_path / f"fifo{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    assert "not a regular file" in refused(tmp_path / f"zero{suffix}")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    assert "cannot be read" in refused(tmp_path / f"loop{suffix}")
    assert "cannot be read" in refused(tmp_path / f"nul\x00{suffix}")
    assert "cannot be read" in refused(tmp_path / f"{'x' * 300}{suffix}")
    (tmp_path / f"latin{suffix}").write_bytes("\ncafé".encode("latin-1"))
    assert "not UTF-8" in refused(tmp_path / f"latin{suffix}")
    (tmp_path / f"wide{suffix}").write_bytes("\na".encode("utf-16") + b"\x00")
    assert "UTF-16" in refused(tmp_path / f"wide{suffix}")


def test_too_large_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted while reading, so that a size that lies does not help."""
    monkeypatch.setattr(sources, "MAX_BYTES", 1024 * 1024)
    path = tmp_path / "large.yaml"
    path.write_bytes(b"- prompt: " + b"x" * (1024 * 1024))
    assert "larger than 1 MiB" in refused(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_a_table_of_one_endless_line_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    """Three GiB, of which a megabyte is read: nobody waits for the rest, and no memory holds it."""
    path = tmp_path / f"large{suffix}"
    with path.open("wb") as file:
        file.write(b"x" * 2**21)
        file.truncate(3 * 2**30)
    assert "longer than 1,048,576 characters" in refused(path)
    with path.open("r+b") as file:
        file.truncate(5 * 2**30)
    assert "larger than 4 GiB" in refused(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", ",".join(f"c{number}" for number in range(100_000)) + "\n"),
        ("m.csv", "prompt," + ",".join(f"c{number}" for number in range(50_000)) + "\n"),
        ("m.jsonl", '{"prompt": "a", ' + ", ".join(f'"k{number}": 1' for number in range(50_000)) + "}"),
    ],
    ids=["no prompt", "many columns", "many names"],
)
def test_very_many_names_are_refused_at_once(tmp_path: Path, name: str, text: str) -> None:
    """Each name is compared with what it may be a misspelling of: a file of nothing but names took minutes."""
    (tmp_path / name).write_text(text)
    assert "10,000" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["m.docx", "m.json", "m", "m.yaml.bak"])
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """The sentence names those that there are."""
    (tmp_path / name).write_text("- prompt: a")
    assert "use .yaml, .yml, .csv, .tsv, .jsonl, .ndjson, .parquet, .txt" in refused(tmp_path / name)


def test_all_mistakes_are_told_at_once(fail: Fail) -> None:
    """Of the top, of each row, of the id and of the template: nobody corrects one to meet the next."""
    found = fail(
        """
        name: "bad name"
        colour: red
        rows:
          - {id: x, prompt: "a {{ mood }}"}
          - {id: x, prompt: "", duration: 7, cfg_scale: 2}
          - {prompt: ok, count: 0}
        """
    )
    places = {(m.row, m.column) for m in found}
    assert places >= {(None, "name"), (None, "colour"), (1, "prompt"), (2, "id"), (2, "prompt"), (3, "count")}
    assert places >= {(2, "duration"), (2, "cfg_scale")}
    assert all(m.line for m in found)


def test_a_mistake_that_every_combination_repeats_is_told_once(fail: Fail) -> None:
    """The place and the sentence are the same."""
    assert len(fail("matrix: {mood: [a, b, c]}\nrows: [{prompt: '{{ mood }}', duration: 7}]")) == 1


def test_a_mistake_in_defaults_or_an_axis_points_at_the_line_there(fail: Fail) -> None:
    """That is where the user must go."""
    found = fail("defaults:\n  duration: 7\nmatrix:\n  cfg_scale: [0.5, 2]\nrows:\n  - prompt: a\n")
    assert {(m.column, m.line) for m in found} == {("duration", 2), ("cfg_scale", 4)}


def test_very_many_mistakes_are_cut_short(fail: Fail) -> None:
    """The first 200, and how many more there are."""
    found = fail("prompt,duration\n" + "a,7\n" * 1000, "m.csv")
    assert len(found) == 201
    assert found[-1].message == "and 800 more mistakes"
    assert fail("prompt,duration\n" + "a,7\n" * 50_000, "m.csv")[-1].message == "and 9,800 or more more mistakes"
