"""What every part of the engine works with: what one run holds open, and how it records, asks and tells the time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import orjson

from pipeline.engine.limits import Breaker, Slots
from pipeline.engine.outages import Outages
from pipeline.engine.pace import Pace, Turn
from pipeline.engine.polls import Polls
from pipeline.engine.room import Room
from pipeline.engine.settings import EngineSettings
from pipeline.engine.stopping import Stopping, StopReason
from pipeline.jobs import Job
from pipeline.kernel.clock import Clock
from pipeline.kernel.errors import MachineError, Reaction
from pipeline.kernel.usd import MicroUsd
from pipeline.ledger.events import Event, EventKind
from pipeline.ledger.job import JobRecord
from pipeline.ledger.store import Ledger
from pipeline.media import DOWNLOADS_AT_ONCE, Collector
from pipeline.provider.client import Client
from pipeline.provider.history import HistoryRow
from pipeline.provider.replies import Expired, Refused, Unavailable

T = TypeVar("T")

SKEW_NOISE_US = 5_000_000
"""Two readings of the provider's clock may differ by this much: the network takes time, and it tells whole seconds."""


class Listener(Protocol):
    """Whoever wants to see events as they become durable: the log, the progress line."""

    def __call__(self, event: Event) -> None: ...


@dataclass(slots=True)
class RunContext:
    """One run: its ledger, its provider, its limits. Everything that the workers share."""

    folder: Path
    ledger: Ledger
    provider: Client
    collector: Collector
    clock: Clock
    settings: EngineSettings
    price: Callable[[Job], MicroUsd]
    """The list price of a job."""
    listener: Listener = lambda _event: None
    rng: random.Random = field(default_factory=random.Random)
    stopping: Stopping = field(default_factory=Stopping)
    pace: Pace = field(init=False)
    slots: Slots = field(init=False)
    polls: Polls = field(init=False)
    breaker: Breaker = field(init=False)
    why_in_doubt: dict[str, str] = field(default_factory=dict)
    """What held an attempt in doubt when the history was last looked at, by `JobRecord.attempt_name`."""
    key_mark: str | None = None
    """The mark of today's key; None where keys are not told apart, as in a rehearsal."""
    seen_keys: set[str] = field(default_factory=set)
    """The marks of other keys whose account today's key was seen to see."""
    unowned: list[HistoryRow] = field(default_factory=list)
    """What the last look of the run has found: requests that may be its own and that no attempt owns."""
    unnamed_seen: int = 0
    """How many of `State.unnamed` were looked for so far."""
    outages: Outages = field(init=False)
    room: Room = field(init=False)
    downloads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DOWNLOADS_AT_ONCE))
    images: Mapping[str, Path] = field(default_factory=dict)
    """The files of start images, by `Job.image`."""
    uploading: dict[str, asyncio.Event] = field(default_factory=dict)
    """The images that are being uploaded, each with an event that is set when its upload is over."""
    refused_images: dict[str, Refused] = field(default_factory=dict)
    """Why an image cannot be had, where that is final for this run."""
    promised: dict[str, MicroUsd] = field(default_factory=dict)
    """By job, the quotes of jobs whose image is being uploaded: not reserved yet, yet no later job may take it."""

    _began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_s = self.clock.monotonic_s()
        self.pace = Pace(self.settings.limits, self.clock)
        self.slots = Slots(self.settings.limits, self.clock)
        self.polls = Polls(self.settings.polling, self.pace, self.clock, self.stopping)
        self.outages = Outages(self.settings.retry, self.pace, self.slots, self.stopping, self.clock)
        self.room = Room(self.folder, self.clock, self.ledger.state.largest_bytes)
        self.breaker = Breaker(
            self.settings.bounds.failure_rate, self.settings.bounds.failure_window, self.pace.interval_s / 2
        )

    def quote(self, job: Job) -> MicroUsd:
        """The most that a job may cost: its list price, or what the provider was seen to charge above it."""
        return self.ledger.state.books.quote(self.price(job), job.price_key)

    @property
    def free(self) -> int:
        """What may still be reserved under the cap, beside what is promised, in micro-dollars."""
        return self.ledger.state.books.free(self.settings.bounds.cap) - sum(self.promised.values())

    @property
    def time_to_start_s(self) -> float | None:
        """How many seconds from now a job may still start and be done by the deadline; None if there is no deadline."""
        bounds, left_s = self.settings.bounds, []
        if bounds.after_s is not None:
            left_s.append(self._began_s + bounds.after_s - self.clock.monotonic_s())
        if bounds.until_us is not None:
            left_s.append((bounds.until_us - self.clock.now_us()) / 1e6)
        return min(left_s) - self.settings.polling.expected_s if left_s else None

    def as_sent(self, job: Job) -> Job | None:
        """The job whose body is what the provider is sent; None while its start image is not uploaded."""
        if job.image is None:
            return job
        url = self.ledger.state.uploads.get(job.image)
        return job.with_image_at(url) if url is not None else None

    async def record(self, *events: Event) -> None:
        """Record events durably. If the ledger cannot be written, the run is left before anything else is sent."""
        try:
            recorded = await self.ledger.record(*events)
        except MachineError as error:
            self.stopping.leave(StopReason.MACHINE, str(error))
            raise
        if self.ledger.is_short:
            self.stopping.stop(
                StopReason.MACHINE,
                f"the disk under {self.folder} is full: nothing new was started, and what ran is recorded "
                "in the room that was kept for it. Make room and run again.",
            )
        for event in recorded:
            self.listener(event)

    async def ask(
        self,
        question: Callable[[], Awaitable[T]],
        turn: Turn = Turn.COLLECT,
        *,
        has_turn: bool = False,
        is_sign: bool = False,
    ) -> T:
        """Put a free question to the provider in its turn, and take in what the answer means for the whole run.

        Args:
            turn: what it is for.
            has_turn: whether whoever asks has waited for a turn already.
            is_sign: whether an answer shows that submissions are answered as well.

        Raises:
            LeavingError: the run is being left.
        """
        reply = await self.stopping.unless_leaving(question() if has_turn else self._in_turn(question, turn))
        if isinstance(reply, Refused):
            self.outages.heed(reply)
            if is_sign and reply.error_class.reaction in (Reaction.RETRY_COUNTED, Reaction.FAIL_ROW):
                self.outages.note_sign()  # a generation has failed, and the provider says so
        elif isinstance(reply, Unavailable):
            self.outages.note_silence()
        else:
            self.outages.note_answer()
            if is_sign:
                self.outages.note_sign()
        return reply

    async def ask_history(self, request_id: str | None) -> HistoryRow | Expired | Refused | Unavailable:
        """Ask the account's history for the row of one request, which it shows at any age.

        Raises:
            LeavingError: the run is being left.
        """
        assert request_id is not None, "only an attempt that the provider has named can be asked for"
        return await self.ask(lambda: self.provider.history_one(request_id))

    async def _in_turn(self, question: Callable[[], Awaitable[T]], turn: Turn) -> T:
        await self.pace.turn(turn)
        return await question()

    async def pause(self, seconds: float) -> None:
        """Wait, unless the run is being left."""
        await self.stopping.unless_leaving(self.clock.sleep(seconds))

    def account_event(self, balance: MicroUsd | None = None) -> Event:
        """What was learned of the account: its balance, if it was asked, and how its clock differs from ours."""
        facts: dict[str, int] = {} if balance is None else {"balance_microusd": balance}
        if self.provider.skew_us is not None:
            facts["skew_us"] = self.provider.skew_us
        return Event(event=EventKind.ACCOUNT, detail=orjson.dumps(facts).decode())

    @property
    def clocks_drifted(self) -> bool:
        """Whether the provider's clock and ours no longer differ by what the ledger says."""
        return abs(self.skew_us - self.ledger.state.skew_us) > SKEW_NOISE_US

    @property
    def skew_us(self) -> int:
        """How far the provider's clock is ahead of ours: by its latest answer, else as the ledger has it."""
        return self.provider.skew_us if self.provider.skew_us is not None else self.ledger.state.skew_us

    def provider_now_us(self) -> int:
        """What the provider's clock shows now, microseconds since 1970."""
        return self.clock.now_us() + self.skew_us

    def age_s(self, record: JobRecord) -> float:
        """Seconds since the provider accepted a job; never negative, whatever the wall clock has done."""
        return max(0.0, (self.clock.now_us() - record.accepted_us) / 1e6)
