"""A polite visitor: one request at a time, with a name, a pause, robots.txt, and patience that has an end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

import itemforge
from itemforge import retry_after
from itemforge.dataset.crawl.failures import AddressRefused, Again, NotFetched
from itemforge.dataset.crawl.robots import LIMIT, NOTHING, Robots, read_robots
from itemforge.dataset.crawl.transport import CheckedTransport
from itemforge.errors import ConfigurationError
from itemforge.tls import client_context, refusal

T = TypeVar("T")

_BUSY = {408, 425, 429, 500, 502, 503, 504, *range(520, 528)}
_REDIRECTS = 5
NOT_ALLOWED = "robots.txt does not allow it"
#: Seconds that the body of one answer may take.
_LONGEST = 900.0


@dataclass(frozen=True)
class Manners:
    """How a visitor behaves. Times are seconds.

    `backoff` is the wait before the second try, which doubles; `longest_wait` the longest that a server may ask for.
    """

    contact: str
    delay: float = 1.0
    tries: int = 4
    backoff: float = 1.0
    longest_wait: float = 60.0
    allow_private: bool = False

    @property
    def user_agent(self) -> str:
        return f"ItemForge/{itemforge.__version__} ({self.contact})"


def check_contact(contact: str | None) -> str:
    """Who is behind a crawl.

    Raises:
        ConfigurationError: nobody says.
    """
    text = (contact or "").strip()
    if not text:
        raise ConfigurationError(
            "a crawl says who is behind it: add --contact with your e-mail address or a page about you, which the "
            "wiki's operators see in the User-Agent of each request"
        )
    if not (text.isascii() and text.isprintable()) or len(text) > 200 or set(text) & set("()"):
        raise ConfigurationError("--contact must be a short address in printable ASCII without parentheses")
    return text


class Visitor:
    """Fetches addresses one after the other."""

    def __init__(
        self, manners: Manners, ca_file: Path | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.manners = manners
        self._pause = pause
        self._robots: dict[str, Robots] = {}
        self._last = -1e9
        self._client = httpx.Client(
            transport=CheckedTransport(client_context(ca_file), manners.allow_private),
            headers={"User-Agent": manners.user_agent, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(30.0, connect=15.0),
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def fetch(self, url: str, take: Callable[[httpx.Response], T], accept: str = "*/*") -> T:
        """What `take` makes of the answer, which may have any status but those that ask for another try.

        `take` reads the body itself, and raises `Again` or `NotFetched` where it is not as it should be.

        Raises:
            NotFetched: after as many tries as make sense.
        """
        return self._patiently(url, take, accept, heed_robots=True)

    def _patiently(self, url: str, take: Callable[[httpx.Response], T], accept: str, heed_robots: bool) -> T:
        tried = 0
        while True:
            try:
                return self._follow(url, take, accept, heed_robots)
            except Again as again:
                tried += 1
                wait = max(again.wait or 0.0, self.manners.backoff * 2 ** (tried - 1))
                if again.wait is not None and again.wait > self.manners.longest_wait:
                    raise NotFetched(
                        "the server asks to wait longer", again.reason, again.wait, True
                    ) from None
                if tried >= self.manners.tries:
                    raise NotFetched(again.reason, wait=again.wait or 0.0, away=again.away) from None
                self._pause(min(wait, self.manners.longest_wait))

    def _follow(self, url: str, take: Callable[[httpx.Response], T], accept: str, heed_robots: bool) -> T:
        for _ in range(_REDIRECTS + 1):
            self.check(url, heed_robots)
            self._wait_turn(url)
            try:
                with self._client.stream("GET", url, headers={"Accept": accept}) as response:
                    if not response.has_redirect_location:
                        _heed_busy(response)
                        return take(response)
                    url = str(response.url.join(response.headers["location"]))
            except AddressRefused as error:
                raise NotFetched("address not allowed", str(error)) from None
            except httpx.TransportError as error:
                if (why := refusal(error)) is not None:
                    raise NotFetched(f"TLS: {why}", away=True) from error
                raise Again(_said(error), away=isinstance(error, httpx.ConnectError)) from error
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
                raise NotFetched("bad address or answer", str(error)[:200]) from error
            finally:
                self._last = time.monotonic()
        raise NotFetched("too many redirects")

    def check(self, url: str, heed_robots: bool = True) -> None:
        """Whether an address may be visited.

        Raises:
            NotFetched: it may not.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            raise NotFetched("bad address or answer", url[:200]) from None
        if parts.scheme not in ("http", "https") or not host:
            raise NotFetched("no address of the web", url[:200])
        if heed_robots and not self.robots(url).allows(url):
            raise NotFetched(NOT_ALLOWED)

    def turn(self, url: str) -> None:
        """Wait until an address may be visited by other means.

        Raises:
            NotFetched: it may not be visited at all.
        """
        self.check(url)
        self._wait_turn(url)
        self._last = time.monotonic()

    def robots(self, url: str) -> Robots:
        """The rules of the site that an address belongs to, read once."""
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if site not in self._robots:
            self._robots[site] = self._read_robots(site)
        return self._robots[site]

    def _read_robots(self, site: str) -> Robots:
        def take(response: httpx.Response) -> Robots:
            if response.status_code >= 400:  # it has none, or shows it to nobody: the RFC lets one in
                return Robots()
            return read_robots(read_start(response, LIMIT).decode("utf-8-sig", "replace"))

        try:
            return self._patiently(f"{site}/robots.txt", take, "text/plain", heed_robots=False)
        except NotFetched as error:
            if error.reason in ("address not allowed", "too many redirects") or error.away:
                raise
            return NOTHING

    def _wait_turn(self, url: str) -> None:
        parts = urlsplit(url)
        asked = self._robots.get(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        delay = max(self.manners.delay, asked.delay if asked and self.manners.delay else 0.0)
        if (rest := self._last + delay - time.monotonic()) > 0:
            self._pause(rest)


def _heed_busy(response: httpx.Response) -> None:
    if response.status_code in _BUSY:
        raise Again(f"HTTP {response.status_code}", wait_asked(response))


def wait_asked(response: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None where it does not."""
    return retry_after.seconds(response.headers.get("retry-after"))


def read_start(response: httpx.Response, limit: int) -> bytes:
    """At most so many bytes of a body."""
    got, end = bytearray(), time.monotonic() + _LONGEST
    for chunk in response.iter_bytes():
        got += chunk
        if len(got) >= limit:
            break
        if time.monotonic() > end:
            raise NotFetched("too slow")
    return bytes(got[:limit])


def read_all(response: httpx.Response, limit: int) -> bytes:
    """A body.

    Raises:
        NotFetched: it is longer than `limit`.
    """
    body = read_start(response, limit + 1)
    if len(body) > limit:
        raise NotFetched("answer too large", f"more than {limit} bytes")
    return body


def _said(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return "cannot be reached" if isinstance(error, httpx.ConnectError) else "connection broke off"
