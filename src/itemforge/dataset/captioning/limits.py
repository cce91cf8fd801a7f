"""How fast and how often may be asked: a gate that every request of a run goes through.

One gate for all threads: when the service says "later" to one of them, all of them wait.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.errors import InvalidInput


@dataclass(frozen=True)
class Limits:
    """Of a run. None is no limit.

    `per_day` counts over all runs with the same cache. A service that wants a longer wait than `longest_wait`
    seconds ends the run, as do `give_up_after` pictures in a row that failed for the service's sake.

    Raises:
        InvalidInput: a limit that lets nothing through.
    """

    per_minute: int | None = None
    per_day: int | None = None
    longest_wait: float = 300.0
    give_up_after: int = 20

    def __post_init__(self) -> None:
        if any(limit is not None and limit < 1 for limit in (self.per_minute, self.per_day)):
            raise InvalidInput("a limit per minute or per day is at least 1; leave it out for no limit")
        if self.give_up_after < 1:
            raise InvalidInput("give_up_after is at least 1")


class Stopped(Exception):
    """The run has ended: nothing more is asked."""


class Gate:
    """Lets requests through at the allowed pace, until somebody stops it."""

    def __init__(
        self,
        limits: Limits,
        cache: CaptionCache,
        model: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        minute: float = 60.0,
    ) -> None:
        self.limits = limits
        self.why: str | None = None
        self._cache, self._model = cache, model
        self._clock, self._now, self._minute = clock, now, minute
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._recent: deque[float] = deque()
        self._held_until = float("-inf")

    def enter(self) -> None:
        """Wait for this request's turn.

        Raises:
            Stopped: there is none any more.
        """
        while (pause := self._turn()) > 0:
            self.sleep(pause)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run ends.

        Raises:
            Stopped: it did.
        """
        if self._stop.wait(max(seconds, 0.0)):
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Nobody goes through for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def stop(self, why: str) -> None:
        """End the run; the first reason stays."""
        with self._lock:
            self.why = self.why or why
        self._stop.set()

    def _turn(self) -> float:
        """Seconds until this request may go; 0 when it may go now, and then it is counted."""
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            pause = self._pause()
            if pause > 0:
                return pause
            if self._day_is_full():
                self.why = self.why or f"the limit of {self.limits.per_day} requests a day is reached"
                self._stop.set()
                raise Stopped
            self._recent.append(self._clock())
            return 0.0

    def _pause(self) -> float:
        now = self._clock()
        if self._held_until > now:
            return self._held_until - now
        while self._recent and self._recent[0] <= now - self._minute:
            self._recent.popleft()
        if self.limits.per_minute is not None and len(self._recent) >= self.limits.per_minute:
            return self._recent[0] + self._minute - now
        return 0.0

    def _day_is_full(self) -> bool:
        if self.limits.per_day is None:
            return False
        day = service_day(self._now())
        if self._cache.asked(self._model, day) >= self.limits.per_day:
            return True
        self._cache.count(self._model, day)
        return False


def service_day(moment: datetime) -> str:
    """The day as Gemini counts it, which ends at midnight in California."""
    return moment.astimezone(_service_zone()).date().isoformat()


def _service_zone() -> tzinfo:
    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # a machine without time zones: an hour off in summer
        return timezone(timedelta(hours=-8))
