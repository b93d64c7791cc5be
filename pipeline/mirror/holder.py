"""Who holds the copy of a run directory in object storage: a name there keeps two machines apart.

The holder has to write its name anew all the time. Whoever could not do so for long asks, before the next segment
counts, whether the name is still its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

import orjson

from pipeline.kernel.clock import SystemClock, iso
from pipeline.kernel.errors import MachineError, RunDirectoryError
from pipeline.ledger.lock import held_by
from pipeline.mirror.decide import Hold, hold_of
from pipeline.mirror.storage import Storage

STALE_S = 120.0
"""A holder that has given no sign for so long is taken for dead."""

SURE_S = 60.0
"""For so long after a sign of ours nobody can have taken us for dead."""

NO_AGE_S = -1.0
"""The age of a sign for which the storage was not asked: no sign is stale by it."""

HOLDER, PROBE = "_holder.json", "_now"


class Holder:
    """This process as the one that holds the copy, from `take` to `leave`.

    `beat` may be called by several threads at once: what stands in the storage decides, not what a thread remembers.
    """

    def __init__(self, storage: Storage, state_id: str) -> None:
        """`state_id` tells the local folder from its copies on other machines."""
        self.taken_over: str | None = None
        """Whose place was taken, in a sentence."""
        self._address = storage.address
        self._objects = storage.objects
        self._state_id = state_id
        self._clock = SystemClock()
        self._token = secrets.token_hex(8)
        self._since = iso(self._clock.now_us())
        self._sure_until_s = 0.0
        self._lost: MachineError | None = None

    def take(self) -> None:
        """Take the place.

        Raises:
            RunDirectoryError: another machine holds it.
        """
        sure_s = self._clock.monotonic_s() + SURE_S
        said = self._objects.read(HOLDER)
        if said is None:
            ours = self._objects.create(HOLDER, self._sign())
        else:
            holder = _parse(said)
            hold, age_s = hold_of(holder, self._name(), NO_AGE_S, STALE_S, _is_alive), NO_AGE_S
            if hold is Hold.HELD:
                age_s = self._objects.age_s(HOLDER, f"{PROBE}-{self._token}")
                hold = hold_of(holder, self._name(), age_s, STALE_S, _is_alive)
            if hold is Hold.HELD:
                raise RunDirectoryError(
                    f"{self._address} is in use: {held_by(holder)}; its last sign was {age_s:.0f} s ago. If that "
                    f"machine is dead, run again when it has given none for {STALE_S:.0f} s. Nothing was sent."
                )
            ours = self._objects.swap(HOLDER, self._sign(), lambda now: now == said)
            if ours and hold is Hold.STALE:
                self.taken_over = (
                    f"the place of a run that gave no sign for {age_s:.0f} s was taken over: {held_by(holder)}"
                )
        # A request whose answer was lost is made again by what is below us, and meets our own name then.
        if not ours and not self._is_ours(self._objects.read(HOLDER) or b""):
            raise RunDirectoryError(f"{self._address} is in use: another machine has just begun. Nothing was sent.")
        self._sure_until_s = sure_s

    def check(self) -> None:
        """Raise `MachineError` if the place is known to be lost. Asks nobody."""
        if self._lost is not None:
            raise self._lost

    def be_sure(self) -> None:
        """Return while the place is certainly ours; asks the storage where the last sign was too long ago.

        Raises:
            MachineError: another has taken it.
        """
        self.check()
        if self._clock.monotonic_s() > self._sure_until_s:
            self.beat()

    def stay(self) -> None:
        """As `be_sure`. A look, which takes no place, asks nothing."""
        if self._sure_until_s:
            self.be_sure()

    def beat(self) -> None:
        """Write our name anew: the sign that we live.

        Raises:
            MachineError: another has taken the place.
        """
        sure_s = self._clock.monotonic_s() + SURE_S
        if not self._objects.swap(HOLDER, self._sign(), self._is_ours):
            # Two threads of ours may have met: what stands there decides.
            now = self._objects.read(HOLDER)
            if now is None or not self._is_ours(now):
                holder = _parse(now or b"")
                who = held_by(holder) if holder and "has_left" not in holder else "by a run that has ended since"
                self._lost = MachineError(
                    f"{self._address} was taken over, since this run gave no sign for too long: {who}. Nothing more "
                    "was sent; what is paid is in the ledger there."
                )
                raise self._lost
        self._sure_until_s = sure_s

    def leave(self) -> None:
        """Give the place up. Where that fails, our name becomes stale, or is known as that of a process that died."""
        with contextlib.suppress(Exception):
            # The name is not deleted: between a look at it and its deletion, it could become another's.
            self._objects.swap(HOLDER, orjson.dumps(self._name() | {"has_left": True}), self._is_ours)

    def _is_ours(self, said: bytes) -> bool:
        holder = _parse(said)
        return holder.get("token") == self._token and "has_left" not in holder

    def _sign(self) -> bytes:
        return orjson.dumps(self._name())

    def _name(self) -> dict[str, object]:
        return {
            "token": self._token,
            "state_id": self._state_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": _boot(),
            "since": self._since,
            "at": iso(self._clock.now_us()),
        }


def _parse(said: bytes) -> dict[str, object]:
    try:
        holder = orjson.loads(said)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _boot() -> str:
    """Where the number of a process means what it means here: this machine, since its start, and in it this container.

    Empty where nothing tells it.
    """
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot_id} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_alive(pid: object) -> bool:
    """Whether another process of this machine has this number."""
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
