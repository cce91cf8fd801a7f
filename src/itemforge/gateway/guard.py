"""Where webhooks may go: to public addresses, and to what `ITEMFORGE_WEBHOOK_NETWORKS` allows besides.

Users say where, and the gateway stands in a network of its operator's, so each address is looked at twice: when
it is given, for a clear answer, and when a connection is made, where the very address that was looked at is
connected to. A name that leads elsewhere by then leads nowhere. No proxy is used: behind one, nobody here would
see where a connection goes.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpcore
import httpx

from itemforge.addresses import Address, embedded, is_public, read
from itemforge.errors import PermanentError
from itemforge.gateway.problems import wrong_field
from itemforge.settings import GatewaySettings

#: Seconds that a look-up may take when an address is given; what is not known by then is checked when it is sent.
_PATIENCE = 3.0
_MAX_URL = 2000
_EXAMPLE = "an address such as https://example.com/hook"

#: The addresses of a host's name; raises OSError when it has none.
Resolve = Callable[[str, int], Awaitable[list[str]]]


class AddressRefused(PermanentError):
    """An address that webhooks may not go to; the text says what one must be."""


#: Look-ups run apart: names whose servers are slow must not take the threads that others wait for.
_look_ups = ThreadPoolExecutor(8, "webhook-names")


async def _resolve(host: str, port: int) -> list[str]:
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_look_ups, look_up)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """The rules of one gateway."""

    def __init__(self, settings: GatewaySettings, resolve: Resolve = _resolve) -> None:
        self._http = settings.webhook_http
        self._allowed = settings.webhook_allowed
        self.resolve = resolve

    async def check_url(self, field: str, text: str) -> None:
        """Look at an address that somebody gives for webhooks.

        Raises:
            Refusal: 422, it is no such address, or its host is not to be reached.
        """
        try:
            url = self.read(text)
            async with asyncio.timeout(_PATIENCE):
                await self.permitted(url.raw_host.decode("ascii"), _port(url))
        except AddressRefused as error:
            raise wrong_field(field, str(error)) from None
        except socket.gaierror as error:
            # A name server that is away says nothing about the name.
            if error.errno != socket.EAI_AGAIN:
                raise wrong_field(field, "must name a host that can be found; correct its name") from None
        except (OSError, UnicodeError):
            raise wrong_field(field, "must name a host that can be found; correct its name") from None
        except TimeoutError:
            pass

    def read(self, text: str) -> httpx.URL:
        """The address, if its form is good.

        Raises:
            AddressRefused: it is not.
        """
        schemes = ("https", "http") if self._http else ("https",)
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            raise AddressRefused(f"must be {_EXAMPLE}") from None
        if url.scheme not in schemes or not url.host:
            raise AddressRefused(f"must begin with {' or '.join(s + '://' for s in schemes)} and a host")
        if url.port is not None and not 0 < url.port < 65536:
            raise AddressRefused(f"must be {_EXAMPLE}, and its port between 1 and 65535")
        if url.userinfo or url.fragment or len(text) > _MAX_URL or not text.isprintable() or "\\" in text:
            raise AddressRefused(
                f"must have no user, no password and no fragment, and at most {_MAX_URL} characters"
            )
        return url

    async def permitted(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to.

        Raises:
            AddressRefused: it has none.
            OSError: it is not known.
        """
        found = await self.resolve(host.strip("[]"), port)
        good = [each for each in found if self._may_reach(read(each))]
        if not good:
            # The address itself stays out of the text: it may tell of our own network.
            raise AddressRefused(
                f"must lead to a public address, and {host} does not; "
                "the gateway's operator can allow it by ITEMFORGE_WEBHOOK_NETWORKS"
            )
        return good

    def _may_reach(self, address: Address) -> bool:
        behind = embedded(address) or address
        return is_public(address) or any(behind in network for network in self._allowed)


def _port(url: httpx.URL) -> int:
    return url.port or {"https": 443, "http": 80}[url.scheme]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that the guard lets through, and to nothing else."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's own name
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._guard.permitted(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last
