"""Who may come in, and where.

A call needs a key, but for the probes, the documentation and the public pictures; a browser shows a session's cookie in
its place, and then may change something only from a page of ours. Only on loopback, and only while no key was ever made, the gateway does without; then it trusts no web page either: a foreign Host header
is DNS rebinding, a foreign Origin is a page that posts behind its visitor's back.
"""

import re
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from itemforge.errors import DatabaseUnavailable
from itemforge.gateway import pages
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import LOCAL, OPEN, PUBLIC, Caller
from itemforge.gateway.limits import network, whole_seconds
from itemforge.gateway.listening import is_loopback
from itemforge.gateway.problems import Refusal, problem
from itemforge.jobs.keys import Role, digest
from itemforge.storage.signing import ROUTE as SIGNED_UPLOADS

log = structlog.get_logger(__name__)

PROBES = ("/healthz", "/readyz")


def _paths(pattern: str) -> re.Pattern[str]:
    """Addresses; a line break in one is a character as any other."""
    return re.compile(pattern, re.DOTALL)


#: The API's own description, which tells nothing of anybody, and pictures, by names that nobody guesses.
_PUBLIC = _paths(r"/docs|/openapi\.json|/static-offline-docs/.*|/objects/.*")
_SEED_ROUTES = _paths(r"/(generate|status/.*|update_db/.*)")
#: What each role may do beside an admin, who may do everything. An address that is not here is an admin's.
_ALLOWED = {
    Role.USER: _paths(
        r"/v1/generations(/.*)?|/v1/batches(/.*)?|/v1/collections(/.*)?|/v1/events|/v1/exports|/v1/styles(/[^/]+/[^/]+/sample)?"
        r"|/v1/webhooks(/.*)?|/v1/stats(/throughput)?|/v1/workers|/generate|/status/.*"
        r"|/v1/images/generations|/v1/models(/[^/]+)?"
    ),
    Role.MONITOR: _paths(r"/metrics"),
    Role.WORKER: _paths(r"/v1/worker/.*|/v1/styles/blobs/[^/]+|/v1/styles/[^/]+/[^/]+\.toml|/update_db/.*"),
}


def is_public(method: str, path: str) -> bool:
    """Whether anybody may make this call. A signed upload carries its permission in its address."""
    if (method == "PUT" and path.startswith(SIGNED_UPLOADS)) or pages.is_public(path):
        return True
    return path in PROBES or (method in ("GET", "HEAD") and _PUBLIC.fullmatch(path) is not None)


def roles(path: str) -> list[Role]:
    """Whose keys may call this address; admin always."""
    found = [role for role, paths in _ALLOWED.items() if paths.fullmatch(path)]
    return found + ([Role.USER] if pages.is_page(path) else []) + [Role.ADMIN]


def check_role(caller: Caller, path: str) -> None:
    """Whether the caller may come to this address; pages ask so for what they show of the API's.

    Raises:
        Refusal: 403, it is for other roles.
    """
    allowed = roles(path)
    if caller.role in allowed:
        return
    log.warning("call_refused", path=path, key=caller.key_id, role=caller.role.value)
    raise Refusal(
        403,
        f"This address is for keys with the role {' or '.join(allowed)}, and this key has the role {caller.role}; "
        "use another key, or see /docs for the right address.",
    )


class Access:
    """ASGI middleware: refuses, or sets `request.state.caller`, and of it `owner` and `role`."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._seed_open = gateway.settings.seed_routes == "open"
        self._metrics_open = gateway.settings.metrics == "open"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope, Headers(scope=scope))
        except Refusal as no:
            await self._refused(scope, no)(scope, receive, send)
        except DatabaseUnavailable as error:
            log.warning("key_not_checked", path=scope["path"], reason=str(error))
            away = Refusal(503, str(error), headers={"Retry-After": "2"})
            await self._refused(scope, away)(scope, receive, send)
        else:
            state = scope.setdefault("state", {})
            state["caller"], state["owner"], state["role"] = caller, caller.owner, caller.role.value
            await self._app(scope, receive, send)

    def _refused(self, scope: Scope, no: Refusal) -> Response:
        if self._gateway.studio is not None and pages.is_page(scope["path"]):
            return self._gateway.studio.refused(scope, no)
        return problem(no.status, no.detail, headers=no.headers)

    async def _caller(self, scope: Scope, headers: Headers) -> Caller:
        foreign = _foreign(headers)
        public = is_public(scope["method"], scope["path"])
        if self._metrics_open and scope["path"] == "/metrics":
            return PUBLIC
        if public and foreign is None:
            return PUBLIC
        if not await self._gateway.keyring.required():
            if foreign is not None:
                raise Refusal(403, foreign)
            return LOCAL
        if public:
            return PUBLIC
        if self._seed_open and _SEED_ROUTES.fullmatch(scope["path"]):
            return await self._open_caller(scope, headers)
        return self._permitted(scope, await self._identified(scope, headers))

    async def _open_caller(self, scope: Scope, headers: Headers) -> Caller:
        """A good key says whose the request is; without one it is everybody's."""
        try:
            return self._permitted(scope, await self._identified(scope, headers))
        except Refusal:
            return OPEN

    async def _identified(self, scope: Scope, headers: Headers) -> Caller:
        given = _given(headers)
        if given:
            return await identify(self._gateway, scope, given)
        if cookie := pages.session_cookie(scope):
            caller = await self._gateway.keyring.find_session(cookie)
            if caller is not None:
                self._check_origin(scope, headers)
                return caller
        raise _unauthorized("This gateway needs a key: send it as Authorization: Bearer or X-API-Key.")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        if scope["method"] in pages.SAFE:
            return
        if not pages.is_same_origin(headers, self._gateway.settings.public_url):
            log.warning("call_refused", path=scope["path"], reason="a page of another site")
            raise Refusal(
                403,
                "Changes are taken from this gateway's own pages only; open the page again, or use a key.",
            )

    def _permitted(self, scope: Scope, caller: Caller) -> Caller:
        check_role(caller, scope["path"])
        return caller


async def identify(gateway: Gateway, scope: Scope, given: bytes) -> Caller:
    """Whose key this is.

    Raises:
        Refusal: 401, nobody's; 429, too many wrong ones came from this address.
        DatabaseUnavailable: it cannot be looked up.
    """
    key = digest(given)
    address = network(scope["client"][0] if scope.get("client") else None)
    # A key that was good before is looked at in any case: its holder may share the address (a proxy, an
    # office) with whoever guesses.
    wrong, most = gateway.wrong_keys, gateway.settings.wrong_keys
    if not gateway.keyring.was_good(key):
        _check_wait(address, wrong.wait(address, most))
    caller = await gateway.keyring.find(key)
    if caller is None:
        _check_wait(address, wrong.take(address, most))
        log.warning("wrong_key", path=scope["path"], address=address)
        raise _unauthorized("The key is not right; ask the gateway's operator for one.")
    return caller


def _check_wait(address: str, wait: float) -> None:
    if wait:
        seconds = whole_seconds(wait)
        log.info("wrong_keys_slowed", address=address, retry_after=int(seconds))
        raise Refusal(
            429,
            f"Too many wrong keys came from this address; wait {seconds} s, and correct the key.",
            headers={"Retry-After": seconds},
        )


def _unauthorized(detail: str) -> Refusal:
    return Refusal(401, detail, headers={"WWW-Authenticate": "Bearer"})


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
