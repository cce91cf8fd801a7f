"""Whose turn it is: which rows take the next denoising step together.

Rows of one lane (one style) are served while there are any, since changing the style means merging
weights. So that nobody starves, a lane that let MAX_PASSED of its rows finish while an older row of
another lane waited takes no new rows: it runs empty, and the oldest row's lane is next. Inside a lane,
shapes (picture sizes, chunk counts) take turns step by step.
"""

from collections.abc import Callable, Hashable, Iterator
from itertools import takewhile

from itemforge.engine.state import RowState, Shape

#: Rows of a lane that may finish ahead of an older row of another lane.
MAX_PASSED = 4


class Queue:
    """Rows in order of arrival, from `add` until `remove`."""

    def __init__(self) -> None:
        self._states: dict[str, RowState] = {}
        self._lane: Hashable = None
        self._passed = 0
        self._turn = 0
        self._served: dict[Shape, int] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[RowState]:
        return iter(list(self._states.values()))

    def get(self, row_id: str) -> RowState | None:
        return self._states.get(row_id)

    def add(self, state: RowState) -> None:
        self._states[state.row.row_id] = state

    def remove(self, state: RowState) -> None:
        """The row is drawn, cancelled or failed."""
        if state.started and any(other.lane != state.lane for other in self._older(state)):
            self._passed += 1
        del self._states[state.row.row_id]

    def _older(self, state: RowState) -> Iterator[RowState]:
        return takewhile(lambda other: other is not state, self._states.values())

    def choose(self, limit: Callable[[Shape], int]) -> list[RowState]:
        """The rows of the next step: one lane, one shape, at most `limit(shape)`; oldest first."""
        by_shape: dict[Shape, list[RowState]] = {}
        for state in self._open_lane():
            by_shape.setdefault(state.shape, []).append(state)
        if not by_shape:
            return []
        # A shape that is new here queues behind those that wait, or a stream of new ones would starve them.
        served = {shape: self._served.get(shape, self._turn) for shape in by_shape}
        shape = min(served, key=served.__getitem__)
        self._turn += 1
        self._served = served | {shape: self._turn}
        return by_shape[shape][: limit(shape)]

    def _open_lane(self) -> list[RowState]:
        lane = [state for state in self._states.values() if state.lane == self._lane]
        if self._passed >= MAX_PASSED:
            lane = [state for state in lane if state.started]
        if not lane and self._states:
            self._lane = next(iter(self._states.values())).lane
            self._passed = 0
            lane = [state for state in self._states.values() if state.lane == self._lane]
        return lane
