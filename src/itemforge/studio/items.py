"""One item: looked at closely, taken home, and made again in other ways."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID, uuid4, uuid5

from fastapi import Query, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from itemforge.gateway import submission
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.generations import found
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import GenerationRequest
from itemforge.gateway.problems import Refusal
from itemforge.jobs import collections, favourites, finding
from itemforge.jobs.records import NewRequest
from itemforge.jobs.records import Request as JobRequest
from itemforge.studio import making
from itemforge.studio.filters import Look
from itemforge.studio.recipe import recipe, settings_text
from itemforge.studio.rendering import page
from itemforge.studio.routing import Form, router

routes = router()

#: Seeds stay below, so that any client can show them.
_SEEDS_BELOW = 2**32


@routes.get("/items/{request_id}")
async def item(
    request_id: UUID,
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    n: Annotated[int, Query(ge=0, le=15)] = 0,
) -> Response:
    """The page of one generation; its query is the gallery's, whose order the arrow keys follow."""
    row = await found(gateway, request_id, caller.sees)
    look = Look.of(request.query_params)
    newer, older = await finding.beside(gateway.db, look.filter(caller), (row.created_at, row.id))
    n = min(n, row.params.num_images - 1)
    return page(
        request,
        "item.html",
        row=row,
        n=n,
        look=look,
        newer=newer,
        older=older,
        liked=row.id in await favourites.among(gateway.db, caller.owner, [row.id]),
        collections=await collections.listed(gateway.db, caller.owner),
        holding=await collections.holding(gateway.db, caller.owner, row.id),
        recipe=recipe(row, n),
        settings=settings_text(row, n),
        press=uuid4(),
    )


@routes.post("/studio/items/{request_id}/again")
async def again(request_id: UUID, gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """The same once more, seed and all."""
    row = await found(gateway, request_id, caller.sees)
    if not row.status.terminal:
        raise Refusal(409, f"The item is {row.status}; wait for its end, or cancel it first.")
    await submission.resubmit(gateway, caller, row, f"studio-{making.press_of(form)}")
    return _to_the_cards()


@routes.post("/studio/items/{request_id}/variations")
async def variations(request_id: UUID, gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """The same with new seeds."""
    row = await found(gateway, request_id, caller.sees)
    await _make(gateway, caller, row, _Wanted(row.prompt, making.form_count(form), making.press_of(form)))
    return _to_the_cards()


@routes.post("/studio/items/{request_id}/like")
async def like(request_id: UUID, gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """Other words in the same recipe; the first with the same seed, if wanted."""
    row = await found(gateway, request_id, caller.sees)
    count, press = making.form_count(form), making.press_of(form)
    seed = recipe(row, _number(form.get("n", "")))["Seed"] if form.get("keep") else None
    await _make(
        gateway,
        caller,
        row,
        _Wanted(form.get("prompt", "").strip(), count, press, int(seed) if seed else None),
    )
    return _to_the_cards()


def _number(text: str) -> int:
    return int(text) if text in map(str, range(16)) else 0


def _to_the_cards() -> Response:
    return RedirectResponse("/", 303)


@dataclass(frozen=True)
class _Wanted:
    """Variations of an item, each a request of its own. The first has `seed`, if there is one.

    All else follows from `press`, so a form that arrives twice makes nothing twice.
    """

    prompt: str
    count: int
    press: UUID
    seed: int | None = None

    def seeds(self) -> list[int]:
        drawn = [uuid5(self.press, f"seed {n}").int % _SEEDS_BELOW for n in range(self.count)]
        return drawn if self.seed is None else [self.seed, *drawn[1:]]


async def _make(gateway: Gateway, caller: Caller, row: JobRequest, wanted: _Wanted) -> None:
    """Ask for all of them.

    Raises:
        Refusal: the prompt or the style cannot be drawn, or the caller's limits are reached; the text says how many
            are being made nevertheless.
    """
    for n, seed in enumerate(wanted.seeds()):
        try:
            await _make_one(gateway, caller, row, wanted.prompt, seed, uuid5(wanted.press, str(n)))
        except Refusal as no:
            told = f"{n} of {wanted.count} are being made. {no.detail}" if n else no.detail
            raise Refusal(no.status, told, headers=no.headers) from None


async def _make_one(
    gateway: Gateway, caller: Caller, row: JobRequest, prompt: str, seed: int, new_id: UUID
) -> None:
    changed = {"prompt": prompt, "seed": seed, "num_images": 1}
    asked = row.params.model_dump(exclude_none=True) | changed
    try:
        body = GenerationRequest.model_validate(asked)
    except ValidationError:
        raise Refusal(422, "The prompt must have 1 to 2000 characters; say what to draw.") from None
    if row.style is not None:
        await submission.submit(gateway, caller, body, request_id=new_id)
        return
    # Made by the original's route: its prompt carries its style itself, which no style may add again.
    new = NewRequest(
        id=new_id,
        owner=caller.owner,
        prompt=prompt,
        params=row.params.model_copy(update=changed),
        body_hash=submission.body_hash(body),
    )
    await submission.create(gateway, caller, new)
