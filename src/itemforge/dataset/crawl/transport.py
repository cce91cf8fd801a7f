"""HTTP over connections that are checked when they are made: after the look-up, at each redirect, for every host.

No proxy is used, whatever the environment says: behind one, nobody here would see where a connection goes.
"""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from itemforge.dataset.crawl.addresses import permitted
from itemforge.dataset.crawl.failures import AddressRefused


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that `permitted` lets through."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = permitted(host, port, self._allow_private)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known ({error})") from error
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last


class CheckedTransport(httpx.BaseTransport):
    """What an httpx client sends its requests through."""

    def __init__(self, context: ssl.SSLContext, allow_private: bool) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=4, network_backend=CheckedBackend(allow_private)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with _as_httpx(request):
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        stream = _Body(answer, request)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx(self._request):
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Errors under the names that httpx's users know; a refused address under its own."""
    try:
        yield
    except AddressRefused:
        raise
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(f"no answer in time ({error})", request=request) from error
    except (httpcore.ConnectError, httpcore.UnsupportedProtocol) as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise httpx.ReadError(str(error), request=request) from error
