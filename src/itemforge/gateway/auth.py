"""Who may come in.

With a key set, every route but the probes, the documentation and the public pictures needs it. Without one the gateway
serves loopback only, and then it trusts no web page either: a foreign Host header is DNS rebinding, a
foreign Origin is a page that posts behind its visitor's back.
"""

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from itemforge.errors import ConfigurationError
from itemforge.gateway.problems import problem
from itemforge.settings import GatewaySettings
from itemforge.storage.signing import ROUTE as SIGNED_UPLOADS

PROBES = ("/healthz", "/readyz")
#: The API's own description, which is the same everywhere and tells nothing of anybody.
_DOCS = ("/docs", "/openapi.json")
_DOCS_FILES = "/static-offline-docs/"
_SEED_ROUTES = ("/generate", "/status/", "/update_db/")


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address (without port) means this machine itself."""
    if host is None:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(settings: GatewaySettings) -> None:
    """Refuse to be reachable by others without a key.

    Raises:
        ConfigurationError: the host is not loopback and no key is set.
    """
    if not is_loopback(settings.host) and not _key(settings):
        raise ConfigurationError(
            f"listening on {settings.host} would let anybody in: set ITEMFORGE_ADMIN_KEY "
            "(for example to the output of `openssl rand -hex 32`), or listen on 127.0.0.1"
        )


def _key(settings: GatewaySettings) -> bytes:
    return settings.admin_key.get_secret_value().encode() if settings.admin_key else b""


class Access:
    """ASGI middleware: refuses, or sets `request.state.owner`, whose turn and idempotency keys are counted."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._key = _key(settings)
        self._seed_open = settings.seed_routes == "open"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._wrong_key(scope, headers) if self._key else _foreign(headers)
        if refusal is None:
            await self._app(scope, receive, send)
        elif self._key:
            answer = problem(401, refusal, headers={"WWW-Authenticate": "Bearer"})
            await answer(scope, receive, send)
        else:
            await problem(403, refusal)(scope, receive, send)

    def _wrong_key(self, scope: Scope, headers: Headers) -> str | None:
        state = scope.setdefault("state", {})
        open_path = scope["path"] in _DOCS or scope["path"].startswith((_DOCS_FILES, "/objects/"))
        if open_path and scope["method"] in ("GET", "HEAD"):
            state["owner"] = "public"
            return None
        if scope["method"] == "PUT" and scope["path"].startswith(SIGNED_UPLOADS):
            state["owner"] = "signed"  # the signature in its address is the permission
            return None
        given = _given(headers)
        if hmac.compare_digest(given, self._key):
            state["owner"] = "admin"
            return None
        if self._seed_open and scope["path"].startswith(_SEED_ROUTES):
            state["owner"] = "open"
            return None
        if given:
            return "The key is not right; ask the gateway's operator for one."
        return "This gateway needs a key: send it as Authorization: Bearer or X-API-Key."


def _given(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip().encode("latin-1")
    return headers.get("x-api-key", "").strip().encode("latin-1")


def _foreign(headers: Headers) -> str | None:
    if not is_loopback(_hostname(f"//{headers.get('host', '')}")):
        return (
            "Without a key this gateway answers to localhost only; "
            "use http://127.0.0.1, or set ITEMFORGE_ADMIN_KEY."
        )
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_hostname(origin)):
        return "Without a key this gateway takes no calls from web pages of other sites."
    return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
