"""What real lives ask of the system, as another process sees it: `strace` writes down each call that moves data.

The lives are what they always are; nothing in them knows. All stories are traced by one `strace`, over one process
that forks each life once everything is imported.

    nights = trace([Story("clean", make_world(folder))])
    nights[0].calls                  # of that story alone, in the order in which they ended
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import worlds
from worlds import Doom, World

from pipeline.ledger import ballast

BALLAST_BYTES = 4096
"""Of the lives that are traced: a megabyte that means nothing and is never flushed would be another in each state."""

_CALLS = (
    "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendfile,copy_file_range,"
    "fsync,fdatasync,sync,syncfs,truncate,ftruncate,fallocate,mkdir,mkdirat,rmdir,unlink,unlinkat,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat"
)
_LONGEST = 2**24
"""Bytes of one argument that are written down: more than any life writes at once."""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>|(\w+)\()(.*)")
_UNFINISHED = " <unfinished ...>"
_ENDED = re.compile(r"(.*)\)\s+= (-?\d+)(?:<([^>]*)>)?")
# Bytes are all written as \x61, so no text holds what ends it; some are of megabytes.
_TEXT = re.compile(r'"([^"]*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"(\w+)<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Story:
    """Lives to be traced, one after the other, in a world of their own. Each life has its dooms."""

    name: str
    world: World
    lives: Sequence[Sequence[Doom]] = ((),)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded. `begun` and `ended` are moments of the trace: who ended before another began was first.

    `words` are the arguments as told, `texts` the strings among them, `descriptors` the numbers and paths of the files.
    """

    name: str
    begun: int
    ended: int
    result: int
    words: str
    texts: tuple[bytes, ...]
    descriptors: tuple[tuple[str, str], ...]

    @property
    def data(self) -> bytes:
        """What was written or sent."""
        return b"".join(self.texts)[: self.result]

    @property
    def paths(self) -> list[str]:
        """The files that it is about."""
        if self.name in _BY_DESCRIPTOR:
            return [self.descriptors[0][1]]
        folder = next((path for number, path in self.descriptors if number == "AT_FDCWD"), "")
        return [os.path.join(folder, os.fsdecode(text)) for text in self.texts]

    @property
    def numbers(self) -> list[int]:
        """The arguments that are plain numbers, in order."""
        return [int(number) for number in re.findall(r", (\d+)(?=,|$)", self.words)]


_BY_DESCRIPTOR = {
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg", "sendfile", "copy_file_range"),
    *("fsync", "fdatasync", "syncfs", "ftruncate", "fallocate"),
}


@dataclass(frozen=True, slots=True)
class Night:
    """A story as it went: its world when it was over, and its calls."""

    name: str
    world: World
    calls: list[Call]


def trace(stories: Sequence[Story], log: Path) -> list[Night]:
    """Live all stories under `strace`, which writes to `log`.

    Raises:
        AssertionError: it could not trace, or a life did not go as it should.
    """
    command = [
        *("strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "--strings-in-hex=all", "--signal=none"),
        *("--string-limit", str(_LONGEST), "--trace", _CALLS, "--output", str(log)),
        *(sys.executable, "-c", "import traced; traced.live_all()"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, input=pickle.dumps(list(stories)), capture_output=True, env=environment)
    assert done.returncode == 0, f"strace ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
    calls = list(_read(log))
    return [
        Night(story.name, world, [call for call in calls if _is_of(world, call)])
        for story, world in zip(stories, pickle.loads(done.stdout), strict=True)
    ]


def live_all() -> None:
    """What runs under `strace`: the stories come by stdin, their worlds go to stdout."""
    import nursery  # noqa: F401

    worlds.fork = _fork
    ballast.BALLAST_BYTES = BALLAST_BYTES
    stories: list[Story] = pickle.load(sys.stdin.buffer)
    for story in stories:
        for dooms in story.lives:
            story.world.live(dooms)
    sys.stdout.buffer.write(pickle.dumps([story.world for story in stories]))


def _fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def _is_of(world: World, call: Call) -> bool:
    """Whether a call is about the world's files, or sends something to its provider."""
    if call.name in ("sendto", "sendmsg"):
        return b"Host: 127.0.0.1:%d\r\n" % world.provider["port"] in call.data
    return any(f"{path}/".startswith(f"{world.folder}/") for path in call.paths)


def _read(log: Path) -> Iterator[Call]:
    """The calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[str, int, str]] = {}
    with log.open(encoding="ascii") as lines:
        for moment, line in enumerate(lines):
            if (found := _LINE.match(line)) is None:
                continue
            thread, name, rest = found[1], found[2], found[3]
            if name is None:
                name, since, before = begun.pop(thread)
                rest = before + rest
            else:
                since = moment
            if rest.endswith(_UNFINISHED):
                begun[thread] = (name, since, rest.removesuffix(_UNFINISHED))
            elif (ended := _ENDED.match(rest)) is not None and int(ended[2]) >= 0:
                yield _call(name, since, moment, ended)


def _call(name: str, begun: int, ended: int, told: re.Match[str]) -> Call:
    texts = _TEXT.findall(told[1])
    assert not any(cut for _, cut in texts), f"a {name} of more than {_LONGEST} bytes was not written down whole"
    descriptors = tuple((number, os.fsdecode(_plain(path))) for number, path in _DESCRIPTOR.findall(told[1]))
    words = _DESCRIPTOR.sub(r"\1", _TEXT.sub('""', told[1]))
    return Call(name, begun, ended, int(told[2]), words, tuple(_plain(text) for text, _ in texts), descriptors)


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace(r"\x", ""))
