"""The way in and out: a key makes a session, whose cookie stands for it from then on."""

from typing import Annotated

import structlog
from fastapi import Query, Request, Response
from starlette.responses import RedirectResponse

from itemforge.gateway import pages
from itemforge.gateway.auth import identify
from itemforge.gateway.context import Gateway, GatewayDep
from itemforge.gateway.problems import Refusal
from itemforge.jobs import sessions
from itemforge.jobs.keys import Role, digest
from itemforge.studio.rendering import page
from itemforge.studio.routing import Form, router, safe_next

log = structlog.get_logger(__name__)
routes = router()

_DAY = 86400


@routes.get("/enter")
async def ask_key(
    request: Request, gateway: GatewayDep, next: Annotated[str, Query(max_length=2000)] = "/"
) -> Response:
    """The sign-in page; who needs no key is led on."""
    if not await gateway.keyring.required():
        return RedirectResponse(safe_next(next), 303)
    return page(request, "enter.html", wanted=safe_next(next), said="")


@routes.post("/enter")
async def enter(request: Request, gateway: GatewayDep, form: Form) -> Response:
    """With a user's or admin's key, in."""
    _check_origin(gateway, request)
    wanted = safe_next(form.get("next", "/"))
    given = form.get("key", "").strip()
    try:
        if not given:
            raise Refusal(401, "Type the key that the gateway's operator gave you.")
        caller = await identify(gateway, request.scope, given.encode("utf-8", "replace"))
        if caller.role not in (Role.USER, Role.ADMIN):
            raise Refusal(403, f"This key has the role {caller.role}; the pages need a user's or an admin's.")
    except Refusal as no:
        return page(request, "enter.html", no.status, wanted=wanted, said=no.detail)
    days = gateway.settings.session_days
    cookie = await sessions.begin(gateway.db, digest(given), days)
    log.info("session_begun", key=caller.key_id, role=caller.role.value)
    answer = RedirectResponse(wanted, 303)
    answer.set_cookie(
        pages.cookie_name(request.scope),
        cookie,
        max_age=int(days * _DAY),
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@routes.post("/leave")
async def leave(request: Request, gateway: GatewayDep, form: Form) -> Response:
    """Sign this browser out, or with `everywhere` every browser that came in with the same key."""
    _check_origin(gateway, request)
    if cookie := pages.session_cookie(request.scope):
        session = digest(cookie)
        key = await sessions.key_of(gateway.db, session) if form.get("everywhere") else None
        await (sessions.end_all(gateway.db, key) if key else sessions.end(gateway.db, session))
        gateway.keyring.forget_session(cookie)
    answer = RedirectResponse("/enter", 303)
    answer.delete_cookie(
        pages.cookie_name(request.scope),
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


def _check_origin(gateway: Gateway, request: Request) -> None:
    """Else another site could sign its visitor in as somebody else, or out."""
    if not pages.is_same_origin(request.headers, gateway.settings.public_url):
        raise Refusal(403, "Sign in and out on this gateway's own page; open it again.")
