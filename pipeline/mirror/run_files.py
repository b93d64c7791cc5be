"""The files of a run directory beside its ledger: videos and posters, its rows, and what a run leaves at its end."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.kernel.files import flush_file, make_folder, put_in_place, temporary_in
from pipeline.ledger.job import JobRecord
from pipeline.mirror.holder import Holder
from pipeline.mirror.storage import Storage

ROWS = ("jobs.parquet", "config.yaml", "manifest.*")
"""What a run keeps of what it was asked for, without which nobody can go on or report."""

ENDS = ("report/*", "run.log")
"""What a run leaves at its end."""


class RunFiles:
    """Brings the files of one run directory to the storage, and back."""

    def __init__(self, folder: Path, storage: Storage, holder: Holder, *, keep_videos: bool) -> None:
        """`keep_videos` says whether a video stays on the disk once the storage has it."""
        self._folder = folder
        self._storage = storage
        self._holder = holder
        self._keep_videos = keep_videos

    def deliver(self, video: Path, poster: Path | None, sha256: str, checkpoint: Callable[[], None]) -> None:
        """Bring a verified video and its poster there; returns when both stand.

        Args:
            checkpoint: called again and again meanwhile; what it raises ends them.

        Raises:
            MachineError: the storage has refused for too long, or another has taken the place.
        """

        def check() -> None:
            checkpoint()
            self._holder.check()

        with self._storage.checked(checkpoint):
            if poster is not None:
                self._storage.patiently(lambda: self._put(poster), check)
            self._storage.patiently(lambda: self._put(video, sha256), check)
        if not self._keep_videos:
            with contextlib.suppress(OSError):
                video.unlink()

    def publish(self, patterns: Iterable[str]) -> None:
        """Bring files of the run directory there, by patterns of names.

        Raises:
            MachineError: the storage has refused for too long, or another has taken the place.
        """
        self._storage.require_answers()
        for pattern in patterns:
            for path in sorted(self._folder.glob(pattern)):
                if path.is_file() and not path.name.startswith("."):
                    self._storage.patiently(lambda path=path: self._put(path), self._holder.check)  # type: ignore[misc]

    def _put(self, path: Path, sha256: str | None = None) -> None:
        self._storage.objects.put(path, path.relative_to(self._folder).as_posix(), sha256)

    def fetch_rows(self) -> None:
        """Bring `ROWS` to the disk; raises what the storage or the disk raises."""
        for name in self._storage.objects.names():
            if "/" not in name and any(Path(name).match(pattern) for pattern in ROWS):
                self._fetch(name, self._folder / name)

    def bring_back(self, records: Iterable[JobRecord]) -> None:
        """Fetch the stored videos, and their posters, that are not on the disk. One that is not as it was is left.

        Raises:
            InputError: the storage cannot be used.
            MachineError: it has refused, or the disk.
        """
        for record in records:
            if record.path is None or (self._folder / record.path).exists():
                continue
            self._storage.at_first(lambda record=record: self._bring_back(record))  # type: ignore[misc]

    def _bring_back(self, record: JobRecord) -> None:
        assert record.path is not None
        video = self._folder / record.path
        for path, sha256 in ((self._folder / "posters" / f"{video.stem}.jpg", None), (video, record.sha256)):
            name = path.relative_to(self._folder).as_posix()
            with contextlib.suppress(FileNotFoundError):
                self._fetch(name, path, sha256)

    def _fetch(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Bring an object to the disk, whole or not at all; and not if it is not what the checksum says."""
        make_folder(path.parent)
        temporary = temporary_in(path.parent)
        try:
            self._storage.objects.fetch(name, temporary)
            with temporary.open("rb") as file:
                if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return
            flush_file(temporary)
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
