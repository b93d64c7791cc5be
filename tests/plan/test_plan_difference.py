"""What changed since the last run, and what would be bought again under another id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from job_doubles import make_job
from test_plan import BOUGHT, FIVE, GIVEN_UP, TEN, job, lived, price

from pipeline import jobs as module
from pipeline.difference import Difference, bought_again, difference, paid_and_unasked
from pipeline.jobs import Job
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import State
from pipeline.manifest import Entry
from pipeline.models import find_model
from pipeline.report.lines import Key, Line


def asked(*rows: tuple[str, Job]) -> list[Entry]:
    """Entries by the ids of their rows; rows of one id are one."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in rows), start=1)}
    return [Entry(numbers[name], name, each, {}, 0) for name, each in rows]


def changes(before: Sequence[Entry], now: Sequence[Entry], state: State | None = None) -> Difference:
    lines = [Key(each.row, each.row_id, each.job.job_id) for each in before]
    return difference(lines, now, state or State(), price)


A, B, C, LONG = job("a"), job("b"), job("c"), job("long", 10)


def test_what_costs_nothing_is_no_change() -> None:
    """Rows moved or renamed, also one that shares its job: nothing is said."""
    assert not changes(asked(("x", A), ("y", B)), asked(("renamed", B), ("x", A)))
    assert not changes(asked(("x", A), ("y", A)), asked(("y", A)))


def test_rows_added_and_removed() -> None:
    """What is new is priced as far as it is not made yet; what is gone says what stays and what it has cost."""
    state = lived((A, BOUGHT), (B, BOUGHT[:2]), (LONG, BOUGHT))
    found = changes(asked(("x", A), ("y", B)), asked(("z", C), ("z", LONG), ("u", job("d", 10))), state)
    assert (found.added.rows, found.added.jobs, found.added.to_do, found.added.cost) == (2, 3, 2, FIVE + TEN)
    gone = found.removed
    assert (gone.rows, gone.jobs, gone.videos, gone.on_their_way, gone.spent) == (2, 0, 1, 1, FIVE)
    assert found.changed.rows == 0


def test_a_row_that_keeps_its_id_is_changed() -> None:
    """New jobs at their price, old videos that stay; fewer takes are a change, too."""
    state = lived((A, BOUGHT), (B, GIVEN_UP))
    found = changes(asked(("x", A), ("y", B), ("z", C)), asked(("x", LONG), ("y", C), ("z", C)), state)
    changed = found.changed
    assert (changed.rows, changed.jobs, changed.cost, changed.videos, changed.spent) == (2, 1, TEN, 1, FIVE)
    assert (found.added.rows, found.removed.rows) == (0, 0)
    fewer = changes(asked(("x", A), ("x", B)), asked(("x", B)), state).changed
    assert (fewer.rows, fewer.jobs, fewer.cost, fewer.videos) == (1, 0, 0, 1)


def params(name: str, **more: Any) -> dict[str, Any]:
    normal, problems = find_model("kling-2").normalise({"prompt": name, **more})
    assert not problems
    return normal


def kept(each: Job, row_id: str = "x") -> Line:
    return Line(1, row_id, each.replicate, each.job_id, each.model, each.params, {})


def rebought(now: Sequence[Job], state: State, lines: Sequence[Line], requests: dict[str, str] | None = None) -> Any:
    by_id = {each.job_id: each for each in now}
    found = bought_again(by_id, state, paid_and_unasked(list(by_id), state), lines, requests or {})
    return [(each.name, each.liability) for each in found]


@pytest.fixture
def old_and_new(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Job], list[Job]]:
    """The same three jobs by two schemes: two takes of one prompt, and another prompt."""
    wanted = [("a", 1), ("a", 2), ("b", 1)]
    old = [make_job("kling-2", params(name), take, name) for name, take in wanted]
    monkeypatch.setattr(module, "ID_VERSION", 2)
    return old, [make_job("kling-2", params(name), take, name) for name, take in wanted]


def test_an_id_scheme_that_buys_again_is_found_by_the_rows_kept(old_and_new: tuple[list[Job], list[Job]]) -> None:
    """What is paid or may be, and is to do under its new id; not what failed, nor what is not asked for any more."""
    old, new = old_and_new
    state = lived((old[0], BOUGHT), (old[1], BOUGHT[:2]), (old[2], GIVEN_UP))
    lines = [kept(each) for each in old]
    assert rebought(new, state, lines) == [("x-1", FIVE), ("x-2", FIVE)]
    assert rebought(new[1:], state, lines) == [("x-2", FIVE)]
    assert rebought([new[2]], state, lines) == []
    assert rebought(old, state, lines) == []


def test_an_id_scheme_that_buys_again_is_found_by_the_bodies_sent(old_and_new: tuple[list[Job], list[Job]]) -> None:
    """Without rows kept, a body counts as often as it is to do, and none counts twice."""
    old, new = old_and_new
    state = lived(*((each, BOUGHT) for each in old))
    bodies = {each.job_id: each.body.decode() for each in old}
    assert rebought(new, state, [], bodies) == [(each.job_id, FIVE) for each in old]
    assert rebought(new[:1], state, [], bodies) == [(old[0].job_id, FIVE)]
    assert rebought(new[:1], state, [kept(old[0])], bodies) == [("x-1", FIVE)]
    assert rebought(new, state, [kept(old[0])], bodies) == [
        ("x-1", FIVE),
        (old[1].job_id, FIVE),
        (old[2].job_id, FIVE),
    ]
    assert rebought(new, state, [], dict.fromkeys(bodies, "no JSON")) == []


def test_rows_that_this_version_does_not_understand_are_passed_over(old_and_new: tuple[list[Job], list[Job]]) -> None:
    """A parameter that is refused now, or a model that is gone, is no reason to fail."""
    old, new = old_and_new
    state = lived((old[0], BOUGHT))
    image = {**old[0].params, "start_image": f"sha256:{'0' * 64}"}
    assert rebought(new, state, [Line(1, "x", 1, old[0].job_id, "kling-2", image, {})]) == []
    assert rebought(new, state, [Line(1, "x", 1, old[0].job_id, "kling-0", old[0].params, {})]) == []


def test_an_edited_row_is_no_other_scheme() -> None:
    """The old video of a prompt that was edited is paid, unasked for, and nobody's mistake."""
    old = make_job("kling-2", params("a"), 1, "a")
    new = make_job("kling-2", params("b"), 1, "a")
    assert rebought([new], lived((old, [*BOUGHT[:1], EventKind.IN_DOUBT])), [kept(old)]) == []
