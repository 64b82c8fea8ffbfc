"""DRF's scoped throttles at a cost that does not grow with the rate.

DRF keeps the time of every request of a window in the cache and reads and writes all of them at
each: a rate such as ``1000/s`` costs more than the request. A host names this class in
``REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"]`` in place of `ScopedRateThrottle`.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from cachetools import LRUCache
from rest_framework.throttling import ScopedRateThrottle

#: A process reserves 1/SHARE of a rate at a time.
SHARE = 100

#: Requests that this process has reserved and not yet used, by the cache's key of the window.
_left: LRUCache[str, int] = LRUCache(10_000)
_lock = Lock()


class WindowRateThrottle(ScopedRateThrottle):
    """Counts the requests of each second, minute, hour or day by the clock.

    A process reserves a hundredth of the rate, or one request, by one call to the cache, because a
    call for each request would cost more than the view. No window passes more than its rate, and a
    process may leave up to a hundredth of it unused. Around the end of a window twice the rate may
    pass. While a cache that ignores its exceptions is unreachable, no request is refused.
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
        name = f"{key}:{window}"
        with _lock:
            if left := _left.get(name):
                _left[name] = left - 1
                return True
        share = max(1, self.num_requests // SHARE)
        count = self._count(name, share, self.duration)
        if count is None:
            return True
        reserved = min(share, self.num_requests - count + share)
        if reserved > 1:
            with _lock:
                # Adds, because another thread may have reserved some at the same time.
                _left[name] = _left.get(name, 0) + reserved - 1
        return reserved > 0

    def wait(self) -> float:
        """Seconds until the next window."""
        return self.left

    def _count(self, name: str, share: int, seconds: int) -> int | None:
        """Add to the count of a window; the new count, None while the cache is unreachable."""
        try:
            return self._add(name, share)
        except ValueError:  # No count yet: this is the window's first request, or one of several.
            added = self.cache.add(name, share, seconds + 1)
        return share if added else self._add(name, share)

    def _add(self, name: str, share: int) -> int | None:
        count: int | None = self.cache.incr(name, share)
        return count
