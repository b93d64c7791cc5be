"""What the provider knows: its generations, their fate, the balance and the bill. Pure: time is an argument."""

import hashlib
import heapq
import math
import random
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from pipeline.sandbox.faults import FaultPlan, unit
from pipeline.sandbox.params import shape_of
from pipeline.sandbox.settings import MICRO, PLENTY_MICROUSD, SandboxSettings

_INPUT_FAULT: Final = "The prompt violates the content policy of the model; change the input."
_OWN_FAULT: Final = "The model failed to produce an output."
_SLOWDOWN: Final = 3.0


def usd_text(microusd: int) -> str:
    """Micro-dollars as exact dollars, at least two places: 12250000 -> "12.25"."""
    whole, rest = divmod(abs(microusd), MICRO)
    places = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if microusd < 0 else ''}{whole}.{places}"


@dataclass(slots=True)
class Generation:
    """One accepted request. Times of day are epoch seconds, queue and inference are provider seconds."""

    id: str
    ordinal: int
    model: str
    api: str
    body: dict[str, Any]
    accepted_at: float
    cost_microusd: int
    queue_s: float
    inference_s: float
    faults: tuple[str, ...] = ()
    file_at: float | None = None
    """When its clip was ready to be served."""
    size: int | None = None
    sha256: str | None = None
    error: str | None = None
    """Why it will end, or ended, FAILED."""
    ended_at: float | None = None
    """When it became COMPLETED or FAILED."""

    @property
    def total_s(self) -> float:
        """Time from acceptance to the end, provider seconds."""
        return self.queue_s + self.inference_s

    @property
    def completed(self) -> bool:
        """Finished with a video: on the invoice."""
        return self.ended_at is not None and self.error is None


class ProviderState:
    """Generations in order of acceptance, and the money that they hold or have cost."""

    def __init__(self, settings: SandboxSettings, faults: FaultPlan) -> None:
        self._settings = settings
        self._faults = faults
        self._credits = PLENTY_MICROUSD if settings.credits_microusd is None else settings.credits_microusd
        self._due: list[tuple[float, int, Generation]] = []  # heap of what still runs
        self._busy: list[float] = []  # heap of when those that are worked on end, where that has a limit
        self._waiting: dict[str, Generation] = {}  # time is up, the clip is not ready
        self._bodies: Counter[bytes] = Counter()
        self._restored: set[str] = set()
        self.generations: dict[str, Generation] = {}
        self.charged: list[Generation] = []
        self.failed = 0
        self.exposure_microusd = 0
        self.total_microusd = 0
        self.most_in_flight = 0
        self.submissions = 0  # those that passed all checks, refused by a fault or accepted

    @property
    def in_flight(self) -> int:
        """Accepted and not yet ended."""
        return len(self.generations) - len(self.charged) - self.failed

    @property
    def credits_microusd(self) -> int:
        """The balance as the account sees it now."""
        held = self.exposure_microusd if self._settings.charge_at == "accept" else self.total_microusd
        return self._credits - held

    def price(self, body: dict[str, Any]) -> int:
        """The listed price of a checked body, micro-dollars."""
        return self._settings.prices_microusd[shape_of(body)[1]]

    def next_ordinal(self) -> int:
        """Number a submission that could be accepted."""
        self.submissions += 1
        return self.submissions - 1

    def accept(self, ordinal: int, model: str, api: str, body: dict[str, Any], now: float) -> Generation:
        """Take a submission on; from here on it is billed unless it fails."""
        settings, draw = self._settings, self._faults.draw
        outcome = draw("outcome", ordinal)
        names = [outcome, draw("pace", ordinal)]
        if outcome is None:  # a failed run has no cost and no link to get wrong
            names += [draw("price", ordinal), draw("receipt", ordinal), draw("link", ordinal)]
        faults = tuple(name for name in names if name)
        total_s = self._duration(ordinal) * (_SLOWDOWN if "gen_slow" in faults else 1.0)
        queue_s = total_s * (0.01 + 0.05 * unit(settings.seed, "queue", ordinal))
        waits_s = self._wait_s(now, total_s)
        price = self.price(body) * (2 if "cost_above_quote" in faults else 1)
        generation = Generation(
            id=self._new_id(ordinal, now),
            ordinal=ordinal,
            model=model,
            api=api,
            body=body,
            accepted_at=now,
            cost_microusd=price,
            queue_s=waits_s + queue_s,
            inference_s=total_s - queue_s,
            faults=faults,
            error={"gen_failed": _OWN_FAULT, "gen_failed_input": _INPUT_FAULT}.get(outcome or ""),
        )
        self._add(generation)
        return generation

    def _wait_s(self, now: float, total_s: float) -> float:
        """How long what is accepted now waits until fewer than `capacity` are worked on, provider seconds."""
        settings = self._settings
        if settings.capacity is None:
            return 0.0
        while self._busy and (len(self._busy) > settings.capacity or self._busy[0] <= now):
            heapq.heappop(self._busy)
        starts = heapq.heappop(self._busy) if len(self._busy) == settings.capacity else now
        heapq.heappush(self._busy, starts + total_s / settings.time_scale)
        return (starts - now) * settings.time_scale

    def _new_id(self, ordinal: int, now: float) -> str:
        # The instant is part of it: a second sandbox with the same seed must not hand out the first one's ids.
        text = f"{self._settings.seed}:{ordinal}:{now!r}"
        return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest(), version=4))

    def _duration(self, ordinal: int) -> float:
        mean, sigma = self._settings.mean_s, self._settings.sigma
        if mean == 0:
            return 0.0
        noise = random.Random(int(unit(self._settings.seed, "time", ordinal) * 2**53)).gauss(0.0, sigma)
        return mean * math.exp(noise - sigma * sigma / 2)

    def _add(self, generation: Generation) -> None:
        self.generations[generation.id] = generation
        heapq.heappush(self._due, (self.due_at(generation), generation.ordinal, generation))
        self.exposure_microusd += generation.cost_microusd
        self._bodies[orjson.dumps(generation.body, option=orjson.OPT_SORT_KEYS)] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def due_at(self, generation: Generation) -> float:
        """When its generation time is over, epoch seconds."""
        return generation.accepted_at + generation.total_s / self._settings.time_scale

    def advance(self, now: float) -> None:
        """End what is over by `now`: a failure at its time, a success once its clip is ready as well."""
        due = self._due
        while due and due[0][0] <= now:
            at, _, generation = heapq.heappop(due)
            if generation.error is not None or generation.file_at is not None:
                self._end(generation, max(at, generation.file_at or 0.0))
            else:
                self._waiting[generation.id] = generation

    def file_ready(self, generation: Generation, now: float, size: int | None, sha256: str | None) -> None:
        """The clip of a generation can be served from `now` on."""
        generation.file_at, generation.size, generation.sha256 = now, size, sha256
        if self._waiting.pop(generation.id, None):
            self._end(generation, now)

    def render_failed(self, generation: Generation, now: float) -> None:
        """No clip could be made: the generation fails, and is not billed."""
        generation.error = _OWN_FAULT
        if self._waiting.pop(generation.id, None):
            self._end(generation, now)

    def _end(self, generation: Generation, at: float) -> None:
        generation.ended_at = at
        if generation.error is None:
            self.charged.append(generation)
            self.total_microusd += generation.cost_microusd
        else:
            self.failed += 1
            self.exposure_microusd -= generation.cost_microusd

    def status(self, generation: Generation, now: float) -> str:
        """QUEUED, PROCESSING, COMPLETED or FAILED."""
        if generation.ended_at is not None:
            return "COMPLETED" if generation.error is None else "FAILED"
        started_at = generation.accepted_at + generation.queue_s / self._settings.time_scale
        return "QUEUED" if now < started_at else "PROCESSING"

    def record(self, request_id: str, now: float) -> Generation | None:
        """The generation behind a request URL, until its record expires."""
        generation = self.generations.get(request_id)
        if generation is None or generation.api != "v2":
            return None
        expires_at = generation.accepted_at + self._settings.record_ttl_s / self._settings.time_scale
        if generation.id not in self._restored:
            # A clip that this machine was slow to draw must not expire before it could be collected.
            expires_at += max(0.0, (generation.ended_at or now) - self.due_at(generation))
        return generation if now < expires_at else None

    def video(self, request_id: str, now: float) -> Generation | None:
        """The generation whose video is served at `now`."""
        generation = self.generations.get(request_id)
        if generation is None or not generation.completed or generation.ended_at is None:
            return None
        ttl_s = self._settings.file_ttl_s / self._settings.time_scale
        return generation if now < generation.ended_at + ttl_s else None

    def listed(self, now: float) -> Iterable[Generation]:
        """What the history shows by `now`, oldest first."""
        return (item for item in self.generations.values() if self.is_listed(item, now))

    def is_listed(self, generation: Generation, now: float) -> bool:
        """Whether the history shows it by `now`."""
        return generation.accepted_at + self._settings.history_lag_s / self._settings.time_scale <= now

    def invoice(self) -> dict[str, Any]:
        """The bill: every finished success, and what has been accepted beside it."""
        return {
            "total_microusd": self.total_microusd,
            "total_usd": usd_text(self.total_microusd),
            "charges": [
                {
                    "request_id": item.id,
                    "cost_microusd": item.cost_microusd,
                    "cost_usd": usd_text(item.cost_microusd),
                    "model": item.model,
                    "request": item.body,
                    "accepted_at": item.accepted_at,
                }
                for item in self.charged
            ],
            "accepted": len(self.generations),
            "failed": self.failed,
            "pending": self.in_flight,
            "exposure_microusd": self.exposure_microusd,
        }

    def duplicates(self) -> dict[str, int]:
        """Bodies that were accepted more than once, and how often."""
        return {body.decode(): count for body, count in self._bodies.items() if count > 1}

    def dump(self, generation: Generation) -> dict[str, Any]:
        """A just accepted generation as a journal record."""
        return asdict(generation)

    def restore(self, record: dict[str, Any]) -> Generation:
        """Take up a generation that an earlier process accepted."""
        generation = Generation(**{**record, "faults": tuple(record["faults"])})
        self.submissions = max(self.submissions, generation.ordinal + 1)
        self._faults.fired.update(generation.faults)
        self._restored.add(generation.id)
        self._add(generation)
        return generation
