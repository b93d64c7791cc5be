"""Run directories by hand: what happened in them and when, without a run; and a terminal that shows what is printed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.kernel.clock import iso
from pipeline.kernel.files import hold_lock
from pipeline.ledger.encoding import GENESIS, encode, link
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.segments import write_segment
from pipeline.manifest import load_manifest
from pipeline.report.campaign_lines import lines_of
from pipeline.report.jobs_file import save_lines

NOW_US = 1_790_000_000_000_000
QUOTE = 1_750_000
CAP = 20_000_000

LIMITS = {
    "provider": "sandbox",
    "cap_microusd": CAP,
    "requests_per_minute": 60.0,
    "starts_per_minute": 10.0,
    "max_in_flight": 4,
    "expected_s": 317.0,
}

_FACTS: dict[str, dict[str, Any]] = {
    "reserved": {"quote_microusd": QUOTE, "request": "{}", "model": "kling-2"},
    "posted": {"cost_microusd": QUOTE, "url": "https://images.segmind.com/v.mp4"},
    "stored": {"path": "videos/v.mp4", "sha256": "0" * 64, "bytes": 5, "duration_s": 5.0},
}


@dataclasses.dataclass
class Story:
    """What happened in a run directory of some jobs, each event so many seconds before now."""

    folder: Path
    jobs: int
    events: list[Event] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        manifest = self.folder.parent / f"{self.folder.name}.csv"
        manifest.write_text("id,prompt\n" + "".join(f"scene-{number},film {number}\n" for number in range(self.jobs)))
        self.entries = load_manifest(manifest).entries
        manifest.unlink()
        save_lines(lines_of(self.entries), self.folder)

    def run(self, ago_s: float, kind: str = "run_started", **facts: Any) -> None:
        said = {**LIMITS, "jobs": self.jobs, "to_start": self.jobs, **facts} if kind == "run_started" else facts
        self._add(ago_s, Event(event=EventKind(kind), detail=json.dumps(said)))

    def tell(self, ago_s: float, kind: str, job: int, attempt: int = 1, **facts: Any) -> None:
        job_id = self.entries[job].job.job_id
        usual = {"request_id": f"req-{job}-{attempt}"} if kind == "submitted" else _FACTS.get(kind, {})
        self._add(ago_s, Event(event=EventKind(kind), job_id=job_id, attempt=attempt, **{**usual, **facts}))

    def live(self, job: int, *ago_s: float) -> None:
        """A job that is reserved, submitted, posted and stored, as far as there are times."""
        for kind, each in zip(("reserved", "submitted", "posted", "stored"), ago_s, strict=False):
            self.tell(each, kind, job)

    def _add(self, ago_s: float, event: Event) -> None:
        self.events.append(event._replace(at_us=NOW_US - round(ago_s * 1e6)))

    @property
    def ordered(self) -> list[Event]:
        """The events in the order of their times."""
        ordered = sorted(self.events, key=lambda event: event.at_us)
        return [event._replace(seq=seq) for seq, event in enumerate(ordered, start=1)]

    def write(self) -> Path:
        """Put it on the disk in one segment; returns the run directory."""
        ledger = self.folder / "ledger"
        ledger.mkdir()
        videos = self.folder / "videos"
        videos.mkdir()
        for event in self.ordered:
            if event.event is EventKind.STORED and event.path:
                (self.folder / event.path).touch()
        if events := self.ordered:
            write_segment(ledger, events, encode(events, GENESIS, link(GENESIS, events)))
        return self.folder


def rough_night(folder: Path) -> Story:
    """A run of 8 jobs since 15 minutes: 3 stored, 1 failed, 1 in doubt, 1 on its way to the disk, 2 running."""
    story = Story(folder, 9)
    story.run(900)
    story.live(0, 890, 889, 560, 558)
    story.live(1, 884, 883, 530, 528)
    story.tell(878, "reserved", 2)
    story.tell(877, "voided", 2, error_class="bad_request", http_status=400, detail="cfg_scale is out of range")
    story.tell(876, "failed", 2, error_class="bad_request", detail="cfg_scale is out of range")
    story.tell(870, "reserved", 3)
    story.tell(810, "in_doubt", 3, error_class="no_reply", detail="no answer came within 60 s")
    story.live(4, 550, 549, 200, 30)
    story.live(5, 520, 519, 20)
    story.tell(15, "fetch_failed", 5, error_class="fetch_failed", detail="the body broke off\x1b[2J before its end")
    story.live(6, 190, 189)
    story.tell(10, "reserved", 7)
    return story


@contextlib.contextmanager
def held(folder: Path, since_ago_s: float = 901) -> Iterator[None]:
    """The directory in the hands of a run."""
    since = iso(NOW_US - round(since_ago_s * 1e6))
    holder = {"pid": 4711, "host": "here", "since": since}
    with hold_lock(folder / "ledger" / "_lock", json.dumps(holder)):
        yield


class Terminal:
    """A terminal of so many columns: what is on its screen after all that was printed, and whether a line wrapped."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0
        self.has_wrapped = False

    def feed(self, printed: str) -> Terminal:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n|\r", printed):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
            elif part == "\x1b[A":
                self.row = max(0, self.row - 1)
            elif part.startswith("\x1b"):
                raise AssertionError(f"the terminal was told {part!r}")
            else:
                self._put(part)
        return self

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.has_wrapped, self.row, self.column = True, self.row + 1, 0
        self.lines += [""] * (self.row + 1 - len(self.lines))
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    @property
    def shown(self) -> Sequence[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self.lines if line.strip()]
