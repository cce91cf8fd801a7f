"""Pictures over HTTP: `/image`, `/thumbnail`, and `/objects` where the store is a folder."""

import hashlib
import re
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from itemforge.contract import Holes, Output, Status
from itemforge.errors import ObjectMissing
from itemforge.gateway.context import GatewayDep, SeesDep
from itemforge.gateway.generations import found
from itemforge.gateway.pictures import THUMBNAIL_SIZES, find_image, original, thumbnail
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.imaging.naming import MEDIA_TYPES
from itemforge.jobs.records import Request as JobRequest

router = APIRouter(tags=["pictures"])

#: What may be read without a key: pictures, by names that nobody guesses.
_PUBLIC = re.compile(r"(generated|thumbnails)(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){1,3}")
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_FOREVER = "public, max-age=31536000, immutable"
_PRIVATE = "private, max-age=86400"


async def _output(
    background: Annotated[Literal["white", "transparent"] | None, Query()] = None,
    holes: Annotated[Holes | None, Query(description="enclosed patches of the ground's colour")] = None,
    size: Annotated[int | None, Query(ge=64, le=1024, description="side of a square in pixels")] = None,
    trim: Annotated[bool | None, Query(description="cut down to the item, and centre it")] = None,
    pad: Annotated[int | None, Query(ge=0, le=256, description="empty pixels on each side")] = None,
    format: Annotated[Literal["png", "webp"] | None, Query()] = None,
) -> Output | None:
    """The form that a query asks for; None for the picture as it was drawn."""
    asked = {
        "background": background,
        "holes": holes,
        "size": size,
        "trim": trim,
        "pad": pad,
        "format": format,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        return Output.model_validate(given) if given else None
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


OutputDep = Annotated[Output | None, Depends(_output)]
Number = Annotated[int, Query(ge=0, le=15, description="which image")]


@router.head("/v1/generations/{request_id}/image", include_in_schema=False)
@router.get(
    "/v1/generations/{request_id}/image",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, "image/webp": {}}},
        **documented(401, 404, 409, 422, 503),
    },
)
async def get_image(
    request_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    request: Request,
    output: OutputDep,
    n: Number = 0,
) -> Response:
    """The PNG as drawn, with its recipe inside. 409 while it is not drawn yet.

    With any parameter of an output the picture comes in that form, made at the first time.
    """
    row = _drawn(await found(gateway, request_id, sees), n)
    if output is not None:
        data = await gateway.derivatives.get(row, n, output)
        return sent(request, data, MEDIA_TYPES[output.format], _PRIVATE)
    try:
        data = await original(gateway.store, row, n)
    except ObjectMissing:
        # A worker with a store of its own, or the original one: its public address is all we know.
        reported = find_image(row, n)
        url = reported.url if reported else row.image_url if n == 0 else None
        ours = reported is not None and reported.bucket == gateway.store.bucket
        if ours or url is None or not url.startswith(("http://", "https://")):
            raise Refusal(404, "The picture is not in the store any more.") from None
        return RedirectResponse(url, 307)
    return sent(request, data, "image/png", _PRIVATE)


@router.head("/v1/generations/{request_id}/thumbnail", include_in_schema=False)
@router.get(
    "/v1/generations/{request_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **documented(401, 404, 409, 422, 503)},
)
async def get_thumbnail(
    request_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    request: Request,
    n: Number = 0,
    size: Annotated[int, Query(description="longer side in pixels: 64, 128 or 256")] = 256,
    deleted: Annotated[bool, Query(description="also of one that can still be restored")] = False,
) -> Response:
    """The picture as a small JPEG on white."""
    if size not in THUMBNAIL_SIZES:
        raise wrong_field("size", "must be 64, 128 or 256")
    row = _drawn(await found(gateway, request_id, sees, deleted), n)
    data = await thumbnail(gateway.store, row, n, size)
    return sent(request, data, "image/jpeg", _PRIVATE)


@router.head("/objects/{key:path}", include_in_schema=False)
@router.get(
    "/objects/{key:path}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}, **documented(404, 422, 503)},
)
async def get_object(key: str, gateway: GatewayDep, request: Request) -> Response:
    """A public object of a folder store; its address never changes its bytes."""
    suffix = key.rpartition(".")[2]
    if not gateway.serves_objects or not _PUBLIC.fullmatch(key) or suffix not in _TYPES:
        raise Refusal(404, "There is no such object.")
    try:
        data = await gateway.store.get(key)
    except ObjectMissing:
        raise Refusal(404, "There is no such object.") from None
    return sent(request, data, _TYPES[suffix], _FOREVER)


def _drawn(row: JobRequest, n: int) -> JobRequest:
    if row.status in (Status.PENDING, Status.PROCESSING):
        raise Refusal(
            409,
            f"The generation is {row.status}; its pictures come when it is Completed.",
            headers={"Retry-After": "2"},
        )
    if row.status is not Status.COMPLETED:
        raise Refusal(404, f"The generation is {row.status} and has no pictures.")
    if n >= row.params.num_images:
        raise Refusal(404, f"The generation has {row.params.num_images} images, counted from 0.")
    return row


def sent(request: Request, data: bytes, media_type: str, caching: str) -> Response:
    """Bytes with their ETag; 304 for who has them already."""
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": caching}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type)
