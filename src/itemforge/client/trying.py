"""When a call is sent again, and what its failure is called. Decides; sends and sleeps nothing itself."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from itemforge.client.calls import Call
from itemforge.client.errors import NotAllowed, NotFound, RateLimited, WaitTimeout
from itemforge.errors import GatewayRefused, GatewayUnavailable, ItemForgeError
from itemforge.retry_after import seconds
from itemforge.tls import refusal

#: Answers that may be others a moment later.
_PASSING = (429, 502, 503, 504)


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    A call that got no answer, or 429, 502, 503 or 504, is sent again: `attempts` times in all, after `first`
    seconds, then twice as many each time, or as many as the gateway's Retry-After says. Where it says more
    than `longest` seconds, the error comes at once and carries them. An event stream that broke off is taken
    up again for as long as the gateway was away no longer than `reconnect` seconds.
    """

    attempts: int = 5
    first: float = 0.25
    longest: float = 20.0
    reconnect: float = 120.0

    def pause(self, failures: int) -> float:
        """Seconds after this many failures in a row. Not the same for everybody, or all come back at once."""
        grown = self.first * 2.0 ** min(failures - 1, 30)
        return min(grown, self.longest) * random.uniform(0.75, 1.0)  # noqa: S311  # no secret


class Tries:
    """The tries of one call."""

    def __init__(self, call: Call[Any], retries: Retries, base_url: httpx.URL) -> None:
        self._call = call
        self._retries = retries
        self._base_url = base_url
        self._failures = 0

    def unanswered(self, error: httpx.HTTPError) -> float:
        """Seconds until the next try.

        Raises:
            GatewayUnavailable: this was the last one, or the next would fail as well.
        """
        failure = unreachable(error, self._base_url)
        return self._again(failure, hopeless=refusal(error) is not None)

    def refused(self, response: httpx.Response) -> float | None:
        """None when the answer can be read, else seconds until the next try.

        Raises:
            GatewayRefused, GatewayUnavailable, RateLimited: this answer is the last word.
        """
        if response.is_success or (response.status_code == 404 and self._call.gone and self._failures):
            return None
        failure = failure_of(response)
        return self._again(failure, retry_after(response), response.status_code not in _PASSING)

    def _again(self, failure: ItemForgeError, wanted: float | None = None, hopeless: bool = False) -> float:
        self._failures += 1
        if hopeless or self._failures >= self._retries.attempts or (wanted or 0) > self._retries.longest:
            raise failure
        return max(self._retries.pause(self._failures), wanted or 0)


def unreachable(error: httpx.HTTPError, base_url: httpx.URL) -> GatewayUnavailable:
    """The error for a call that got no answer."""
    if why := refusal(error):
        return GatewayUnavailable(f"no answer from the gateway at {base_url}: {why}")
    said = str(error) or type(error).__name__
    return GatewayUnavailable(
        f"no answer from the gateway at {base_url}: {said}; is it running (itemforge up), and is "
        "API_GATEWAY_URL right?"
    )


def failure_of(response: httpx.Response) -> ItemForgeError:
    """The error for an answer that is none; its body must have been read."""
    status, detail = response.status_code, _detail(response)
    if status == 429:
        return RateLimited(detail, retry_after(response))
    if status >= 500:
        return GatewayUnavailable(f"the gateway answered {status}: {detail}")
    kinds: dict[int, Callable[[int, str], GatewayRefused]] = {401: NotAllowed, 403: NotAllowed, 404: NotFound}
    return kinds.get(status, GatewayRefused)(status, detail)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the gateway asks to wait; None where it does not."""
    return seconds(response.headers.get("retry-after"))


def _detail(response: httpx.Response) -> str:
    """The problem document's words (RFC 9457), with a line for each field; else the beginning of the body."""
    try:
        body = response.json()
        detail = str(body.get("detail") or body.get("title") or body)
        for wrong in body.get("errors", []):
            detail += f"\n  {wrong.get('field', '')}: {wrong.get('message', '')}"
    except (ValueError, AttributeError, TypeError):
        return response.text[:500]
    return detail


class Deadline:
    """Until when somebody waits; without seconds for ever."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds

    @property
    def left(self) -> float | None:
        """Seconds, 0 when it is over; None: any number."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def rest(self, seconds: float, what: str) -> float:
        """So many seconds, or fewer where the end is nearer.

        Raises:
            WaitTimeout: it is over.
        """
        if (left := self.left) == 0:
            raise WaitTimeout(f"{what} has not ended in the time given; it goes on")
        return seconds if left is None else min(seconds, left)
