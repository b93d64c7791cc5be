"""The provider's memory on disk: JSON lines, each handed to the OS before its effect is told to anybody."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """An append-only file of records; without a path it forgets everything.

    Raises BlockingIOError when another living process writes the same file.
    """

    def __init__(self, path: Path | None) -> None:
        self._fd: int | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Whether anything is remembered at all."""
        return self._fd is not None

    def replay(self) -> Iterator[dict[str, Any]]:
        """All records of earlier processes; a last line torn by a kill is cut off."""
        if self._fd is None:
            return
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                yield orjson.loads(line)
                whole += len(line)
        os.truncate(self._fd, whole)  # or the next record would be glued to the torn one

    def add(self, kind: str, **facts: Any) -> None:
        """Append one record; it survives the death of this process once this returns."""
        if self._fd is None:
            return
        line = orjson.dumps({"k": kind, **facts}) + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
