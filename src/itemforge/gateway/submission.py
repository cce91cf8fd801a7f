"""From what a user asks to what a worker draws: the style resolved, the prompt composed, gaps filled."""

import hashlib
import json
import secrets
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel

from itemforge.contract import JobParams
from itemforge.errors import QuotaExceeded, StyleNotFound
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.gateway.limits import whole_seconds
from itemforge.gateway.models import GenerationRequest, SeedGeneration
from itemforge.gateway.problems import Refusal, wrong_field
from itemforge.jobs import requests
from itemforge.jobs.records import Created, NewRequest, Request
from itemforge.styles.pack import StylePack

#: Drawn seeds stay below this, so that any client can show them.
_DRAWN_BELOW = 2**32


async def resolve(gateway: Gateway, body: GenerationRequest) -> JobParams:
    """The parameters of a `/v1` request.

    Raises:
        Refusal: 422, the style is unknown or of another base, or a side is outside its limits.
        StorageUnavailable: the style registry cannot be read.
    """
    pack = await _pack(gateway, body.style or gateway.settings.default_style)
    size = pack.size or gateway.model.size
    defaults = {k: v for k, v in pack.defaults.model_dump().items() if v is not None}
    asked = body.model_dump(exclude_none=True, exclude={"prompt", "style"})
    values: dict[str, Any] = {
        "negative_prompt": pack.negative,
        "width": size.width,
        "height": size.height,
        "seed": secrets.randbelow(_DRAWN_BELOW),
        **defaults,
        **asked,
    }
    for side in ("width", "height"):
        if not size.min <= values[side] <= size.max:
            raise wrong_field(
                side, f"must be between {size.min} and {size.max} for the style {pack.name}, in steps of 8"
            )
    return JobParams(prompt=pack.compose(body.prompt), style=pack.name, **values)


async def resolve_seed(gateway: Gateway, body: SeedGeneration) -> JobParams:
    """The parameters of a `/generate` request: as they are, but for a style that is named.

    Raises:
        Refusal, StorageUnavailable: as `resolve`.
    """
    values = body.model_dump(exclude_none=True)
    if body.style is not None:
        pack = await _pack(gateway, body.style)
        values["style"] = pack.name
        values["prompt"] = pack.compose(body.prompt)
        values.setdefault("negative_prompt", pack.negative)
    return JobParams.model_validate(values)


async def _pack(gateway: Gateway, name: str) -> StylePack:
    try:
        pack = await gateway.catalog.get(name)
    except StyleNotFound as error:
        raise wrong_field("style", f"is unknown: {error}; see GET /v1/styles") from None
    if pack.base is not None and pack.base != gateway.model.base:
        raise wrong_field(
            "style",
            f"{pack.name} is made for another base model than this deployment's {gateway.model.name}; "
            "choose one of GET /v1/styles",
        )
    return pack


def body_hash(body: BaseModel) -> str:
    """What makes two bodies the same: their fields, however they were written down."""
    fields = body.model_dump(mode="json", exclude_none=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


async def submit(
    gateway: Gateway,
    caller: Caller,
    body: GenerationRequest,
    *,
    request_id: UUID | None = None,
    idempotency_key: str | None = None,
) -> Created:
    """Create the request, or find the one that this very body made before.

    Raises:
        Refusal: 409, the id or key was used with another body; 422 as `resolve`; 429 as `create`.
    """
    digest = body_hash(body)
    new_id = request_id or uuid4()
    if request_id is not None or idempotency_key is not None:
        # Before the style is looked at: a repetition must work even if the style has changed since.
        old = await requests.earlier(gateway.db, caller.owner, new_id, idempotency_key)
        if old is not None:
            return _repeated(old, caller.owner, digest)
    new = NewRequest(
        id=new_id,
        owner=caller.owner,
        prompt=body.prompt,
        params=await resolve(gateway, body),
        body_hash=digest,
        idempotency_key=idempotency_key,
    )
    created = await create(gateway, caller, new)
    return created if created.new else _repeated(created.request, caller.owner, digest)


async def resubmit(gateway: Gateway, caller: Caller, old: Request, idempotency_key: str | None) -> Created:
    """The same request once more, as a new one that remembers the old.

    Raises:
        Refusal: 409, the idempotency key was used for something else; 429 as `create`.
    """
    digest = hashlib.sha256(f"retry of {old.id}".encode()).hexdigest()
    new_id = uuid4()
    if idempotency_key is not None:
        repeated = await requests.earlier(gateway.db, caller.owner, new_id, idempotency_key)
        if repeated is not None:
            return _repeated(repeated, caller.owner, digest)
    new = NewRequest(
        id=new_id,
        owner=caller.owner,
        prompt=old.prompt,
        params=old.params,
        body_hash=digest,
        idempotency_key=idempotency_key,
        retry_of=old.id,
    )
    created = await create(gateway, caller, new)
    return created if created.new else _repeated(created.request, caller.owner, digest)


async def create(gateway: Gateway, caller: Caller, new: NewRequest) -> Created:
    """Insert the request within the caller's limits; what was there already counts for neither.

    Raises:
        Refusal: 429, too many submissions a minute or images a day; 422, more images than a day allows.
    """
    if caller.rate and (wait := gateway.submissions.take(caller.owner, caller.rate)):
        raise _too_many(f"{caller.rate} submissions a minute", wait)
    try:
        created = await requests.create(gateway.db, replace(new, quota=caller.quota), gateway.insert.call)
    except QuotaExceeded as error:
        gateway.submissions.give_back(caller.owner)
        if error.wait is None:
            raise wrong_field("num_images", f"must be at most {caller.quota}: your quota of a day") from None
        raise _too_many(f"{caller.quota} images a day", error.wait) from None
    except BaseException:  # also a client that left, though its request may come in with its bundle still
        gateway.submissions.give_back(caller.owner)
        raise
    if not created.new:
        gateway.submissions.give_back(caller.owner)
    return created


def _too_many(limit: str, wait: float) -> Refusal:
    seconds = whole_seconds(wait)
    return Refusal(
        429,
        f"Your key may make {limit}, and they are used up; come back in {seconds} s, "
        "or ask the gateway's operator for more.",
        headers={"Retry-After": seconds},
    )


def _repeated(old: Request, owner: str, digest: str) -> Created:
    # First of all the owner: of another's request nothing is told, not even that it was deleted.
    if old.owner == owner and old.deleted_at is not None:
        raise Refusal(409, f"The generation {old.id} was deleted; choose another id.")
    if old.owner != owner or old.body_hash != digest:
        raise Refusal(
            409, "This id or Idempotency-Key was used with another body; choose a new one for a new request."
        )
    return Created(old, new=False)
