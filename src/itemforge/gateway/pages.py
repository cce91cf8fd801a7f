"""What the gateway knows of the studio's pages: their addresses, and how a browser says who it is.

The pages are the studio's, which stands above the gateway and is given to the app factory.
"""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

#: One page each, and under `/studio/` what pages fetch and post by themselves.
_PAGES = re.compile(r"/|/(gallery|items|batches|styles|fleet|studio)(/.*)?", re.DOTALL)
#: The way in and out, and files that tell nothing of anybody.
_PUBLIC = re.compile(r"/enter|/leave|/studio/static/.*", re.DOTALL)
_SESSION = "itemforge_session"
#: Browsers take a cookie of such a name only over TLS, for this very host, and from nobody else.
_SECURE_SESSION = "__Host-itemforge_session"
SAFE = ("GET", "HEAD", "OPTIONS")


def is_page(path: str) -> bool:
    """Whether browsers come here: forms are posted, and a refusal is a page."""
    return _PAGES.fullmatch(path) is not None or _PUBLIC.fullmatch(path) is not None


def is_public(path: str) -> bool:
    """Whether a page needs nobody to be known."""
    return _PUBLIC.fullmatch(path) is not None


def cookie_name(scope: Scope) -> str:
    return _SECURE_SESSION if scope.get("scheme") == "https" else _SESSION


def session_cookie(scope: Scope) -> str:
    """What the browser says of itself; empty if nothing."""
    return HTTPConnection(scope).cookies.get(cookie_name(scope), "")


def is_same_origin(headers: Headers, public_url: str | None) -> bool:
    """Whether a change comes from a page of ours: browsers send a session's cookie for pages of others too.

    A page behind a proxy that speaks TLS calls itself https where we hear http, so the host decides; a proxy may
    also change the host, which is then the one of `ITEMFORGE_PUBLIC_URL`.
    """
    scheme, _, host = headers.get("origin", "").partition("://")
    ours = {headers.get("host"), urlsplit(public_url).netloc if public_url else None}
    return scheme in ("http", "https") and bool(host) and host in ours
