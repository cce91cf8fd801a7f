"""One file over HTTP, in as many pieces as the network makes of it.

What has arrived stays in `FILE.part`; the next piece is asked for by `Range`. A server's file may have changed since,
so the range holds for the same ETag only (`If-Range`), or where the address itself names the content.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from itemforge.errors import ItemForgeError, ModelError, SourceUnavailable
from itemforge.pulling.choice import Entry
from itemforge.pulling.means import Means
from itemforge.pulling.source import is_local_host
from itemforge.pulling.workshop import Workshop, check_room
from itemforge.tls import client_context, refusal

#: Tries in a row that bring nothing new.
_TRIES = 5
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Remote:
    """Where a file is. `pinned`: the address names the content, so any two pieces of it belong together."""

    url: str
    shown: str
    key: str
    refused: Callable[[httpx.Response], ItemForgeError]
    headers: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = False


class _Interrupted(Exception):
    """The piece ended early; another try may bring the rest."""


def http_client(ca_file: Path | None, plain: str | None = None) -> httpx.Client:
    """A client that follows redirects, but never to a place without TLS, except this machine and the host `plain`.

    Credentials are not taken along to another host; that is httpx's own rule.
    """

    def check(request: httpx.Request) -> None:
        if (
            request.url.scheme != "https"
            and not is_local_host(request.url.host)
            and request.url.host != plain
        ):
            raise SourceUnavailable(
                f"the server sends on to http://{request.url.host}, where what comes may be changed on its way; "
                "pull from another source"
            )

    return httpx.Client(
        verify=client_context(ca_file),
        follow_redirects=True,
        timeout=httpx.Timeout(30.0, connect=15.0),
        event_hooks={"request": [check]},
    )


def download(client: httpx.Client, remote: Remote, entry: Entry, workshop: Workshop, means: Means) -> None:
    """Bring a file into the workshop, from where it was left.

    Raises:
        SourceUnavailable: the server cannot be reached, or gave nothing more in several tries.
        ModelError: what came is not what was listed.
        ItemForgeError: what `remote.refused` makes of a refusal.
    """
    if workshop.arrived(entry.path, remote.key):
        means.tell(entry.path, entry.size or 0, entry.size)
        return
    tries, reached = 0, False
    while True:
        before = workshop.received(entry.path, remote.key)[0]
        try:
            _piece(client, remote, entry, workshop, means)
            break
        except (httpx.TransportError, _Interrupted) as error:
            progress = workshop.received(entry.path, remote.key)[0] > before
            reached = reached or progress or isinstance(error, _Interrupted)
            tries = 0 if progress else tries + 1
            if tries >= _TRIES or (isinstance(error, httpx.ConnectError) and not reached):
                raise _away(error, remote.shown) from error
            means.pause(min(0.5 * 2**tries, 15.0))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(error, remote.shown) from error
    workshop.finish(entry, remote.shown)


def _piece(client: httpx.Client, remote: Remote, entry: Entry, workshop: Workshop, means: Means) -> None:
    """Ask for all that is missing, and write what comes of it."""
    have, etag = workshop.received(entry.path, remote.key)
    if have and have == entry.size:
        return
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if have and (etag or remote.pinned or entry.sha256):
        headers["Range"] = f"bytes={have}-"
        if etag and not remote.pinned:
            headers["If-Range"] = etag
    with client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code == 416 and response.headers.get("content-range") == f"bytes */{have}":
            return  # all of it was here; only the end of the last pull was missing
        start, total = _begin(response, remote, entry, workshop, have if "Range" in headers else 0)
        check_room(workshop.folder, max((total or 0) - start, 0))
        arrived = _write(response, entry.path, workshop, start, total, means)
    if total is not None and arrived != total:
        raise _Interrupted(f"{arrived} of {total} bytes")


def _begin(
    response: httpx.Response, remote: Remote, entry: Entry, workshop: Workshop, have: int
) -> tuple[int, int | None]:
    """Where the piece begins, and of how many bytes the file is."""
    status = response.status_code
    if status in _BUSY:
        raise _Interrupted(f"HTTP {status}")
    if status == 416 or (status == 206 and not have):
        workshop.forget(entry.path)  # what is here is not of this file
        raise _Interrupted(f"HTTP {status}")
    if status not in (200, 206):
        raise remote.refused(response)
    start, total = have, _length(response)
    if status == 206:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != have or _other(response, remote, entry, workshop):
            workshop.forget(entry.path)
            raise _Interrupted("the server sent another piece than the one asked for")
        total = None if found[2] == "*" else int(found[2])
    else:
        start = 0
        workshop.begin(entry.path, remote.key, _etag(response))
    if None not in (total, entry.size) and total != entry.size:
        workshop.forget(entry.path)
        raise ModelError(f"{remote.shown} has {total} bytes there, but is listed with {entry.size}")
    return start, entry.size if total is None else total


def _other(response: httpx.Response, remote: Remote, entry: Entry, workshop: Workshop) -> bool:
    """Whether the server says itself that this is a piece of another version: not all servers heed `If-Range`."""
    begun, now = workshop.received(entry.path, remote.key)[1], _etag(response)
    return not remote.pinned and None not in (begun, now) and begun != now


def _write(
    response: httpx.Response, name: str, workshop: Workshop, start: int, total: int | None, means: Means
) -> int:
    done = start
    means.tell(name, done, total)
    with workshop.part(name).open("ab" if start else "wb") as file:
        # In the pieces in which they come, and flushed: what waits in this process is lost when it is killed.
        for chunk in response.iter_bytes():
            file.write(chunk)
            file.flush()
            done += len(chunk)
            means.tell(name, done, total)
            if total is not None and done > total:
                break
    if total is not None and done > total:
        workshop.forget(name)
        raise ModelError(f"{name}: the server sends more than the {total} bytes that it promised")
    return done


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdigit() and "content-encoding" not in response.headers else None


def _etag(response: httpx.Response) -> str | None:
    """What names this version byte for byte; a weak ETag does not."""
    etag = response.headers.get("etag", "")
    if response.headers.get("content-encoding") or not etag.startswith('"'):
        return None
    return str(etag)


def _away(error: Exception, shown: str) -> SourceUnavailable:
    if (why := refusal(error)) is not None:
        return SourceUnavailable(f"{shown}: {why}")
    return SourceUnavailable(
        f"{shown} cannot be reached, or stopped answering ({type(error).__name__}: {_said(error)}); check the network, and "
        "proxy settings (HTTPS_PROXY), then repeat the command: what has arrived is kept"
    )


def _said(error: Exception) -> str:
    # A URL in the text could hold a token.
    return re.sub(r"https?://\S+", "…", str(error))[:200]
