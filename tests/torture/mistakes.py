"""The mistakes that this pipeline must never make, each as a change of its source that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake: its name, what it changes (path, old text, new text), and the scenario that catches it.

    A scenario is the end of its test module's name, and words that choose among its tests, as pytest's `-k` takes them.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    scenario: tuple[str, str]
    first_seed: int = 0
    """Of the storm: the first one that shows it, so that the others need not be lived through before."""

    def make(self, root: Path) -> None:
        """Make it in the copy of the project at `root`."""
        for path, old, new in self.edits:
            source = (root / path).read_text()
            assert source.count(old) == 1, f"{path} does not hold once: {old}"
            (root / path).write_text(source.replace(old, new))


STORM = ("storm", "")
KILLS = ("kills", "any_point and calm")
POWER = ("power", "no_power_loss")

MISTAKES = (
    Mistake(
        "void on a time-out",
        (
            (
                "pipeline/provider/client.py",
                "_NOT_SENT = (aiohttp.ClientConnectorError, ",
                "_NOT_SENT = (TimeoutError, aiohttp.ClientConnectorError, ",
            ),
        ),
        STORM,
        first_seed=8,
    ),
    Mistake(
        "void on the status that the client library makes up",
        (
            (
                "pipeline/provider/client.py",
                "            reply = _no_answer(error)\n",
                "            if isinstance(error, aiohttp.ClientResponseError) and error.status == 400:\n"
                '                return Refused(ErrorClass.BAD_REQUEST, "HTTP 400", 400)\n'
                "            reply = _no_answer(error)\n",
            ),
        ),
        ("hostile_provider", ""),
    ),
    Mistake(
        "no flush of the folder",
        (("pipeline/kernel/files.py", "    fsync_folder(final.parent)\n", ""),),
        POWER,
    ),
    Mistake(
        "no flush of the segment",
        (
            (
                "pipeline/ledger/segments.py",
                "    write_file(folder / str(name), data)\n",
                '    (folder / f".{name}.part").write_bytes(data)\n'
                '    os.replace(folder / f".{name}.part", folder / str(name))\n'
                "    fsync_folder(folder)\n",
            ),
        ),
        POWER,
    ),
    Mistake(
        "acknowledged before it is durable",
        (
            (
                "pipeline/ledger/store.py",
                "            await durable\n",
                "            await asyncio.sleep(0)\n",
            ),
        ),
        ("power", "intent"),
    ),
    Mistake(
        "reservation freed early",
        (
            (
                "pipeline/engine/worker.py",
                "EventKind.IN_DOUBT, **facts_of(silence)",
                "EventKind.VOIDED, **facts_of(silence)",
            ),
        ),
        STORM,
        first_seed=1,
    ),
    Mistake(
        "a reservation that a dead run has left is forgotten",
        (("pipeline/engine/recovery.py", "    if abandoned:\n", "    if False:\n"),),
        KILLS,
    ),
    Mistake(
        "a row of the history is used twice",
        (
            ("pipeline/engine/matching.py", "                taken.add(row.request_id)\n", ""),
            (
                "pipeline/engine/doubt.py",
                "        if owner == record.job_id and record.state is JobState.IN_DOUBT:\n",
                "        if record.state is JobState.IN_DOUBT:\n",
            ),
            (
                "pipeline/ledger/fold.py",
                "        if not event.request_id or (owner is not None and mine != event.request_id):\n",
                "        if not event.request_id:\n",
            ),
        ),
        STORM,
        first_seed=3,
    ),
    Mistake(
        "absence is believed at once",
        (
            (
                "pipeline/engine/doubt.py",
                "    if min(age_us / 1e6, known_s) < settle_after_s:\n",
                "    if settle_after_s < 0:\n",
            ),
            ("pipeline/engine/doubt.py", "    now = await look_at_account(run)\n", "    now = None\n"),
        ),
        STORM,
        first_seed=11,
    ),
    Mistake(
        "an expired record is taken for a failure",
        (
            (
                "pipeline/engine/asking.py",
                "        case Expired():\n            return await look_in_history(",
                "        case Expired():\n"
                '            return Refused(ErrorClass.GENERATION_FAILED, "gone", 404)\n'
                "            return await look_in_history(",
            ),
        ),
        STORM,
        first_seed=2,
    ),
    Mistake(
        "booked at the quote",
        (
            (
                "pipeline/engine/worker.py",
                "            cost_microusd=cost,\n",
                "            cost_microusd=record.quote_microusd,\n",
            ),
        ),
        ("caps", ""),
    ),
    Mistake(
        "the cap counts what is posted alone",
        (
            (
                "pipeline/ledger/budget.py",
                "        return MicroUsd(self.posted + self.reserved + self.in_doubt)\n",
                "        return MicroUsd(self.posted)\n",
            ),
        ),
        STORM,
        first_seed=2,
    ),
    Mistake(
        "a video has its name before it is whole",
        (
            (
                "pipeline/media/landing.py",
                "self._descriptor, self._temporary = open_temporary(self._video.parent)",
                "self._descriptor = os.open(self._video, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644); "
                "self._temporary = self._video",
            ),
        ),
        ("wire", ""),
    ),
    Mistake(
        "an interrupt voids",
        (
            (
                "pipeline/engine/worker.py",
                "        return Uncertain(ErrorClass.INTERRUPTED, ",
                "        return Refused(ErrorClass.NOT_SENT, ",
            ),
        ),
        ("signals", ""),
    ),
    Mistake(
        "no lock",
        (
            (
                "pipeline/kernel/files.py",
                "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
                "            pass\n",
            ),
            ("pipeline/ledger/store.py", "        if lock.read_bytes() != self._holder:\n", "        if False:\n"),
        ),
        ("two_runs", ""),
    ),
    Mistake(
        "a limiter that forgets on restart",
        (
            (
                "pipeline/runner/continuity.py",
                "    return interval_s if since_s < 0 else ",
                "    return 0.0 if since_s < 1 else ",
            ),
        ),
        ("pace", "crash"),
    ),
    Mistake(
        "a damaged segment is read all the same",
        (
            (
                "pipeline/ledger/segments.py",
                "    if not name.fits(data):\n",
                "    if False:\n",
            ),
        ),
        ("damage", "flipped"),
    ),
)
