"""Exports as others see them: loaded by the libraries that they are made for."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import webdataset as wds
from export_rows import HOSTILE, Export
from PIL import Image

from pipeline.dataset.rows import as_metadata


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, which asks nobody and keeps nothing."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    import datasets  # reads its settings from the environment as it is loaded

    datasets.disable_progress_bars()
    return datasets


def test_hugging_face_loads_the_folder(exported: Export, datasets: Any, tmp_path: Path) -> None:
    """One split, whatever the ids are called; each video with its prompt, its numbers and its variables."""
    done = exported("hf")
    cache = str(tmp_path / "cache")
    by_name = datasets.load_dataset("videofolder", data_dir=str(done.path), cache_dir=cache)
    by_card = datasets.load_dataset(str(done.path), cache_dir=cache)
    for loaded in (by_name, by_card):
        assert list(loaded) == ["train"]
        clips = loaded["train"].cast_column("video", datasets.Video(decode=False))
        rows = {row["id"]: row for row in clips}
        assert [row["id"] for row in clips] == ["test-1", "v1.2", "train", "train"]
        assert rows["test-1"]["prompt"] == HOSTILE
        assert (rows["v1.2"]["duration"], rows["v1.2"]["label"], rows["test-1"]["label"]) == (10, "two", "1")
        assert (rows["test-1"]["tags"], rows["train"]["tags"], rows["train"]["not_as_asked"]) == (
            "hero, summer",
            "",
            None,
        )
        assert (rows["train"]["variable_video"], rows["train"]["start_file_name_"]) == ("a|b", "x.mp4")
        for row in clips:
            assert hashlib.sha256(Path(row["video"]["path"]).read_bytes()).hexdigest() == row["sha256"]


def test_every_variable_has_a_column_of_its_own_in_a_folder_for_hugging_face() -> None:
    """Also where two differ by the `_` alone that one of them gets behind its name."""
    names = ["start_file_name__", "start_file_name", "start_file_name_", "end_file_names"]
    table = pa.table({"video": ["a.mp4"]} | {name: [f"of {name}"] for name in names})
    assert json.loads(as_metadata(table)) == {
        "file_name": "a.mp4",
        "start_file_name__": "of start_file_name__",
        "start_file_name___": "of start_file_name",
        "start_file_name_": "of start_file_name_",
        "end_file_names_": "of end_file_names",
    }


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the library closes no archive that it has read
def test_webdataset_loads_the_shards(exported: Export) -> None:
    """Every clip under one key with its video, poster, text and facts, also where its id has dots; none is cut."""
    done = exported("webdataset", shard_bytes=20_000)
    shards = sorted(done.path.glob("clips-*.tar"))
    assert len(shards) == done.shards > 1
    urls = str(done.path / f"clips-{{000000..{done.shards - 1:06d}}}.tar")
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["json"]["id"] for sample in samples] == ["test-1", "v1.2", "train", "train"]
    for sample in samples:
        assert hashlib.sha256(sample["mp4"]).hexdigest() == sample["json"]["sha256"]
        assert sample["txt"] == sample["json"]["prompt"]
        assert sample["json"]["video"] == f"{sample['__key__']}.mp4"
        assert Image.open(io.BytesIO(sample["jpg"])).size[0] > 0
    assert samples[0]["txt"] == HOSTILE
    gc.collect()  # what it left open is dropped here, where that is expected


def test_the_shards_hold_their_size_and_are_plain_archives(exported: Export) -> None:
    """No archive is larger than asked unless a clip is; members carry neither times nor owners."""
    small = exported("webdataset", shard_bytes=1_000)
    assert small.shards == 4
    sizes = [path.stat().st_size for path in sorted(small.path.glob("*.tar"))]
    together = exported("webdataset", shard_bytes=sizes[0] + sizes[1] - 1_024)
    one = together.path / "clips-000000.tar"
    assert one.stat().st_size == sizes[0] + sizes[1] - 1_024
    exported("webdataset", shard_bytes=sizes[0] + sizes[1] - 1_025)
    assert one.stat().st_size == sizes[0]
    with tarfile.open(one) as archive:
        members = archive.getmembers()
    assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {(0, 0, 0, "", 0o644)}
    assert [Path(each.name).suffix for each in members] == [".jpg", ".json", ".mp4", ".txt"]
