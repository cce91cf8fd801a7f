"""The blocking client. What is sent and how answers are read is in `calls`, `trying` and `following`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class Client:
    """One connection pool to a gateway, for any number of threads; use it as a context manager.

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
        """`timeout` in seconds; `ca_file` holds certificates (PEM) to be trusted besides the system's.

        Raises:
            ConfigurationError: it cannot be read.
        """
        self._http = httpx.Client(**pool(url, key, timeout, ca_file))
        self._retries = retries

    @classmethod
    def from_environment(cls, url: str | None = None, *, retries: Retries = Retries()) -> Self:
        """With API_GATEWAY_URL, ITEMFORGE_API_KEY and ITEMFORGE_CA_FILE; `url` wins.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        return cls(**from_environment(url), retries=retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self, prompt: str, *, request_id: UUID | str | None = None, **options: Unpack[Options]
    ) -> Generation:
        """Ask for pictures; the answer comes at once. The same `request_id` (a UUID) never makes two."""
        return self.send(calls.submit(prompt, request_id, options))

    def get(self, generation: Named) -> Generation:
        """The generation as it stands now."""
        return self.send(calls.get(generation))

    def page(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[Filters]
    ) -> Page:
        """One page of a list, newest first; `cursor` is the `next_cursor` of the page before."""
        return self.send(calls.page(filters, limit, cursor))

    def list(self, *, page_size: int = 50, **filters: Unpack[Filters]) -> Iterator[Generation]:
        """Every generation that fits, newest first, fetched page by page as they are taken."""
        call: Call[Page] | None = calls.page(filters, page_size)
        while call is not None:
            page = self.send(call)
            yield from page.items
            call = calls.next_page(call, page)

    def wait(
        self,
        generation: Named,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Generation], object] | None = None,
    ) -> Generation:
        """Wait until it is Completed. `on_progress` is given it at each change, with its progress so far.

        `timeout` is in seconds, and looked at every 5.

        Raises:
            GenerationFailed: it ended otherwise.
            WaitTimeout: it goes on; nothing is cancelled.
        """
        deadline = Deadline(timeout)
        tally = Tally(self.get(generation))
        for event in self._follow(generation, deadline):
            if tally.take(event) and on_progress is not None:
                on_progress(tally.now)
        ended = self.get(generation)
        if ended.status is not Status.COMPLETED:
            raise GenerationFailed(ended)
        return ended

    def events(self, generation: Named) -> Iterator[Event]:
        """What happens to it until it ends. A stream that breaks off is taken up where it broke."""
        return self._follow(generation, Deadline(None))

    def cancel(self, generation: Named) -> Generation:
        """Cancel it, waiting or running; again is no error."""
        return self.send(calls.cancel(generation))

    def retry(self, generation: Named) -> Generation:
        """Send an ended one again, as a new one whose `retry_of` is this one."""
        return self.send(calls.retry(generation))

    def delete(self, generation: Named, *, forever: bool = False) -> None:
        """Hide it, cancelled if it is open; it goes with its pictures a day later, or now if `forever`."""
        self.send(calls.delete(generation, forever))

    def restore(self, generation: Named) -> Generation:
        """Bring back what was deleted within the last day."""
        return self.send(calls.restore(generation))

    def image(self, generation: Named, n: int = 0, *, output: Output | None = None) -> bytes:
        """Image `n` of a Completed one: the PNG as drawn, or in the form that `output` says."""
        return self.send(calls.image(generation, n, output))

    def thumbnail(self, generation: Named, n: int = 0, *, size: int = 256) -> bytes:
        """Image `n` as a JPEG of at most 64, 128 or 256 pixels."""
        return self.send(calls.thumbnail(generation, n, size))

    def download(
        self, generation: Named, path: Path | str, n: int = 0, *, output: Output | None = None
    ) -> Path:
        """The same as `image`, into a file, which is there when it is whole."""
        return self._save(calls.image(generation, n, output), path)

    def export(
        self,
        generations: Iterable[Named],
        path: Path | str,
        *,
        form: Literal["zip", "atlas"] = "zip",
        output: Output | None = None,
        atlas: AtlasOptions | None = None,
    ) -> Path:
        """Pictures of Completed ones in a ZIP with a manifest, as files or packed on sheets."""
        return self._save(calls.export(generations, form, output, atlas), path)

    def styles(self) -> tuple[Style, ...]:
        """What can be asked for."""
        return self.send(calls.styles())

    def submit_batch(self, things: Iterable[str | ThingToDraw], **options: Unpack[BatchOptions]) -> Batch:
        """Ask for many things in one style, all or none; each variation is a generation of its own."""
        return self.send(batches.submit(batches.asked(things, options), uuid4()))

    def batch(self, batch: NamedBatch, *, first: int = 0, limit: int = 100) -> Part:
        """A batch as it stands now, with `limit` of its things from the `first` one on."""
        return self.send(batches.look(batch, first, limit))

    def wait_batch(
        self,
        batch: NamedBatch,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Batch], object] | None = None,
    ) -> Batch:
        """Look once a second until nothing of it waits or is being drawn; what failed is in its counts.

        Raises:
            WaitTimeout: it goes on; nothing is cancelled.
        """
        deadline = Deadline(timeout)
        while True:
            now = self.batch(batch, limit=1)
            if on_progress is not None:
                on_progress(now)
            if now.done:
                return now
            time.sleep(deadline.rest(1.0, f"the batch {now.id}"))

    def judge_batch(
        self, batch: NamedBatch, verdict: Verdict, generations: Sequence[Named] | None = None
    ) -> Batch:
        """Approve or reject drawn pictures; without `generations` all that have no verdict yet."""
        return self.send(batches.judge(batch, verdict, generations))

    def reroll_batch(self, batch: NamedBatch, generations: Sequence[Named] | None = None) -> Batch:
        """Draw with new seeds; without `generations` all that are rejected or failed."""
        return self.send(batches.reroll(batch, generations))

    def cancel_batch(self, batch: NamedBatch) -> Batch:
        """Cancel all of it that waits or is being drawn; again is no error."""
        return self.send(batches.cancel(batch))

    def export_batch(
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
        return self._save(batches.export(batch, which, form, output, atlas), path)

    def send(self, call: Call[T]) -> T:
        """Make a call of `client.calls` or `client.batches`."""
        tries = Tries(call, self._retries, self._http.base_url)
        while True:
            try:
                response = self._http.request(**call.request, follow_redirects=call.follow)
            except httpx.HTTPError as error:
                pause = tries.unanswered(error)
            else:
                if (again := tries.refused(response)) is None:
                    return call.read(response)
                pause = again
            time.sleep(pause)

    def _save(self, call: Call[bytes], path: Path | str) -> Path:
        tries = Tries(call, self._retries, self._http.base_url)
        with Landing(path) as landing:
            while True:
                try:
                    with self._http.stream(**call.request, follow_redirects=call.follow) as response:
                        if response.is_error:
                            response.read()
                        if (again := tries.refused(response)) is None:
                            landing.begin()
                            for part in response.iter_bytes():
                                landing.write(part)
                            return landing.finish()
                        pause = again
                except httpx.HTTPError as error:
                    pause = tries.unanswered(error)
                time.sleep(pause)

    def _follow(self, generation: Named, deadline: Deadline) -> Iterator[Event]:
        following = Following(generation, self._retries, self._http.base_url, deadline)
        while not following.ended:
            try:
                with self._http.stream(**following.request) as response:
                    if response.is_error:
                        response.read()
                    if following.opened(response):
                        for line in response.iter_lines():
                            if (event := following.take(line)) is not None:
                                yield event
                        following.closed()
            except httpx.HTTPError as error:
                following.broke(error)
            if not following.ended:
                time.sleep(following.pause())
        if following.untold:
            yield StateEvent.model_validate(self.get(generation).model_dump())
