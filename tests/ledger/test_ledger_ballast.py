"""The ballast: a full disk still takes in what runs, nothing else is given up for it, and readers never see it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from disk_faults import Disk
from ledger_doubles import HandClock, event, life, write_ledger

from pipeline.kernel.errors import MachineError
from pipeline.ledger.ballast import BALLAST_BYTES, give_up_ballast, take_ballast
from pipeline.ledger.reading import read_events
from pipeline.ledger.store import open_ledger


def test_an_open_ledger_holds_room_that_its_readers_do_not_see(folder: Path) -> None:
    """Real bytes, beside the segments, and no event more or less."""
    recorded = write_ledger(folder, [life("stored")])
    ballast = (folder / "_ballast").stat()
    assert ballast.st_size == BALLAST_BYTES
    assert ballast.st_blocks * 512 >= BALLAST_BYTES
    assert read_events(folder) == recorded


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_still_takes_in_what_runs(folder: Path, disk: Disk, error: int) -> None:
    """The event is recorded in the ballast's room, the ledger says that it is short, and the next one is not."""
    with open_ledger(folder, HandClock()) as ledger:
        await ledger.record(event("reserved"))
        assert not ledger.is_short
        disk.fail_at(2, error)
        await ledger.record(event("submitted"))
        assert ledger.is_short
        assert not (folder / "_ballast").exists()
        await ledger.record(event("posted"))
        await ledger.close()
    assert len(read_events(folder)) == 3
    with open_ledger(folder, HandClock()) as ledger:
        assert not ledger.is_short
        assert (folder / "_ballast").stat().st_size == BALLAST_BYTES


async def test_a_disk_that_is_full_twice_is_a_failure(folder: Path, disk: Disk) -> None:
    """The ballast can be given up once: then the ledger takes nothing more, as after any other failure."""
    with open_ledger(folder, HandClock()) as ledger:
        disk.fail_at(2, errno.ENOSPC)
        await ledger.record(event("reserved"))
        disk.fail_at(2, errno.ENOSPC)
        with pytest.raises(MachineError, match="No space left"):
            await ledger.record(event("submitted"))
        disk.heal()
        with pytest.raises(MachineError):
            await ledger.record(event("reserved", "b"))
        await ledger.close()
    assert len(read_events(folder)) == 1


async def test_a_broken_disk_does_not_cost_the_ballast(folder: Path, disk: Disk) -> None:
    """Room is no cure for an I/O error."""
    with open_ledger(folder, HandClock()) as ledger:
        disk.fail_at(2, errno.EIO)
        with pytest.raises(MachineError):
            await ledger.record(event("reserved"))
        assert not ledger.is_short
        assert (folder / "_ballast").exists()
        await ledger.close()


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_ballast_that_cannot_be_had_takes_no_room(folder: Path, disk: Disk, call: int) -> None:
    """Half of one would fill a disk that is full already; what cannot be held cannot be given up."""
    folder.mkdir(parents=True)
    disk.fail_at(call, errno.ENOSPC)
    take_ballast(folder)
    assert disk.has_failed
    assert not list(folder.iterdir())
    assert not give_up_ballast(folder)
