"""A disk that forgets: from the calls of a life, every folder that a power loss may legally leave.

A journalling file system promises little. What was written is there for sure once the file was flushed, and its name
once the folder was. Until then, of the data any part may be there, or none, or zeros in its place; and of the names
those up to some moment, or any that it got round to.

    disk = ForgetfulDisk(world.folder, "run")
    disk.apply(call)                         # one after the other
    disk.whole()                             # what every other process sees now
    disk.certain()                           # what is there whatever happens
    disk.losses(random.Random(7), most=40)   # what may be there if the power fails now
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traced import Call

Tree = dict[str, bytes | None]
"""A folder's content: relative path to bytes, or to None for a folder."""

NAME_LOST, DATA_LOST, DATA_ZEROED, DATA_TORN = "a name lost", "data lost", "data zeroed", "data torn"

_ROOT = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """What a power loss left, and what it took: the faults that show in `tree`."""

    tree: Tree
    faults: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Change:
    """Bytes written at a place, or with `size` a file cut or stretched to it. `ended` is its moment in the trace."""

    ended: int
    offset: int
    data: bytes = b""
    size: int | None = None

    def on(self, content: bytes) -> bytes:
        if self.size is not None:
            return content[: self.size].ljust(self.size, b"\0")
        content = content.ljust(self.offset, b"\0")
        return content[: self.offset] + self.data + content[self.offset + len(self.data) :]


@dataclass(slots=True)
class _File:
    """A file: what is on the disk for sure, what was changed since, and what everybody sees."""

    settled: bytes = b""
    live: bytes = b""
    pending: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        self.live = change.on(self.live)
        self.pending.append(change)

    def settle(self, before: int) -> None:
        while self.pending and self.pending[0].ended < before:
            self.settled = self.pending.pop(0).on(self.settled)


@dataclass(frozen=True, slots=True)
class _Naming:
    """A change of names in one folder: `gone` goes, and `name` comes and means `node`."""

    ended: int
    folder: int
    gone: str | None = None
    name: str | None = None
    node: int = -1

    def on(self, names: dict[str, int]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.name is not None:
            names[self.name] = self.node


_Fate = Callable[[_File], tuple[str, bytes]]


class ForgetfulDisk:
    """The part `within` of the folder `root`, empty at first. The name of that part can be lost too."""

    def __init__(self, root: Path, within: str) -> None:
        self._root = str(root)
        self._within = within
        self._files: dict[int, _File] = {}
        self._settled: dict[int, dict[str, int]] = {_ROOT: {}}
        self._live: dict[int, dict[str, int]] = {_ROOT: {}}
        self._pending: list[_Naming] = []
        self._cursors: dict[str, int | None] = {}
        """Where an open file is written next; None for its end."""
        self._nodes = _ROOT

    def apply(self, call: Call) -> bool:
        """Take in a call; False if it is not about this disk.

        Raises:
            NotImplementedError: a call whose effect is not known here.
        """
        if call.name in ("sendto", "sendmsg"):
            return False
        parts = [self._parts(path) for path in call.paths]
        if not any(part is not None and (part[:1] == [self._within] or not part) for part in parts):
            return False
        places = [part or [] for part in parts]
        match call.name:
            case "open" | "openat" | "creat":
                self._open(call, places[0])
            case "write" | "writev":
                self._write(call, places[0], self._cursors[call.descriptors[0][0]])
            case "pwrite64":
                self._write(call, places[0], call.numbers[-1])
            case "ftruncate" | "truncate":
                self._file(places[0]).change(_Change(call.ended, 0, size=call.numbers[0]))
            case "fsync" | "fdatasync":
                self._settle(self._find(places[0]), call.begun)
            case "mkdir" | "mkdirat":
                self._name(call, places[0], self._new_folder())
            case "unlink" | "unlinkat":
                self._pend(_Naming(call.ended, self._find(places[0][:-1]), gone=places[0][-1]))
            case "rename" | "renameat" | "renameat2":
                self._rename(call, places[0], places[1])
            case _:
                raise NotImplementedError(f"{call.name}({call.words})")
        return True

    def settle(self) -> None:
        """Flush everything."""
        for node in [*self._files, *self._live]:
            self._settle(node)

    def whole(self) -> Tree:
        """What is there while the power is on."""
        return self._tree(self._pending, _kept)[0]

    def certain(self) -> Tree:
        """What is there after the worst power loss: nothing that was not flushed."""
        return self._tree([], _lost)[0]

    def losses(self, chance: random.Random, most: int) -> Iterator[Loss]:
        """About `most` of the states that a power loss may leave now; some are equal.

        First each earlier moment of the names (far back, only some), each with the data kept, lost, zeroed and torn,
        and each single name lost. Then any of the names, and each file with a fate of its own.
        """
        fates: list[_Fate] = [_kept, _lost, _zeroed, _torn_by(chance)]
        moments = range(len(self._pending) + 1)
        if len(moments) * len(fates) > most:
            moments = chance.sample(moments, max(1, most // len(fates) // 2))
        for moment in moments:
            for fate in fates:
                yield self._loss(self._pending[:moment], fate)
        for lost in self._pending[-most:]:
            yield self._loss([naming for naming in self._pending if naming is not lost], _kept)
        for _ in range(most - len(moments) * len(fates)):
            names = [naming for naming in self._pending if chance.random() < 0.5]
            yield self._loss(names, lambda file: chance.choice(fates)(file))

    def _loss(self, names: Sequence[_Naming], fate: _Fate) -> Loss:
        tree, faults = self._tree(names, fate)
        return Loss(tree, frozenset(faults | ({NAME_LOST} if len(names) < len(self._pending) else set())))

    def _tree(self, names: Sequence[_Naming], fate: _Fate) -> tuple[Tree, set[str]]:
        folders = dict(self._settled)
        for naming in names:
            if folders[naming.folder] is self._settled[naming.folder]:
                folders[naming.folder] = dict(folders[naming.folder])
            naming.on(folders[naming.folder])
        tree: Tree = {}
        faults: set[str] = set()

        def walk(folder: Mapping[str, int], before: str) -> None:
            for name, node in folder.items():
                if node in folders:
                    tree[before + name] = None
                    walk(folders[node], f"{before}{name}/")
                    continue
                file = self._files[node]
                told, content = fate(file) if file.pending else ("", file.live)
                if content == file.live:
                    content = file.live  # the very same bytes: they are hashed once
                else:
                    faults.add(told)
                tree[before + name] = content

        walk(folders[_ROOT], "")
        return tree, faults

    def _parts(self, path: str) -> list[str] | None:
        if path == self._root:
            return []
        if not path.startswith(self._root + os.sep):
            return None
        return path[len(self._root) + 1 :].split(os.sep)

    def _find(self, place: Sequence[str]) -> int:
        node = _ROOT
        for name in place:
            node = self._live[node][name]
        return node

    def _file(self, place: Sequence[str]) -> _File:
        return self._files[self._find(place)]

    def _open(self, call: Call, place: list[str]) -> None:
        if not place or "O_DIRECTORY" in call.words:
            return
        if place[-1] not in self._live[self._find(place[:-1])]:
            self._nodes += 1
            self._files[self._nodes] = _File()
            self._name(call, place, self._nodes)
        file = self._file(place)
        if (call.name == "creat" or "O_TRUNC" in call.words) and file.live:
            file.change(_Change(call.ended, 0, size=0))
        self._cursors[str(call.result)] = None if "O_APPEND" in call.words else 0

    def _write(self, call: Call, place: list[str], offset: int | None) -> None:
        file, data = self._file(place), call.data
        start = len(file.live) if offset is None else offset
        file.change(_Change(call.ended, start, data))
        if offset is not None and call.name != "pwrite64":
            self._cursors[call.descriptors[0][0]] = start + len(data)

    def _new_folder(self) -> int:
        self._nodes += 1
        self._settled[self._nodes], self._live[self._nodes] = {}, {}
        return self._nodes

    def _name(self, call: Call, place: list[str], node: int) -> None:
        self._pend(_Naming(call.ended, self._find(place[:-1]), name=place[-1], node=node))

    def _rename(self, call: Call, source: list[str], target: list[str]) -> None:
        if source[:-1] != target[:-1]:
            raise NotImplementedError("a rename from one folder into another")
        self._pend(_Naming(call.ended, self._find(source[:-1]), source[-1], target[-1], self._find(source)))

    def _pend(self, naming: _Naming) -> None:
        naming.on(self._live[naming.folder])
        self._pending.append(naming)

    def _settle(self, node: int, before: int | None = None) -> None:
        """A flush makes durable what was done before it began, and no name of a file but in that very folder."""
        moment = before if before is not None else 1 << 62
        if node in self._files:
            self._files[node].settle(moment)
            return
        for naming in [naming for naming in self._pending if naming.folder == node and naming.ended < moment]:
            naming.on(self._settled[node])
            self._pending.remove(naming)


def _kept(file: _File) -> tuple[str, bytes]:
    return "", file.live


def _lost(file: _File) -> tuple[str, bytes]:
    return DATA_LOST, file.settled


def _zeroed(file: _File) -> tuple[str, bytes]:
    """The new size reached the disk, the new data did not."""
    return DATA_ZEROED, file.settled[: len(file.live)].ljust(len(file.live), b"\0")


def _torn_by(chance: random.Random) -> _Fate:
    def torn(file: _File) -> tuple[str, bytes]:
        """The changes up to any byte of any of them, often the last, and for the rest perhaps the size alone."""
        until = chance.randrange(len(file.pending))
        content = file.settled
        for change in file.pending[:until]:
            content = change.on(content)
        last = file.pending[until]
        if last.data:
            content = _Change(last.ended, last.offset, last.data[: chance.randrange(len(last.data) + 1)]).on(content)
        return DATA_TORN, content.ljust(len(file.live), b"\0") if chance.random() < 0.5 else content

    return torn
