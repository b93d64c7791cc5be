"""What comes next is got ready meanwhile: in order, one at a time, and a failure comes at its own place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.kernel.ahead import one_ahead


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_next_part_is_made_while_one_is_used() -> None:
    """One more than was asked for, by another thread, and no more than that."""
    begun = [threading.Event() for _ in range(3)]
    may_end = [threading.Event() for _ in range(3)]
    makers: set[int] = set()

    def parts() -> Iterator[int]:
        for number in range(3):
            makers.add(threading.get_ident())
            begun[number].set()
            assert may_end[number].wait(60)
            yield number

    may_end[0].set()
    with one_ahead(parts()) as ahead:
        assert next(ahead) == 0
        assert begun[1].wait(60), "the second is made while the first is in use"
        may_end[1].set()
        assert next(ahead) == 1
        assert begun[2].wait(60)
        may_end[2].set()
        assert list(ahead) == [2]
    assert makers
    assert threading.get_ident() not in makers
    assert not threads_of_ours()


def test_no_more_than_one_is_made_ahead() -> None:
    """At most one part more than were taken is ever made."""
    made = []

    def parts() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with one_ahead(parts()) as ahead:
        for number in range(5):
            assert next(ahead) == number
            assert len(made) <= number + 2
    assert len(made) <= 6
    assert not threads_of_ours(), "whoever stops in between leaves no thread behind"


def test_a_failure_comes_where_its_part_would_have_come() -> None:
    """The parts before it come first."""

    def parts() -> Iterator[int]:
        yield 1
        yield 2
        raise FileNotFoundError("gone")

    with one_ahead(parts()) as ahead:
        assert (next(ahead), next(ahead)) == (1, 2)
        with pytest.raises(FileNotFoundError, match="gone"):
            next(ahead)


def test_of_nothing_nothing_comes() -> None:
    """An iterator without a part ends at once."""
    with one_ahead(iter(())) as ahead:
        assert list(ahead) == []
