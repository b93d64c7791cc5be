"""What a rehearsal begins with: a copy of what the run directory holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.ledger import columns, segments
from pipeline.ledger.encoding import GENESIS, encode, link
from pipeline.ledger.events import Event, EventKind, stamped
from pipeline.ledger.reading import read_table
from pipeline.ledger.segments import write_segment
from pipeline.rehearsal.before import copy_run


def stored_jobs(folder: Path, count: int) -> None:
    """A ledger of jobs with a plain life."""
    (folder / "ledger").mkdir(parents=True)
    events: list[Event] = []
    for job in range(count):
        for kind, facts in (
            (EventKind.RESERVED, {"quote_microusd": 1_750_000, "model": "kling-2", "request": "{}"}),
            (EventKind.SUBMITTED, {"request_id": f"request-{job}"}),
            (EventKind.POSTED, {"cost_microusd": 1_750_000, "url": f"https://a.segmind.com/{job}.mp4"}),
            (EventKind.STORED, {"path": f"videos/{job}.mp4", "sha256": "a" * 64, "bytes": 5}),
        ):
            event = Event(event=kind, job_id=f"job-{job}", attempt=1, **facts)  # type: ignore[arg-type]
            events.append(stamped(event, len(events) + 1, 1_000 * len(events)))
    write_segment(folder / "ledger", events, encode(events, GENESIS, link(GENESIS, events)))


def test_a_large_directory_is_copied_without_an_object_for_each_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million jobs have four million events, of some kilobyte each. The copy names no video: it is asked for anew."""
    stored_jobs(tmp_path / "real", 300)
    made: list[int] = []
    for module in (segments, columns):
        real = module.decode

        def decode(table, real=real):  # type: ignore[no-untyped-def]
            made.append(len(table))
            return real(table)

        monkeypatch.setattr(module, "decode", decode)
    state = copy_run(tmp_path / "real", tmp_path / "stage")
    assert sum(made) == 0
    assert (len(state.jobs), state.books.posted) == (300, 300 * 1_750_000)
    was, copied = (read_table(tmp_path / name / "ledger") for name in ("real", "stage"))
    assert was.drop_columns("url").equals(copied.drop_columns("url"))
    assert copied["url"].null_count == len(copied)
