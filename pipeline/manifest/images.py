"""Start images that are files: found below the manifest's folder, and known by the hash of their bytes.

What a manifest names is sent to the provider, so a manifest that somebody else wrote must not be able to name a key or
a mail: only real images, reached without a link, in the manifest's own folder or below it.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image

from pipeline.kernel.files import read_file_below, read_regular_file

MAX_BYTES = 10 * 2**20
"""The largest image that other hosts of the same model accept. This provider publishes no bound."""
MAX_PIXELS = 50_000_000
"""1.5 times an 8K picture. A larger image is a mistake, or would fill the memory of whoever opens it."""
MAX_PATH = 1_000

SHAPE_TOLERANCE = 0.02
"""By how much width/height may differ from the video's and still be the same shape: 1280x720 and 1366x768 are."""

_BEGINNINGS = {"png": rb"\x89PNG\r\n\x1a\n", "jpeg": rb"\xff\xd8\xff", "webp": rb"RIFF.{4}WEBP"}
_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ON_ITS_SIDE = (5, 6, 7, 8)
"""The EXIF orientations of a picture that is shown with width and height exchanged."""


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image that was read. `width` and `height` are in pixels as people see it, turned upright."""

    path: Path
    sha256: str
    width: int
    height: int

    @property
    def hashed(self) -> str:
        """The normal form of the parameter: the same bytes are the same image, wherever they lie."""
        return f"sha256:{self.sha256}"

    def has_shape_of(self, width: int, height: int) -> bool:
        """Whether it has the shape of a frame, near enough."""
        return abs(self.width * height / (self.height * width) - 1) <= SHAPE_TOLERANCE


@dataclass(slots=True)
class LocalImages:
    """The images of one manifest in `folder`: each path is looked at once, however many rows name it."""

    folder: Path
    by_hash: dict[str, LocalImage] = field(default_factory=dict)
    _by_path: dict[str, LocalImage | str] = field(default_factory=dict)

    def find(self, written: str) -> LocalImage:
        """The image that a row names; ValueError as `local_image`."""
        if written not in self._by_path:
            try:
                image = local_image(written, self.folder)
                self._by_path[written] = self.by_hash.setdefault(image.hashed, image)
            except ValueError as problem:
                self._by_path[written] = str(problem)
        found = self._by_path[written]
        if isinstance(found, str):
            raise ValueError(found)  # noqa: TRY004 - a user's mistake
        return found


def is_local(written: str) -> bool:
    """Whether a start image is meant to be a file, rather than a URL that goes to the provider as it is."""
    return "://" not in written or written.lower().startswith(("file:", "data:"))


def local_image(written: str, folder: Path) -> LocalImage:
    """The image at the path `written`, relative to `folder` and in it or below.

    Raises:
        ValueError: it is not there or not allowed; the sentence says what would be right.
    """
    shown = repr(written if len(written) <= 60 else f"{written[:56]}…")
    names = _names(written, shown)
    try:
        data = read_file_below(folder, names, MAX_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{shown} is not there; a path counts from the manifest's folder") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error.strerror}; give an image file itself") from None
    if data is None:
        raise ValueError(f"{shown} is larger than {MAX_BYTES // 2**20} MiB; make it smaller")
    width, height = _size(data, shown)
    return LocalImage(folder.joinpath(*names), hashlib.sha256(data).hexdigest(), width, height)


def read_planned(path: Path, hashed: str) -> bytes | None:
    """The bytes of an image that was planned with this hash; None if the file is gone or has other bytes by now."""
    try:
        data = read_regular_file(path, MAX_BYTES)
    except OSError:
        return None
    return data if data is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" == hashed else None


def kind_of(data: bytes) -> str | None:
    """The kind of image by the first bytes: "png", "jpeg" or "webp"; None for anything else."""
    return next((kind for kind, begins in _BEGINNINGS.items() if re.match(begins, data, re.DOTALL)), None)


def _names(written: str, shown: str) -> list[str]:
    """The steps of a path below the manifest's folder."""
    start = written.lower()
    if start.startswith("data:"):
        raise ValueError("is the image itself; put it into a file beside the manifest and give the file's name")
    if start.startswith("file:"):
        raise ValueError(f"{shown} is a file URL; give the path alone, relative to the manifest's folder")
    if start.startswith("sha256:"):
        raise ValueError("is a hash, as the ledger writes it; give an https URL, or the path of the image")
    if _UNWANTED.search(written) or len(written) > MAX_PATH:
        raise ValueError(f"is no path: it has a control character in it, or more than {MAX_PATH:,} characters")
    if "\\" in written:
        raise ValueError(f"{shown} has a backslash in it; write a path with /, relative to the manifest's folder")
    if written.startswith(("/", "~/")):
        raise ValueError(f"{shown} is an absolute path; put the image into the manifest's folder or below it")
    names = [name for name in written.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ValueError(f"{shown} leads upwards; put the image into the manifest's folder or below it")
    return names


def _size(data: bytes, shown: str) -> tuple[int, int]:
    """Width and height of an image as people see it, by its header. Its pixels are not decoded.

    Raises:
        ValueError: it is no image that may be sent.
    """
    kind = kind_of(data)
    if kind is None:
        raise ValueError(f"{shown} is no image; it must be PNG, JPEG or WebP, whatever its name ends with")
    too_large = ValueError(f"{shown} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of sloppy metadata, which does no harm
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise too_large
                # Cameras write no PNG, and reading the EXIF data of a PNG would decode all its pixels.
                orientation = image.getexif().get(ExifTags.Base.Orientation) if kind != "png" else None
                image.verify()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except Exception as error:  # a broken file makes the reader raise nearly anything
        if error is too_large:
            raise
        raise ValueError(f"{shown} is a broken {kind.upper()} image ({type(error).__name__}); save it again") from None
    return (height, width) if orientation in _ON_ITS_SIDE else (width, height)
