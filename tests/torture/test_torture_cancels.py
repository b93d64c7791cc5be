"""Cancellation at every await: a task that ends where it waits takes no money, no video and no other job with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from cancels import CancelAtAwait
from score import LONG, Score
from stories import whole_state
from support import durable_state
from worlds import KILLED, Unreported, make_world, side_by_side

from pipeline.engine.stopping import StopReason
from pipeline.ledger.job import JobState

CHUNK = 16
"""Cancellations at successive awaits before it is looked whether a life had fewer."""

pytestmark = pytest.mark.timeout(0 if LONG else 1800)


@pytest.mark.parametrize("rows", [1, 3, 10] if LONG else [1])
def test_a_cancel_at_any_await_leaves_the_bill_covered_and_the_next_life_clean(
    tmp_path: Path, new_score: Callable[[str], Score], rows: int
) -> None:
    """Whichever task is cancelled, at whichever await: covered at once, and right in the end."""
    score = new_score(f"cancel at each await: {rows} {'row' if rows == 1 else 'rows'}")
    seen: set[str] = set()
    """What cancels have left so far: the same lives follow from the same."""

    def cancel(nth: int) -> None:
        label = f"await {nth}"
        with score.trial(label):
            world = make_world(tmp_path / label, rows=rows)
            told = world.folder / "cancelled"
            code = world.live([CancelAtAwait(nth, told)])
            if code not in (KILLED, StopReason.MACHINE.exit_code):
                # It has come to rest, and its ledger could be written to the end.
                assert not durable_state(world.run_folder).counts[JobState.RESERVED], "an attempt was forgotten"
            if told.exists():
                score.fired[f"cancelled {told.read_text()}"] += 1
            world.check_exposure()
            if (state := whole_state(world)) not in seen:
                seen.add(state)
                world.live_on([Unreported()])
                world.check_rest()
            shutil.rmtree(world.folder)

    for first in count(1, CHUNK):
        before = score.fired.total()
        side_by_side(cancel, range(first, first + CHUNK))
        if score.fired.total() - before < CHUNK:
            break
    tasks = ("_alive", "_carry", "_commit", "_keep_house", "_settle_in_background")
    score.conclude(must_fire=[f"cancelled {task}" for task in tasks])
