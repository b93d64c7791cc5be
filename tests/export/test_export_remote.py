"""An export in object storage, by the real S3 protocol: whole or without its marker, and as it was sent."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import Server, empty_bucket, s3_server

from pipeline.dataset.remote import Store
from pipeline.dataset.write import AskedOfExport, Exported, export_to_store
from pipeline.kernel.clock import SystemClock
from pipeline.kernel.errors import InputError, MachineError
from pipeline.kernel.files import hold_folder
from pipeline.kernel.objects import BrokenUpload, Objects
from pipeline.looking.view import look

BUCKET = "s3://films-of-lamps"
Send = Callable[..., Exported]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of the S3 protocol on loopback."""
    with s3_server() as made:
        yield made


@pytest.fixture(autouse=True)
def account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the storage is and whose it is, as its users say it: in the environment."""
    server.enter(monkeypatch)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.fixture
def files(account: None) -> Any:
    """The storage, as another hand sees it; empty."""
    return empty_bucket(BUCKET)


@pytest.fixture
def send(films: Path) -> Send:
    """`send("s3://…")` exports there."""

    def call(to: str, form: str = "hf", **asked: Any) -> Exported:
        seen = look(films, SystemClock().now_us())
        return export_to_store(films, seen.lines(), seen.state, to, AskedOfExport(form, **asked))

    return call


def contents(files: Any, root: str) -> dict[str, bytes]:
    root = root.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


@pytest.mark.parametrize("form", ["hf", "webdataset"])
def test_what_is_in_the_bucket_is_what_an_export_to_a_folder_has(
    send: Send, files: Any, exported: Any, tmp_path: Path, form: str, films: Path
) -> None:
    """The same names and bytes, marker and checksums included; nothing stays behind in the run directory."""
    there = send(f"{BUCKET}/deep/{form}", form)
    here = exported(form)
    folder = tmp_path / form
    expected = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert contents(files, f"{BUCKET}/deep/{form}") == expected
    assert (there.path, there.clips, there.bytes) == (f"{BUCKET}/deep/{form}", here.clips, here.bytes)
    assert [path for path in films.iterdir() if path.name.startswith(".")] == []


def test_a_refreshed_export_sends_only_what_is_new(send: Send, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there as it was sent stays; what an earlier export had and this one has not is deleted."""
    send(f"{BUCKET}/clips", "hf")
    first = contents(files, f"{BUCKET}/clips")
    sent: list[str] = []
    real = Objects.put
    monkeypatch.setattr(Objects, "put", lambda objects, path, name: (sent.append(name), real(objects, path, name))[1])
    send(f"{BUCKET}/clips", "hf")
    assert sent == ["SHA256SUMS", "_export.json"]
    assert contents(files, f"{BUCKET}/clips") == first
    send(f"{BUCKET}/clips", "csv")
    assert not [name for name in contents(files, f"{BUCKET}/clips") if name.startswith("train/")]


def test_an_upload_that_goes_wrong_is_found_and_made_again(
    send: Send, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that changed on its way, of an object of the right size."""
    real = Objects.put
    spoilt: list[str] = []

    def put(objects: Objects, path: Path, name: str) -> None:
        if path.suffix != ".mp4" or name in spoilt:
            return real(objects, path, name)
        spoilt.append(name)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        with monkeypatch.context() as patch:
            patch.setattr(objects._files, "put_file", lambda _path, at: objects._files.pipe_file(at, bytes(data)))
            return real(objects, path, name)

    monkeypatch.setattr(Objects, "put", put)
    done = send(f"{BUCKET}/clips")
    assert len(spoilt) == done.clips
    there = contents(files, f"{BUCKET}/clips")
    sums = dict(line.split("  ")[::-1] for line in there["SHA256SUMS"].decode().splitlines())
    assert {name: hashlib.sha256(there[name]).hexdigest() for name in sums} == sums
    assert "_export.json" in there


def test_a_large_object_that_breaks_off_in_the_middle_is_not_there(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes up in parts; when one fails, nothing has the name."""
    large = tmp_path / "large.tar"
    large.write_bytes(os.urandom(1024) * 1024 * 12)
    store = Store(f"{BUCKET}/clips")
    storage = store._objects._files
    storage.put_file = functools.partial(storage.put_file, chunksize=5 * 2**20)
    parts: list[int] = []
    real = type(storage)._call_s3

    async def break_off(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "upload_part":
            parts.append(kwargs["PartNumber"])
            if kwargs["PartNumber"] == 2:
                raise OSError("the connection broke")
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(type(storage), "_call_s3", break_off)
    with pytest.raises(MachineError, match="could not be written"):
        store._put(tmp_path, "large.tar")
    monkeypatch.setattr(type(storage), "_call_s3", real)
    assert 2 in parts
    assert contents(files, f"{BUCKET}/clips") == {}
    store._put(tmp_path, "large.tar")
    assert contents(files, f"{BUCKET}/clips")["large.tar"] == large.read_bytes()


def test_storage_that_refuses_for_good_leaves_no_marker_and_is_gone_on_with(
    send: Send, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each object is tried four times, with a longer wait after each; what is sent by then is not sent again."""
    tried: list[str] = []
    waits_s: list[float] = []
    real = Objects.put

    def refuse(objects: Objects, path: Path, name: str) -> None:
        if name == "README.md":
            tried.append(name)
            raise PermissionError
        real(objects, path, name)

    monkeypatch.setattr("time.sleep", waits_s.append)
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", refuse)
        with pytest.raises(MachineError, match=r"access was refused\). It is not whole; export again"):
            send(f"{BUCKET}/clips")
    assert (len(tried), waits_s) == (4, [0.5, 1.0, 2.0])
    names = contents(files, f"{BUCKET}/clips").keys()
    assert ("_incomplete" in names, "_export.json" in names) == (True, False)
    send(f"{BUCKET}/clips")
    names = contents(files, f"{BUCKET}/clips").keys()
    assert ("_incomplete" in names, "_export.json" in names) == (False, True)


def test_what_is_not_ours_is_not_touched(send: Send, files: Any) -> None:
    """A folder of objects that no export has made is refused, by the name of one of them."""
    files.pipe_file(f"{BUCKET}/theirs/thesis.txt", b"years of work")
    with pytest.raises(InputError, match=r"no export of kling-batch: it has 'thesis.txt'"):
        send(f"{BUCKET}/theirs")
    assert contents(files, f"{BUCKET}/theirs") == {"thesis.txt": b"years of work"}


def test_a_bucket_that_is_not_there_is_said_before_anything_is_sent(send: Send) -> None:
    """The listing of what is not there looks like an empty folder: the first write is what tells."""
    with pytest.raises(InputError, match=r"cannot be used: there is no such bucket. Nothing was exported"):
        send("s3://no-such-bucket-of-ours/clips")


def test_an_address_that_needs_another_package_says_which(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is in the refusal."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"pip install 'kling-batch\[s3\]'"):
        send(f"{BUCKET}/clips")


def test_storage_without_checksums_of_its_own_is_read_back(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other kind of storage that fsspec knows; what is read differs where it was spoilt."""
    done = send("memory://clips")
    objects, path = Objects("memory://clips"), Path(__file__)
    assert (done.clips > 0, "_export.json" in objects.names()) == (True, True)
    spoilt = path.read_bytes()[::-1]
    monkeypatch.setattr(objects._files, "put_file", lambda _path, at: objects._files.pipe_file(at, spoilt))
    with pytest.raises(BrokenUpload):
        objects.put(path, "other")


def test_an_export_that_died_leaves_no_strays_when_it_is_made_again(
    send: Send, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has sent videos and no list of them; the next one is of another kind and has other names."""
    real = Objects.put

    def die(objects: Objects, path: Path, name: str) -> None:
        if name == "SHA256SUMS":
            raise KeyboardInterrupt
        real(objects, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", die)
        with pytest.raises(KeyboardInterrupt):
            send(f"{BUCKET}/clips", "hf")
        with pytest.raises(KeyboardInterrupt):  # and once more, of a kind that has none of those names
            send(f"{BUCKET}/clips", "csv")
    send(f"{BUCKET}/clips", "webdataset")
    there = contents(files, f"{BUCKET}/clips")
    sums = [line.split("  ")[1] for line in there["SHA256SUMS"].decode().splitlines()]
    assert there.keys() == {*sums, "SHA256SUMS", "_export.json"}


def test_after_an_export_that_died_no_checksum_of_before_is_trusted(
    send: Send, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has replaced a file by one of the same length, and not yet the list, which still says what was there."""
    real = Objects.put

    def die(objects: Objects, path: Path, name: str) -> None:
        if name == "SHA256SUMS":
            raise KeyboardInterrupt
        real(objects, path, name)

    send(f"{BUCKET}/clips", "csv", license="mit")
    first = contents(files, f"{BUCKET}/clips")
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", die)
        with pytest.raises(KeyboardInterrupt):
            send(f"{BUCKET}/clips", "csv", license="bsd")
    assert len(contents(files, f"{BUCKET}/clips")["README.md"]) == len(first["README.md"])
    send(f"{BUCKET}/clips", "csv", license="mit")
    assert contents(files, f"{BUCKET}/clips") == first


def test_an_object_of_somebody_else_is_not_written_over(send: Send, files: Any) -> None:
    """Beside an export of ours, where another format would need its name."""
    send(f"{BUCKET}/clips", "parquet")
    files.pipe_file(f"{BUCKET}/clips/clips.csv", b"mine")
    before = contents(files, f"{BUCKET}/clips")
    with pytest.raises(InputError, match=r"clips/clips.csv is your own.*Nothing was exported"):
        send(f"{BUCKET}/clips", "csv")
    assert contents(files, f"{BUCKET}/clips") == before


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "it could not be reached"),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_EC2_METADATA_DISABLED": "true"},
            "no credentials in the environment",
        ),
    ],
)
def test_what_is_missing_is_said_in_plain_words(
    send: Send, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: dict[str, str | None], reason: str
) -> None:
    """A storage that nobody reaches, and an environment without credentials; nothing is sent."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name, value in setting.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"cannot be used: {reason}. Nothing was exported"):
        send(f"{BUCKET}/clips")


def test_what_a_killed_export_has_staged_is_swept_and_what_another_works_in_is_not(send: Send, films: Path) -> None:
    """The next export removes a folder that nobody holds, and its own at its end."""
    left, held = films / ".export-left", films / ".export-held"
    for folder in (left, held):
        (folder / "export").mkdir(parents=True)
    with hold_folder(held):
        send("memory://swept")
    assert (left.exists(), held.exists()) == (False, True)
    assert [path.name for path in films.glob(".export-*")] == [".export-held"]
