"""Who may use the page, and what browsers are told to forbid it.

Without a token the page answers on loopback only. A foreign Host is DNS rebinding. A change is taken from our own page
alone: its Origin must be the address that was called, and it bears a header that no other site can send.
"""

import hashlib
import hmac
import html
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemforge.errors import ConfigurationError
from itemforge.gateway.listening import is_loopback

HEADER = "ItemForge-Review"
#: Letters that a token must have, so that nobody guesses it.
MIN_TOKEN = 16
MAX_BODY = 4 * 1024 * 1024
_COOKIE = "itemforge_review"
_TOKEN = "token"  # noqa: S105  # the name, not one
_SECONDS = 30 * 24 * 3600
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: Our own files are called by an address that has their hash.
_FOREVER = "public, max-age=31536000, immutable"


def check_exposure(host: str, token: str | None) -> None:
    """Raises ConfigurationError: others could come in without a token, or guess it."""
    if token is not None and len(token) < MIN_TOKEN:
        raise ConfigurationError(f"--token has fewer than {MIN_TOKEN} letters; take one that nobody guesses")
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} is open to others; give a --token, or leave --host out and use `ssh -L`"
        )


class Guard:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", _FOREVER if _is_ours(scope) else "no-store")
            await send(message)

        answer = await self._refusal(scope, receive)
        await (answer or self._app)(scope, receive, guarded)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        headers = Headers(scope=scope)
        if self._token is None and not is_loopback(_hostname(f"//{headers.get('host', '')}")):
            return _no(403, "This page answers to localhost only; open it at 127.0.0.1.")
        if self._token is not None and (_TOKEN in _query(scope) or not self._knows(scope, headers)):
            return await self._enter(scope, receive)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if not _same_origin(headers):
            return _no(403, "Changes are taken from the review's own page only; open it again.")
        if HEADER not in headers:
            return _no(403, f"The header {HEADER} is missing; use the page.")
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length[:12]) > MAX_BODY:
            return _no(413, f"A change must say its length, and have at most {MAX_BODY} bytes.")
        return None

    def _knows(self, scope: Scope, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        cookie = Request(scope).cookies.get(_COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie().encode())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), (self._token or "").encode())

    def _cookie(self) -> str:
        return hashlib.sha256(f"review {self._token}".encode()).hexdigest()

    async def _enter(self, scope: Scope, receive: Receive) -> Response:
        """With the right token, by link or form, in; else the form that asks for it."""
        query = _query(scope)
        given = query.get(_TOKEN, "")
        if scope["method"] == "POST" and scope["path"] == "/enter":
            given = (await _form(Request(scope, receive))).get(_TOKEN, "")
        if not given or not self._is_token(given):
            said = "The token is not right." if given else "This page needs its token."
            return _no(401, said, ask=True)
        # The address that stays in the browser's history is without it.
        rest = [(name, value) for name, value in query.multi_items() if name != _TOKEN]
        path = "/" if scope["path"] == "/enter" else "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + ("?" + urlencode(rest) if rest else ""), 303)
        answer.set_cookie(_COOKIE, self._cookie(), max_age=_SECONDS, httponly=True, samesite="strict")
        return answer


async def _form(request: Request) -> dict[str, str]:
    """A short form, by whoever."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > 4096:
            return {}
    found = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    return {name: values[0] for name, values in found.items()}


def _no(status: int, text: str, *, ask: bool = False) -> Response:
    form = (
        '<form method="post" action="/enter"><label>Token <input name="token" type="password" autofocus '
        'autocomplete="current-password"></label> <button>Open</button></form>'
        if ask
        else ""
    )
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Caption review</title><p>{html.escape(text)}</p>{form}</html>",
        status,
    )


def _query(scope: Scope) -> QueryParams:
    return QueryParams(scope["query_string"])


def _is_ours(scope: Scope) -> bool:
    return bool(scope["path"].startswith("/static/"))


def _same_origin(headers: Headers) -> bool:
    """A page behind a proxy that speaks TLS calls itself https, where we hear http: the host decides."""
    scheme, _, host = headers.get("origin", "").partition("://")
    return scheme in ("http", "https") and host != "" and host == headers.get("host")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
