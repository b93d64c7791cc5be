"""Object storage that fails: how long it is tried again."""

from __future__ import annotations

import pytest

from pipeline.kernel.errors import MachineError
from pipeline.kernel.objects import FIRST_WAIT_S, LONGEST_WAIT_S, patiently


@pytest.mark.parametrize("takes_s", [0.0, 1.0, 50.0, 200.0])
def test_patience_ends_by_the_clock_however_long_each_try_hangs(takes_s: float) -> None:
    """Two minutes are two minutes, and the try and the wait in which they pass, whether it refuses at once or hangs."""
    now_s, tries = 0.0, 0

    def work() -> None:
        nonlocal now_s, tries
        now_s += takes_s
        tries += 1
        raise OSError("unreachable")

    def sleep(seconds: float) -> None:
        nonlocal now_s
        assert FIRST_WAIT_S <= seconds <= LONGEST_WAIT_S
        now_s += seconds

    with pytest.raises(MachineError, match="gone"):
        patiently(work, 120.0, lambda _error: MachineError("gone"), sleep, now_s=lambda: now_s)
    assert 120 <= now_s <= 120 + LONGEST_WAIT_S + takes_s
    assert (tries == 1) == (takes_s >= 120)
