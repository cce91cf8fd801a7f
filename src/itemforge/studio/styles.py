"""The styles' page: what there is, what it looks like, and for admins publishing and the way back."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import Request, Response

from itemforge.contract import JobParams, Status
from itemforge.gateway import style_publishing, style_routes
from itemforge.gateway.auth import check_role
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import StyleRollback, StyleView
from itemforge.gateway.problems import Refusal
from itemforge.imaging.recipe import SAMPLER_NAMES
from itemforge.jobs import finding
from itemforge.jobs.keys import Role
from itemforge.studio.rendering import page, part
from itemforge.studio.routing import Form, router

routes = router()

#: The address whose roles say who may publish and roll back.
_PUBLISHING = "/v1/styles/publish"
#: The newest items of a style that are shown.
_ITEMS = 6


@dataclass(frozen=True)
class Card:
    """A style, and what the caller drew with it last."""

    style: StyleView
    said: JobParams  # what a request gets that says its prompt alone
    items: tuple[tuple[UUID, str], ...]  # id and prompt


@routes.get("/styles")
async def styles(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """All styles that fit the deployment's model."""
    return page(request, "styles.html", model=gateway.model, **await _cards(gateway, caller))


@routes.get("/studio/styles/list")
async def listed(gateway: GatewayDep, caller: CallerDep) -> Response:
    """The cards alone, after something was published."""
    return part("styles_list.html", **await _cards(gateway, caller))


@routes.post("/studio/styles/rollback")
async def roll_back(gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """Let a style's name mean another of its versions."""
    style, version = form.get("style", ""), form.get("version", "")
    check_role(caller, _PUBLISHING)
    if not (version.isascii() and version.isdigit() and 0 < len(version) < 10):
        raise Refusal(422, "Choose a version.")
    move = await style_publishing.roll_back_style(style, StyleRollback(version=int(version)), gateway, caller)
    said = f"{move.style} means version {move.now} now; it was version {move.before}."
    return part("styles_list.html", **await _cards(gateway, caller), said=said)


async def _cards(gateway: Gateway, caller: Caller) -> dict[str, Any]:
    found = await style_routes.list_styles(gateway)
    items = await asyncio.gather(*(_items(gateway, caller, style) for style in found))
    cards = [Card(style, _said(style), shown) for style, shown in zip(found, items, strict=True)]
    return {"cards": cards, "samplers": SAMPLER_NAMES, "is_admin": caller.role is Role.ADMIN}


def _said(style: StyleView) -> JobParams:
    given = {name: value for name, value in style.defaults.items() if value is not None}
    return JobParams.model_validate({"prompt": style.template, **given})


async def _items(gateway: Gateway, caller: Caller, style: StyleView) -> tuple[tuple[UUID, str], ...]:
    wanted = finding.Filter(status=Status.COMPLETED, style=style.id, owner=caller.sees)
    return tuple((row.id, row.prompt) for row in await finding.find(gateway.db, wanted, _ITEMS))
