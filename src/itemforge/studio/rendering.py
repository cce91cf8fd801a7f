"""From what is known to HTML. Everything is escaped by the templates; nothing is marked as safe but our own icons."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse
from starlette.types import Scope

from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.jobs.keys import Role
from itemforge.studio.assets import asset

#: Scripts and styles from our files only, pictures also from the object store, which may be anywhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob: https: http:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Place:
    """An entry of the navigation."""

    path: str
    name: str
    icon: str
    roles: tuple[Role, ...] = (Role.USER, Role.ADMIN)


#: In the order in which they are shown.
PLACES = (
    Place("/", "Make", "spark"),
    Place("/gallery", "Gallery", "grid"),
    Place("/batches", "Batches", "list"),
    Place("/styles", "Styles", "brush"),
    Place("/fleet", "Fleet", "pulse"),
)


@lru_cache(maxsize=1)
def environment() -> Environment:
    env = Environment(
        loader=PackageLoader("itemforge.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["thousands"] = lambda number: f"{number:,}"
    env.globals["asset"] = asset
    return env


def part(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A piece of a page, for htmx."""
    text = environment().get_template(template).render(values)
    # Half a surrogate pair, which JSON can hold, is no UTF-8.
    return HTMLResponse(text.encode("utf-8", "replace"), status, {**HEADERS, **(headers or {})})


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page: `template` extends `frame.html`."""
    return part(template, status, **frame(request.scope), **values)


def frame(scope: Scope) -> dict[str, Any]:
    """What `frame.html` shows on every page; `caller` is None while nobody is known."""
    gateway: Gateway = scope["app"].state.gateway
    caller: Caller | None = scope.get("state", {}).get("caller")
    if caller is not None and caller.owner == "public":
        caller = None
    role = caller.role if caller else None
    return {
        "caller": caller,
        "path": scope["path"],
        "places": [place for place in PLACES if role in place.roles],
        "notice": gateway.settings.use_notice or default_notice(gateway),
    }


def default_notice(gateway: Gateway) -> str:
    return (
        f"Pictures are drawn by a model, {gateway.model.name}. "
        "Its licence and the style's bind what you may do with them."
    )
