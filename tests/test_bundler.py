import asyncio
from collections.abc import Sequence

import pytest

from itemforge.bundler import Bundler
from polling import eventually


class Work:
    """Doubles numbers; `gate` holds each bundle until it is opened, and `bad` numbers fail."""

    def __init__(self, bad: int | None = None) -> None:
        self.bundles: list[list[int]] = []
        self.bad = bad
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.bundles.append(list(items))
        await self.gate.wait()
        if self.bad in items:
            raise ValueError("bad")
        return [2 * item for item in items]


async def _called(bundler: Bundler[int, int], work: Work, *items: int) -> list["asyncio.Task[int]"]:
    """The first item is under way when the others are called."""
    tasks = [asyncio.create_task(bundler.call(items[0]))]
    await eventually(lambda: bool(work.bundles))
    tasks += [asyncio.create_task(bundler.call(item)) for item in items[1:]]
    await asyncio.sleep(0)
    work.gate.set()
    return tasks


async def test_the_first_call_goes_at_once_and_those_that_come_meanwhile_go_together() -> None:
    work = Work()
    bundler = Bundler(work, most=3)
    tasks = await _called(bundler, work, 1, 2, 3, 4, 5)
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert work.bundles == [[1], [2, 3, 4], [5]]
    assert await bundler.call(6) == 12, "an idle bundler starts again"


async def test_an_error_reaches_every_caller_of_its_bundle_and_no_other() -> None:
    work = Work(bad=3)
    tasks = await _called(Bundler(work, most=2), work, 1, 2, 3, 4)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == 2 and results[3] == 8
    assert [type(result) for result in results[1:3]] == [ValueError, ValueError]


async def test_a_bad_item_spoils_nothing_for_its_bundle_when_each_is_tried_alone() -> None:
    work = Work(bad=3)
    tasks = await _called(Bundler(work, most=8, alone=(ValueError,)), work, 1, 2, 3, 4)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[1], results[3]] == [2, 4, 8] and isinstance(results[2], ValueError)
    assert work.bundles == [[1], [2, 3, 4], [2], [3], [4]]


async def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    work = Work()
    bundler = Bundler(work, most=8)
    first = asyncio.create_task(bundler.call(1))
    await eventually(lambda: bool(work.bundles))
    leaver, stayer = asyncio.create_task(bundler.call(2)), asyncio.create_task(bundler.call(3))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    work.gate.set()
    assert await asyncio.gather(first, stayer) == [2, 6]
