"""`/v1/images/generations` and `/v1/models`: for programs that speak to OpenAI's image API.

The call waits for the pictures, `ITEMFORGE_IMAGES_WAIT` seconds at most. A caller who leaves cancels nothing, so that
one who comes back with the same Idempotency-Key finds what was begun.
"""

import base64
import re
from io import BytesIO
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response
from PIL import Image as PillowImage

from itemforge.contract import Output, Status
from itemforge.errors import InvalidInput, StyleNotFound
from itemforge.gateway import submission, waiting
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, picture_url
from itemforge.gateway.generations import IdempotencyKey
from itemforge.gateway.images_models import (
    ErrorAnswer,
    ImageData,
    ImagesAnswer,
    ImagesRequest,
    Model,
    ModelList,
)
from itemforge.gateway.models import GenerationRequest
from itemforge.gateway.pictures import find_image, original
from itemforge.gateway.problems import Refusal, wrong_field
from itemforge.imaging.naming import derivative_key
from itemforge.jobs.records import Request as JobRequest
from itemforge.styles.pack import StylePack

log = structlog.get_logger(__name__)
router = APIRouter(tags=["for OpenAI's clients"])

_STYLE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(@[0-9]{1,9})?")
#: Sides of a square that a picture can be brought to.
_SQUARE = range(64, 1025)
_OURS = ("negative_prompt", "num_inference_steps", "guidance_scale", "scheduler", "seed", "lora_weight")
#: OpenAI's packages send again what was answered so, which would only draw the pictures once more.
_ONCE = {"X-Should-Retry": "false"}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    named: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in statuses}
    # Else FastAPI documents a 422 in its own shape, which is never answered here.
    return {**named, "default": {"model": ErrorAnswer, "description": "Refused"}}


@router.post(
    "/v1/images/generations",
    response_model=ImagesAnswer,
    responses=_errors(400, 401, 403, 404, 409, 413, 415, 429, 500, 503, 504),
)
async def create_images(
    body: ImagesRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ImagesAnswer | Response:
    """Ask for pictures and wait for them. `model` is a style."""
    pack = await _style(gateway, body.model or gateway.settings.default_style)
    asked = _asked(body, pack, gateway)
    created = await submission.submit(gateway, caller, asked, idempotency_key=idempotency_key)
    about = {"X-Request-Id": str(created.request.id)}
    try:
        row = await waiting.until_ended(
            gateway, caller, created.request.id, gateway.settings.images_wait, request.is_disconnected
        )
        if row is None:
            return Response(status_code=499)  # for the log: the caller has left
        _check(row)
    except Refusal as no:
        once = {} if idempotency_key is not None and no.status in (503, 504) else _ONCE
        raise Refusal(no.status, no.detail, headers={**(no.headers or {}), **about, **once}) from None
    response.headers.update(about)
    return await _answer(gateway, gateway.base_url(request), row, body.response_format)


@router.get("/v1/models", responses=_errors(401, 403, 429, 503))
async def list_models(gateway: GatewayDep) -> ModelList:
    """The styles, as OpenAI's clients list models."""
    packs = await gateway.catalog.list()
    return ModelList(data=[Model(id=pack.id) for pack in packs if _fits(pack, gateway)])


@router.get("/v1/models/{model}", responses=_errors(401, 403, 404, 429, 503))
async def get_model(model: str, gateway: GatewayDep) -> Model:
    """One style; `id` or `id@version`."""
    await _style(gateway, model)
    return Model(id=model)


async def _style(gateway: Gateway, name: str) -> StylePack:
    try:
        pack = await gateway.catalog.get(name) if _STYLE.fullmatch(name) else None
    except StyleNotFound:
        pack = None
    if pack is None or not _fits(pack, gateway):
        detail = "is not a style of this gateway; GET /v1/models lists them"
        raise Refusal(404, f"model {detail}", fields=[("model", detail)])
    return pack


def _fits(pack: StylePack, gateway: Gateway) -> bool:
    return pack.base in (None, gateway.model.base)


def _asked(body: ImagesRequest, pack: StylePack, gateway: Gateway) -> GenerationRequest:
    """The same as a request of ours.

    Raises:
        Refusal: 422, the size can neither be drawn nor made.
    """
    values: dict[str, Any] = {name: getattr(body, name) for name in _OURS}
    form: dict[str, Any] = {}
    if body.background == "transparent":
        form["background"] = "transparent"
    if body.output_format == "webp":
        form["format"] = "webp"
    native = pack.size or gateway.model.size
    if (sides := body.sides) is not None and sides != (native.width, native.height):
        width, height = sides
        if width == height and width in _SQUARE:
            form["size"] = width
        elif all(native.min <= side <= native.max and side % 8 == 0 for side in sides):
            values |= {"width": width, "height": height}
        else:
            raise wrong_field(
                "size",
                f"must be auto, a square of 64x64 to 1024x1024, or of sides between {native.min} and {native.max} "
                f"in steps of 8 for the model {pack.name}",
            )
    output = Output.model_validate(form) if form else None
    return GenerationRequest(prompt=body.prompt, style=body.model, num_images=body.n, output=output, **values)


def _check(row: JobRequest) -> None:
    """Raises Refusal when there are no pictures."""
    if row.status is Status.CANCELLED:
        raise Refusal(409, f"The generation {row.id} was cancelled.")
    if row.status is not Status.COMPLETED:
        raise Refusal(500, f"The generation {row.id} failed: {row.error or 'no reason given'}")


async def _answer(gateway: Gateway, base_url: str, row: JobRequest, wanted: str | None) -> ImagesAnswer:
    output, data, size = row.params.output, [], None
    for n in range(row.params.num_images):
        url, content = await _brought(gateway, base_url, row, n)
        if content is None:
            url, content = await _as_drawn(gateway, base_url, row, n, read=wanted != "url")
        size = size or (_measure(content) if content is not None else _told(row, n))
        data.append(
            ImageData(
                url=None if wanted == "b64_json" else url,
                b64_json=None if wanted == "url" or content is None else base64.b64encode(content).decode(),
                revised_prompt=row.params.prompt,
            )
        )
    return ImagesAnswer(
        id=str(row.id),
        created=int(row.created_at.timestamp()),
        data=data,
        background="transparent" if output and output.background == "transparent" else "opaque",
        output_format=output.format if output else "png",
        size=size,
    )


async def _brought(
    gateway: Gateway, base_url: str, row: JobRequest, n: int
) -> tuple[str | None, bytes | None]:
    """Address and bytes of image `n` in the form asked for; nothing where it is wanted as drawn."""
    if (output := row.params.output) is None:
        return None, None
    try:
        content = await gateway.derivatives.get(row, n, output)
    except InvalidInput as error:
        # Only for its size nobody wants to lose a picture whose background is not plain.
        if output != Output(size=output.size):
            raise
        log.info("image_left_as_drawn", request_id=str(row.id), reason=str(error))
        return None, None
    key = derivative_key(row.id, n, output)
    url = f"{base_url}/objects/{quote(key)}" if gateway.serves_objects else gateway.store.public_url(key)
    return url, content


async def _as_drawn(
    gateway: Gateway, base_url: str, row: JobRequest, n: int, *, read: bool
) -> tuple[str | None, bytes | None]:
    """Address of image `n`, and its bytes where they are to be `read`."""
    found = find_image(row, n)
    url = picture_url(found, base_url) if found else row.image_url
    return url, await original(gateway.store, row, n) if read else None


def _measure(content: bytes) -> str:
    with PillowImage.open(BytesIO(content)) as image:
        return f"{image.width}x{image.height}"


def _told(row: JobRequest, n: int) -> str | None:
    """What the worker says of image `n`."""
    found = find_image(row, n)
    return f"{found.width}x{found.height}" if found else None
