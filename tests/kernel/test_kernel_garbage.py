"""Many objects that stay are not looked through for garbage, neither while they are made nor once they are there."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pipeline.kernel.garbage import MANY, no_garbage_collector


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    if not was_on:
        gc.disable()


@pytest.fixture
def looks() -> Iterator[list[int]]:
    """The generation of each look for garbage."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_what_was_made_is_old_at_once(looks: list[int]) -> None:
    """The collector is on again, and what it looks at first is none of it."""
    with no_garbage_collector():
        made = [[number] for number in range(MANY + 1)]
        assert looks == []
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    young = {id(each) for each in gc.get_objects(generation=0)} | {id(each) for each in gc.get_objects(generation=1)}
    assert not young & {id(each) for each in made}


def test_small_blocks_put_off_no_look_at_what_others_make(looks: list[int]) -> None:
    """A service that reads a status again and again makes cycles of its own: they are found, as ever."""
    for _ in range(400):
        cycles = [[] for _ in range(1_000)]
        for cycle in cycles:
            cycle.append(cycle)
        with no_garbage_collector():
            pass
    # Not which look it is: a full one waits, in a process with much in it, until a quarter more is there.
    assert max(looks) > 0


def test_what_somebody_froze_stays_frozen() -> None:
    """Whoever calls this from their own process has their own reasons."""
    # Not by their count: what else was frozen may die meanwhile.
    theirs = [[number] for number in range(1_000)]
    gc.freeze()
    with no_garbage_collector():
        made = [[number] for number in range(MANY + 1)]
    looked_at = {id(each) for each in gc.get_objects()}
    assert id(made) in looked_at
    assert not looked_at & {id(each) for each in theirs}
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    """As it was found."""
    gc.disable()
    with no_garbage_collector():
        assert not gc.isenabled()
    assert not gc.isenabled()
