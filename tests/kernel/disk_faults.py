"""A disk that fails, or a process that dies, at the n-th call of the operating system on one folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """The process is dead: nothing that it would still do happens."""


class Disk:
    """Counts the calls that touch `folder`, in `calls`, and fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.before_call: Callable[[str], None] = lambda _call: None
        self._descriptors: set[int] = set()
        self._fail_at = 0
        self._errno = errno.EIO
        self._forever = False
        self._deadly = False
        self._short = False
        for name in ("open", "write", "fsync", "close", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def fail_at(self, call: int, error: int = errno.EIO, *, forever: bool = False) -> None:
        """The `call`-th call from now on raises `error`, and with `forever` all after it too."""
        self.calls.clear()
        self._fail_at, self._errno, self._forever, self._deadly = call, error, forever, False

    def kill_at(self, call: int) -> None:
        """The process dies instead of making the `call`-th call from now on."""
        self.calls.clear()
        self._fail_at, self._forever, self._deadly = call, True, True

    def heal(self) -> None:
        self.calls.clear()
        self._fail_at = 0

    def write_short(self) -> None:
        """From now on every write takes one byte in three."""
        self._short = True

    @property
    def has_failed(self) -> bool:
        return 0 < self._fail_at <= len(self.calls)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **options: Any) -> Any:
            if not self._concerns(name, target):
                return real(target, *rest, **options)
            label = self._label(name, target, rest)
            self.before_call(label)
            self.calls.append(label)
            due = self._fail_at and (
                len(self.calls) >= self._fail_at if self._forever else len(self.calls) == self._fail_at
            )
            if name == "close":
                self._descriptors.discard(target)
                real(target)
            if due:
                raise Killed if self._deadly else OSError(self._errno, os.strerror(self._errno))
            if name == "close":
                return None
            if name == "write" and self._short:
                return real(target, rest[0][: len(rest[0]) // 3 or 1])
            result = real(target, *rest, **options)
            if name == "open":
                self._descriptors.add(result)
            return result

        return call

    def _concerns(self, name: str, target: Any) -> bool:
        if name in ("write", "fsync", "close"):
            return target in self._descriptors
        path = Path(target)
        return path == self.folder or path.parent == self.folder

    def _label(self, name: str, target: Any, rest: tuple[Any, ...]) -> str:
        if name == "fsync":
            return "fsync folder" if stat.S_ISDIR(os.fstat(target).st_mode) else "fsync file"
        if name == "replace":
            return f"replace {Path(rest[0]).name}"
        return name
