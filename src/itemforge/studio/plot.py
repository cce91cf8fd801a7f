"""A plot of what was done when, as figures for a template: bars in an SVG, words beside it.

The words stand outside of the picture, which may be stretched to any width then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from itemforge.gateway.models import SlotView, Throughput
from itemforge.jobs.throughput import Span

#: The picture's inner measures; one unit of width is one slot.
HEIGHT = 100.0
_GAP = 0.18
_MARKS = {
    Span.HOUR: ("60 min ago", "45", "30", "15", "now"),
    Span.DAY: ("24 h ago", "18", "12", "6", "now"),
}


@dataclass(frozen=True)
class Bar:
    """A rectangle of the picture."""

    x: float
    y: float
    width: float
    height: float
    kind: str  # completed or failed


@dataclass(frozen=True)
class Plot:
    """`marks` stand below the picture, `scale` (from the top to zero) beside it; `told` is it all in a sentence."""

    span: Span
    bars: tuple[Bar, ...]
    width: int
    marks: tuple[str, ...]
    scale: tuple[int, ...]
    told: str
    slots: tuple[SlotView, ...]  # those in which something ended, the newest first


def plot(done: Throughput) -> Plot:
    """Completed requests at the bottom, failed ones on top of them."""
    top = _rounded_up(max((slot.completed + slot.failed for slot in done.slots), default=0))
    return Plot(
        span=done.span,
        bars=tuple(bar for n, slot in enumerate(done.slots) for bar in _bars(n, slot, HEIGHT / top)),
        width=len(done.slots),
        marks=_MARKS[done.span],
        scale=(top, top // 2, 0),
        told=_told(done),
        slots=tuple(slot for slot in reversed(done.slots) if slot.completed or slot.failed),
    )


def _bars(n: int, slot: SlotView, unit: float) -> list[Bar]:
    bars, base = [], HEIGHT
    for count, kind in ((slot.completed, "completed"), (slot.failed, "failed")):
        if count:
            base -= count * unit
            bars.append(Bar(n + _GAP / 2, round(base, 3), 1 - _GAP, round(count * unit, 3), kind))
    return bars


def _rounded_up(most: int) -> int:
    """An even number for the top of the scale: 2, 4, 10, 20, 40, 100, …"""
    decade = 1
    while True:
        for step in (2, 4, 10):
            if step * decade >= most:
                return step * decade
        decade *= 10


def _told(done: Throughput) -> str:
    completed, failed = _total([s.completed for s in done.slots]), _total([s.failed for s in done.slots])
    within = (
        "the last hour, minute by minute"
        if done.span is Span.HOUR
        else "the last day, by quarters of an hour"
    )
    return f"Requests that ended in {within}: {completed} completed, {failed} failed."


def _total(counts: Sequence[int]) -> str:
    return f"{sum(counts):,}"
