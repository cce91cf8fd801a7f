"""From the form of the make page to requests, one for each variation, and back to what the page shows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4, uuid5

from pydantic import ValidationError

from itemforge.contract import MAX_SEED, Status
from itemforge.errors import advice
from itemforge.gateway import submission
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import GenerationRequest
from itemforge.gateway.problems import Refusal
from itemforge.imaging.recipe import SAMPLER_NAMES
from itemforge.jobs import finding, requests
from itemforge.jobs.finding import Filter
from itemforge.jobs.records import Request
from itemforge.styles.pack import StylePack

#: Cards of what was asked for last, and of what is open still, at most.
RECENT, OPEN = 48, 200
MOST_VARIATIONS = 16

#: Fields of the form and of a request; what is left empty is the style's.
FIELDS = {
    "prompt": "prompt",
    "style": "style",
    "negative": "negative_prompt",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "scheduler": "scheduler",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "lora_weight": "lora_weight",
}
#: What the page calls them.
_LABELS = {
    "prompt": "The thing",
    "style": "The style",
    "negative_prompt": "Leave out",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance",
    "scheduler": "The sampler",
    "seed": "The seed",
    "width": "The width",
    "height": "The height",
    "lora_weight": "The style's strength",
}


@dataclass(frozen=True)
class Choice:
    """A style as the form offers it."""

    pack: StylePack
    width: int
    height: int
    min: int
    max: int
    steps: int
    guidance: float
    sampler: str
    lora_weight: float | None  # None: the style has no LoRA


@dataclass(frozen=True)
class Made:
    """What came of a form: the new requests, and why not all of them are there."""

    requests: list[Request]
    refused: Refusal | None = None


async def choices(gateway: Gateway) -> list[Choice]:
    """The styles of this deployment's base model."""
    packs = await gateway.catalog.list()
    return [_choice(gateway, pack) for pack in packs if pack.base in (None, gateway.model.base)]


def _choice(gateway: Gateway, pack: StylePack) -> Choice:
    size = pack.size or gateway.model.size
    said = submission.params_for(gateway, pack, GenerationRequest(prompt="a thing"))
    weight = pack.loras[0].weight if pack.loras else None
    if weight is not None and said.lora_weight is not None:
        weight = said.lora_weight
    return Choice(
        pack=pack,
        width=said.width or size.width,
        height=said.height or size.height,
        min=size.min,
        max=size.max,
        steps=said.num_inference_steps,
        guidance=said.guidance_scale,
        sampler=SAMPLER_NAMES[said.scheduler],
        lora_weight=weight,
    )


def form_request(form: Mapping[str, str]) -> GenerationRequest:
    """What the form asks for.

    Raises:
        Refusal: 422, in the page's words.
    """
    asked = {name: form[field].strip() for field, name in FIELDS.items() if form.get(field, "").strip()}
    if "prompt" not in asked:
        raise Refusal(422, "Type what you want to have drawn.")
    try:
        return GenerationRequest.model_validate(asked)
    except ValidationError as error:
        raise Refusal(422, _told(error)) from None


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    label = _LABELS.get(str(first["loc"][0]) if first["loc"] else "", "")
    if first["type"] == "string_pattern_mismatch" and "style" in first["loc"]:
        return "The style must be one of the styles shown."
    return f"{label} {advice(str(first['msg']))}.".strip()


def form_count(form: Mapping[str, str]) -> int:
    """How many variations.

    Raises:
        Refusal: 422.
    """
    text = form.get("count", "1").strip() or "1"
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_VARIATIONS:
        return int(text)
    raise Refusal(422, f"Choose 1 to {MOST_VARIATIONS} variations.")


def press_of(form: Mapping[str, str]) -> UUID:
    """Which press of the button this is: a form that arrives twice makes nothing twice."""
    try:
        return UUID(form.get("press", ""))
    except ValueError:
        return uuid4()


async def make(gateway: Gateway, caller: Caller, body: GenerationRequest, count: int, press: UUID) -> Made:
    """A request for each variation, each with an id that follows from the press; a given seed goes up by one.

    Raises:
        Refusal: as `submission.submit`, for the first of them.
    """
    if body.seed is not None and body.seed + count - 1 > MAX_SEED:
        raise Refusal(422, "The seed is too large for so many variations; choose a smaller one.")
    made: list[Request] = []
    for n in range(count):
        one = body if body.seed is None else body.model_copy(update={"seed": body.seed + n})
        try:
            created = await submission.submit(gateway, caller, one, request_id=uuid5(press, str(n)))
        except Refusal as no:
            if not made:
                raise
            return Made(made, no)
        made.append(created.request)
    return Made(made)


async def cards(gateway: Gateway, caller: Caller) -> list[Request]:
    """The caller's newest requests and all that are open, newest first; those of batches have a page of their own.

    What was sent again stands for the old.
    """
    mine = Filter(owner=caller.owner, alone=True)
    found = {row.id: row for row in await finding.find(gateway.db, mine, RECENT)}
    for status in (Status.PROCESSING, Status.PENDING):
        still = await finding.find(gateway.db, replace(mine, status=status), OPEN)
        found.update({row.id: row for row in still})
    again = {row.retry_of for row in found.values()}
    shown = [row for row in found.values() if row.status is Status.COMPLETED or row.id not in again]
    return sorted(shown, key=lambda row: (row.created_at, row.id), reverse=True)


async def some_cards(gateway: Gateway, caller: Caller, ids: list[UUID]) -> list[Request]:
    """Those of them that are the caller's and of no batch."""
    found = await requests.get_all(gateway.db, list(await finding.alone(gateway.db, ids)), caller.owner)
    return [found[each] for each in ids if each in found]


def filled(row: Request) -> dict[str, Any]:
    """The form's fields that would make this request again, but for its seed."""
    params = row.params
    return {
        "prompt": row.prompt,
        "style": row.style or "",
        "negative": params.negative_prompt,
        "steps": params.num_inference_steps,
        "guidance": params.guidance_scale,
        "scheduler": params.scheduler.value,
        "width": params.width or "",
        "height": params.height or "",
        "lora_weight": "" if params.lora_weight is None else params.lora_weight,
    }
