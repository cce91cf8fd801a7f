"""What can be done with a batch, for the API's routes and the studio's pages: each within the caller's rights."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from itemforge.contract import Output
from itemforge.gateway.batch_models import BatchRequest
from itemforge.gateway.context import Gateway
from itemforge.gateway.exports import Item
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import GenerationRequest
from itemforge.gateway.problems import Refusal
from itemforge.gateway.submission import body_hash, draw_seed, find_pack, flagged, params_for, within_limits
from itemforge.imaging.naming import free_name, slug
from itemforge.jobs import batches
from itemforge.jobs.batches import Batch, Cell, Misfit, NewBatch, NewCell, Verdict
from itemforge.jobs.records import NewRequest, Request
from itemforge.styles.pack import StylePack
from itemforge.telemetry import traces
from itemforge.things import MAX_NAME, Drawing, Thing

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SHARED = tuple(Drawing.model_fields)


async def submit(
    gateway: Gateway, caller: Caller, body: BatchRequest, idempotency_key: str | None
) -> tuple[Batch, bool]:
    """Create the batch with all its requests, or find the one that this very body made before; whether it is new.

    It is one submission, and its pictures count for the quota: all of them fit, or none is taken.

    Raises:
        Refusal: 409, the key was used with another body; 422, the style is unknown or a side outside its limits,
            or a day's quota is less than the batch; 429, rate or quota are used up.
        StorageUnavailable: the style registry cannot be read.
    """
    digest = body_hash(body)
    if (old := await batches.earlier(gateway.db, caller.owner, idempotency_key)) is not None:
        return _repeated(old, digest), False
    pack = await find_pack(gateway, body.style)
    await gateway.block_list.refresh()
    cells = list(_cells(gateway, caller, pack, body, digest))
    batch = NewBatch(
        id=uuid4(),
        owner=caller.owner,
        name=(body.name or body.items[0].title)[:MAX_NAME],
        style=pack.name,
        settings=body.model_dump(mode="json", exclude_none=True, exclude={"items", "name", "style"}),
        things=len(body.items),
        size=len(cells),
        body_hash=digest,
        idempotency_key=idempotency_key,
    )
    with within_limits(gateway, caller, "items times variations"):
        made, new = await batches.create(gateway.db, batch, cells, caller.quota)
    if not new:
        gateway.submissions.give_back(caller.owner)
        return _repeated(made, digest), False
    traces.tag(batch_id=str(made.id), style=made.style)
    log.info("batch_taken", batch_id=str(made.id), style=made.style, rows=made.size)
    return made, True


def _repeated(old: Batch, digest: str) -> Batch:
    if old.body_hash != digest:
        raise Refusal(
            409, "This Idempotency-Key was used with another body; choose a new one for a new batch."
        )
    return old


def _cells(
    gateway: Gateway, caller: Caller, pack: StylePack, body: BatchRequest, digest: str
) -> Iterator[NewCell]:
    here = traces.here()
    for place, thing in enumerate(body.items):
        wanted = _asked(body, thing)
        try:
            params = params_for(gateway, pack, wanted)
            rule = flagged(gateway, caller, wanted.prompt)
        except Refusal as no:
            raise _of_item(no, place, thing) from None
        for variation in range(thing.variations or body.variations):
            seed = draw_seed() if wanted.seed is None else wanted.seed + variation
            request = NewRequest(
                id=uuid4(),
                owner=caller.owner,
                prompt=wanted.prompt,
                params=params.model_copy(update={"seed": seed}),
                body_hash=digest,
                traceparent=here,
                flagged=rule,
            )
            yield NewCell(place, variation, thing.title, request)


def _asked(body: BatchRequest, thing: Thing) -> GenerationRequest:
    """What a single request for this thing would say."""
    shared = {name: getattr(body, name) for name in _SHARED}
    own = {name: value for name in _SHARED if (value := getattr(thing, name)) is not None}
    return GenerationRequest(prompt=thing.prompt, output=body.output, **{**shared, **own})


def _of_item(no: Refusal, place: int, thing: Thing) -> Refusal:
    """The same, with the item's place where the item said it itself."""
    fields = [
        (f"items.{place}.{name}" if getattr(thing, name, None) is not None else name, advice)
        for name, advice in no.fields
    ]
    return Refusal(no.status, "; ".join(" ".join(field) for field in fields) or no.detail, fields=fields)


async def find(gateway: Gateway, batch_id: UUID, sees: str | None) -> Batch:
    """The batch, if the caller may see it.

    Raises:
        Refusal: 404, there is none, or it is another's.
    """
    if (batch := await batches.get(gateway.db, batch_id, sees)) is None:
        raise Refusal(404, "There is no batch with this id.")
    return batch


async def judge(
    gateway: Gateway, batch: Batch, verdict: Verdict, ids: Sequence[UUID] | None = None
) -> list[Cell]:
    """Give a verdict on drawn pictures, and return their cells; without `ids` on all that have none yet.

    Raises:
        Refusal: 404, an id is none of the batch's now; 409, one is not drawn.
    """
    try:
        return await batches.judge(gateway.db, batch.id, verdict, ids)
    except Misfit as why:
        raise _misfit(why, "has no picture to judge; wait until it is Completed") from None


async def reroll(
    gateway: Gateway, caller: Caller, batch: Batch, ids: Sequence[UUID] | None = None
) -> list[UUID]:
    """Draw with new seeds what is rejected or Failed; the ids of the new requests.

    Raises:
        Refusal: 404, an id is none of the batch's now; 409, one is neither rejected nor ended without a picture;
            422 and 429 as `submit`.
    """
    here = traces.here()

    def renew(old: Request) -> NewRequest:
        return NewRequest(
            id=uuid4(),
            owner=batch.owner,
            prompt=old.prompt,
            params=old.params.model_copy(update={"seed": draw_seed()}),
            body_hash=hashlib.sha256(f"re-roll of {old.id}".encode()).hexdigest(),
            retry_of=old.id,
            traceparent=here,
            flagged=flagged(gateway, caller, old.prompt),
        )

    await gateway.block_list.refresh()
    try:
        with within_limits(gateway, caller, "the pictures to draw again"):
            news = await batches.reroll(gateway.db, batch, renew, ids, caller.quota)
    except Misfit as why:
        raise _misfit(why, "is not to be drawn again; reject it first, or cancel it if it is open") from None
    if not news:
        gateway.submissions.give_back(caller.owner)
    log.info("batch_rerolled", batch_id=str(batch.id), rows=len(news))
    return [new.id for new in news]


def _misfit(why: Misfit, unfit: str) -> Refusal:
    if why.unknown:
        told = _some(why.unknown, str)
        return Refusal(404, f"These ids do not stand in the batch (any more, if re-rolled): {told}.")
    told = _some(why.unfit, lambda cell: f"{cell.request_id} ({cell.status or 'gone'})")
    return Refusal(409, f"{unfit[0].upper()}{unfit[1:]}: {told}.")


def _some(every: Sequence[T], show: Callable[[T], str]) -> str:
    more = f" and {len(every) - 5} more" if len(every) > 5 else ""
    return ", ".join(map(show, every[:5])) + more


async def export_items(
    gateway: Gateway, batch: Batch, output: Output | None, *, approved: bool
) -> list[Item]:
    """The batch's approved pictures, or all that are drawn, with names of their things.

    Raises:
        Refusal: 409, there is none.
    """
    wanted = Verdict.APPROVED if approved else None
    cells = await batches.with_verdict(gateway.db, batch.id, wanted)
    if not cells:
        said = (
            "Nothing of this batch is approved yet; approve some pictures, or export all that are drawn."
            if approved
            else "Nothing of this batch is drawn yet; wait for the first pictures."
        )
        raise Refusal(409, said)
    items: list[Item] = []
    taken: set[str] = set()
    for cell in cells:
        if cell.request is not None:
            form = output or cell.request.params.output
            stem = f"{slug(cell.name)}-{cell.variation + 1}"
            items.append(Item(cell.request, 0, form, free_name(stem, form.format if form else "png", taken)))
    return items
