"""The first page: type a thing, choose a style, and see it being drawn."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Query, Request, Response
from starlette.responses import RedirectResponse

from itemforge.contract import Status
from itemforge.gateway import generations, submission
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.keyring import Caller
from itemforge.gateway.problems import Refusal
from itemforge.imaging.recipe import SAMPLER_NAMES
from itemforge.jobs import requests
from itemforge.jobs.records import Request as JobRequest
from itemforge.studio import making
from itemforge.studio.making import Made
from itemforge.studio.rendering import page, part
from itemforge.studio.routing import Form, router

routes = router()

#: Cards that are asked for at once.
_MOST_CARDS = 100


@routes.get("/")
async def make_page(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    like: Annotated[UUID | None, Query()] = None,
    prompt: Annotated[str, Query(max_length=2000)] = "",
    style: Annotated[str, Query(max_length=80)] = "",
) -> Response:
    """The form and the caller's cards. `like` fills the form as that request was, `prompt` and `style` as they say."""
    values: dict[str, Any] = {"prompt": prompt, "style": style}
    if like is not None:
        values = making.filled(await generations.found(gateway, like, caller.sees))
    offered = await making.choices(gateway)
    return page(
        request,
        "make.html",
        choices=offered,
        chosen=marked(gateway, [choice.pack.name for choice in offered], values.pop("style")),
        given=values,
        is_given=bool(like or prompt),
        samplers=SAMPLER_NAMES,
        most=making.MOST_VARIATIONS,
        press=uuid4(),
        rows=await making.cards(gateway, caller),
    )


def marked(gateway: Gateway, names: list[str], wanted: str) -> str:
    """The style that is marked: the one wanted, in any version, else the default, else the first."""
    for name in (wanted, gateway.settings.default_style):
        for offered in names:
            if name and name.partition("@")[0] == offered.partition("@")[0]:
                return offered
    return names[0] if names else ""


@routes.post("/studio/make")
async def make(request: Request, gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """Ask for what the form says; the answer is the new cards."""
    if "hx-request" not in request.headers:
        await _made(gateway, caller, form)
        return RedirectResponse("/", 303)
    try:
        made = await _made(gateway, caller, form)
    except Refusal as no:
        told = {"HX-Retarget": "#make-said", "HX-Reswap": "innerHTML"}
        return part("make_said.html", no.status, told, text=no.detail)
    said = ""
    if made.refused is not None:
        said = f"{len(made.requests)} of {making.form_count(form)} are made. {made.refused.detail}"
    return part("make_made.html", rows=list(reversed(made.requests)), press=uuid4(), said=said)


async def _made(gateway: Gateway, caller: Caller, form: Mapping[str, str]) -> Made:
    body, count = making.form_request(form), making.form_count(form)
    return await making.make(gateway, caller, body, count, making.press_of(form))


@routes.post("/studio/make/composed")
async def composed(gateway: GatewayDep, form: Form) -> Response:
    """The prompt as it will be drawn."""
    name = form.get("style", "")
    pack = await gateway.catalog.get(name) if name else None
    thing = form.get("prompt", "").strip()
    negative = form.get("negative", "").strip()
    return part(
        "make_composed.html",
        drawn=pack.compose(thing or "…") if pack else thing,
        thing=thing,
        negative=negative or (pack.negative if pack else ""),
    )


@routes.get("/studio/make/cards")
async def cards(
    gateway: GatewayDep, caller: CallerDep, ids: Annotated[str, Query(max_length=40 * _MOST_CARDS)]
) -> Response:
    """The caller's cards as they are now."""
    return part("make_cards.html", rows=await making.some_cards(gateway, caller, _ids(ids)))


@routes.post("/studio/make/cancel")
async def cancel(gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """Cancel those that are open still; the answer is their cards."""
    ids = _ids(form.get("ids", ""))
    for request_id in ids:
        await requests.cancel(gateway.db, request_id, caller.owner)
    return part("make_cards.html", rows=await making.some_cards(gateway, caller, ids))


@routes.post("/studio/make/again/{request_id}")
async def again(request_id: UUID, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Send an ended one again: its card is the new one's from then on, however often one presses."""
    old = await generations.found(gateway, request_id, caller.owner)
    if not old.status.terminal or old.status is Status.COMPLETED:
        rows: list[JobRequest] = [old]
    else:
        created = await submission.resubmit(gateway, caller, old, f"studio-again-{old.id}")
        rows = [created.request]
    return part("make_cards.html", rows=rows)


def _ids(text: str) -> list[UUID]:
    try:
        return [UUID(each) for each in text.split(",") if each][:_MOST_CARDS]
    except ValueError:
        raise Refusal(422, "The cards are not ones of this page; load it again.") from None
