"""Calls that wait for the same thing go together: a commit, a request to the gateway.

The first call goes at once and by itself. What is called while it is under way waits, and goes as one
bundle when it has come back. So nobody waits for company, and under load a transaction or an HTTP call
serves many.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Bundler(Generic[A, B]):
    """`work` gets a bundle of at most `most` items and returns a result for each, in their order.

    An error of `work` is raised to every caller of the bundle. When it is one of `alone`, each item is
    tried by itself first: one bad item spoils nothing for the others, if a failed bundle changes nothing.
    """

    def __init__(
        self,
        work: Callable[[Sequence[A]], Awaitable[Sequence[B]]],
        most: int,
        alone: tuple[type[Exception], ...] = (),
    ) -> None:
        self._work = work
        self._most = most
        self._alone = alone
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def call(self, item: A) -> B:
        """The item's own result. Whoever is cancelled while waiting leaves the bundle as it is."""
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                bundle, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._serve(bundle)
        finally:
            self._runner = None
            for _, future in self._waiting:  # only when we are cancelled: nobody may wait for ever
                future.cancel()
            self._waiting.clear()

    async def _serve(self, bundle: Sequence[tuple[A, asyncio.Future[B]]]) -> None:
        futures = [future for _, future in bundle]
        try:
            results = await self._work([item for item, _ in bundle])
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:
            if len(bundle) > 1 and isinstance(error, self._alone):
                for single in bundle:
                    await self._serve([single])
                return
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)
