"""Who may come in, and where.

A call needs a key, but for the probes, the documentation and the public pictures. Only on loopback, and only
while no key was ever made, the gateway does without; then it trusts no web page either: a foreign Host header
is DNS rebinding, a foreign Origin is a page that posts behind its visitor's back.
"""

import re
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from itemforge.errors import DatabaseUnavailable
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
    Role.USER: _paths(r"/v1/generations(/.*)?|/v1/styles|/v1/stats|/generate|/status/.*"),
    Role.WORKER: _paths(r"/v1/worker/.*|/v1/styles/blobs/[^/]+|/v1/styles/[^/]+/[^/]+\.toml|/update_db/.*"),
}


def is_public(method: str, path: str) -> bool:
    """Whether anybody may make this call. A signed upload carries its permission in its address."""
    if method == "PUT" and path.startswith(SIGNED_UPLOADS):
        return True
    return path in PROBES or (method in ("GET", "HEAD") and _PUBLIC.fullmatch(path) is not None)


def roles(path: str) -> list[Role]:
    """Whose keys may call this address; admin always."""
    return [role for role, paths in _ALLOWED.items() if paths.fullmatch(path)] + [Role.ADMIN]


class Access:
    """ASGI middleware: refuses, or sets `request.state.caller`, and of it `owner` and `role`."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._seed_open = gateway.settings.seed_routes == "open"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope, Headers(scope=scope))
        except Refusal as no:
            await problem(no.status, no.detail, headers=no.headers)(scope, receive, send)
        except DatabaseUnavailable as error:
            log.warning("key_not_checked", path=scope["path"], reason=str(error))
            await problem(503, str(error), headers={"Retry-After": "2"})(scope, receive, send)
        else:
            state = scope.setdefault("state", {})
            state["caller"], state["owner"], state["role"] = caller, caller.owner, caller.role.value
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, headers: Headers) -> Caller:
        foreign = _foreign(headers)
        public = is_public(scope["method"], scope["path"])
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
        if not given:
            raise _unauthorized("This gateway needs a key: send it as Authorization: Bearer or X-API-Key.")
        key = digest(given)
        address = network(scope["client"][0] if scope.get("client") else None)
        # A key that was good before is looked at in any case: its holder may share the address (a proxy, an
        # office) with whoever guesses.
        wrong, most = self._gateway.wrong_keys, self._gateway.settings.wrong_keys
        if not self._gateway.keyring.was_good(key):
            _check_wait(address, wrong.wait(address, most))
        caller = await self._gateway.keyring.find(key)
        if caller is None:
            _check_wait(address, wrong.take(address, most))
            log.warning("wrong_key", path=scope["path"], address=address)
            raise _unauthorized("The key is not right; ask the gateway's operator for one.")
        return caller

    def _permitted(self, scope: Scope, caller: Caller) -> Caller:
        allowed = roles(scope["path"])
        if caller.role in allowed:
            return caller
        log.warning("call_refused", path=scope["path"], key=caller.key_id, role=caller.role.value)
        wanted = " or ".join(allowed)
        raise Refusal(
            403,
            f"This address is for keys with the role {wanted}, and this key has the role {caller.role}; "
            "use another key, or see /docs for the right address.",
        )


def _check_wait(address: str, wait: float) -> None:
    if wait:
        seconds = whole_seconds(wait)
        log.info("wrong_keys_slowed", address=address, retry_after=seconds)
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
