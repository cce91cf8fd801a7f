"""The client for asyncio. The same calls as `sync.Client`, to be awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack
from uuid import UUID, uuid4

import httpx

from itemforge.client import batches, calls
from itemforge.client.answers import Generation, Named, Page, Style
from itemforge.client.batches import Batch, BatchOptions, NamedBatch, Part, ThingToDraw, Verdict
from itemforge.client.calls import AtlasOptions, Call, Filters, Options
from itemforge.client.errors import GenerationFailed
from itemforge.client.following import Event, Following, StateEvent, Tally
from itemforge.client.landing import Landing
from itemforge.client.opening import from_environment, pool
from itemforge.client.trying import Deadline, Retries, Tries
from itemforge.contract import Output, Status

T = TypeVar("T")


class AsyncClient:
    """One connection pool to a gateway, for one event loop; use it as an async context manager.

    Calls that fail in passing are sent again (`retries`). What then is left is raised as one of `client.errors`.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        ca_file: Path | None = None,
        retries: Retries = Retries(),
    ) -> None:
        """As `Client`.

        Raises:
            ConfigurationError: `ca_file` cannot be read.
        """
        self._http = httpx.AsyncClient(**pool(url, key, timeout, ca_file))
        self._retries = retries

    @classmethod
    def from_environment(cls, url: str | None = None, *, retries: Retries = Retries()) -> Self:
        """With API_GATEWAY_URL, ITEMFORGE_API_KEY and ITEMFORGE_CA_FILE; `url` wins.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        return cls(**from_environment(url), retries=retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(
        self, prompt: str, *, request_id: UUID | str | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Ask for pictures; the answer comes at once. The same `request_id` (a UUID) never makes two."""
        return await self.send(calls.submit(prompt, request_id, options))

    async def get(self, generation: Named) -> Generation:
        """The generation as it stands now."""
        return await self.send(calls.get(generation))

    async def page(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[Filters]
    ) -> Page:
        """One page of a list, newest first; `cursor` is the `next_cursor` of the page before."""
        return await self.send(calls.page(filters, limit, cursor))

    async def list(self, *, page_size: int = 50, **filters: Unpack[Filters]) -> AsyncIterator[Generation]:
        """Every generation that fits, newest first, fetched page by page as they are taken."""
        call: Call[Page] | None = calls.page(filters, page_size)
        while call is not None:
            page = await self.send(call)
            for generation in page.items:
                yield generation
            call = calls.next_page(call, page)

    async def wait(
        self,
        generation: Named,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as in `Client`: what is over is not cancelled
        on_progress: Callable[[Generation], object] | None = None,
    ) -> Generation:
        """Wait until it is Completed. `on_progress` is given it at each change, with its progress so far.

        `timeout` is in seconds, and looked at every 5.

        Raises:
            GenerationFailed: it ended otherwise.
            WaitTimeout: it goes on; nothing is cancelled.
        """
        deadline = Deadline(timeout)
        tally = Tally(await self.get(generation))
        async for event in self._follow(generation, deadline):
            if tally.take(event) and on_progress is not None:
                on_progress(tally.now)
        ended = await self.get(generation)
        if ended.status is not Status.COMPLETED:
            raise GenerationFailed(ended)
        return ended

    def events(self, generation: Named) -> AsyncIterator[Event]:
        """What happens to it until it ends. A stream that breaks off is taken up where it broke."""
        return self._follow(generation, Deadline(None))

    async def cancel(self, generation: Named) -> Generation:
        """Cancel it, waiting or running; again is no error."""
        return await self.send(calls.cancel(generation))

    async def retry(self, generation: Named) -> Generation:
        """Send an ended one again, as a new one whose `retry_of` is this one."""
        return await self.send(calls.retry(generation))

    async def delete(self, generation: Named, *, forever: bool = False) -> None:
        """Hide it, cancelled if it is open; it goes with its pictures a day later, or now if `forever`."""
        await self.send(calls.delete(generation, forever))

    async def restore(self, generation: Named) -> Generation:
        """Bring back what was deleted within the last day."""
        return await self.send(calls.restore(generation))

    async def image(self, generation: Named, n: int = 0, *, output: Output | None = None) -> bytes:
        """Image `n` of a Completed one: the PNG as drawn, or in the form that `output` says."""
        return await self.send(calls.image(generation, n, output))

    async def thumbnail(self, generation: Named, n: int = 0, *, size: int = 256) -> bytes:
        """Image `n` as a JPEG of at most 64, 128 or 256 pixels."""
        return await self.send(calls.thumbnail(generation, n, size))

    async def download(
        self, generation: Named, path: Path | str, n: int = 0, *, output: Output | None = None
    ) -> Path:
        """The same as `image`, into a file, which is there when it is whole."""
        return await self._save(calls.image(generation, n, output), path)

    async def export(
        self,
        generations: Iterable[Named],
        path: Path | str,
        *,
        form: Literal["zip", "atlas"] = "zip",
        output: Output | None = None,
        atlas: AtlasOptions | None = None,
    ) -> Path:
        """Pictures of Completed ones in a ZIP with a manifest, as files or packed on sheets."""
        return await self._save(calls.export(generations, form, output, atlas), path)

    async def styles(self) -> tuple[Style, ...]:
        """What can be asked for."""
        return await self.send(calls.styles())

    async def submit_batch(
        self, things: Iterable[str | ThingToDraw], **options: Unpack[BatchOptions]
    ) -> Batch:
        """Ask for many things in one style, all or none; each variation is a generation of its own."""
        return await self.send(batches.submit(batches.asked(things, options), uuid4()))

    async def batch(self, batch: NamedBatch, *, first: int = 0, limit: int = 100) -> Part:
        """A batch as it stands now, with `limit` of its things from the `first` one on."""
        return await self.send(batches.look(batch, first, limit))

    async def wait_batch(
        self,
        batch: NamedBatch,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as `wait`
        on_progress: Callable[[Batch], object] | None = None,
    ) -> Batch:
        """Look once a second until nothing of it waits or is being drawn; what failed is in its counts.

        Raises:
            WaitTimeout: it goes on; nothing is cancelled.
        """
        deadline = Deadline(timeout)
        while True:
            now = await self.batch(batch, limit=1)
            if on_progress is not None:
                on_progress(now)
            if now.done:
                return now
            await asyncio.sleep(deadline.rest(1.0, f"the batch {now.id}"))

    async def judge_batch(
        self, batch: NamedBatch, verdict: Verdict, generations: Sequence[Named] | None = None
    ) -> Batch:
        """Approve or reject drawn pictures; without `generations` all that have no verdict yet."""
        return await self.send(batches.judge(batch, verdict, generations))

    async def reroll_batch(self, batch: NamedBatch, generations: Sequence[Named] | None = None) -> Batch:
        """Draw with new seeds; without `generations` all that are rejected or failed."""
        return await self.send(batches.reroll(batch, generations))

    async def cancel_batch(self, batch: NamedBatch) -> Batch:
        """Cancel all of it that waits or is being drawn; again is no error."""
        return await self.send(batches.cancel(batch))

    async def export_batch(
        self,
        batch: NamedBatch,
        path: Path | str,
        *,
        which: Literal["approved", "drawn"] = "approved",
        form: Literal["zip", "atlas"] = "zip",
        output: Output | None = None,
        atlas: AtlasOptions | None = None,
    ) -> Path:
        """Its pictures in a ZIP with a manifest, named by their things."""
        return await self._save(batches.export(batch, which, form, output, atlas), path)

    async def send(self, call: Call[T]) -> T:
        """Make a call of `client.calls` or `client.batches`."""
        tries = Tries(call, self._retries, self._http.base_url)
        while True:
            try:
                response = await self._http.request(**call.request, follow_redirects=call.follow)
            except httpx.HTTPError as error:
                pause = tries.unanswered(error)
            else:
                if (again := tries.refused(response)) is None:
                    return call.read(response)
                pause = again
            await asyncio.sleep(pause)

    async def _save(self, call: Call[bytes], path: Path | str) -> Path:
        tries = Tries(call, self._retries, self._http.base_url)
        with Landing(path) as landing:
            while True:
                try:
                    async with self._http.stream(**call.request, follow_redirects=call.follow) as response:
                        if response.is_error:
                            await response.aread()
                        if (again := tries.refused(response)) is None:
                            await asyncio.to_thread(landing.begin)
                            async for part in response.aiter_bytes():
                                await asyncio.to_thread(landing.write, part)
                            return await asyncio.to_thread(landing.finish)
                        pause = again
                except httpx.HTTPError as error:
                    pause = tries.unanswered(error)
                await asyncio.sleep(pause)

    async def _follow(self, generation: Named, deadline: Deadline) -> AsyncIterator[Event]:
        following = Following(generation, self._retries, self._http.base_url, deadline)
        while not following.ended:
            try:
                async with self._http.stream(**following.request) as response:
                    if response.is_error:
                        await response.aread()
                    if following.opened(response):
                        async for line in response.aiter_lines():
                            if (event := following.take(line)) is not None:
                                yield event
                        following.closed()
            except httpx.HTTPError as error:
                following.broke(error)
            if not following.ended:
                await asyncio.sleep(following.pause())
        if following.untold:
            ended = await self.get(generation)
            yield StateEvent.model_validate(ended.model_dump())
