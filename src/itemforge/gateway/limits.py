"""How often something may happen: a moving window over the last minute, for each name apart.

In memory and for this process. (The `limits` library was looked at: its memory store never forgets a
name, which a stranger can choose, and it starts a thread or a task at each call.)
"""

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

#: Seconds that the window is long.
WINDOW = 60.0
#: Names that are told apart; beyond that, new ones share a window, so memory stays bounded.
_MAX_NAMES = 10_000
_REST = ""


class MovingWindow:
    """Counts happenings of the last minute. Exact within one process: nothing here awaits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_names: int = _MAX_NAMES) -> None:
        self._clock = clock
        self._max_names = max_names
        #: Moments by name, oldest first; the name that was used last stands at the end.
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, name: str, limit: int) -> float:
        """0, or the seconds (above 0) until `limit` leaves a place again."""
        now = self._clock()
        moments = self._moments(name, now)
        if len(moments) < limit:
            return 0.0
        return max(moments[len(moments) - limit] + WINDOW - now, 0.001)

    def take(self, name: str, limit: int) -> float:
        """Count one happening and return 0; without a place count nothing and return as `wait`."""
        if wait := self.wait(name, limit):
            return wait
        self._moments(name, now := self._clock()).append(now)
        return 0.0

    def give_back(self, name: str) -> None:
        """Undo the newest `take`: it did not happen after all."""
        if moments := self._seen.get(name, self._seen.get(_REST)):
            moments.pop()

    def _moments(self, name: str, now: float) -> deque[float]:
        self._forget(now)
        if name not in self._seen and len(self._seen) >= self._max_names:
            name = _REST
        moments = self._seen.setdefault(name, deque())
        self._seen.move_to_end(name)
        while moments and moments[0] <= now - WINDOW:
            moments.popleft()
        return moments

    def _forget(self, now: float) -> None:
        """Drop names whose last happening has left the window; they stand in front."""
        while self._seen:
            name, moments = next(iter(self._seen.items()))
            if moments and moments[-1] > now - WINDOW:
                return
            del self._seen[name]


def network(address: str | None) -> str:
    """What an address counts as: an IPv6 client owns a whole /64 and could change within it at each call."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip.packed, 64), strict=False))
    return str(ip)


def whole_seconds(wait: float) -> str:
    """A `Retry-After` that is not too early."""
    return str(max(1, math.ceil(wait)))
