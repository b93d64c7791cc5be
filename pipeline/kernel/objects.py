"""The one door to object storage: whole objects under an address, each compared with what was sent.

An object is there whole or not at all. `fsspec`, which knows the kinds of storage, is loaded here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pipeline.kernel.errors import KlingBatchError

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
"""The wait after a failure: twice as long each time, up to the longest."""

CONNECT_S, READ_S = 10, 20
"""How long S3 may take to answer one request."""

CALL_S = 15.0
"""How long a call may take that is watched, beside what its bytes need."""

SLOWEST_BYTES_S = 25_000
"""What a connection carries at least: many videos may share a slow one."""

LISTED_S = 600.0
"""The same for what is as long as nobody knows: a listing, or an object that is fetched."""

LOOK_S = 0.1
"""How often whoever watches a call is asked."""

_MD5 = re.compile(r"[0-9a-f]{32}")
_CHUNK = 2**20


class BrokenUpload(Exception):  # noqa: N818 - an outcome, which is tried again
    """An object differs from what was uploaded."""


class Silence(Exception):  # noqa: N818 - as above
    """A call was not answered in time."""


class UnknownStorage(Exception):  # noqa: N818 - as above: each caller says it in its own words
    """The kind of storage that an address names cannot be used here; the message says what is missing."""


def _open_storage(url: str, *, tries_again: bool) -> tuple[Any, str]:
    """The storage of an address, as `fsspec` has it, and the path in it. Nothing is asked yet.

    Args:
        tries_again: whether S3's own packages try a request again that has failed.

    Raises:
        UnknownStorage: its kind is not known, or needs another package.
    """
    attempts = 2 if tries_again else 1
    bounds = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"total_max_attempts": attempts}}
    options = {"config_kwargs": bounds} if url.startswith("s3:") else {}
    try:
        from fsspec.core import url_to_fs

        # No caches: what another process has written in the meantime must be seen.
        files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError:
        raise UnknownStorage("needs more packages: pip install 'kling-batch[s3]' for s3://, gcsfs for gs://") from None
    except ValueError:
        raise UnknownStorage("is an address of a kind that is not known; s3:// and gs:// are") from None
    if not tries_again and url.startswith("s3:"):
        files.retries = 1
    return files, str(root).rstrip("/")


Watch = Callable[[float], None]
"""Asked again and again while a call goes on, for how many seconds it has; what it raises ends the waiting."""


class Objects:
    """The objects under one address. Every call blocks, and raises what its kind of storage raises: see `reason_of`."""

    def __init__(self, url: str, watch: Watch | None = None) -> None:
        """Raises `UnknownStorage`. Nothing is asked yet.

        With `watch`, each request is made once, and no call goes on for longer than it has a reason to.
        """
        self.url = url.rstrip("/")
        self.is_silent = False
        """Whether what was asked last, of all that was watched, was not answered in time."""
        self._watch = watch
        self._files, self._root = _open_storage(self.url, tries_again=watch is None)
        self._is_s3 = self.url.startswith("s3:")

    def _ask(self, call: Callable[[], T], limit_s: float = CALL_S) -> T:
        """Have the storage do one thing.

        Raises:
            Silence: it did not do it in time.
        """
        if self._watch is None:
            return call()
        try:
            done = watched(call, limit_s, self._watch)
        except Silence:
            self.is_silent = True
            raise
        self.is_silent = False
        return done

    def names(self, below: str = "") -> set[str]:
        """The names of all objects, or of those below a folder, from the address on."""
        try:
            found = self._ask(lambda: self._files.find(self._at(below) if below else self._root), LISTED_S)
        except FileNotFoundError:
            return set()
        return {str(path)[len(self._root) :].lstrip("/") for path in found}

    def read(self, name: str) -> bytes | None:
        """All of an object; None if there is none."""
        try:
            return self._content(self._at(name))
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int:
        """The bytes of an object, which must be there."""
        return int(self._info(self._at(name))["size"])

    def fetch(self, name: str, path: Path) -> None:
        """Write an object to `path`, which is not checked against anything yet."""
        self._ask(lambda: self._files.get_file(self._at(name), str(path)), LISTED_S)

    def write(self, name: str, data: bytes) -> None:
        """Make or replace an object, and compare it with `data`: `BrokenUpload` where they differ."""
        at = self._at(name)
        self._pipe(at, data)
        info = self._info(at)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if info["size"] != len(data) or (_tag(info) != md5 and self._content(at, len(data)) != data):
            raise BrokenUpload

    def swap(self, name: str, data: bytes, may_go: Callable[[bytes], bool]) -> bool:
        """Replace an object if `may_go` says yes to its content; returns whether the object is ours now.

        Where the storage does not know conditions, another's write in the same instant may be lost.
        """
        at = self._at(name)
        try:
            tag = str(self._info(at).get("ETag", ""))
            if not may_go(self._content(at)):
                return False
            self._pipe(at, data, **({"IfMatch": tag} if self._is_s3 and tag else {}))
        except FileNotFoundError:
            return False  # somebody has taken it over, and removed it since
        except OSError as error:
            if error.errno != errno.EINVAL:  # as which a condition that does not hold arrives
                raise
            return False
        return self._content(at) == data

    def create(self, name: str, data: bytes) -> bool:
        """Make an object if there is none; returns whether it is ours.

        Where the storage knows no such condition, two who do this at the same time may both be told that it is theirs.
        """
        at = self._at(name)
        if self._ask(lambda: self._files.exists(at)):
            return False
        try:
            self._pipe(at, data, **({"mode": "create"} if self._is_s3 else {}))
        except FileExistsError:
            return False
        return self._content(at) == data

    def put(self, path: Path, name: str, sha256: str | None = None) -> None:
        """Make or replace an object from a file, and compare the two. S3 keeps `sha256` beside the object."""
        at = self._at(name)
        more = {"Metadata": {"sha256": sha256}} if sha256 and self._is_s3 else {}
        limit_s = CALL_S + path.stat().st_size / SLOWEST_BYTES_S
        self._ask(lambda: self._files.put_file(str(path), at, **more), limit_s)
        self._ask(lambda: _check_object(self._files, path, at, self._files.info(at)), limit_s)

    def remove(self, name: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: self._files.rm_file(self._at(name)))

    def age_s(self, name: str, probe: str) -> float:
        """How long ago an object was written, by the storage's own clock.

        An object `probe` is written to learn what time it is there, and removed again where that is allowed.
        """
        written = self._modified(self._at(name))
        self._pipe(self._at(probe), b"now")
        now = self._modified(self._at(probe))
        with contextlib.suppress(Exception):
            self.remove(probe)
        return float((now - written).total_seconds())

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _info(self, at: str) -> dict[str, Any]:
        return self._ask(lambda: dict(self._files.info(at)))

    def _content(self, at: str, size: int = 0) -> bytes:
        return self._ask(lambda: bytes(self._files.cat_file(at)), CALL_S + size / SLOWEST_BYTES_S)

    def _modified(self, at: str) -> datetime:
        found: datetime = self._ask(lambda: self._files.modified(at))
        return found

    def _pipe(self, at: str, data: bytes, **more: str) -> None:
        self._ask(lambda: self._files.pipe_file(at, data, **more), CALL_S + len(data) / SLOWEST_BYTES_S)


def _check_object(files: Any, path: Path, at: str, info: dict[str, Any]) -> None:
    """Compare an object with its file: by the storage's own checksum where it has one, else by reading it back.

    Raises:
        BrokenUpload: they differ.
    """
    if info["size"] != path.stat().st_size:
        raise BrokenUpload
    with path.open("rb") as file:
        if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == _tag(info):
            return
        # The checksum of an encrypted object is not that of its content: then the object is read back.
        file.seek(0)
        with files.open(at, "rb") as back:
            while chunk := file.read(_CHUNK):
                if back.read(len(chunk)) != chunk:
                    raise BrokenUpload


def _tag(info: dict[str, Any]) -> str:
    """The storage's own MD5 of an object; empty where it has none, or only one of an upload in parts."""
    said = str(info.get("ETag", "")).strip('"')
    return said if _MD5.fullmatch(said) else ""


def watched(call: Callable[[], T], limit_s: float, watch: Watch) -> T:
    """Do something in a thread of its own, and wait for it as long as it may take and whoever watches lets it.

    What nobody waits for any more goes on to its own end: nothing tells a storage to forget what it was sent.

    Raises:
        Silence: it took longer than `limit_s`.
    """
    watch(0.0)
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    began_s = time.monotonic()
    threading.Thread(target=work, name="objects", daemon=True).start()
    while not wait([done], LOOK_S).done:
        taken_s = time.monotonic() - began_s
        watch(taken_s)
        if taken_s >= limit_s:
            raise Silence
    return done.result()


def patiently(
    work: Callable[[], T],
    patience_s: float,
    give_up: Callable[[Exception], KlingBatchError],
    sleep: Callable[[float], None] = time.sleep,
    checkpoint: Callable[[], None] = lambda: None,
    now_s: Callable[[], float] = time.monotonic,
) -> T:
    """Do `work`, again and again while it fails, with longer and longer waits, until this took `patience_s`.

    Args:
        give_up: makes the error to raise of the last failure.
        checkpoint: raises when nobody waits for the work any more; looked at before each try.
        now_s: the present, in seconds of a clock that nobody sets.

    Raises:
        KlingBatchError: the one of `give_up`, or one that the work itself raises, which is not tried again.
    """
    lost_s, wait_s = 0.0, FIRST_WAIT_S
    while True:
        checkpoint()
        began_s = now_s()
        try:
            return work()
        except KlingBatchError:
            raise  # decided already
        except Exception as error:  # each kind of storage has errors of its own
            # A storage that hangs may take a minute for each try: that time counts as the waits do.
            lost_s += now_s() - began_s
            if lost_s >= patience_s:
                raise give_up(error) from None
        sleep(wait_s)
        lost_s += wait_s
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


_PLAINLY = {
    "Silence": "it gives no answer",
    "BrokenUpload": "an object differs from what was uploaded",
    "NoCredentialsError": "no credentials in the environment",
    "PartialCredentialsError": "the credentials in the environment are not complete",
    "EndpointConnectionError": "it could not be reached",
    "ConnectTimeoutError": "it could not be reached",
    "ClientConnectorError": "it could not be reached",
}
"""Other packages' errors, by name: those packages need not be installed."""


def reason_of(error: Exception) -> str:
    """What was wrong, in few words; never another package's text, which may hold an address with a signature."""
    if said := _PLAINLY.get(type(error).__name__):
        return said
    match error:
        case FileNotFoundError():
            return "there is no such bucket"
        case PermissionError():
            return "access was refused"
        case OSError(strerror=str(text)):
            return text[:80]
        case _:
            return type(error).__name__
