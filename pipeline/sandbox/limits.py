"""The provider's rate limit: a strict sliding window."""

from collections import deque


class RateWindow:
    """Counts calls in a sliding window of `span_s` seconds; refused calls do not use up the limit."""

    def __init__(self, limit: int | None, span_s: float = 60.0) -> None:
        self._limit = limit
        self._span_s = span_s
        self._admitted: deque[float] = deque()
        self._seen: deque[float] = deque()
        self.most_seen = 0  # calls in the busiest window, the refused ones included
        self.refused = 0

    def call(self, now: float) -> float | None:
        """Count one call at `now`; None when it is let in, else the instant from which one more fits."""
        horizon = now - self._span_s
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
            self.refused += 1
            return admitted[0] + self._span_s
        admitted.append(now)
        return None

    def remember(self, at: float) -> None:
        """Take up a call that an earlier process let in."""
        self._admitted.append(at)
        self._seen.append(at)
