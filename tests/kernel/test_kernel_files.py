"""Durable files: the old one or the new one at every failure and every death, and one holder of a lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_faults import Disk, Killed

from pipeline.kernel import files
from pipeline.kernel.files import (
    hold_lock,
    is_held,
    keep_file,
    make_folder,
    open_temporary,
    remove_leftovers,
    replacing,
    write_all,
    write_file,
)

OLD, NEW = b"old" * 1_000, b"newer" * 1_000
LONGEST = 40


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    return Disk(monkeypatch, tmp_path)


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_write_leaves_the_old_file_or_the_new_one(
    disk: Disk, tmp_path: Path, existing: bool, error: int
) -> None:
    """Whichever call fails, it is said, nothing is torn and no temporary file stays."""
    path = tmp_path / "file"
    for call in range(1, LONGEST):
        disk.heal()
        path.unlink(missing_ok=True)
        if existing:
            path.write_bytes(OLD)
        disk.fail_at(call, error)
        try:
            write_file(path, NEW)
        except OSError as failure:
            said = failure.errno
            assert said == error
            named = any(name.startswith("replace") for name in disk.calls[: call - 1])
            assert (path.read_bytes() if path.exists() else None) == (NEW if named else OLD if existing else None)
            assert [entry.name for entry in tmp_path.iterdir() if entry != path] == []
        else:
            break
    assert call > 7, "open, write, fsync, close, replace and the folder's three were tried"
    assert path.read_bytes() == NEW


def test_a_death_in_the_middle_of_a_write_leaves_the_old_file_or_the_new_one(disk: Disk, tmp_path: Path) -> None:
    """Wherever the process dies; what it leaves behind is hidden, and the next one sweeps it away."""
    path = tmp_path / "file"
    for call in range(1, LONGEST):
        disk.heal()
        path.write_bytes(OLD)
        disk.kill_at(call)
        try:
            write_file(path, NEW)
        except Killed:
            assert path.read_bytes() in (OLD, NEW)
            assert all(entry.name.startswith(".") for entry in tmp_path.iterdir() if entry != path)
            disk.heal()
            remove_leftovers(tmp_path)
            assert list(tmp_path.iterdir()) == [path]
        else:
            break
    assert call > 7


def test_a_file_is_flushed_before_it_has_its_name_and_its_name_after(disk: Disk, tmp_path: Path) -> None:
    """Data first, then the name, then the folder: no power loss shows a named file without its bytes."""
    write_file(tmp_path / "file", NEW)
    order = [call for call in disk.calls if call.startswith(("write", "fsync", "replace"))]
    assert order == ["write", "fsync file", "replace file", "fsync folder"]


def test_short_writes_lose_nothing(disk: Disk, tmp_path: Path) -> None:
    """A disk that takes fewer bytes than it is given is given the rest."""
    disk.write_short()
    write_file(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert disk.calls.count("write") > 3


def test_a_disk_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Zero bytes written is a failure to report, not a reason to try for ever."""
    monkeypatch.setattr(os, "write", lambda _descriptor, _data: 0)
    with pytest.raises(OSError, match="takes nothing more"):
        write_file(tmp_path / "file", NEW)
    assert list(tmp_path.iterdir()) == []


def test_the_first_error_is_the_one_that_is_told(disk: Disk, tmp_path: Path) -> None:
    """A disk that refuses even the cleaning up does not hide why the write failed."""
    calls: list[str] = []
    disk.before_call = calls.append
    for error, call in ((errno.ENOSPC, 2), (errno.EROFS, 3)):
        disk.fail_at(call, error, forever=True)
        with pytest.raises(OSError) as caught:
            write_file(tmp_path / "file", NEW)
        assert caught.value.errno == error
    assert "unlink" in calls


def test_a_link_under_the_final_name_is_replaced_not_followed(tmp_path: Path) -> None:
    """Whoever plants a link does not get its target overwritten."""
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    (tmp_path / "file").symlink_to(victim)
    write_file(tmp_path / "file", NEW)
    assert victim.read_bytes() == OLD
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == NEW


@pytest.mark.parametrize("ends_well", [True, False])
def test_nothing_is_written_once_a_file_is_closed(ends_well: bool, tmp_path: Path) -> None:
    """Its number is another file's then. Arrow lets go of a table late, and writes the end of it once more."""
    with contextlib.suppress(RuntimeError), replacing(tmp_path / "file") as write:
        write(NEW)
        if not ends_well:
            raise RuntimeError
    others = [(tmp_path / f"other {number}").open("xb") for number in range(8)]
    with pytest.raises(ValueError, match="closed"):
        write(b"the end")
    for file in others:
        file.close()
    assert all(path.stat().st_size == 0 for path in tmp_path.glob("other*"))
    assert (tmp_path / "file").exists() is ends_well


@pytest.mark.parametrize("before", [None, OLD, NEW[:-1], NEW + b"!", NEW[:-1] + b"!"])
def test_a_file_that_holds_what_it_is_to_hold_is_left_alone(
    before: bytes | None, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is there is replaced, as by any write; also a link to the very same bytes."""
    monkeypatch.setattr(files, "_CHUNK", 8)  # which ends where the file does
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    keep_file(path, NEW)
    assert path.read_bytes() == NEW
    assert "fsync file" in disk.calls
    flushes = disk.calls.count("fsync file")
    kept = path.stat()
    keep_file(path, NEW)
    assert path.stat() == kept
    assert disk.calls.count("fsync file") == flushes
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    keep_file(path, NEW)
    assert not path.is_symlink()
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("planted", ["link", "dangling link", "file"])
def test_what_stands_under_the_temporary_name_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """Even a guessed temporary name leads nowhere: neither through a link nor into an existing file."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda _count: "guessed")
    victim, temporary = tmp_path / "victim", tmp_path / ".guessed.part"
    if planted == "file":
        temporary.write_bytes(OLD)
    else:
        temporary.symlink_to(victim)
        if planted == "link":
            victim.write_bytes(OLD)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "file", NEW)
    assert not (tmp_path / "file").exists()
    assert victim.exists() == (planted == "link")
    assert planted == "dangling link" or temporary.read_bytes() == OLD


def test_only_temporary_files_are_swept_away(tmp_path: Path) -> None:
    """Leftovers go, everything else stays, and a folder that is not there has none."""
    descriptor, leftover = open_temporary(tmp_path)
    write_all(descriptor, b"half")
    os.close(descriptor)
    for name in ("video.mp4", "x.part", ".hidden", "_lock"):
        (tmp_path / name).touch()
    assert leftover.name.startswith(".")
    assert remove_leftovers(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "_lock", "video.mp4", "x.part"]
    assert remove_leftovers(tmp_path / "missing") == 0


def test_new_folders_are_durable_down_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new name is flushed in its parent before anything is made below it, as is one that was left behind."""
    flushed: list[Path] = []
    real = files.fsync_folder
    monkeypatch.setattr(files, "fsync_folder", lambda folder: (flushed.append(folder), real(folder)))
    (tmp_path / "a").mkdir()
    make_folder(tmp_path / "a" / "b" / "c")
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert (tmp_path / "a" / "b" / "c").is_dir()
    make_folder(tmp_path / "a" / "b" / "c")
    assert flushed[3:] == [tmp_path / "a" / "b"]


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """What is written into it would land somewhere else; where its parent leads is the user's own choice."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("linked", "dangling"):
        with pytest.raises(OSError, match=f"{name} is a link, and nothing is written through a link"):
            make_folder(tmp_path / name)
    make_folder(tmp_path / "linked" / "own")
    assert (tmp_path / "elsewhere" / "own").is_dir()
    assert not (tmp_path / "nowhere").exists()


def test_a_parent_that_may_not_be_read_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory may stand in a folder of somebody else; a disk that fails is another matter."""
    refusal: OSError = PermissionError(errno.EACCES, "no")

    def refuse(_folder: Path) -> None:
        raise refusal

    monkeypatch.setattr(files, "fsync_folder", refuse)
    make_folder(tmp_path)
    refusal = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken"):
        make_folder(tmp_path)


# --- the lock ---------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from pipeline.kernel.files import hold_lock
try:
    with hold_lock(Path(sys.argv[1]), "the other process"):
        print("held", flush=True)
        sys.stdin.read()
except BlockingIOError as refusal:
    print("refused", Path(refusal.filename).name, flush=True)
"""


def other_process(lock: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "_lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with other_process(lock) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(lock: Path) -> None:
    """As long as one holds it, another gets nothing, however often somebody looks; then it does."""
    with hold_lock(lock, "me"):
        assert all(is_held(lock) for _ in range(3))
        with other_process(lock) as process:
            assert process.communicate()[0] == "refused _lock\n"
        assert lock.read_bytes() == b"me"
    assert lock.read_bytes() == b""
    assert not is_held(lock)


def test_a_killed_holder_holds_nothing(lock: Path, holder: subprocess.Popen[str]) -> None:
    """The kernel frees the lock of a process that is killed; the file stays, so that everybody locks the same one."""
    inode = lock.stat().st_ino
    with pytest.raises(BlockingIOError) as refusal, hold_lock(lock, "me"):
        pass
    assert refusal.value.filename == str(lock)
    assert lock.read_bytes() == b"the other process"
    assert is_held(lock)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_held(lock)
    with hold_lock(lock, "me"):
        assert lock.read_bytes() == b"me"
    assert lock.stat().st_ino == inode


def test_looking_keeps_nobody_out(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks in the very instant in which a run starts delays it by a moment and no more."""
    lock.touch()
    looking = os.open(lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    pauses: list[float] = []
    monkeypatch.setattr(files.time, "sleep", lambda seconds: (pauses.append(seconds), os.close(looking)))
    with hold_lock(lock, "me"):
        assert len(pauses) == 1
    assert not is_held(lock)


def test_other_descriptors_do_not_lose_the_lock(lock: Path) -> None:
    """Opening, reading and closing the file in the same process leaves it locked."""
    with hold_lock(lock, "me"):
        lock.read_bytes()
        os.close(os.open(lock, os.O_RDWR))
        with other_process(lock) as process:
            assert process.communicate()[0] == "refused _lock\n"


def test_a_lock_is_freed_by_an_error_and_never_taken_through_a_link(lock: Path, tmp_path: Path) -> None:
    """What ends the block frees it; a link in its place is refused and its target left alone."""
    with pytest.raises(RuntimeError), hold_lock(lock, "me"):
        raise RuntimeError
    assert not is_held(lock)
    assert not is_held(tmp_path / "missing")
    (tmp_path / "victim").write_bytes(OLD)
    (tmp_path / "planted").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), hold_lock(tmp_path / "planted", "me"):
        pass
    assert (tmp_path / "victim").read_bytes() == OLD


@pytest.mark.parametrize(("make", "why"), [(os.mkfifo, "not a regular file"), (os.mkdir, "directory")])
def test_what_is_no_file_is_no_lock(lock: Path, make: Callable[[Path], None], why: str) -> None:
    """A pipe is not waited for: nobody may ever write into it."""
    make(lock)
    with pytest.raises(OSError, match=rf"(?i)\b{why}"), hold_lock(lock, "me"):
        pass
    with pytest.raises(OSError, match=why):
        is_held(lock)


def test_a_lock_that_is_let_go_is_free_whatever_the_disk_says(tmp_path: Path, disk: Disk) -> None:
    """The disk that fails when the lock's file is closed takes nothing from what was done under it."""
    lock = tmp_path / "_lock"
    with hold_lock(lock, "me"):
        disk.fail_at(1)
    assert disk.calls == ["close"]
    disk.heal()
    assert not is_held(lock)
