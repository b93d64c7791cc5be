"""The object storage of a run directory, asked with patience, and what is said when that has run out."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.kernel.errors import InputError, KlingBatchError, MachineError
from pipeline.kernel.objects import LOOK_S, Objects, Silence, UnknownStorage, patiently, reason_of

T = TypeVar("T")

PATIENCE_S = 120.0
"""How long the storage may refuse, in waits between tries, before the run stops."""

FIRST_PATIENCE_S = 2.0
"""The same before anything has begun."""

LEAVING_S = 1.5
"""How long the storage may take for one call when nobody waits for the run any more."""


class Storage:
    """The `objects` below one address. Whoever works on them says by `at_first` or `patiently` how long to try."""

    def __init__(self, address: str, is_left: Callable[[], bool] = lambda: False) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet.

        `is_left` tells when nobody waits for the run any more: then a call that hangs is soon given up.
        """
        self.address = address
        self._is_left = is_left
        self._left_s: float | None = None
        self._given_up: MachineError | None = None
        """What was said when somebody's patience had run out."""
        self._checks = threading.local()
        try:
            self.objects = Objects(address, self._watch)
        except UnknownStorage as what:
            raise InputError(f"{address[:80]!r} {what}. Nothing was sent.") from None

    def at_first(self, work: Callable[[], T]) -> T:
        """Do what has to work before anything has begun, while a person is there to mend it.

        Raises:
            InputError: the address cannot be used.
            MachineError: the storage refused.
        """
        return patiently(work, FIRST_PATIENCE_S, self._refused, time.sleep)

    def patiently(self, work: Callable[[], T], check: Callable[[], None]) -> T:
        """Do what a run that has begun depends on; `check` is called before each try, and ends them by what it raises.

        Raises:
            MachineError: the storage has refused for too long.
        """

        def give_up(error: Exception) -> MachineError:
            self.objects.is_silent = True
            self._given_up = self._trouble(error)
            return self._given_up

        # Who comes after somebody whose patience has run out has none of their own, until something is answered again.
        is_given_up = self._given_up is not None and self.objects.is_silent
        patience_s = FIRST_PATIENCE_S if is_given_up else PATIENCE_S
        return patiently(work, patience_s, give_up, self._rest, check)

    @contextlib.contextmanager
    def checked(self, check: Callable[[], None]) -> Iterator[None]:
        """Have `check` called also while this thread waits for the storage, in the block."""
        before, self._checks.mine = getattr(self._checks, "mine", None), check
        try:
            yield
        finally:
            self._checks.mine = before

    def require_answers(self) -> None:
        """Raise `MachineError` where the storage has not answered what it was asked last."""
        if self.objects.is_silent:
            raise self._given_up or self._trouble(Silence())

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for the run any more."""
        return self._is_left()

    def _watch(self, taken_s: float) -> None:
        if check := getattr(self._checks, "mine", None):
            check()
        if self._is_left():
            now_s = time.monotonic()
            if self._left_s is None:
                self._left_s = now_s
            # What began before that has as long from then on as what begins later.
            if min(taken_s, now_s - self._left_s) >= LEAVING_S:
                self.objects.is_silent = True
                raise self._trouble(Silence())

    def _rest(self, seconds: float) -> None:
        """Wait between two tries, as long as anybody waits for the run."""
        while seconds > 0:
            if self._is_left():
                raise self._trouble(Silence())
            if check := getattr(self._checks, "mine", None):
                check()
            time.sleep(min(seconds, LOOK_S))
            seconds -= LOOK_S

    def _refused(self, error: Exception) -> KlingBatchError:
        if (disk := _of_this_machine(error)) is not None:
            return MachineError(f"{disk}. Nothing was sent.")
        is_asked_wrongly = (
            isinstance(error, (FileNotFoundError, PermissionError)) or "Credentials" in type(error).__name__
        )
        kind = InputError if is_asked_wrongly else MachineError
        return kind(f"{self.address} cannot be used: {reason_of(error)}. Nothing was sent.")

    def _trouble(self, error: Exception) -> MachineError:
        if (disk := _of_this_machine(error)) is not None:
            return MachineError(f"{disk}. Nothing more was sent; what is paid is kept for the next run.")
        return MachineError(
            f"{self.address} could not be written ({reason_of(error)}). Nothing more was sent; what is paid is kept "
            "for the next run. Run again when the storage can be reached."
        )


_LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""What no storage far away says."""


def _of_this_machine(error: Exception) -> str | None:
    """What this machine's disk has refused, in a sentence without its full stop; None for trouble of the storage."""
    # Only errors of this machine name a file: those of a storage are made from what it has answered.
    if not isinstance(error, OSError) or (error.filename is None and error.errno not in _LOCAL):
        return None
    return f"{error.filename or 'this disk'} cannot be written or read: {error.strerror or type(error).__name__}"
