"""What a rehearsal begins with: a copy of what the run directory holds, and a provider that knows what it was sent.

The provider of the rehearsal knows nothing of what was really submitted, so it is told: a job that runs ends after a
time that is drawn like the others, a paid one is ready, and one in doubt was accepted, which costs the most.
"""

from __future__ import annotations

import math
import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from pipeline.kernel.arrow import pc
from pipeline.kernel.errors import MachineError
from pipeline.ledger.encoding import GENESIS, SCHEMA, Content, encode_content, link
from pipeline.ledger.events import EventKind
from pipeline.ledger.fold import State
from pipeline.ledger.job import JobRecord, JobState
from pipeline.ledger.reading import Reader, read_table
from pipeline.ledger.segments import place, write_head
from pipeline.report.jobs_format import FILE as JOBS_FILE

KNOWN = (JobState.RESERVED, JobState.IN_DOUBT, JobState.SUBMITTED, JobState.POSTED)
"""The states of a job that the provider may know."""

FINISHED_S = 86_400.0
"""How long ago a paid job was accepted, as the rehearsal has it."""

ON_ITS_WAY_S = 0.1
"""How long a submission was on its way."""


def copy_run(real: Path, stage: Path) -> State:
    """Begin the run directory `stage` with what `real` holds, if it holds anything; returns what its ledger says.

    A run may be going on in `real` meanwhile. The URLs of paid videos are left out, so that the provider of the
    rehearsal is asked for them.

    Raises:
        RunDirectoryError: the ledger is damaged.
        MachineError: the disk refused.
    """
    table = read_table(real / "ledger") if (real / "ledger").is_dir() else SCHEMA.empty_table()
    try:
        (stage / "ledger").mkdir(parents=True)
        if len(table):
            data = encode_content(Content(_without_videos(table), GENESIS, link(GENESIS, ())))
            write_head(stage / "ledger", place(stage / "ledger", 1, len(table), data))
        if (real / JOBS_FILE).is_file():
            shutil.copyfile(real / JOBS_FILE, stage / JOBS_FILE)
    except OSError as error:
        raise MachineError(f"{real} cannot be copied for the rehearsal: {error.strerror}") from None
    # Of the copy: in `real` more may have happened since.
    copy = Reader(stage / "ledger")
    copy.read()
    return copy.state


def _without_videos(table: pa.Table) -> pa.Table:
    is_paid = pc.equal(table["event"], EventKind.POSTED.value)
    at = SCHEMA.get_field_index("url")
    return table.set_column(at, SCHEMA.field(at), pc.if_else(is_paid, None, table["url"]))


def known_to_provider(
    state: State, now_us: int, draw_s: Callable[[], float], rng: random.Random
) -> list[dict[str, Any]]:
    """What the real provider has accepted, surely or perhaps, and not ended: as records of a sandbox's journal."""
    records = sorted(state.in_state(*KNOWN), key=lambda record: record.reserved_seq)
    return [_accepted(number, record, now_us, draw_s(), rng) for number, record in enumerate(records)]


def _accepted(number: int, record: JobRecord, now_us: int, takes_s: float, rng: random.Random) -> dict[str, Any]:
    # By the provider's clock, and a moment after the intent: a row that is older than the intent never matches it.
    accepted_s = (record.submitted_us or record.began_us) / 1e6 + ON_ITS_WAY_S
    if record.state is JobState.POSTED:
        accepted_s, takes_s = now_us / 1e6 - FINISHED_S, 0.0
    return {
        "id": record.request_id or str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "ordinal": number,
        "model": record.model,
        "api": "v2",
        "body": orjson.loads(record.request or "{}"),
        "accepted_at": accepted_s,
        "cost_microusd": record.cost_microusd or record.quote_microusd,
        "queue_s": 0.0,
        "inference_s": max(takes_s, now_us / 1e6 - accepted_s) if takes_s else 0.0,
        "faults": (),
    }


def lognormal(rng: random.Random, mean_s: float, sigma: float) -> Callable[[], float]:
    """Draws times of this mean and spread."""
    return lambda: mean_s * math.exp(rng.gauss(0.0, sigma) - sigma * sigma / 2)
