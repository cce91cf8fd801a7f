"""`/v1/styles`: what can be asked for, and the packs and LoRA files that workers fetch."""

from fastapi import APIRouter, Response

from itemforge.errors import StyleNotFound
from itemforge.gateway import views
from itemforge.gateway.context import GatewayDep
from itemforge.gateway.models import StyleView
from itemforge.gateway.problems import documented

router = APIRouter(prefix="/v1/styles", tags=["styles"])

_FOREVER = "private, max-age=31536000, immutable"


@router.get("", responses=documented(401, 503))
async def list_styles(gateway: GatewayDep) -> list[StyleView]:
    """The styles that fit this deployment's base model, in their current versions."""
    packs = await gateway.catalog.list()
    fitting = [pack for pack in packs if pack.base in (None, gateway.model.base)]
    return [views.style(pack, gateway.model) for pack in fitting]


@router.get(
    "/blobs/{sha256}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **documented(401, 404, 422, 503)},
)
async def get_style_blob(sha256: str, gateway: GatewayDep) -> Response:
    """A LoRA file by its hash."""
    data = await gateway.catalog.blob(sha256)
    return Response(
        data,
        headers={"Cache-Control": _FOREVER, "ETag": f'"{sha256}"'},
        media_type="application/octet-stream",
    )


@router.get(
    "/{style}/{version}.toml",
    response_class=Response,
    responses={200: {"content": {"application/toml": {}}}, **documented(401, 404, 422, 503)},
)
async def get_style_pack(style: str, version: str, gateway: GatewayDep) -> Response:
    """A style pack; `version` is a number, or `current`."""
    number = version
    if version == "current":
        number = str((await gateway.catalog.get(style)).version)
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise StyleNotFound(f"there is no version {version!r} of the style {style!r}")
    data = await gateway.catalog.toml(style, int(number))
    caching = "no-cache" if version == "current" else _FOREVER
    return Response(data, headers={"Cache-Control": caching}, media_type="application/toml")
