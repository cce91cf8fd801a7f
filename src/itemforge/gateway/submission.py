"""From what a user asks to what a worker draws: the style resolved, the prompt composed, gaps filled."""

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import BaseModel

from itemforge.contract import JobParams
from itemforge.errors import QuotaExceeded, StyleNotFound
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.gateway.limits import whole_seconds
from itemforge.gateway.models import GenerationRequest, SeedGeneration
from itemforge.gateway.problems import Refusal, wrong_field
from itemforge.jobs import requests, webhooks
from itemforge.jobs.keys import Content
from itemforge.jobs.records import Created, NewRequest, Request
from itemforge.styles.pack import StylePack
from itemforge.telemetry import traces

log = structlog.get_logger(__name__)

#: Drawn seeds stay below this, so that any client can show them.
_DRAWN_BELOW = 2**32


def draw_seed() -> int:
    return secrets.randbelow(_DRAWN_BELOW)


async def resolve(gateway: Gateway, body: GenerationRequest) -> JobParams:
    """The parameters of a `/v1` request.

    Raises:
        Refusal: 422, the style is unknown or of another base, or a side is outside its limits.
        StorageUnavailable: the style registry cannot be read.
    """
    return params_for(gateway, await find_pack(gateway, body.style), body)


def params_for(gateway: Gateway, pack: StylePack, body: GenerationRequest) -> JobParams:
    """The parameters of a `/v1` request in a style that is known already.

    Raises:
        Refusal: 422, a side is outside its limits.
    """
    size = pack.size or gateway.model.size
    defaults = {k: v for k, v in pack.defaults.model_dump().items() if v is not None}
    asked = body.model_dump(exclude_none=True, exclude={"prompt", "style", "output", "webhook"})
    values: dict[str, Any] = {
        "negative_prompt": pack.negative,
        "width": size.width,
        "height": size.height,
        "seed": draw_seed(),
        **defaults,
        **asked,
    }
    for side in ("width", "height"):
        if not size.min <= values[side] <= size.max:
            raise wrong_field(
                side, f"must be between {size.min} and {size.max} for the style {pack.name}, in steps of 8"
            )
    return JobParams(prompt=pack.compose(body.prompt), style=pack.name, output=body.output, **values)


async def resolve_seed(gateway: Gateway, body: SeedGeneration) -> JobParams:
    """The parameters of a `/generate` request: as they are, but for a style that is named.

    Raises:
        Refusal, StorageUnavailable: as `resolve`.
    """
    values = body.model_dump(exclude_none=True)
    if body.style is not None:
        pack = await find_pack(gateway, body.style)
        values["style"] = pack.name
        values["prompt"] = pack.compose(body.prompt)
        values.setdefault("negative_prompt", pack.negative)
    return JobParams.model_validate(values)


async def find_pack(gateway: Gateway, name: str | None) -> StylePack:
    """The style of this name, or the default one.

    Raises:
        Refusal: 422, it is unknown or of another base.
        StorageUnavailable: the style registry cannot be read.
    """
    try:
        pack = await gateway.catalog.get(name or gateway.settings.default_style)
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
    if body.webhook is not None:
        await gateway.guard.check_url("webhook", body.webhook)
        await webhooks.own(gateway.db, caller.owner)  # whose secret will sign
    new = NewRequest(
        id=new_id,
        owner=caller.owner,
        prompt=body.prompt,
        params=await resolve(gateway, body),
        body_hash=digest,
        idempotency_key=idempotency_key,
        webhook=body.webhook,
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
        webhook=old.webhook if old.owner == caller.owner else None,
    )
    traces.link(old.traceparent, "retry of")
    created = await create(gateway, caller, new)
    return created if created.new else _repeated(created.request, caller.owner, digest)


async def create(gateway: Gateway, caller: Caller, new: NewRequest) -> Created:
    """Insert the request within the caller's limits; what was there already counts for neither.

    Raises:
        Refusal: 429, too many submissions a minute or images a day; 422, more images than a day allows, or words
            that are not drawn for this key.
    """
    await gateway.block_list.refresh()
    new = replace(new, flagged=flagged(gateway, caller, new.prompt))
    new = replace(new, quota=caller.quota, traceparent=traces.here())
    with within_limits(gateway, caller):
        created = await requests.create(gateway.db, new, gateway.insert.call)
    about = {"request_id": str(created.request.id), "style": new.params.style or ""}
    traces.tag(new=created.new, **about)
    log.debug("request_taken", **about, new=created.new, prompt=new.params.prompt)
    if not created.new:
        gateway.submissions.give_back(caller.owner)
    return created


@contextmanager
def within_limits(gateway: Gateway, caller: Caller, images: str = "num_images") -> Iterator[None]:
    """Counts one submission, unless the block fails; `images` is the field that says how many they are.

    Raises:
        Refusal: 429, too many submissions a minute or images a day; 422, more images than a day allows.
    """
    if caller.rate and (wait := gateway.submissions.take(caller.owner, caller.rate)):
        raise _too_many(f"{caller.rate} submissions a minute", wait)
    try:
        yield
    except QuotaExceeded as error:
        gateway.submissions.give_back(caller.owner)
        if error.wait is None:
            raise wrong_field(images, f"must be at most {caller.quota}: your quota of a day") from None
        raise _too_many(f"{caller.quota} images a day", error.wait) from None
    except BaseException:  # also a client that left, though its request may come in with its bundle still
        gateway.submissions.give_back(caller.owner)
        raise


def flagged(gateway: Gateway, caller: Caller, prompt: str) -> str | None:
    """The rule that a prompt breaks, where it is drawn all the same and marked.

    What shall be left out of a picture may be any word, and the style's words are its maker's.

    Raises:
        Refusal: 422, this key may not have such words drawn.
    """
    policy = caller.content or Content(gateway.settings.content)
    if policy is Content.ALLOW or (rule := gateway.block_list.match(prompt)) is None:
        return None
    log.info("blocked_words", rule=rule, key=caller.key_id, policy=policy.value)
    if policy is Content.REFUSE:
        raise wrong_field(
            "prompt",
            f"has words that are not drawn here ({rule}); say it without them, or ask the gateway's operator",
        )
    return rule


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
