"""What all of a sandbox's handlers stand on: state, memory, limits, counters and the passing of time."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from pipeline.sandbox import replies
from pipeline.sandbox.faults import FaultPlan
from pipeline.sandbox.journal import Journal
from pipeline.sandbox.limits import RateWindow
from pipeline.sandbox.params import shape_of
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.state import Generation, ProviderState
from pipeline.sandbox.studio import DrawingError, Studio

_KEY: Final = re.compile(r"SG_[0-9a-fA-F]{16}\Z")
_LONGEST_NAP_S: Final = 30.0  # a wall clock that jumps is noticed after that


class Core:
    """One provider: its books, and everything that its handlers share."""

    def __init__(self, settings: SandboxSettings) -> None:
        folder = settings.state_dir
        self.settings = settings
        self.faults = FaultPlan(settings.seed, settings.faults, settings.fault_limit)
        self.state = ProviderState(settings, self.faults)
        self.window = RateWindow(settings.rpm)
        self.journal = Journal(None if folder is None else folder / "journal.jsonl")
        self.studio = Studio(settings.clips, None if folder is None else folder / "files", settings.render_workers)
        self.closing = asyncio.Event()
        self.base = ""
        """This server's own URL."""
        self.calls: Counter[str] = Counter()
        self.throttled = 0
        self.key_leaks = 0
        self.redirects_followed = 0
        self.assets: dict[str, str] = {}
        """Uploaded file name -> content type."""
        self.hidden_once: set[str] = set()
        """Requests that a poll has already been told do not exist."""
        self._boots = 0
        self._turns: Counter[tuple[str, object]] = Counter()
        self._drawing: dict[str, asyncio.Task[None]] = {}

    # --- life

    async def start(self) -> None:
        """Take up what an earlier process left, and go on drawing what it did not finish."""
        files: dict[str, dict[str, Any]] = {}
        now = self.now()
        for record in self.journal.replay():
            match record.pop("k"):
                case "gen":
                    self.state.restore(record)
                case "file":
                    files[record.pop("id")] = record
                case "broken":
                    self.state.render_failed(self.state.generations[record["id"]], record["at"])
                case "fault":
                    self.faults.fired[record["name"]] += 1
                    self.state.submissions = max(self.state.submissions, record["ordinal"] + 1)
                case "call" if record["at"] > now - 60:
                    self.window.remember(record["at"])
                case "asset":
                    self.assets[record["name"]] = record["type"]
                case "boot":
                    self._boots += 1
        for accepted in self.settings.accepted:
            self.state.restore(dict(accepted))
        self.journal.add("boot", at=now)
        wanted = [item for item in self.state.generations.values() if item.error is None]
        await self.studio.prepare({shape_of(item.body) for item in wanted})
        for item in wanted:
            known = files.get(item.id)
            if self.settings.clips != "own":
                self.state.file_ready(item, item.accepted_at, None, None)
            elif known is not None and self.studio.has(item):
                self.state.file_ready(item, known["at"], known["size"], known["sha256"])
            else:
                self.draw(item)
        self.state.advance(now)

    async def stop(self) -> None:
        """Give up what still hangs or draws, and let go of files and processes."""
        self.closing.set()
        tasks = list(self._drawing.values())
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(self.studio.close)
        await asyncio.gather(*tasks, return_exceptions=True)
        self.journal.close()

    # --- time

    def now(self) -> float:
        """Wall time, epoch seconds."""
        return self.settings.clock()

    def settle(self) -> float:
        """Let everything happen that is due by now; the instant."""
        now = self.settings.clock()
        self.state.advance(now)
        return now

    async def pause(self, seconds: float) -> None:
        """Wait real seconds, or until the sandbox closes."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            pass

    async def until_ended(self, generation: Generation) -> bool:
        """Wait for the end of a generation; False when the sandbox closes first."""
        while not self.closing.is_set():
            now = self.settle()
            if generation.ended_at is not None:
                return True
            left = self.state.due_at(generation) - now
            task = self._drawing.get(generation.id)
            if left > 0 or task is None:
                await self.pause(min(max(left, 0.001), _LONGEST_NAP_S))
            else:
                await asyncio.wait({task})
        return False

    # --- what handlers tell and ask

    def event(self, name: str, **facts: Any) -> None:
        """Tell the hook, if there is one, that one of the `INSTANTS` was reached."""
        if self.settings.on_event is not None:
            self.settings.on_event(name, facts)

    def admit(self, request: web.BaseRequest) -> replies.Reply | None:
        """Check key and rate of a call; None when it may go on, else the refusal."""
        key = request.headers.get("x-api-key")
        keys = self.settings.keys
        if key is None or (key not in keys if keys else not _KEY.match(key)):
            return replies.auth_error()
        now = self.now()
        reset_at = self.window.call(now)
        if reset_at is not None:
            return self.throttle(replies.too_many(reset_at))
        if self.settings.rpm is not None:
            self.journal.add("call", at=now)
        return None

    def throttle(self, reply: replies.Reply) -> replies.Reply:
        """Count an answer that is, or may be, a 429."""
        self.throttled += reply.status == 429
        return reply

    def fault(self, phase: str, subject: object = "", *, spare: tuple[str, ...] = ()) -> str | None:
        """The fault of the next call of this phase about this subject."""
        if not self.settings.faults:
            return None
        self._turns[phase, subject] += 1
        name = self.faults.draw(phase, subject, self._boots, self._turns[phase, subject], spare=spare)
        if name is not None:
            self.journal.add("fault", name=name, ordinal=-1)
        return name

    # --- clips

    def draw(self, generation: Generation) -> None:
        """See to it that an accepted generation gets its clip."""
        if generation.error is not None:
            return
        if self.studio.at_once(generation):
            self.state.file_ready(generation, generation.accepted_at, None, None)
            return
        task = asyncio.get_running_loop().create_task(self._draw(generation))
        self._drawing[generation.id] = task
        task.add_done_callback(lambda _: self._drawing.pop(generation.id, None))

    async def _draw(self, generation: Generation) -> None:
        try:
            size, sha256 = await self.studio.make(generation, self._start_image(generation))
        except (DrawingError, OSError):
            now = self.settle()
            self.journal.add("broken", id=generation.id, at=now)
            self.state.render_failed(generation, now)
            return
        now = self.settle()
        if size is not None:
            self.journal.add("file", id=generation.id, at=now, size=size, sha256=sha256)
        self.state.file_ready(generation, now, size, sha256)

    def asset_path(self, name: str) -> Path:
        """Where an uploaded file is kept."""
        return self.studio.folder / f"asset-{name}"

    def _start_image(self, generation: Generation) -> Path | None:
        # By name alone: after a restart this sandbox may have another port, and the body the old one.
        name = str(generation.body.get("start_image", "")).rpartition("/assets/")[2]
        return self.asset_path(name) if name in self.assets else None

    # --- what outsiders may know

    def report(self) -> dict[str, Any]:
        """Counters for tests and checks; none of it is part of the provider's interface."""
        self.settle()
        state = self.state
        return {
            "calls": dict(self.calls),
            "calls_total": self.calls.total(),
            "rate_limited": self.throttled,
            "max_calls_60s": self.window.most_seen,
            "faults_fired": dict(self.faults.fired),
            "key_leaks": self.key_leaks,
            "redirects_followed": self.redirects_followed,
            "in_flight": state.in_flight,
            "max_in_flight": state.most_in_flight,
            "drawing": len(self._drawing),
            "duplicate_bodies": state.duplicates(),
            "submissions": state.submissions,
            "accepted": len(state.generations),
            "completed": len(state.charged),
            "failed": state.failed,
            "credits_microusd": state.credits_microusd,
            "uploads": len(self.assets),
        }

    def requests(self) -> list[dict[str, Any]]:
        """Every accepted request, oldest first."""
        now = self.settle()
        return [
            {
                "request_id": item.id,
                "ordinal": item.ordinal,
                "api": item.api,
                "model": item.model,
                "body": item.body,
                "status": self.state.status(item, now),
                "cost_microusd": item.cost_microusd,
                "accepted_at": item.accepted_at,
                "ended_at": item.ended_at,
                "faults": list(item.faults),
                "error": item.error,
                "sha256": self.studio.sha256(item) if item.completed else None,
            }
            for item in self.state.generations.values()
        ]
