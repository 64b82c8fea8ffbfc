"""DRF's scoped throttles at a cost that does not grow with the rate.

DRF keeps the time of every request of a window in the cache and reads and writes all of them at
each: a rate such as ``1000/s`` costs more than the request. A host names this class in
``REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"]`` in place of `ScopedRateThrottle`.
"""

from __future__ import annotations

from typing import Any

from rest_framework.throttling import ScopedRateThrottle


class WindowRateThrottle(ScopedRateThrottle):
    """Counts the requests of each second, minute, hour or day by the clock, with one look each.

    Around the end of a window twice the rate may pass. While the cache is away, and is told to
    ignore that, nothing is refused.
    """

    def allow_request(self, request: Any, view: Any) -> bool:
        """Whether the caller has a request left in this window."""
        self.scope = getattr(view, self.scope_attr, None)
        if not self.scope:
            return True
        self.num_requests, self.duration = self.parse_rate(self.get_rate())
        if self.num_requests is None or self.duration is None:
            return True
        key = self.get_cache_key(request, view)
        now = self.timer()
        window = int(now // self.duration)
        self.left = (window + 1) * self.duration - now
        count = self._count(f"{key}:{window}", self.duration)
        return count is None or count <= self.num_requests

    def wait(self) -> float:
        """Seconds until the next window."""
        return self.left

    def _count(self, key: str, seconds: int) -> int | None:
        try:
            return self._one_more(key)
        except ValueError:  # The first of the window, or two first ones at once.
            added = self.cache.add(key, 1, seconds + 1)
        return 1 if added else self._one_more(key)

    def _one_more(self, key: str) -> int | None:
        count: int | None = self.cache.incr(key)
        return count
