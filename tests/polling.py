"""Wait for something to become true, with a deadline: tests never sleep a fixed time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def eventually(
    check: Callable[[], T | Awaitable[T]], within: float = 10.0, every: float = 0.02, why: str = ""
) -> T:
    """The first true value of `check` (a function, or an async one). Its own errors are not hidden.

    Raises:
        AssertionError: it did not become true in time; the text has the last value.
    """
    deadline = time.monotonic() + within
    while True:
        value: Any = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why or check!r}; last value: {value!r}")
        await asyncio.sleep(every)


def wait_until(check: Callable[[], T], within: float = 10.0, every: float = 0.02, why: str = "") -> T:
    """`eventually` for tests without an event loop.

    Raises:
        AssertionError: it did not become true in time; the text has the last value.
    """
    deadline = time.monotonic() + within
    while not (value := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why or check!r}; last value: {value!r}")
        time.sleep(every)
    return value
