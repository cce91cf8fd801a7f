"""`/v1/styles`: what can be asked for, and the packs and LoRA files that workers fetch."""

from fastapi import APIRouter, Request, Response

from itemforge.errors import StyleNotFound
from itemforge.gateway import views
from itemforge.gateway.context import GatewayDep, SeesDep
from itemforge.gateway.models import StyleView
from itemforge.gateway.picture_routes import sent
from itemforge.gateway.problems import documented
from itemforge.gateway.samples import style_sample
from itemforge.imaging.sample import MEDIA_TYPE

router = APIRouter(prefix="/v1/styles", tags=["styles"])

_FOREVER = "private, max-age=31536000, immutable"
#: A style's own sample may be added later; one made of the caller's pictures changes with them.
_A_DAY, _A_WHILE = "private, max-age=86400", "private, max-age=300"


@router.get("", responses=documented(401, 503))
async def list_styles(gateway: GatewayDep) -> list[StyleView]:
    """The styles that fit this deployment's base model, in their current versions."""
    packs = await gateway.catalog.list()
    fitting = [pack for pack in packs if pack.base in (None, gateway.model.base)]
    versions = await gateway.catalog.versions()
    return [views.style(pack, gateway.model, versions.get(pack.id, ())) for pack in fitting]


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
    number = _number(style, version) if version != "current" else (await gateway.catalog.get(style)).version
    data = await gateway.catalog.toml(style, number)
    caching = "no-cache" if version == "current" else _FOREVER
    return Response(data, headers={"Cache-Control": caching}, media_type="application/toml")


@router.get(
    "/{style}/{version}/sample",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, **documented(401, 404, 422, 503)},
)
async def get_style_sample(
    style: str, version: str, gateway: GatewayDep, sees: SeesDep, request: Request
) -> Response:
    """What a style looks like, 256 by 256 pixels: the picture that came with it, else of what you drew in it
    last, else a mark that stands for it."""
    name = style if version == "current" else f"{style}@{_number(style, version)}"
    pack = await gateway.catalog.get(name)
    data, lasting = await style_sample(gateway, pack, sees)
    return sent(request, data, MEDIA_TYPE, _A_DAY if lasting else _A_WHILE)


def _number(style: str, version: str) -> int:
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise StyleNotFound(f"there is no version {version!r} of the style {style!r}")
    return int(version)
