"""DRF's scoped throttles at a cost that does not grow with the rate.

DRF keeps the times of all requests of a window in the cache and reads and writes them at each
request, so that a rate such as ``1000/s`` costs more than the request itself. A host names this
class in ``REST_FRAMEWORK["DEFAULT_THROTTLE_CLASSES"]`` in place of `ScopedRateThrottle`.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from cachetools import LRUCache
from rest_framework.throttling import ScopedRateThrottle

#: A process reserves this fraction of a rate at a time: 1/SHARE.
SHARE = 100

#: Requests that this process has reserved and not used, by the window's key in the cache.
_left: LRUCache[str, int] = LRUCache(10_000)
_lock = Lock()


class WindowRateThrottle(ScopedRateThrottle):
    """Counts the requests of each window: a second, minute, hour or day by the clock.

    A process reserves a hundredth of the rate, at least one request, by one call to the cache,
    because a call for each request would cost more than the view. A window never admits more than
    the rate; it may admit less, because a process may leave a part of its reservation unused. In a
    period around the end of a window twice the rate may be admitted. While a cache that ignores its
    exceptions is unreachable, no request is refused.
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
        # The key in the cache, because a site's KEY_FUNCTION may tell its tenants apart.
        counted = self.cache.make_key(name)
        with _lock:
            if left := _left.get(counted):
                _left[counted] = left - 1
                return True
        share = max(1, self.num_requests // SHARE)
        count = self._count(name, share, self.duration)
        if count is None:
            return True
        reserved = min(share, self.num_requests - count + share)
        if reserved > 1:
            with _lock:
                # Adds, because another thread may have reserved some at the same time.
                _left[counted] = _left.get(counted, 0) + reserved - 1
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
