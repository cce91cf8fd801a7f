"""A generation's events over as many connections as it takes. Decides and reads; sends and sleeps nothing itself."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from itemforge.client import calls
from itemforge.client.answers import Generation, Named, Progress, id_of
from itemforge.client.errors import RateLimited
from itemforge.client.trying import Deadline, Retries, failure_of, retry_after, unreachable
from itemforge.contract import Status
from itemforge.errors import GatewayUnavailable, ItemForgeError
from itemforge.tls import refusal

#: Seconds without a byte after which a connection counts as dead: the gateway says something every 15.
_DEAD = 45.0
#: Seconds after which a quiet stream is left to look at the time, where somebody waits no longer than that.
_LOOK = 5.0


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class StateEvent(_Event):
    """The generation has a new status."""

    id: str | None = None
    status: Status
    attempt: int = 0
    image_url: str | None = None
    error: str | None = None


class ProgressEvent(_Event):
    """Denoising steps done of one image."""

    step: int = 0
    steps: int = 0
    image: int = 0


class PreviewEvent(_Event):
    """A small JPEG of an image in the making; it is not repeated after a lost connection."""

    image: int = 0
    jpeg_base64: str

    @property
    def jpeg(self) -> bytes:
        return base64.b64decode(self.jpeg_base64)


Event = StateEvent | ProgressEvent | PreviewEvent
#: What else a newer gateway tells is passed over.
_KINDS: dict[str, type[Event]] = {
    "state": StateEvent,
    "progress": ProgressEvent,
    "preview": PreviewEvent,
}


class Following:
    """One generation's events until its end.

    `ended`: the end was told. `untold`: it has ended, and its events are kept no longer.
    """

    def __init__(
        self,
        named: Named,
        retries: Retries,
        base_url: httpx.URL,
        deadline: Deadline | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id_of(named)
        self._path = calls.events_path(named)
        self.ended = self.untold = False
        self._retries = retries
        self._base_url = base_url
        self._deadline = deadline or Deadline(None)
        self._clock = clock
        self._last: str | None = None
        self._seen_at = clock()
        self._failures = 0
        self._wanted = 0.0  # seconds that the gateway asked for
        self._parsed = _Parsed()

    @property
    def request(self) -> dict[str, Any]:
        """What httpx is asked, to go on after what was told."""
        left = self._deadline.left
        read = _DEAD if left is None else max(0.05, min(_LOOK, left))
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last} if self._last else {})
        timeout = httpx.Timeout(10.0, read=read)
        return {"method": "GET", "url": self._path, "headers": headers, "timeout": timeout}

    def opened(self, response: httpx.Response) -> bool:
        """Whether its lines can be read; a refusal must have been read before.

        Raises:
            GatewayRefused, GatewayUnavailable: there is nothing to be waited for.
        """
        self._parsed = _Parsed()
        if response.status_code == 204:
            self.ended = self.untold = True
            return False
        if response.is_success:
            self._seen_at = self._clock()
            return True
        failure = failure_of(response)
        if response.status_code < 500 and not isinstance(failure, RateLimited):
            raise failure
        self._broke(failure, retry_after(response) or 0.0)
        return False

    def take(self, line: str) -> Event | None:
        """The event that this line completes.

        Raises:
            GatewayUnavailable: what was sent is no event of ours.
            WaitTimeout: the time to wait is over.
        """
        self._seen_at, self._failures = self._clock(), 0
        self._rest(0.0)
        if not self._parsed.take(line):
            return None
        self._last = self._parsed.id or self._last
        name, data, self._parsed = self._parsed.name, self._parsed.data, _Parsed()
        if (kind := _KINDS.get(name)) is None:
            return None
        try:
            event = kind.model_validate_json(data)
        except ValueError as error:
            raise GatewayUnavailable(f"the gateway sent an event that cannot be read: {error}") from None
        self.ended = isinstance(event, StateEvent) and event.status.terminal
        return event

    def broke(self, error: httpx.HTTPError) -> None:
        """The connection ended with an error.

        Raises:
            GatewayUnavailable: and it has been so for too long, or would stay so.
        """
        quiet = isinstance(error, httpx.ReadTimeout) and self._deadline.left is not None
        if not quiet:
            failure = unreachable(error, self._base_url)
            if refusal(error) is not None:
                raise failure from error
            self._broke(failure)

    def pause(self) -> float:
        """Seconds until the next connection.

        Raises:
            WaitTimeout: the time to wait is over.
        """
        pause = max(self._wanted, self._retries.pause(self._failures) if self._failures else 0.0)
        self._wanted = 0.0
        return self._rest(pause)

    def closed(self) -> None:
        """The gateway ended the stream before the generation's end: it stops, or the key has ended."""
        if not self.ended:
            self._failures += 1

    def _broke(self, failure: ItemForgeError, wanted: float = 0.0) -> None:
        away = self._clock() - self._seen_at
        if away + wanted >= self._retries.reconnect:
            raise failure
        self._failures += 1
        self._wanted = wanted

    def _rest(self, seconds: float) -> float:
        return self._deadline.rest(seconds, f"the generation {self.id}")


@dataclass
class _Parsed:
    """A server-sent event as its lines come (WHATWG HTML, section 9.2), as far as our gateway sends them."""

    id: str | None = None
    name: str = "message"
    data: str = ""

    def take(self, line: str) -> bool:
        """Whether this line completes it."""
        if not line:
            self.name = self.name if self.data else "message"
            return bool(self.data)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            self.id = value
        elif field == "event":
            self.name = value
        elif field == "data":
            self.data += value
        return False


class Tally:
    """The progress over all images of a generation, put together from its events."""

    def __init__(self, generation: Generation) -> None:
        self._images = generation.num_images
        self._steps: dict[int, ProgressEvent] = {}
        self.now = generation

    def take(self, event: Event) -> bool:
        """Whether `now` has changed by it."""
        if isinstance(event, StateEvent):
            if event.status is not Status.PROCESSING and not event.status.terminal:
                self._steps.clear()  # it begins anew
            self._tell(status=event.status, error=event.error)
            if event.status is Status.COMPLETED and (done := self.now.progress):
                # The last step is seldom told: the picture itself comes instead.
                self._tell(progress=Progress(step=done.steps, steps=done.steps))
        elif isinstance(event, ProgressEvent):
            self._steps[event.image] = event
            steps = max(each.steps for each in self._steps.values()) * self._images
            step = sum(each.step for each in self._steps.values())
            self._tell(progress=Progress(step=step, steps=steps))
        return not isinstance(event, PreviewEvent)

    def _tell(self, **changed: object) -> None:
        self.now = self.now.model_copy(update=changed)
