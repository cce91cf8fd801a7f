"""The pace at which a gate lets requests through."""

from datetime import UTC, datetime

import pytest

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.limits import Gate, Limits, Stopped, service_day


class Clock:
    """Time that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class QuickGate(Gate):
    """Waits on the test's clock."""

    clock: Clock

    def sleep(self, seconds: float) -> None:
        self.clock.now += seconds


def gate(cache: CaptionCache, limits: Limits) -> tuple[QuickGate, Clock]:
    clock = Clock()
    made = QuickGate(limits, cache, "m", clock=clock, now=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))
    made.clock = clock
    return made, clock


def test_no_minute_has_more_than_its_limit(cache: CaptionCache) -> None:
    made, clock = gate(cache, Limits(per_minute=3))
    times = []
    for number in range(10):
        made.enter()
        times.append(clock.now)
        clock.now += number
    for start in times:
        assert sum(start <= each < start + 60 for each in times) <= 3
    assert times[-1] - times[0] < 4 * 60


def test_a_hold_is_for_everybody(cache: CaptionCache) -> None:
    made, clock = gate(cache, Limits())
    made.hold(30)
    made.hold(10)
    made.enter()
    assert clock.now == 130


def test_a_stop_wakes_who_waits_and_the_first_reason_stays(cache: CaptionCache) -> None:
    made = Gate(Limits(), cache, "m")
    made.stop("first")
    made.stop("second")
    assert made.why == "first"
    with pytest.raises(Stopped):
        made.enter()
    with pytest.raises(Stopped):
        made.sleep(1000)


def test_the_day_ends_at_midnight_in_california() -> None:
    assert service_day(datetime(2026, 3, 1, 7, 59, tzinfo=UTC)) == "2026-02-28"
    assert service_day(datetime(2026, 3, 1, 8, 1, tzinfo=UTC)) == "2026-03-01"


def test_the_day_is_counted_by_model(cache: CaptionCache) -> None:
    made, _ = gate(cache, Limits(per_day=2))
    made.enter()
    made.enter()
    with pytest.raises(Stopped):
        made.enter()
    assert cache.asked("m", "2026-03-01") == 2
    assert cache.asked("other", "2026-03-01") == 0
