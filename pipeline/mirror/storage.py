"""The object storage of a run directory, asked with patience, and what is said when that has run out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.kernel.errors import InputError, KlingBatchError, MachineError
from pipeline.kernel.objects import Objects, UnknownStorage, patiently, reason_of

T = TypeVar("T")

PATIENCE_S = 120.0
"""How long the storage may refuse, in waits between tries, before the run stops."""

FIRST_PATIENCE_S = 2.0
"""The same before anything has begun."""


class Storage:
    """The `objects` below one address. Whoever works on them says by `at_first` or `patiently` how long to try."""

    def __init__(self, address: str) -> None:
        """Raises `InputError` where the address is of no kind that can be used here. Nothing is asked yet."""
        self.address = address
        try:
            self.objects = Objects(address)
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
        return patiently(work, PATIENCE_S, self._trouble, time.sleep, check)

    def _refused(self, error: Exception) -> KlingBatchError:
        is_asked_wrongly = (
            isinstance(error, (FileNotFoundError, PermissionError)) or "Credentials" in type(error).__name__
        )
        kind = InputError if is_asked_wrongly else MachineError
        return kind(f"{self.address} cannot be used: {reason_of(error)}. Nothing was sent.")

    def _trouble(self, error: Exception) -> MachineError:
        return MachineError(
            f"{self.address} could not be written ({reason_of(error)}). Nothing more was sent; what is paid is kept "
            "for the next run. Run again when the storage can be reached."
        )
