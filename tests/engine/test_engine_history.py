"""Reading the history whole, though it moves while it is read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engine.history import MAX_PAGES, MISSING_AT_THE_END, PAGE_TRIES, Listed, read_history
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Unavailable

NOW_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000
PAGE = 100


def row(number: int) -> HistoryRow:
    return HistoryRow(f"request-{number:05}", "COMPLETED", None, None, "", None, (NOW_US,))


class Shelf:
    """A history of `rows`, the newest first; `arrive` more come in before each page.

    Behind the last page it answers with 404 `missing` times, and then with an empty page.
    """

    def __init__(
        self, rows: int, *, arrive: int = 0, failures: int = 0, repeats_last: bool = False, missing: int = 0
    ) -> None:
        self.rows = [row(number) for number in range(rows)]
        self.pages = 0
        self.windows: set[tuple[str, str]] = set()
        self._arrive, self._failures, self._repeats_last = arrive, failures, repeats_last
        self.missing = missing

    async def history(self, page: int, from_date: str, to_date: str, _model: str) -> list[HistoryRow] | Unavailable:
        self.pages += 1
        self.windows.add((from_date, to_date))
        if self._failures:
            self._failures -= 1
            return Unavailable("HTTP 500", 500)
        self.rows[:0] = [row(len(self.rows) + more) for more in range(self._arrive)]
        listed = self.rows[(page - 1) * PAGE : page * PAGE]
        if not listed and self.missing:
            self.missing -= 1
            return Unavailable("HTTP 404: Invalid page.", 404)
        return self.rows[-PAGE:] if self._repeats_last and not listed else listed


def read(shelf: Shelf, days: int = 1) -> list[HistoryRow] | None:
    """The rows; None if they could not be read whole."""
    listed = read_as_far_as_possible(shelf, days)
    return listed.rows if listed.is_whole else None


def read_as_far_as_possible(shelf: Shelf, days: int = 1) -> Listed:
    async def ask(question: Callable[[], Awaitable[Any]]) -> Any:
        return await question()

    async def pause(_seconds: float) -> None:
        return

    run = SimpleNamespace(
        ask=ask,
        pause=pause,
        provider=shelf,
        stopping=SimpleNamespace(is_stopping=False),
        settings=SimpleNamespace(retry=SimpleNamespace(base_delay_s=0.0)),
    )
    return asyncio.run(read_history(run, {"kling-2"}, NOW_US - days * DAY_US, NOW_US))  # type: ignore[arg-type]


@pytest.mark.parametrize("arrive", [0, 1, 30, 99])
@pytest.mark.parametrize("rows", [1, 99, 100, 101, 350])
def test_rows_that_come_in_while_it_is_read_hide_none(rows: int, arrive: int) -> None:
    """Every request that was there at the start is read, as long as less than a page comes in between two pages."""
    found = read(Shelf(rows, arrive=arrive))
    assert found is not None
    assert {f"request-{number:05}" for number in range(rows)} <= {each.request_id for each in found}


def test_a_whole_page_that_comes_in_at_once_hides_none() -> None:
    """A page that was all seen before is not yet the end."""

    class Burst(Shelf):
        async def history(self, page: int, *rest: str) -> list[HistoryRow] | Unavailable:
            self._arrive = PAGE if page == 2 else 0
            return await super().history(page, *rest)

    found = read(Burst(350))
    assert found is not None
    assert {f"request-{number:05}" for number in range(350)} <= {each.request_id for each in found}


def test_a_provider_that_repeats_its_last_page_for_ever_ends() -> None:
    """Two pages of nothing new are the end."""
    shelf = Shelf(150, repeats_last=True)
    found = read(shelf)
    assert found is not None
    assert len(found) == 150
    assert shelf.pages < 10


def test_a_page_that_cannot_be_read_is_asked_for_again_and_a_missing_one_spoils_the_whole() -> None:
    """What is not read whole is not read at all: absence must not be concluded from it."""
    found = read(Shelf(150, failures=PAGE_TRIES - 1))
    assert found is not None
    assert len(found) == 150
    assert read(Shelf(150, failures=PAGE_TRIES)) is None


@pytest.mark.parametrize("rows", [1, 99, 100, 350])
def test_a_page_that_does_not_exist_is_behind_the_last(rows: int) -> None:
    """A provider may answer it with 404: if it does so twice, the history is read whole."""
    shelf = Shelf(rows, missing=10**9)
    found = read(shelf)
    assert found is not None
    assert len(found) == rows
    assert shelf.pages == -(-rows // PAGE) + MISSING_AT_THE_END


def test_one_answer_of_404_is_not_yet_the_end_and_of_the_first_page_none_is() -> None:
    """A slip must not hide the pages behind it, and a history that is not there is not empty."""

    class Slip(Shelf):
        async def history(self, page: int, *rest: str) -> list[HistoryRow] | Unavailable:
            if page == 2 and self.missing:
                self.missing -= 1
                return Unavailable("HTTP 404", 404)
            return await super().history(page, *rest)

    found = read(Slip(350, missing=1))
    assert found is not None
    assert len(found) == 350
    assert read(Shelf(0, missing=10**9)) is None


def test_what_was_read_of_a_history_that_breaks_off_is_there_all_the_same() -> None:
    """Only that it is not the whole is said."""

    class Broken(Shelf):
        async def history(self, page: int, *rest: str) -> list[HistoryRow] | Unavailable:
            return Unavailable("HTTP 400", 400) if page > 2 else await super().history(page, *rest)

    listed = read_as_far_as_possible(Broken(350))
    assert (len(listed.rows), listed.is_whole) == (200, False)


def test_an_endless_history_is_given_up() -> None:
    """More pages than anybody has are no history; the bound ends it as unread."""

    class Endless(Shelf):
        async def history(self, page: int, *_: str) -> list[HistoryRow]:
            self.pages += 1
            return [row(page * PAGE + number) for number in range(2)]

    shelf = Endless(0)
    assert read(shelf) is None
    assert shelf.pages == MAX_PAGES


def test_a_life_of_months_is_asked_for_in_windows_that_the_provider_answers() -> None:
    """No window is longer than thirty days, and together they leave no day out."""
    shelf = Shelf(0)
    assert read(shelf, days=100) == []
    windows = sorted(shelf.windows)
    assert len(windows) == 4
    assert windows[0][0] == "2026-10-07"
    assert windows[-1][1] == "2027-01-15"
    for (_, ended), (begun, _) in itertools.pairwise(windows):
        assert begun > ended
