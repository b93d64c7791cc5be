"""The provider's rate limit: a strict sliding window."""

from collections import deque
from typing import Final

_SPAN_S: Final = 60.0


class RateWindow:
    """Counts calls in any 60 seconds; refused calls do not use up the limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._admitted: deque[float] = deque()
        self._seen: deque[float] = deque()
        self.most_seen = 0  # calls in the busiest window, the refused ones included

    def call(self, now: float) -> float | None:
        """Count one call at `now`; None when it is let in, else the instant from which one more fits."""
        horizon = now - _SPAN_S
        seen = self._seen
        seen.append(now)
        while seen[0] <= horizon:
            seen.popleft()
        if len(seen) > self.most_seen:
            self.most_seen = len(seen)
        if self._limit is None:
            return None
        admitted = self._admitted
        while admitted and admitted[0] <= horizon:
            admitted.popleft()
        if len(admitted) >= self._limit:
            return admitted[0] + _SPAN_S
        admitted.append(now)
        return None

    def remember(self, at: float) -> None:
        """Take up a call that an earlier process let in."""
        self._admitted.append(at)
        self._seen.append(at)
