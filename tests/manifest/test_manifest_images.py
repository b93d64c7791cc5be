"""Start images that are files: only real images below the manifest's folder, each known by its bytes alone."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Fail, Load
from PIL import Image

from pipeline.kernel import files
from pipeline.manifest.images import MAX_BYTES, LocalImages, kind_of, local_image, read_planned


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 36), **options: object) -> bytes:
    """The bytes of a small image."""
    written = io.BytesIO()
    Image.new("RGB", size, (90, 120, 150)).save(written, kind, **options)
    return written.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if data is None else data)
    return path


def why_not(written: str, folder: Path) -> str:
    """Why an image is refused."""
    with pytest.raises(ValueError) as caught:
        local_image(written, folder)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_an_image_is_known_by_its_bytes(tmp_path: Path, kind: str) -> None:
    """Its kind is that of its bytes, whatever its name ends with; hash and size are those of the file."""
    data = picture(kind.upper())
    path = put(tmp_path / "pics" / "a mug.bin", data)
    image = local_image("./pics//a mug.bin", tmp_path)
    assert (image.path, kind_of(data), image.width, image.height) == (path, kind, 64, 36)
    assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_a_photo_that_was_taken_upright_is_upright(tmp_path: Path) -> None:
    """A camera writes the pixels lying, and beside them how to turn them."""
    turned = Image.Exif()
    turned[0x0112] = 6
    put(tmp_path / "a.jpg", picture("JPEG", exif=turned))
    image = local_image("a.jpg", tmp_path)
    assert (image.width, image.height) == (36, 64)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("/etc/passwd", "absolute"),
        ("~/.ssh/id_rsa", "absolute"),
        ("../secret.png", "upwards"),
        ("pics/../../secret.png", "upwards"),
        ("file:///etc/passwd", "file URL"),
        ("FILE:secret.png", "file URL"),
        ("data:image/png;base64,iVBO", "beside the manifest"),
        ("sha256:" + "0" * 64, "path of the image"),
        ("pics\\mug.png", "write a path with /"),
        ("C:\\mug.png", "write a path with /"),
        ("mug\0.png", "control character"),
        ("mug\ud800.png", "control character"),
        ("a" * 1_001, "more than 1,000"),
        ("a" * 300, "too long"),
        ("nothing.png", "counts from the manifest's folder"),
        ("pics/nothing.png", "counts from the manifest's folder"),
        ("mug.png/a.png", "Not a directory"),
        ("pics", "directory"),
        (".", "directory"),
        ("/", "absolute"),
    ],
)
def test_a_path_that_leads_elsewhere_or_nowhere_is_refused(tmp_path: Path, written: str, says: str) -> None:
    """Above the folder, into the whole disk, or nowhere: each with a sentence that says what would be right."""
    put(tmp_path / "secret.png")
    folder = tmp_path / "campaign"
    (folder / "pics").mkdir(parents=True)
    put(folder / "mug.png")
    assert says in why_not(written, folder)


@pytest.mark.parametrize("link", ["direct.png", "folder/secret.png", "inside.png"])
def test_no_step_goes_through_a_link(tmp_path: Path, link: str) -> None:
    """Neither the file nor a folder on the way may be a link, be it to a neighbour."""
    put(tmp_path / "elsewhere" / "secret.png")
    folder = tmp_path / "campaign"
    put(folder / "mug.png")
    (folder / "direct.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "inside.png").symlink_to("mug.png")
    assert "is a link" in why_not(link, folder)


def test_the_manifests_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """Where the campaign lies is the user's choice."""
    put(tmp_path / "real" / "mug.png")
    (tmp_path / "campaign").symlink_to(tmp_path / "real")
    assert local_image("mug.png", tmp_path / "campaign").width == 64


def test_a_link_that_takes_the_files_place_behind_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a name and its opening it may be exchanged: the opening itself follows no link."""
    secret = put(tmp_path / "secret.png")
    mug = put(tmp_path / "campaign" / "mug.png")
    look = os.stat

    def exchange(*arguments: object, **options: object) -> os.stat_result:
        found = look(*arguments, **options)  # type: ignore[arg-type, call-overload]
        mug.unlink()
        mug.symlink_to(secret)
        return found  # type: ignore[no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "stat", exchange)
        with pytest.raises(ValueError) as caught:
            local_image("mug.png", tmp_path / "campaign")
    assert "symbolic links" in str(caught.value)


def test_what_is_no_regular_file_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO would wait for ever, and a device has no end: neither is opened at all."""
    os.mkfifo(tmp_path / "pipe.png")
    opened: list[object] = []
    really_open = os.open

    def watched(path: object, *arguments: object, **options: object) -> int:
        opened.append(path)
        return really_open(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", watched)
        assert "not a regular file" in why_not("pipe.png", tmp_path)
        assert "not a regular file" in why_not("zero", Path("/dev"))
    assert opened == [tmp_path, Path("/dev")]


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    """5 GiB without content: refused at the bound, not when the memory is full."""
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(5 * 2**30)
    assert "larger than 10 MiB" in why_not("huge.png", tmp_path)
    put(tmp_path / "large.png", picture() + bytes(MAX_BYTES))
    assert "larger than 10 MiB" in why_not("large.png", tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and carries next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no image"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "no image"),
        (b"GIF89a" + bytes(100), "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"),
        (b"RIFF\x04\0\0\0WAVE", "no image"),
        (picture()[:20], "broken PNG"),
        (picture()[:-30], "broken PNG"),
        (picture("JPEG")[:60], "broken JPEG"),
        (picture("WEBP")[:24], "broken WEBP"),
        (b"\xff\xd8\xff" + b"-----BEGIN KEY-----", "broken JPEG"),
        (png_of(8_000, 8_000), "50 million pixels"),
        (png_of(10_000, 10_000), "50 million pixels"),
        (png_of(2**31 - 1, 2**31 - 1), "50 million pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_whole_image_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    """Another file with an image's name, a header that breaks off, and a bomb that would fill the memory."""
    put(tmp_path / "a.png", data)
    assert says in why_not("a.png", tmp_path)


def test_a_planned_image_is_read_again_only_with_the_same_bytes(tmp_path: Path) -> None:
    """Gone, changed or no file any more: nothing is read that was not planned."""
    path = put(tmp_path / "a.png")
    hashed = local_image("a.png", tmp_path).hashed
    assert read_planned(path, hashed) == picture()
    path.write_bytes(picture(size=(65, 36)))
    assert read_planned(path, hashed) is None
    path.unlink()
    assert read_planned(path, hashed) is None
    path.mkdir()
    assert read_planned(path, hashed) is None


ROWS = 'rows: [{prompt: a lamp, start_image: "IMAGE"}]'


def test_the_same_bytes_are_the_same_job_wherever_they_lie(load: Load, tmp_path: Path) -> None:
    """Moved, copied or renamed, an image buys nothing again; other bytes under the same name do."""
    put(tmp_path / "mug.png")
    put(tmp_path / "pics" / "cup.png")
    before, moved = load(ROWS.replace("IMAGE", "mug.png")), load(ROWS.replace("IMAGE", "pics/cup.png"))
    assert [job.job_id for job in before.jobs] == [job.job_id for job in moved.jobs]
    assert before.jobs[0].params["start_image"] == f"sha256:{hashlib.sha256(picture()).hexdigest()}"
    assert dict(before.images) == {before.jobs[0].image: tmp_path / "mug.png"}
    put(tmp_path / "mug.png", picture(size=(128, 72)))
    assert load(ROWS.replace("IMAGE", "mug.png")).jobs[0].job_id != before.jobs[0].job_id


def test_two_names_of_the_same_bytes_share_one_job(load: Load, tmp_path: Path) -> None:
    """With the usual warning."""
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    made = load("rows:\n  - {prompt: a lamp, start_image: a.png}\n  - {prompt: a lamp, start_image: b.png}\n")
    assert len(made.jobs) == len(made.images) == 1
    assert "very same video" in made.warnings[0].message


def test_a_template_may_name_the_image(load: Load, tmp_path: Path) -> None:
    """One picture for each product of a sweep."""
    for size, product in enumerate(("mug", "lamp"), 1):
        put(tmp_path / "pics" / f"{product}.png", picture(size=(64 * size, 36 * size)))
    made = load(
        'defaults: {start_image: "pics/{{ product }}.png"}\nmatrix: {product: [mug, lamp]}\nrows: [{prompt: a film}]\n'
    )
    assert [made.images[str(job.image)].name for job in made.jobs] == ["mug.png", "lamp.png"]


def test_a_url_stays_a_url(load: Load) -> None:
    """Nothing is looked for on the disk."""
    made = load(ROWS.replace("IMAGE", "https://example.com/mug.png"))
    assert made.jobs[0].params["start_image"] == "https://example.com/mug.png"
    assert made.jobs[0].image is None
    assert not made.images


def test_mistakes_have_their_place_and_stand_beside_the_others(fail: Fail) -> None:
    """A missing file, an image in the manifest itself and a wrong length are told together."""
    found = fail(
        "rows:\n  - {prompt: a, start_image: no.png, duration: 7}\n  - prompt: b\n    start_image: data:image/png,x\n"
    )
    assert [(mistake.row, mistake.column) for mistake in found] == [
        (1, "duration"),
        (1, "start_image"),
        (2, "start_image"),
    ]
    assert "'no.png' is not there" in found[1].message
    assert found[2].line == 4


def test_a_hash_that_a_user_writes_is_a_mistake(fail: Fail) -> None:
    """The bytes behind it are nowhere."""
    [mistake] = fail(ROWS.replace("IMAGE", "sha256:" + "0" * 64))
    assert "give an https URL, or the path of the image" in mistake.message


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows may name one image, or one that is not there."""
    put(tmp_path / "a.png")
    images, looked = LocalImages(tmp_path), []
    read: Callable[..., bytes | None] = files.read_file_below
    monkeypatch.setattr("pipeline.manifest.images.read_file_below", lambda *each: looked.append(each) or read(*each))
    for _ in range(3):
        assert images.find("a.png").width == 64
        with pytest.raises(ValueError, match="is not there"):
            images.find("b.png")
    assert len(looked) == 2


@pytest.mark.parametrize(
    ("size", "ratio", "fits"),
    [
        ((1280, 720), "16:9", True),
        ((1366, 768), "16:9", True),
        ((1280, 720), "9:16", False),
        ((720, 1280), "9:16", True),
        ((512, 512), "1:1", True),
        ((512, 500), "1:1", False),
        ((800, 600), "16:9", False),
    ],
)
def test_an_image_of_another_shape_is_warned_of(
    load: Load, tmp_path: Path, size: tuple[int, int], ratio: str, fits: bool
) -> None:
    """Both shapes are said and what would be right; a pixel more or less is no other shape."""
    put(tmp_path / "a.png", picture(size=size))
    warnings = load(f'rows: [{{prompt: a, start_image: a.png, aspect_ratio: "{ratio}"}}]').warnings
    assert [str(warning.column) for warning in warnings] == ([] if fits else ["start_image"])
    for warning in warnings:
        assert f"{size[0]}x{size[1]}" in warning.message
        assert f"aspect_ratio {ratio}" in warning.message


def test_a_shape_is_warned_of_once_a_row(load: Load, tmp_path: Path) -> None:
    """Twenty combinations of a row have one warning."""
    put(tmp_path / "a.png", picture(size=(50, 90)))
    made = load(
        'defaults: {start_image: a.png}\nmatrix: {aspect_ratio: ["16:9", "1:1"]}\nrows: [{prompt: a}, {prompt: b}]\n'
    )
    assert [warning.row for warning in made.warnings] == [1, 2]
