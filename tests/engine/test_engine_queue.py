"""Whose turn it is: affinity to a style, a bound on waiting, turns among shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import row
from hypothesis import given, settings
from hypothesis import strategies as st

from itemforge.engine.queue import MAX_PASSED, Queue
from itemforge.engine.rows import LoraRef
from itemforge.engine.samplers import COLUMNS, Plan
from itemforge.engine.state import RowState

STYLES = {name: (LoraRef(Path(name), name * 64, 1.0),) for name in "abc"}


def state(row_id: str, style: str = "a", width: int = 16, **changes: Any) -> RowState:
    plan = Plan(np.zeros((2, COLUMNS), np.float32), 1.0)
    return RowState(row(row_id, loras=STYLES[style], **changes), plan, (), None, (16, width, 1))


def take(queue: Queue, limit: int = 8) -> list[str]:
    """One step: who is in it begins."""
    batch = queue.choose(lambda shape: limit)
    for one in batch:
        one.latents = torch.zeros(1)
    return [one.row.row_id for one in batch]


def test_an_empty_queue_chooses_nobody() -> None:
    assert take(Queue()) == []


def test_the_oldest_row_of_a_style_takes_its_like_along() -> None:
    queue = Queue()
    for name, style in (("1", "b"), ("2", "a"), ("3", "b")):
        queue.add(state(name, style))

    assert take(queue) == ["1", "3"]


def test_a_style_is_kept_while_it_has_rows() -> None:
    queue = Queue()
    first, other = state("first", "a"), state("other", "b")
    queue.add(first)
    take(queue)
    queue.add(other)
    queue.add(state("joins", "a"))

    assert take(queue) == ["first", "joins"]


def test_after_so_many_passed_rows_a_style_takes_no_more() -> None:
    queue = Queue()
    running = [state(f"a{n}") for n in range(MAX_PASSED + 1)]
    queue.add(running[0])
    take(queue)
    queue.add(state("waits", "b"))
    for one in running[1:]:
        queue.add(one)
        take(queue)
    for one in running[1:]:
        queue.remove(one)
    assert take(queue) == ["a0"], "it had begun"
    queue.add(state("late"))
    assert take(queue) == ["a0"], "but nobody joins it"
    queue.remove(running[0])

    assert take(queue) == ["waits"]


def test_shapes_of_a_style_take_turns() -> None:
    queue = Queue()
    for name, width in (("s1", 16), ("w1", 24), ("s2", 16)):
        queue.add(state(name, width=width))

    assert [take(queue) for _ in range(4)] == [["s1", "s2"], ["w1"], ["s1", "s2"], ["w1"]]


def test_a_full_batch_is_the_oldest_rows() -> None:
    queue = Queue()
    for n in range(5):
        queue.add(state(str(n)))

    assert take(queue, limit=3) == ["0", "1", "2"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([16, 24]), st.booleans()), min_size=1, max_size=40
    ),
    st.integers(1, 4),
)
def test_every_row_comes_to_its_end_and_nobody_is_passed_too_often(
    arrivals: list[tuple[str, int, bool]], limit: int
) -> None:
    queue = Queue()
    waiting = [state(str(n), style, width, alone=alone) for n, (style, width, alone) in enumerate(arrivals)]
    order = {one.row.row_id: n for n, one in enumerate(waiting)}
    ended: list[str] = []
    for turn in range(len(arrivals) * 30):
        if turn < len(waiting):
            queue.add(waiting[turn])
        batch = queue.choose(lambda shape: limit)
        assert len({one.lane for one in batch}) <= 1
        assert len({one.shape for one in batch}) <= 1
        for one in batch:
            assert not one.row.alone or len(batch) == 1
            one.latents = torch.zeros(1)
            one.step += 1
            if one.step == 2:
                queue.remove(one)
                ended.append(one.row.row_id)
        begun = [one for one in queue if one.started]
        assert len({one.lane for one in begun}) <= 1, "rows of two styles are never in the making at once"
    assert sorted(ended, key=order.__getitem__) == list(order)


def test_a_stream_of_new_shapes_does_not_starve_an_older_one() -> None:
    queue = Queue()
    queue.add(state("old", width=16))
    turns = 0
    for n in range(20):
        fresh = state(f"new{n}", width=24 + 8 * n)
        queue.add(fresh)
        if (taken := take(queue)) == ["old"]:
            turns += 1
        else:
            queue.remove(next(one for one in queue if one.row.row_id == taken[0]))

    assert turns >= 2, "it takes its turn though somebody new is always there"
